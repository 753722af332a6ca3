//! Members that are far from each other: round trips of up to two seconds.

use std::time::Duration;

use overlan_sim::{Network, World};

use crate::common::{MS, SECOND, core, two};

fn far(round_trip: Duration) -> Network {
    Network { delay: round_trip / 2, jitter: MS, ..Network::default() }
}

fn datagram(world: &World) -> usize {
    core(world, 0).paths(world.now)[0].datagram as usize
}

#[test]
fn long_paths_carry_large_datagrams() {
    for (seed, round_trip) in [300].into_iter().enumerate() {
        let mut world = two(seed as u64, 1, far(round_trip * MS));
        let large = |world: &World| core(world, 0).paths(world.now).len() == 1 && datagram(world) == 1_472;
        assert!(world.run_until(10 * round_trip * MS, large), "{round_trip} ms");
        let sent = world.members[0].sent;
        world.run_for(60 * SECOND);
        // A second has two probes of membership, their answers, a probe of the path, and its answer.
        assert!(world.members[0].sent - sent < 550, "{round_trip} ms: {}", world.members[0].sent - sent);
    }
}

#[test]
fn a_path_that_becomes_longer_keeps_its_datagrams() {
    for (seed, round_trip) in [300].into_iter().enumerate() {
        let mut world = two(seed as u64, 1, far(20 * MS));
        world.run_for(5 * SECOND);
        assert_eq!(datagram(&world), 1_472);
        world.network.delay = round_trip * MS / 2;
        for _ in 0..600 {
            world.run_for(100 * MS);
            assert_eq!(datagram(&world), 1_472, "{round_trip} ms");
        }
    }
}
