//! Sessions: handshakes over a network with faults, renewal while messages flow, cluster keys that change, floods.

use std::time::Duration;

use overlan_core::Config;
use overlan_core::crypto::{Attempt, Crypto as _};
use overlan_core::status::Counters;
use overlan_seal::Keyring;
use overlan_sim::{Insider, Network, World};
use overlan_wire::{BootId, Frame, MessageMode, SessionId};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const A: usize = 0;
const B: usize = 1;

fn two_with(seed: u64, network: Network, change: impl Fn(&mut Config)) -> World {
    let mut world = World::new(seed, network);
    for (name, address, seeds) in [("a", "10.1.1.2", vec![]), ("b", "10.2.1.2", vec!["10.1.1.2:7400"])] {
        let mut config = Config::new(name, BootId::default(), [0; 32]);
        config.seeds = seeds.into_iter().map(|seed| seed.parse().expect("an address")).collect();
        change(&mut config);
        world.add_with(config, &[address]);
    }
    world
}

fn two(seed: u64, network: Network) -> World {
    two_with(seed, network, |_| {})
}

fn quiet() -> Network {
    Network::with_delay(MILLISECOND)
}

fn counters(world: &World, index: usize) -> Counters {
    world.members[index].core.as_ref().expect("it runs").status(world.now).counters
}

/// Ordered messages both ways, one each `pause`, with something happening in between.
fn stream(world: &mut World, count: u64, pause: Duration, mut during: impl FnMut(&mut World, u64)) {
    let before: Vec<usize> = world.members.iter().map(|member| member.received.len()).collect();
    for token in 0..count {
        for (from, to) in [(A, B), (B, A)] {
            let token = world.members[from].fates.len() as u64 + (token << 32);
            assert!(world.send(from, to, MessageMode::Ordered, token.to_be_bytes().to_vec(), token));
        }
        during(world, token);
        world.run_for(pause);
    }
    let done = |world: &World| {
        [A, B].iter().all(|&member| world.members[member].received.len() - before[member] >= count as usize)
    };
    assert!(world.run_until(20 * SECOND, done), "messages are missing");
    world.run_for(SECOND);
    for member in [A, B] {
        let received = &world.members[member].received[before[member]..];
        assert_eq!(received.len() as u64, count, "exactly once");
        let numbers: Vec<u32> = received
            .iter()
            .map(|message| u32::from_be_bytes(message.payload[..4].try_into().expect("eight bytes")))
            .collect();
        assert!(numbers.is_sorted(), "in order");
    }
}

#[test]
fn both_open_at_once_and_one_session_comes_of_it() {
    for seed in 0..20 {
        let mut world = two(seed, quiet());
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        stream(&mut world, 5, MILLISECOND, |_, _| {});
        let (a, b) = (counters(&world, A), counters(&world, B));
        assert_eq!((a.handshakes_completed, b.handshakes_completed), (1, 1), "seed {seed}");
        assert_eq!(a.handshakes_failed + b.handshakes_failed, 0, "seed {seed}");
    }
}

#[test]
fn the_first_message_waits_for_one_round_trip() {
    let mut world = two(1, Network::with_delay(10 * MILLISECOND));
    let met = |world: &World| {
        world
            .members
            .iter()
            .all(|member| member.core.as_ref().is_some_and(|core| core.table().entries.len() == 2))
    };
    assert!(world.run_until(5 * SECOND, met));
    let start = world.now;
    assert!(world.send(A, B, MessageMode::Reliable, vec![1], 1));
    assert!(world.run_until(SECOND, |world| !world.members[B].received.is_empty()));
    // Opening, answer, proof and message, at 10 ms each; and the one who loses the race of openings.
    assert!(world.now.since(start) <= 60 * MILLISECOND, "{:?}", world.now.since(start));
}

#[test]
fn handshakes_stand_loss_duplication_and_reordering() {
    for seed in 0..20 {
        let network = Network {
            delay: MILLISECOND,
            jitter: 200 * MILLISECOND,
            loss_ppm: 300_000,
            duplicate_ppm: 200_000,
            corrupt_ppm: 20_000,
            ..Network::default()
        };
        let mut world = two_with(seed, network, |config| config.rekey_after = SECOND);
        let known = |world: &World| {
            world
                .members
                .iter()
                .all(|member| member.core.as_ref().is_some_and(|core| core.table().entries.len() == 2))
        };
        assert!(world.run_until(30 * SECOND, known), "seed {seed}");
        stream(&mut world, 40, 100 * MILLISECOND, |_, _| {});
        let a = counters(&world, A);
        assert!(a.handshakes_completed >= 2, "seed {seed}: {a:?}");
    }
}

