//! A member that holds every key and lies about the cluster: how far the others believe it.

use std::time::Duration;

use overlan_contract::Attributes;
use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_core::config::Quorum;
use overlan_core::crypto::Crypto as _;
use overlan_core::document::{Document, SignedDocument};
use overlan_seal::Seal;
use overlan_sim::forged::{made_up, sign};
use overlan_sim::{Insider, Network, World};
use overlan_wire::limits::{CLUSTER_STREAM, MAX_REMOVED_VERSION, MAX_VERSION};
use overlan_wire::{
    BootId, Digest, DocumentId, Forgotten, Fragment, Frame, MessageId, MessageMode, NodeId, Record,
};

const SECOND: Duration = Duration::from_secs(1);
const A: usize = 0;
const B: usize = 1;
const MALLORY: usize = 2;
/// Bytes of frames in a full cluster datagram.
const FULL: usize = 1_140;

fn three(seed: u64) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_micros(100)));
    world.add("a", &["10.1.1.2", "10.1.2.2"], &[]);
    world.add("b", &["10.2.1.2", "10.2.2.2"], &["10.1.1.2"]);
    world.add("mallory", &["10.3.1.2", "10.3.2.2"], &["10.1.1.2"]);
    assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

/// As much of a frame as fits a datagram.
fn repeated(frame: &Frame<'_>) -> Vec<u8> {
    let mut one = Vec::new();
    frame.emit(&mut one);
    one.repeat(FULL / one.len())
}

/// A datagram makes a member send about as much as it is long, whoever sent it: the source address may be another's.
#[test]
fn little_that_is_sent_makes_nobody_send_much() {
    const TIMES: usize = 100;
    /// Beyond what comes in: one list of buckets in each 20 ms, or what goes to all whose boot is not known.
    const SLACK: usize = 24 << 10;
    let summary = Frame::Summary {
        digest: Digest([0xff; 32]),
        epoch: 0,
        agreed: Digest::default(),
        documents: Default::default(),
        refused: None,
    };
    for seed in 1..=2 {
        let world = three(seed);
        let id = world.members[A].id;
        let bucket = id.0[0];
        drop(world);
        let frames = [
            ("want", repeated(&Frame::Want(vec![id; 70]))),
            ("membership", repeated(&Frame::Membership(&[]))),
            ("summary", repeated(&summary)),
            ("one summary", {
                let mut one = Vec::new();
                summary.emit(&mut one);
                one
            }),
            ("buckets", repeated(&Frame::Buckets { first: bucket, hashes: vec![5] })),
            ("leaves", repeated(&Frame::Leaves { bucket, leaves: vec![] })),
        ];
        for (what, frames) in frames {
            for name in ["its own", "b's", "an unknown"] {
                let mut world = three(seed);
                let mut mallory = Insider::take_over(&mut world, MALLORY);
                let (_, of_b) = world.credentials(B);
                let boot = [mallory.boot, of_b, BootId([9; 16])];
                let boot = boot[["its own", "b's", "an unknown"].iter().position(|of| *of == name).unwrap()];
                world.members[MALLORY].missed.clear();
                for _ in 0..TIMES {
                    mallory.cluster(&mut world, boot, A, &frames);
                    world.run_for(Duration::from_millis(1));
                }
                let sent = TIMES * (frames.len() + 60);
                let got: usize = world.members[MALLORY].missed.iter().map(Vec::len).sum();
                assert!(
                    got <= sent + SLACK,
                    "seed {seed}: {sent} B of {what} under {name} boot make a send {got} B"
                );
            }
        }
    }
}

fn removal(seal: &Seal, id: NodeId, version: u64) -> Vec<u8> {
    sign(seal, Record::Forgotten(Forgotten { id, version, by_key: seal.sign_key() }))
}

fn problems(world: &World, member: usize) -> Vec<String> {
    world.members[member].core.as_ref().expect("it runs").status(world.now).problems
}

fn version_of(world: &World, at: usize, name: &str) -> Option<u64> {
    let table = world.members[at].core.as_ref().expect("it runs").table();
    table.entries.iter().find(|entry| entry.name == name).map(|entry| entry.version)
}

