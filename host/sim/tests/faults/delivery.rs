//! Exactly once while paths die at any moment.

use std::time::Duration;

use overlan_core::Fate;
use overlan_sim::Network;
use overlan_wire::MessageMode;

use crate::common::{MS, SECOND, address, check_exactly_once, core, lan, mode, payload, two};

/// The seeds of short runs: 300 of them, or those in `OVERLAN_SIM_SEEDS` ("from..to") for a longer search.
fn runs() -> std::ops::Range<u64> {
    let given = std::env::var("OVERLAN_SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(0..300, |(from, to)| from.parse().expect("a seed")..to.parse().expect("a seed"))
}

/// A path dies at every moment of a burst, in each way, for a while that differs from run to run; another
/// dies while the first one comes back.
#[test]
fn paths_that_die_at_any_moment_lose_nothing() {
    for seed in runs() {
        let losses = [0, 0, 20_000, 100_000];
        let network = Network { loss_ppm: losses[seed as usize % 4], ..lan() };
        let mut world = two(seed, 2, network);
        assert!(world.run_until(10 * SECOND, |world| world.converged()), "seed {seed}: no convergence");
        let count = 12;
        for token in 0..count {
            assert!(world.send(0, 1, mode(token), payload(token), token));
        }
        // From the first datagram to well after the last reply.
        world.run_for(Duration::from_micros(seed * 7 % 4_000));
        match seed % 5 {
            0 => world.set_adapter(0, 0, false),
            1 => world.set_adapter(1, 0, false),
            2 => drop(world.network.dead.insert(address(0, 0))),
            3 => drop(world.network.cut.insert((address(0, 0), address(1, 0)))),
            _ => drop(world.network.cut.insert((address(1, 0), address(0, 0)))),
        }
        world.run_for(Duration::from_micros(seed * 997 % 900_000));
        world.network.heal();
        if seed % 5 < 2 {
            world.set_adapter(seed as usize % 5, 0, true);
        }
        world.network.dead.insert(address(1, 1));
        world.run_for(Duration::from_micros(seed * 1_999 % 500_000));
        for token in count..2 * count {
            assert!(world.send(0, 1, mode(token), payload(token), token));
        }
        world.run_for(300 * MS);
        world.network.heal();
        world.run_until(30 * SECOND, |world| world.members[0].fates.len() as u64 == 2 * count);
        check_exactly_once(&world, 0..2 * count, &format!("seed {seed}"));
    }
}

/// A clock that leaps ahead, as that of a machine that slept, on both members or on one: nothing is lost or doubled.
#[test]
fn clocks_that_leap_lose_nothing() {
    let leaps = [SECOND, 20 * SECOND, 600 * SECOND, 90_000 * SECOND];
    for seed in 0..24 {
        let mut world = two(seed, 2, lan());
        assert!(world.run_until(10 * SECOND, |world| world.converged()), "seed {seed}: no convergence");
        let (count, leap) = (12, leaps[seed as usize % 4]);
        for token in 0..count {
            assert!(world.send(0, 1, mode(token), payload(token), token));
        }
        world.run_for(Duration::from_micros(seed * 173 % 4_000));
        match seed / 4 % 3 {
            0 => world.now = world.now + leap,
            // The other one goes on: to it, this is a death.
            1 => world.pause(0, leap.min(600 * SECOND)),
            _ => world.pause(1, leap.min(600 * SECOND)),
        }
        for token in count..2 * count {
            assert!(world.send(0, 1, mode(token), payload(token), token));
        }
        world.run_until(60 * SECOND, |world| world.members[0].fates.len() as u64 == 2 * count);
        check_exactly_once(&world, 0..2 * count, &format!("seed {seed}"));
    }
}

#[test]
fn empty_messages_survive_loss() {
    let mut world = two(1, 2, Network { loss_ppm: 300_000, ..lan() });
    assert!(world.run_until(20 * SECOND, |world| world.converged()));
    for token in 0..200 {
        assert!(world.send(0, 1, MessageMode::Ordered, Vec::new(), token));
        world.run_for(MS);
    }
    assert!(world.run_until(60 * SECOND, |world| world.members[0].fates.len() == 200));
    assert!(world.members[0].fates.values().all(|fates| *fates == [Fate::Delivered]));
    assert_eq!(world.members[1].received.len(), 200);
}

/// An adapter whose address changes often makes many paths; the one that stays is not forgotten for it.
#[test]
fn a_lasting_path_survives_the_churn_of_others() {
    let mut world = two(2, 2, lan());
    assert!(world.run_until(5 * SECOND, |world| world.converged()));
    for round in 0..150u16 {
        let address = [10, 0, 1, 3 + (round % 200) as u8].into();
        world.change_adapters(0, |adapters| adapters[1].address = address);
        world.run_for(300 * MS);
    }
    let first = |world: &overlan_sim::World| {
        let paths = core(world, 1).paths(world.now);
        let path =
            paths.iter().find(|path| path.local.ip() == address(1, 0) && path.remote.ip() == address(0, 0));
        path.expect("it lasts").clone()
    };
    let before = first(&world);
    world.run_for(2 * SECOND);
    let after = first(&world);
    assert!(after.received > before.received, "nothing arrives any more: {after:?}");
    assert_eq!(after.flaps, 0, "{after:?}");
}