#[test]
fn sessions_are_renewed_by_time_and_by_packets_while_messages_flow() {
    let by_time = |config: &mut Config| config.rekey_after = SECOND;
    let by_packets = |config: &mut Config| config.rekey_packets = 50;
    for change in [&by_time as &dyn Fn(&mut Config), &by_packets] {
        let mut world = two_with(3, quiet(), change);
        assert!(world.run_until(5 * SECOND, World::converged));
        stream(&mut world, 1_000, 10 * MILLISECOND, |_, _| {});
        for member in [A, B] {
            let counters = counters(&world, member);
            assert!(counters.handshakes_completed >= 5, "{counters:?}");
            assert_eq!(counters.retransmissions, 0, "nothing was lost on the way: {counters:?}");
            assert_eq!(counters.dropped_unknown_session + counters.dropped_forged, 0, "{counters:?}");
        }
    }
}

#[test]
fn an_idle_session_is_renewed_once_an_hour() {
    let mut world = two(4, quiet());
    assert!(world.run_until(5 * SECOND, World::converged));
    world.run_for(3 * Duration::from_secs(3_600));
    let a = counters(&world, A);
    assert!((3..=4).contains(&a.handshakes_completed), "{a:?}");
}

#[test]
fn the_cluster_key_changes_while_messages_flow() {
    let old = core::array::from_fn(|index| index as u8);
    let new = core::array::from_fn(|index| 0x80 | index as u8);
    let mut world = two(5, quiet());
    let mut keyring = Keyring::generate(old);
    for member in [A, B] {
        world.set_keyring(member, keyring.clone());
    }
    assert!(world.run_until(30 * SECOND, World::converged));
    let old = keyring.active();
    let new = keyring.add(new).expect("a secret");
    let mut rings = vec![keyring.clone()];
    keyring.promote(new).expect("it was added");
    rings.push(keyring.clone());
    keyring.retire(old).expect("it is not active");
    rings.push(keyring);
    stream(&mut world, 600, 10 * MILLISECOND, |world, token| {
        let (step, member) = (token as usize / 200, if token % 200 < 100 { A } else { B });
        if token % 100 == 50 {
            world.set_keyring(member, rings[step].clone());
        }
    });
    for member in [A, B] {
        let counters = counters(&world, member);
        assert!(counters.handshakes_completed >= 2, "{counters:?}");
    }
}

#[test]
fn a_key_that_is_retired_out_of_hand_loses_nothing() {
    let mut world = two(6, quiet());
    let mut keyring = Keyring::generate(core::array::from_fn(|index| index as u8));
    for member in [A, B] {
        world.set_keyring(member, keyring.clone());
    }
    assert!(world.run_until(30 * SECOND, World::converged));
    stream(&mut world, 100, 10 * MILLISECOND, |world, token| {
        if token == 50 {
            let old = keyring.active();
            let new = keyring.add(core::array::from_fn(|index| 0x40 + index as u8)).expect("a secret");
            keyring.promote(new).expect("it was added");
            keyring.retire(old).expect("it is not active");
            for member in [A, B] {
                world.set_keyring(member, keyring.clone());
            }
        }
    });
}

#[test]
fn either_end_may_restart() {
    for restarted in [A, B] {
        let mut world = two(7, quiet());
        // Each knows the other's address: either may come back first.
        world.configure(A, |config| config.seeds = vec!["10.2.1.2:7400".parse().expect("an address")]);
        assert!(world.run_until(5 * SECOND, World::converged));
        stream(&mut world, 20, 10 * MILLISECOND, |_, _| {});
        world.kill(restarted);
        world.run_for(100 * MILLISECOND);
        world.start(restarted);
        let back = |world: &World| world.converged();
        assert!(world.run_until(30 * SECOND, back), "member {restarted}");
        world.run_for(SECOND);
        stream(&mut world, 20, 10 * MILLISECOND, |_, _| {});
    }
}