/// More removals than a table ever had room for keep nobody out, end no member, and leave equal digests.
#[test]
fn removals_keep_no_newcomer_out() {
    const REMOVALS: u64 = 5_000;
    /// What fits a datagram.
    const TOGETHER: u64 = 9;
    let mut world = three(31);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    for first in (0..REMOVALS).step_by(TOGETHER as usize) {
        let mut frames = Vec::new();
        for number in first..first + TOGETHER {
            let mut id = [number as u8; 16];
            id[1..9].copy_from_slice(&number.to_be_bytes());
            Frame::Record(&removal(&mallory.seal, NodeId(id), 1)).emit(&mut frames);
        }
        let boot = mallory.boot;
        mallory.cluster(&mut world, boot, A, &frames);
        world.run_for(Duration::from_millis(1));
    }
    let newcomer = world.add("newcomer", &["10.4.1.2", "10.4.2.2"], &["10.1.1.2"]);
    let met = |world: &World| {
        let digests: Vec<String> = [A, B, newcomer]
            .map(|member| world.members[member].core.as_ref().expect("it runs").table().digest)
            .to_vec();
        let all = [A, B, newcomer].iter().all(|&member| version_of(world, member, "newcomer").is_some());
        all && digests.iter().all(|digest| *digest == digests[0])
    };
    assert!(world.run_until(60 * SECOND, met), "the newcomer is kept out: {:?}", problems(&world, A));
    let forgotten = world.members[newcomer].core.as_ref().expect("it runs").table().forgotten.len();
    assert!((500..=1_024).contains(&forgotten), "{forgotten} removals are kept");
    // One more is one too many, and ends its member's entry all the same.
    world.kill(newcomer);
    assert!(world.run_until(30 * SECOND, |world| {
        let core = world.members[A].core.as_ref().expect("it runs");
        !core.is_live(world.members[newcomer].id)
    }));
    world.forget(A, newcomer);
    let gone = |world: &World| [A, B].iter().all(|&member| version_of(world, member, "newcomer").is_none());
    assert!(world.run_until(10 * SECOND, gone), "it is still there");
    world.run_for(10 * SECOND);
    assert!(gone(&world), "it came back");
    // It may come back as what it is.
    world.start(newcomer);
    assert!(world.run_until(30 * SECOND, met), "it does not come back");
}

fn duties(world: &World, member: usize) -> usize {
    world.members[member].core.as_ref().map_or(0, |core| core.own_duties().1.len())
}

