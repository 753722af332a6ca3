//! Clusters of tens of members.

use std::net::SocketAddr;
use std::time::Duration;

use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

use crate::common::{MS, SECOND, address, core, lan};

/// Adds a member.
fn add(world: &mut World, index: usize, seed: Option<usize>) {
    let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
    config.seeds = seed.map(|seed| SocketAddr::new(address(seed, 0), 7400)).into_iter().collect();
    let duty = |at| Responsibility {
        name: format!("r{at}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Vec::new(),
    };
    config.responsibilities = (0..8).map(duty).collect();
    world.add_with(config, &[&address(index, 0).to_string()]);
}

/// This many members; the first is everybody's seed.
fn large(seed: u64, count: usize, network: Network) -> World {
    let mut world = World::new(seed, network);
    (0..count).for_each(|index| add(&mut world, index, (index > 0).then_some(0)));
    assert!(comes(&mut world, 20 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

/// Whether that comes to be within the time. To look at so many after each datagram takes long.
fn comes(world: &mut World, limit: Duration, is: impl Fn(&World) -> bool) -> bool {
    let end = world.now + limit;
    while world.now < end && !is(world) {
        world.run_for(10 * MS);
    }
    is(world)
}

/// A member counts its datagrams to all others together, so that what comes a little late at one of them may be hundreds of
/// numbers old.
#[test]
fn what_comes_late_is_no_replay() {
    let mut world = large(1, 40, Network { late_ppm: 200_000, late: 20 * MS, ..lan() });
    world.run_for(2 * SECOND);
    let replayed = |index| core(&world, index).status(world.now).counters.dropped_replayed;
    assert_eq!((0..40).map(replayed).sum::<u64>(), 0);
}
