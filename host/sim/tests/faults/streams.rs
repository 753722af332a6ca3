//! Streams: order and back-pressure of each for itself.

use std::time::Duration;

use overlan_core::{Fate, Outgoing};
use overlan_sim::{Network, World};
use overlan_wire::MessageMode;

const SECOND: Duration = Duration::from_secs(1);

fn pair(seed: u64, network: Network) -> World {
    let mut world = World::new(seed, network);
    world.add("a", &["10.0.0.1"], &[]);
    world.add("b", &["10.0.0.2"], &["10.0.0.1"]);
    assert!(world.run_until(10 * SECOND, World::converged));
    world
}

/// Sends in a stream; the token tells stream and place.
fn send(world: &mut World, stream: u16, place: u64, size: usize) {
    let (now, to) = (world.now, world.members[1].id);
    let token = u64::from(stream) << 32 | place;
    let message = Outgoing { stream, ..Outgoing::new(MessageMode::Ordered, vec![stream as u8; size], token) };
    world.members[0].core.as_mut().unwrap().send(now, to, message).expect("there is room");
}

/// Under loss and reordering each stream keeps its own order, and nothing is lost or doubled.
#[test]
fn each_stream_keeps_its_order() {
    for seed in 0..20 {
        let network = Network {
            loss_ppm: 100_000,
            duplicate_ppm: 50_000,
            jitter: Duration::from_millis(3),
            ..Network::with_delay(Duration::from_millis(1))
        };
        let mut world = pair(seed, network);
        for place in 0..200 {
            for stream in [0, 1, 7, 255] {
                send(&mut world, stream, place, 1 + (place as usize * 37 + usize::from(stream) * 11) % 4_000);
            }
            if place % 20 == 0 {
                world.run_for(Duration::from_millis(5));
            }
        }
        let done = world.run_until(60 * SECOND, |world| world.members[0].fates.len() == 800);
        assert!(done, "seed {seed}: {} of 800", world.members[0].fates.len());
        assert!(world.members[0].fates.values().all(|fates| *fates == [Fate::Delivered]));
        for stream in [0, 1, 7, 255] {
            let sizes = world.members[1].received.iter().filter(|message| message.stream == stream);
            let sizes: Vec<usize> = sizes.map(|message| message.payload.len()).collect();
            let sent: Vec<usize> =
                (0..200).map(|place| 1 + (place * 37 + usize::from(stream) * 11) % 4_000).collect();
            assert_eq!(sizes, sent, "seed {seed}, stream {stream}");
        }
    }
}

/// A cancelled message has one fate, whether it had left or not; the stream goes on without a gap.
#[test]
fn cancelled_messages_leave_no_gap() {
    let mut world = pair(5, Network::with_delay(Duration::from_millis(1)));
    for place in 0..100 {
        send(&mut world, 3, place, 5_000);
    }
    let (now, to) = (world.now, world.members[1].id);
    for place in (0..100).step_by(2) {
        let core = world.members[0].core.as_mut().unwrap();
        assert!(core.cancel(now, to, 3 << 32 | place..(3 << 32 | place) + 1));
    }
    assert!(world.run_until(10 * SECOND, |world| world.members[0].fates.len() == 100));
    for (token, fates) in &world.members[0].fates {
        let expected = if token % 2 == 0 { Fate::Expired } else { Fate::Delivered };
        assert_eq!(*fates, [expected], "{token:x}");
    }
}
