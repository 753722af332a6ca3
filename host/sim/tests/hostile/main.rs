//! A member that holds every key and breaks every rule: it harms its own traffic and nobody else's.

mod agreements;
mod names;
mod records;

use std::time::Duration;

use overlan_core::crypto::Crypto as _;
use overlan_sim::forged::{self, sign};
use overlan_sim::{Insider, Network, World};
use overlan_wire::frame::Accepted;
use overlan_wire::limits::{BENCH_STREAMS, CLUSTER_STREAM, MAX_MESSAGE, MAX_REMOVED_VERSION, MAX_VERSION};
use overlan_wire::{
    Ack, BootId, Entry, Forgotten, Fragment, Frame, MessageId, MessageMode, NodeId, PacketNumber, PathId,
    Record,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);
const A: usize = 0;
const B: usize = 1;
const MALLORY: usize = 2;

/// The third member's keys in other hands, and a session with `a`.
fn take_over(world: &mut World) -> Insider {
    let mut mallory = Insider::take_over(world, MALLORY);
    assert!(mallory.open(world, A), "a answers");
    mallory
}

/// One data datagram to `a`.
fn data(mallory: &Insider, world: &mut World, path: u32, number: u64, frames: &[Frame<'_>]) {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.emit(&mut bytes));
    mallory.data(world, A, path, number, &bytes);
}

fn three(seed: u64) -> World {
    let delay = Duration::from_micros(100);
    let mut world = World::new(seed, Network::with_delay(delay));
    world.add("a", &["10.1.1.2", "10.1.2.2"], &[]);
    world.add("b", &["10.2.1.2", "10.2.2.2"], &["10.1.1.2"]);
    world.add("mallory", &["10.3.1.2", "10.3.2.2"], &["10.1.1.2"]);
    assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

fn counters(world: &World) -> overlan_core::status::Counters {
    world.members[A].core.as_ref().expect("it runs").status(world.now).counters
}

/// Both ways between the healthy members, exactly once and in order.
fn check_healthy(world: &mut World, done: u64) {
    let count = 20;
    for token in done..done + count {
        for (from, to) in [(A, B), (B, A)] {
            assert!(world.send(from, to, MessageMode::Ordered, token.to_be_bytes().to_vec(), token));
        }
    }
    let all = (done + count) as usize;
    let delivered = |world: &World| [A, B].iter().all(|&member| world.members[member].fates.len() >= all);
    assert!(world.run_until(10 * SECOND, delivered), "the healthy members' messages stopped");
    for (from, to) in [(A, B), (B, A)] {
        let sender = world.members[from].id;
        let received = world.members[to].received.iter().filter(|message| message.from == sender);
        let numbers: Vec<u64> =
            received.map(|message| u64::from_be_bytes(message.payload[..8].try_into().unwrap())).collect();
        assert_eq!(numbers, (0..done + count).collect::<Vec<_>>());
    }
}

#[test]
fn acceptance_of_what_is_still_being_sent_is_refused() {
    let mut world = three(1);
    let mallory = take_over(&mut world);
    // Too large for the first window: it stays under way.
    world.send(A, MALLORY, MessageMode::Reliable, vec![0; MAX_MESSAGE], u64::MAX);
    world.run_for(Duration::from_millis(1));
    let accepted = |floor, bitmap| {
        Frame::Accepted(Accepted { stream: 0, floor: MessageId(floor), credit: 0, credit_in_all: 0, bitmap })
    };
    let before = counters(&world).dropped_malformed;
    let frames = [accepted(1, &[]), accepted(0, &[1]), accepted(u64::MAX, &[0xff; 512])];
    for (number, frame) in frames.into_iter().enumerate() {
        data(&mallory, &mut world, 7, number as u64, &[frame]);
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!(counters(&world).dropped_malformed, before + 3);
    assert!(!world.members[A].fates.contains_key(&u64::MAX), "nobody has accepted it");
    check_healthy(&mut world, 0);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_refused() {
    let mut world = three(2);
    let mallory = take_over(&mut world);
    let before = counters(&world).dropped_malformed;
    let ack = |path, low, high| {
        Frame::Ack(Ack {
            path: PathId(path),
            delay_us: u32::MAX,
            ce: 0,
            ranges: [(PacketNumber(low), PacketNumber(high))].into_iter().collect(),
        })
    };
    let frames = [ack(0, 0, u64::MAX), ack(u32::MAX, 0, 0), ack(1, 1 << 40, 1 << 41)];
    data(&mallory, &mut world, 7, 0, &frames);
    world.run_for(Duration::from_millis(10));
    assert_eq!(counters(&world).dropped_malformed, before + 3);
    check_healthy(&mut world, 0);
}

#[test]
fn a_flood_of_contradictions_harms_nobody_else() {
    let mut world = three(3);
    let mallory = take_over(&mut world);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let zeros = [0; 64];
    let edge = |rng: &mut ChaCha8Rng| match rng.random_range(0..4) {
        0 => rng.random_range(0..8),
        1 => u64::MAX - rng.random_range(0..3),
        2 => u64::from(u32::MAX) + rng.random_range(0..3) - 1,
        _ => rng.next_u64(),
    };
    let before = counters(&world);
    for round in 0..10 {
        for _ in 0..400 {
            let total = [0, 1, 64, 100_000, MAX_MESSAGE as u32][rng.random_range(0..5)];
            let len = zeros.len().min(total as usize);
            let fragment = Frame::Fragment(Fragment {
                message: MessageId(edge(&mut rng)),
                mode: [MessageMode::Unreliable, MessageMode::Reliable, MessageMode::Ordered]
                    [rng.random_range(0..3)],
                redelivered: rng.random(),
                stream: [0, 1, 255, 256, *BENCH_STREAMS.end(), CLUSTER_STREAM][rng.random_range(0..6)],
                order: edge(&mut rng),
                total,
                offset: rng.random_range(0..=total - len as u32),
                payload: &zeros[..len],
            });
            let (low, high) = (edge(&mut rng), edge(&mut rng));
            let ack = Frame::Ack(Ack {
                path: PathId(edge(&mut rng) as u32),
                delay_us: edge(&mut rng) as u32,
                ce: 0,
                ranges: [(PacketNumber(low.min(high)), PacketNumber(low.max(high)))].into_iter().collect(),
            });
            let bitmap = vec![rng.random(); rng.random_range(0..512)];
            let accepted = Frame::Accepted(Accepted {
                stream: edge(&mut rng) as u16,
                floor: MessageId(edge(&mut rng)),
                credit: edge(&mut rng),
                credit_in_all: edge(&mut rng),
                bitmap: &bitmap,
            });
            let ping = Frame::Ping { token: rng.random(), padding: rng.random_range(0..100) };
            let pong = Frame::Pong { token: rng.random() };
            let frames = [fragment, ack, accepted, ping, pong];
            let (path, number) = (edge(&mut rng) as u32, edge(&mut rng));
            data(&mallory, &mut world, path, number, &frames);
        }
        check_healthy(&mut world, round * 20);
    }
    let after = counters(&world);
    assert!(after.dropped_malformed > before.dropped_malformed, "rules were broken: {after:#?}");
    assert!(after.dropped_limit > before.dropped_limit, "limits were passed: {after:#?}");
    assert!(after.dropped_replayed > before.dropped_replayed, "numbers came twice: {after:#?}");
}

#[test]
fn nobody_writes_anothers_entry_or_removes_the_living() {
    for version in [2, 1 << 32, MAX_REMOVED_VERSION, MAX_VERSION, u64::MAX - 1, u64::MAX] {
        let mut world = three(4);
        let mut mallory = take_over(&mut world);
        let victim = world.members[B].id;
        let forged = Entry {
            id: victim,
            boot: BootId([9; 16]),
            version,
            name: "stolen".into(),
            sign_key: mallory.seal.sign_key(),
            exchange_key: mallory.seal.exchange_key(),
            adapters: vec![],
            attributes: vec![],
            left: false,
            operator: None,
        };
        let forged = sign(&mallory.seal, Record::Entry(forged));
        let by_key = mallory.seal.sign_key();
        let removal = sign(&mallory.seal, Record::Forgotten(Forgotten { id: victim, version, by_key }));
        for record in [&forged, &removal] {
            for to in [A, B] {
                mallory.cluster_frame(&mut world, to, &Frame::Record(record));
            }
        }
        let holds_victim = |world: &World| {
            world.members[..=B].iter().all(|member| {
                let core = member.core.as_ref().expect("it runs");
                core.find("b") == Some(victim) && core.find("stolen").is_none()
            })
        };
        world.run_for(Duration::from_millis(100));
        assert!(world.run_until(10 * SECOND, holds_victim), "version {version}: b is gone");
        check_healthy(&mut world, 0);
    }
}

#[test]
fn another_members_name_is_no_use() {
    let mut world = three(5);
    let mut mallory = take_over(&mut world);
    for _ in 0..200 {
        let node = NodeId([0xee; 16]);
        mallory.cluster_frame(&mut world, A, &Frame::Want(vec![node; 60]));
        let leaves = vec![(node, u64::MAX, true); 40];
        mallory.cluster_frame(&mut world, A, &Frame::Leaves { bucket: 0, leaves });
        mallory.cluster_frame(&mut world, A, &Frame::Membership(&[0xff; 300]));
        mallory.cluster_frame(&mut world, A, &Frame::Record(&[1; 200]));
    }
    check_healthy(&mut world, 0);
    assert!(counters(&world).dropped_malformed >= 200);
}
