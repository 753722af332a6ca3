//! Clusters of tens of members.

use std::net::SocketAddr;
use std::time::Duration;

use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_core::status::MemberState;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

use crate::common::{MS, SECOND, address, core, lan};

/// How long a node that leaves goes on (`driver::FAREWELL`).
const FAREWELL: Duration = Duration::from_millis(150);
/// What it says at first may be lost.
const LOST: Duration = Duration::from_millis(20);

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

/// Nearly all leave at once, over a network that loses the first of what they say and some of the rest.
#[test]
fn all_who_leave_are_seen_to() {
    for seed in 0..2 {
        let mut world = large(seed, 40, lan());
        world.run_for(5 * SECOND);
        world.network.loss_ppm = 1_000_000;
        (2..40).for_each(|index| world.leave(index));
        world.run_for(LOST);
        world.network.loss_ppm = 200_000;
        world.run_for(FAREWELL - LOST);
        (2..40).for_each(|index| world.kill(index));
        let left = |world: &World, at: usize| {
            let members = core(world, at).members(world.now);
            let states: Vec<_> = members.iter().map(|member| member.state).collect();
            assert!(!states.contains(&MemberState::Down), "seed {seed}: a farewell was lost");
            states.iter().filter(|state| **state == MemberState::Left).count()
        };
        let settled = |world: &World| {
            let [one, other] = [0, 1].map(|at| core(world, at).plan());
            let here = |name: &String| name == "n0" || name == "n1";
            [0, 1].iter().all(|&at| left(world, at) == 38)
                && (one.epoch, &one.digest) == (other.epoch, &other.digest)
                && one.duties.iter().all(|duty| duty.owners.iter().all(here) && !duty.owners.is_empty())
        };
        let states = |world: &World| [0, 1].map(|at| left(world, at));
        assert!(comes(&mut world, SECOND, settled), "seed {seed}: {:?} have left", states(&world));
    }
}

/// A newcomer that has met only its seed may take itself for the leader, and agree with it on the table.
#[test]
fn joins_are_soon_agreed_on() {
    let mut world = large(1, 30, lan());
    world.run_for(3 * SECOND);
    world.network.jitter = 10 * MS;
    for index in 30..45 {
        add(&mut world, index, Some(index % 7));
        assert!(comes(&mut world, 5 * SECOND, World::converged), "n{index} does not join");
        let agreed = |world: &World| {
            let mut all = 0..world.members.len();
            all.all(|at| core(world, at).status(world.now).agreed)
        };
        assert!(comes(&mut world, SECOND, agreed), "n{index} is not agreed on");
        world.run_for(SECOND);
    }
}
