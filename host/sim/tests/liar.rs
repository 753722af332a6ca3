//! A member that holds every key and lies about the cluster: how far the others believe it.

use std::time::Duration;

use overlan_core::crypto::Crypto as _;
use overlan_sim::{Insider, Network, World};
use overlan_wire::{BootId, Digest, Frame};

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
            ("one summary", { let mut one = Vec::new(); summary.emit(&mut one); one }),
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
