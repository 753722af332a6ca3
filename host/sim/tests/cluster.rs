//! Seeded simulations of the core, with invariants.

use std::collections::BTreeMap;
use std::time::Duration;

use overlan_contract::failover::PathState;
use overlan_core::status::PathStatus;
use overlan_core::{Config, Fate};
use overlan_sim::{Network, World};
use overlan_wire::{BootId, MessageMode};

const SECOND: Duration = Duration::from_secs(1);

/// Three members on three subnets, two adapters each, that know the first as seed.
fn three(seed: u64, network: Network) -> World {
    let mut world = World::new(seed, network);
    world.add("a", &["10.1.1.2", "10.1.2.2"], &[]);
    world.add("b", &["10.2.1.2", "10.2.2.2"], &["10.1.1.2"]);
    world.add("c", &["10.3.1.2", "10.3.2.2"], &["10.1.1.2"]);
    world
}

fn lan() -> Network {
    Network { delay: Duration::from_micros(100), jitter: Duration::from_micros(50), ..Network::default() }
}

/// Numbered payloads of various sizes.
fn payload(number: u64) -> Vec<u8> {
    let len = [8, 64, 1_500, 20_000, 200_000][number as usize % 5];
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// Every message exactly once and whole; ordered ones in order; every fate `delivered`, once.
fn check_delivery(world: &World, from: usize, to: usize, count: u64, seed: u64) {
    let id = world.members[from].id;
    let received: Vec<u64> = world.members[to]
        .received
        .iter()
        .filter(|message| message.from == id)
        .map(|message| {
            let number = number(&message.payload);
            assert_eq!(message.payload, payload(number), "seed {seed}: message {number} is damaged");
            number
        })
        .collect();
    let mut sorted = received.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "seed {seed}: lost or doubled");
    let ordered: Vec<u64> = received.into_iter().filter(|number| number % 2 == 0).collect();
    assert!(ordered.is_sorted(), "seed {seed}: out of order: {ordered:?}");
    let fates: BTreeMap<u64, Vec<Fate>> = (0..count).map(|token| (token, vec![Fate::Delivered])).collect();
    assert_eq!(world.members[from].fates, fates, "seed {seed}");
}

fn mode(number: u64) -> MessageMode {
    if number.is_multiple_of(2) { MessageMode::Ordered } else { MessageMode::Reliable }
}

#[test]
fn three_members_agree() {
    let mut world = three(1, lan());
    assert!(
        world.run_until(SECOND, World::converged),
        "{:#?}",
        world.members[2].core.as_ref().unwrap().status(world.now)
    );
    assert!(world.run_until(2 * SECOND, |world| {
        world.members.iter().all(|member| member.core.as_ref().unwrap().status(world.now).agreed)
    }));
}

/// Whoever takes itself for the leader for a moment may agree on a table as often as the leader does.
#[test]
fn members_that_join_at_once_agree() {
    for seed in 0..100 {
        let mut world = World::new(seed, Network { jitter: Duration::from_millis(20), ..lan() });
        for index in 0..5 {
            world.add(&index.to_string(), &[&format!("10.1.1.{}", index + 2)], &["10.1.1.2"]);
        }
        let agreed = |world: &World| {
            world.converged()
                && world.members.iter().all(|member| member.core.as_ref().unwrap().status(world.now).agreed)
        };
        assert!(world.run_until(20 * SECOND, agreed), "seed {seed}");
    }
}