/// A majority is one of members that were alive once.
#[test]
fn made_up_entries_are_no_majority() {
    let mut world = World::new(21, Network::with_delay(Duration::from_millis(1)));
    let duty = |n| Responsibility {
        name: format!("duty-{n}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Attributes::new(),
    };
    for member in 0..4 {
        let mut config = Config::new(format!("m{member}"), BootId::default(), [0; 32]);
        config.responsibilities = (0..8).map(duty).collect();
        config.quorum = Quorum::Majority;
        config.seeds = vec!["10.0.0.100:7400".parse().expect("an address")];
        world.add_with(config, &[&format!("10.0.0.{}", 100 + member)]);
    }
    assert!(world.run_until(20 * SECOND, World::converged));
    let mut mallory = Insider::take_over(&mut world, 3);
    world.run_for(20 * SECOND);
    let owned = |world: &World| (0..3).map(|member| duties(world, member)).sum::<usize>();
    assert_eq!(owned(&world), 8, "three of four");
    let (beyond, record) = made_up(0, MAX_REMOVED_VERSION + 2, 1);
    mallory.cluster_frame(&mut world, 0, &Frame::Record(&record));
    for number in 1..6 {
        mallory.cluster_frame(&mut world, 0, &Frame::Record(&made_up(number, 1, 1).1));
    }
    world.run_for(30 * SECOND);
    let held = |world: &World, member: usize| {
        world.members[member].core.as_ref().expect("it runs").table().entries.len()
    };
    assert_eq!((0..3).map(|member| held(&world, member)).collect::<Vec<_>>(), [10; 3]);
    assert_eq!(owned(&world), 8, "three of four, and six that never were");
    // What members remember of before says no more.
    for member in 0..3 {
        world.kill(member);
    }
    for member in 0..3 {
        world.start(member);
    }
    assert!(world.run_until(60 * SECOND, |world| owned(world) == 8), "{:?}", problems(&world, 0));
    // Its version is beyond those that removals end of the living.
    mallory.cluster_frame(&mut world, 0, &Frame::Record(&record));
    assert!(world.run_until(20 * SECOND, |world| (0..3).all(|member| held(world, member) >= 4)));
    let now = world.now;
    let forgotten = world.members[0].core.as_mut().expect("it runs").forget(now, beyond);
    assert_eq!(forgotten, Ok(()));
    let gone = |world: &World| (0..3).all(|member| version_of(world, member, "made-up-0").is_none());
    assert!(world.run_until(20 * SECOND, gone), "it is still there");
    world.run_for(20 * SECOND);
    assert!(gone(&world), "it came back");
}

/// A member that was lifted as far as a removal can lift it goes on, and can be forgotten once it is gone.
#[test]
fn who_was_lifted_to_the_end_can_be_forgotten() {
    for version in [MAX_REMOVED_VERSION - 1, MAX_REMOVED_VERSION, MAX_VERSION - 1, MAX_VERSION] {
        let mut world = three(22);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let victim = world.members[B].id;
        let record = removal(&mallory.seal, victim, version);
        for to in [A, B] {
            mallory.cluster_frame(&mut world, to, &Frame::Record(&record));
        }
        world.run_for(5 * SECOND);
        for _ in 0..3 {
            for up in [false, true] {
                world.set_adapter(B, 1, up);
                world.run_for(SECOND);
            }
        }
        assert!(version_of(&world, A, "b").is_some(), "version {version}: b is gone");
        assert!(version_of(&world, A, "b") < Some(MAX_REMOVED_VERSION + 100), "version {version}");
        world.kill(B);
        assert!(world.run_until(30 * SECOND, |world| {
            !world.members[A].core.as_ref().expect("it runs").is_live(victim)
        }));
        world.forget(A, B);
        world.run_for(10 * SECOND);
        assert_eq!(version_of(&world, A, "b"), None, "version {version}");
        world.start(B);
        let back = |world: &World| version_of(world, A, "b").is_some() && version_of(world, B, "a").is_some();
        assert!(world.run_until(30 * SECOND, back), "version {version}: b does not come back");
    }
}

fn document(parent: DocumentId, version: u64, name: &str) -> SignedDocument {
    let duty =
        Responsibility { name: name.into(), replicas: 1, weight_milli: 1_000, requires: Attributes::new() };
    let document = Document {
        version,
        parent: parent.digest,
        cluster: String::new(),
        responsibilities: vec![duty],
        policies: vec![],
    };
    SignedDocument::new(&document.to_body().expect("it is valid"), None).expect("just made")
}

/// Nobody uses up the versions of cluster documents by one message.
#[test]
fn documents_do_not_leap() {
    for held in [0, 1] {
        let mut world = three(61);
        world.run_for(2 * SECOND);
        let holds = |world: &World, member: usize| {
            world.members[member].core.as_ref().expect("it runs").document_id()
        };
        for version in 1..=held {
            let parent = holds(&world, A);
            world.apply(A, document(parent, version, "first")).expect("nothing is in its way");
        }
        world.run_for(3 * SECOND);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        assert!(mallory.open(&mut world, A));
        let last = document(DocumentId { version: 1, digest: Digest([1; 32]) }, MAX_VERSION, "last");
        let payload = [&[0x11], &last.bytes()[..]].concat();
        let mut frames = Vec::new();
        let fragment = Fragment {
            message: MessageId(60),
            mode: MessageMode::Reliable,
            redelivered: false,
            stream: CLUSTER_STREAM,
            order: 0,
            total: payload.len() as u32,
            offset: 0,
            payload: &payload,
        };
        Frame::Fragment(fragment).emit(&mut frames);
        mallory.data(&mut world, A, 7, 0, &frames);
        world.run_for(3 * SECOND);
        assert_eq!(holds(&world, A).version, held);
        assert!(
            world.members[A].core.as_ref().expect("it runs").status(world.now).counters.documents_refused > 0
        );
        let parent = holds(&world, A);
        world.apply(A, document(parent, held + 1, "next")).expect("nothing is in its way");
        assert!(world.run_until(10 * SECOND, |world| holds(world, B).version == held + 1));
    }
}

/// What was received of a member that is silent is not taken again, however many boots are made up meanwhile.
#[test]
fn boots_of_nobody_make_no_member_forgotten() {
    const BOOTS: u32 = 9_000;
    let mut world = three(15);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    // It begins its count anew.
    let mut again = Insider::take_over(&mut world, MALLORY);
    world.kill(B);
    let (_, of_b) = world.credentials(B);
    let mut frames = Vec::new();
    Frame::Want(vec![NodeId([1; 16])]).emit(&mut frames);
    mallory.cluster(&mut world, of_b, A, &frames);
    world.run_for(2 * SECOND);
    for number in 0..BOOTS {
        let mut boot = [0x5a; 16];
        boot[..4].copy_from_slice(&number.to_be_bytes());
        mallory.cluster(&mut world, BootId(boot), A, &frames);
        if number % 100 == 0 {
            world.run_for(Duration::from_millis(10));
        }
    }
    world.run_for(Duration::from_millis(10));
    let replayed = |world: &World| {
        world.members[A].core.as_ref().expect("it runs").status(world.now).counters.dropped_replayed
    };
    let before = replayed(&world);
    again.cluster(&mut world, of_b, A, &frames);
    world.run_for(Duration::from_millis(10));
    assert_eq!(replayed(&world), before + 1);
}