/// An opening is answered by up to three paths, of which two are not known to lead to whoever sent it.
#[test]
fn an_opening_is_not_amplified() {
    let len = |frame: &Frame<'_>| {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        bytes.len()
    };
    let (number, session, cookie, suites) = (1, SessionId(1), [0; 16], &[3][..]);
    let opening = Frame::SessionOpen { number, session, cookie, suites, request: [0; 48] };
    assert!(len(&Frame::SessionAccept { echo: session, answer: [0; 57] }) < len(&opening));
}

/// A cluster datagram of one frame to `a`, in the name of a boot.
fn send(insider: &mut Insider, world: &mut World, name: BootId, frame: &Frame<'_>) {
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    insider.cluster(world, name, A, &bytes);
}

#[test]
fn a_flood_of_openings_meets_cookies_and_harms_nobody() {
    let mut world = two(8, quiet());
    world.add("c", &["10.3.1.2"], &["10.1.1.2"]);
    assert!(world.run_until(5 * SECOND, World::converged));
    let mut insider = Insider::take_over(&mut world, 2);
    let (_, boot) = world.credentials(B);
    let (target, to) = world.credentials(A);
    let ids = [B, A].map(|index| world.members[index].id);
    let before = counters(&world, A);
    // In b's name with a key that is not b's.
    let attempt = Attempt {
        key: insider.seal.active_key(),
        initiator: (ids[0], boot),
        responder: (ids[1], to),
        number: 1 << 40,
        session: SessionId(1),
        suites: &[3],
    };
    let (_, request) =
        insider.seal.open(&attempt, &target.exchange_key(), [1; 32]).expect("a key to work with");
    stream(&mut world, 100, 10 * MILLISECOND, |world, token| {
        for index in 0..100 {
            let session = SessionId(token * 100 + index);
            let frame =
                Frame::SessionOpen { number: 1 << 40, session, cookie: [0; 16], suites: &[3], request };
            send(&mut insider, world, boot, &frame);
        }
    });
    let after = counters(&world, A);
    let worked = after.handshakes_failed - before.handshakes_failed;
    assert!((1..=64 + 3 * 128).contains(&worked), "of 10,000 openings {worked} were worked on");
    assert!(after.cookies_sent - before.cookies_sent > 9_000, "{after:?}");
    assert_eq!(after.handshakes_completed, before.handshakes_completed, "nobody is b but b");
    // The flood goes on, and b comes back under a new boot all the same: by a cookie.
    world.kill(B);
    world.start(B);
    for round in 0..200_u64 {
        for index in 0..50 {
            let session = SessionId((1 << 50) + round * 50 + index);
            let frame =
                Frame::SessionOpen { number: 1 << 40, session, cookie: [0; 16], suites: &[3], request };
            send(&mut insider, &mut world, boot, &frame);
        }
        world.run_for(10 * MILLISECOND);
    }
    stream(&mut world, 20, 10 * MILLISECOND, |_, _| {});
}

#[test]
fn old_openings_change_nothing() {
    let mut world = two(9, quiet());
    world.add("c", &["10.3.1.2"], &["10.1.1.2"]);
    assert!(world.run_until(5 * SECOND, World::converged));
    // An opening that c made itself, and an insider keeps.
    let mut insider = Insider::take_over(&mut world, 2);
    let (seal, boot) = world.credentials(2);
    let (target, to) = world.credentials(A);
    let attempt = |number| Attempt {
        key: seal.active_key(),
        initiator: (seal.node_id(&seal.sign_key()), boot),
        responder: (target.node_id(&target.sign_key()), to),
        number,
        session: SessionId(number),
        suites: &[3],
    };
    let opening = |number| {
        let attempt = attempt(number);
        let (_, request) = seal.open(&attempt, &target.exchange_key(), [number as u8; 32]).expect("a key");
        Frame::SessionOpen { number, session: attempt.session, cookie: [0; 16], suites: &[3], request }
    };
    let (first, second) = (opening(100), opening(101));
    let completed = |world: &World| counters(world, A).handshakes_completed;
    let before = completed(&world);
    for (frame, more) in [(&first, 1), (&first, 1), (&second, 2), (&first, 2), (&second, 2)] {
        send(&mut insider, &mut world, boot, frame);
        world.run_for(10 * MILLISECOND);
        assert_eq!(completed(&world), before + more);
    }
    stream(&mut world, 10, 10 * MILLISECOND, |_, _| {});
}