#[test]
fn same_seed_same_trace() {
    let run = |seed| {
        let mut world = three(seed, Network { loss_ppm: 50_000, duplicate_ppm: 20_000, ..lan() });
        world.run_for(SECOND);
        for number in 0..20 {
            world.send(0, 2, mode(number), payload(number), number);
        }
        world.run_for(3 * SECOND);
        world.trace()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn exactly_once_under_loss_duplication_and_reordering() {
    for seed in 0..12 {
        let network = Network {
            jitter: Duration::from_millis(3),
            loss_ppm: [0, 20_000, 150_000][seed as usize % 3],
            duplicate_ppm: 50_000,
            corrupt_ppm: 5_000,
            ..lan()
        };
        let mut world = three(seed, network);
        assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}: no convergence");
        let count = 60;
        for token in 0..count {
            assert!(world.send(0, 1, mode(token), payload(token), token));
            world.run_for(Duration::from_millis(5));
        }
        world.run_until(60 * SECOND, |world| world.members[0].fates.len() as u64 == count);
        check_delivery(&world, 0, 1, count, seed);
    }
}

#[test]
fn nothing_is_lost_while_one_path_works() {
    for seed in 0..12 {
        let mut world = three(seed, lan());
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
        let count = 300;
        for token in 0..count {
            match (token, seed % 4) {
                // The primary dies in the middle, in four ways.
                (100, 0) => world.set_adapter(0, 0, false),
                (100, 1) => drop(world.network.dead.insert("10.2.1.2".parse().unwrap())),
                (100, 2) => {
                    world.network.cut.insert(("10.1.1.2".parse().unwrap(), "10.2.1.2".parse().unwrap()));
                }
                (100, _) => {
                    world.network.cut.insert(("10.2.1.2".parse().unwrap(), "10.1.1.2".parse().unwrap()));
                }
                // Double failure: it comes back, and the other dies.
                (200, _) => {
                    world.network.heal();
                    world.set_adapter(0, 0, true);
                    world.network.dead.insert("10.2.2.2".parse().unwrap());
                }
                _ => {}
            }
            assert!(world.send(0, 1, mode(token), payload(token % 3), token));
            world.run_for(Duration::from_millis(5));
        }
        world.run_until(30 * SECOND, |world| world.members[0].fates.len() as u64 == count);
        assert_eq!(world.members[0].fates.len() as u64, count, "seed {seed}");
        assert_eq!(world.members[1].received.len() as u64, count, "seed {seed}");
    }
}

#[test]
fn tables_agree_after_partitions_and_restarts() {
    for seed in 0..8 {
        let mut world = three(seed, lan());
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
        let (a, others) = (["10.1.1.2", "10.1.2.2"], ["10.2.1.2", "10.2.2.2", "10.3.1.2", "10.3.2.2"]);
        let parse = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>();
        world.network.partition(&parse(&a), &parse(&others));
        world.run_for(Duration::from_secs(20));
        assert!(
            world.members[0].core.as_ref().unwrap().live_peers().is_empty(),
            "seed {seed}: sees the dead"
        );
        world.kill(2);
        world.run_for(SECOND);
        world.start(2);
        world.run_for(Duration::from_secs(5));
        world.network.heal();
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence after healing");
    }
}

#[test]
fn a_restarted_peer_lost_its_state_and_the_sender_learns_it() {
    let mut world = three(3, lan());
    assert!(world.run_until(5 * SECOND, World::converged));
    world.members[1].consuming = false;
    world.send(0, 1, MessageMode::Reliable, b"before".to_vec(), 1);
    world.run_for(SECOND);
    assert!(world.members[0].fates.is_empty(), "not accepted, so not delivered");
    world.kill(1);
    world.members[1].consuming = true;
    world.start(1);
    assert!(world.run_until(10 * SECOND, |world| world.members[0].fates.contains_key(&1)));
    assert_eq!(world.members[0].fates[&1], [Fate::PeerLostState]);
    world.send(0, 1, MessageMode::Reliable, b"after".to_vec(), 2);
    assert!(world.run_until(10 * SECOND, |world| world.members[0].fates.contains_key(&2)));
    assert_eq!(world.members[1].received.len(), 1);
}

#[test]
fn without_a_consumer_senders_feel_back_pressure() {
    let mut world = World::new(9, lan());
    let mut config = Config::new("a", BootId::default(), [0; 32]);
    config.send_queue_bytes = 1 << 20;
    world.add_with(config, &["10.1.1.2"]);
    let mut config = Config::new("b", BootId::default(), [0; 32]);
    config.seeds = vec!["10.1.1.2:7400".parse().unwrap()];
    config.receive_window_bytes = 16 << 20;
    world.add_with(config, &["10.2.1.2"]);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.members[1].consuming = false;
    let mut sent = 0;
    for token in 0..100 {
        if world.send(0, 1, MessageMode::Reliable, vec![0; 1 << 20], token) {
            sent += 1;
        }
        world.run_for(Duration::from_millis(50));
    }
    assert!((1..100).contains(&sent), "{sent}");
    world.members[1].consuming = true;
    assert!(world.run_until(30 * SECOND, |world| world.members[0].fates.len() == sent));
    assert_eq!(world.members[1].received.len(), sent);
}

#[test]
fn a_small_path_mtu_is_found_and_messages_pass() {
    let mut world = three(4, Network { mtu: 1_252, ..lan() });
    assert!(world.run_until(5 * SECOND, World::converged));
    world.send(0, 1, MessageMode::Reliable, vec![1; 1 << 20], 1);
    assert!(world.run_until(10 * SECOND, |world| world.members[0].fates.contains_key(&1)));
    world.run_for(10 * SECOND);
    let paths = world.members[0].core.as_ref().unwrap().paths(world.now);
    assert!(paths.iter().all(|path| (1_200..=1_252).contains(&path.datagram)), "{paths:#?}");
}

#[test]
fn a_restarted_seed_without_seeds_of_its_own_is_found_again() {
    for seed in 0..4 {
        let mut world = three(seed, lan());
        assert!(world.run_until(5 * SECOND, World::converged));
        world.kill(0);
        world.run_for([1, 2, 5, 20][seed as usize] * SECOND);
        world.start(0);
        assert!(world.run_until(15 * SECOND, World::converged), "seed {seed}: not found");
    }
}

#[test]
fn a_paused_observer_accuses_nobody() {
    let mut world = three(11, lan());
    assert!(world.run_until(5 * SECOND, World::converged));
    // Asleep: what arrives waits, timers do not fire; then all at once, sockets first.
    world.pause(2, 2 * SECOND);
    let core = world.members[2].core.as_ref().unwrap();
    assert_eq!(core.live_peers().len(), 2);
    let paths = core.paths(world.now);
    assert!(paths.iter().all(|path| path.flaps == 0), "{paths:#?}");
    assert!(world.run_until(10 * SECOND, World::converged));
}

/// Leaves each way between two members one path of its own; these.
fn cut_crosswise<'a>(world: &mut World, a: [&'a str; 2], b: [&'a str; 2]) -> [(&'a str, &'a str); 2] {
    let address = |text: &str| text.parse().unwrap();
    let all = a.iter().flat_map(|a| b.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
    let open = [(a[0], b[0]), (b[1], a[1])];
    let cut = all.filter(|way| !open.contains(way)).map(|(from, to)| (address(from), address(to)));
    world.network.cut.extend(cut);
    open
}

/// Each way works by one pair of addresses, and not by the same.
#[test]
fn paths_that_work_one_way_each_carry_messages_until_one_works_both_ways() {
    for seed in 0..3 {
        let mut world = three(seed, lan());
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
        let mut count = 0;
        let mut send = |world: &mut World, messages: u64| {
            for token in count..count + messages {
                for (from, to) in [(0, 1), (1, 0)] {
                    assert!(world.send(from, to, mode(token), payload(token), token), "seed {seed}");
                }
                world.run_for(Duration::from_millis(20));
            }
            count += messages;
            let told = |world: &World| [0, 1].iter().all(|at| world.members[*at].fates.len() as u64 == count);
            assert!(world.run_until(20 * SECOND, told), "seed {seed}: not all of {count} arrived");
        };
        send(&mut world, 20);
        let (a, b) = (["10.1.1.2", "10.1.2.2"], ["10.2.1.2", "10.2.2.2"]);
        let address = |text: &str| text.parse().unwrap();
        let open = cut_crosswise(&mut world, a, b);
        send(&mut world, 60);
        let paths = |world: &World, of: usize| world.members[of].core.as_ref().unwrap().paths(world.now);
        for (at, (local, remote)) in open.into_iter().enumerate() {
            let used: Vec<_> = paths(&world, at).into_iter().filter(|path| path.active).collect();
            let found = used.iter().find(|path| path.remote.ip() == address(remote)).expect("it is used");
            assert_eq!(found.local.ip(), address(local), "seed {seed}");
            assert_eq!(found.why, "replies come by another path", "seed {seed}");
        }
        // One that works both ways is preferred at once, and those that work one way are down.
        world.network.cut.remove(&(address(b[0]), address(a[0])));
        send(&mut world, 40);
        for at in [0, 1] {
            let up = |path: &&PathStatus| path.state == PathState::Up && path.node != "c";
            let up: Vec<_> = paths(&world, at).iter().filter(up).map(|path| path.remote.ip()).collect();
            assert_eq!(up, [address([b[0], a[0]][at])], "seed {seed}");
        }
        world.network.heal();
        send(&mut world, 40);
        check_delivery(&world, 0, 1, count, seed);
        check_delivery(&world, 1, 0, count, seed);
    }
}

/// Each way works by one path of its own from the start, or from when the sessions are old: they are opened all the same.
#[test]
fn sessions_open_where_paths_work_one_way_each() {
    for seed in 0..6 {
        let mut world = World::new(seed, lan());
        world.add("c", &["10.3.1.2"], &[]);
        let (a, b) = (["10.1.1.2", "10.1.2.2"], ["10.2.1.2", "10.2.2.2"]);
        cut_crosswise(&mut world, a, b);
        for (name, addresses) in [("a", a), ("b", b)] {
            let mut config = Config::new(name, BootId::default(), [0; 32]);
            config.seeds = vec!["10.3.1.2:7400".parse().unwrap()];
            config.rekey_after = 20 * SECOND;
            world.add_with(config, &addresses);
        }
        assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}: no convergence");
        for token in 0..3 {
            for (from, to) in [(1, 2), (2, 1)] {
                assert!(world.send(from, to, mode(token), payload(token), token), "seed {seed}");
            }
            let told = |world: &World| [1, 2].iter().all(|at| world.members[*at].fates.contains_key(&token));
            assert!(world.run_until(5 * SECOND, told), "seed {seed}: message {token} waits for a session");
            world.run_for(30 * SECOND);
        }
        check_delivery(&world, 1, 2, 3, seed);
        for at in [1, 2] {
            let counters = world.members[at].core.as_ref().unwrap().status(world.now).counters;
            // Four with each of the two others, and the first.
            assert!(counters.handshakes_completed >= 8, "seed {seed}: {counters:?}");
        }
    }
}

/// As above from the first hello on, with nobody between, and after restarts.
#[test]
fn members_meet_where_paths_work_one_way_each() {
    for seed in 0..6 {
        let mut world = World::new(seed, lan());
        let (a, b) = (["10.1.1.2", "10.1.2.2"], ["10.2.1.2", "10.2.2.2"]);
        cut_crosswise(&mut world, a, b);
        world.add("a", &a, &b);
        world.add("b", &b, &a);
        for restart in 0..3 {
            assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}, restart {restart}");
            assert!(world.send(0, 1, mode(restart), payload(restart), restart), "seed {seed}");
            let told = |world: &World| world.members[0].fates.contains_key(&restart);
            assert!(world.run_until(10 * SECOND, told), "seed {seed}, restart {restart}: no session");
            let at = restart as usize % 2;
            world.kill(at);
            world.start(at);
            world.run_for(SECOND);
        }
    }
}
