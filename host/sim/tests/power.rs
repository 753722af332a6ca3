//! Power failures: what members remember of each other brings them together again, whether or not their seeds come back.

use std::net::IpAddr;
use std::time::Duration;

use overlan_contract::Attributes;
use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_core::config::Quorum;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

const SECOND: Duration = Duration::from_secs(1);
const DUTIES: usize = 24;
/// The only seed of all; it has none.
const SEED: usize = 0;

fn cluster(seed: u64, members: usize) -> World {
    cluster_with(seed, members, Quorum::None)
}

/// So many members, each configured with the duties.
fn cluster_with(seed: u64, members: usize, quorum: Quorum) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
    let duty = |n| Responsibility {
        name: format!("duty-{n}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Attributes::new(),
    };
    for member in 0..members {
        let mut config = Config::new(format!("m{member}"), BootId::default(), [0; 32]);
        config.responsibilities = (0..DUTIES).map(duty).collect();
        config.quorum = quorum;
        if member != SEED {
            config.seeds = vec!["10.0.0.100:7400".parse().expect("an address")];
        }
        world.add_with(config, &[&format!("10.0.0.{}", 100 + member)]);
    }
    assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

fn duties(world: &World, member: usize) -> usize {
    world.members[member].core.as_ref().map_or(0, |core| core.own_duties().1.len())
}

#[test]
fn members_find_together_though_their_seed_stays_down() {
    for seed in 1..=8 {
        let mut world = cluster(seed, 6);
        (0..6).for_each(|member| world.kill(member));
        for first in [1, 3] {
            world.run_for(10 * SECOND);
            world.start(first);
            world.start(first + 1);
            assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}: {first} stays alone");
        }
        // Who comes last meets what has been there for long.
        world.run_for(100 * SECOND);
        world.start(5);
        assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}: the last stays alone");
    }
}

#[test]
fn members_that_all_left_find_together() {
    let mut world = cluster(1, 3);
    for member in [SEED, 1, 2] {
        world.leave(member);
        world.run_for(SECOND / 10);
    }
    world.run_for(SECOND);
    (0..3).for_each(|member| world.kill(member));
    world.start(1);
    world.start(2);
    assert!(world.run_until(10 * SECOND, World::converged));
}

#[test]
fn a_seed_that_restarts_does_not_own_everything_for_a_moment() {
    for seed in 1..=8 {
        let mut world = cluster(seed, 3);
        world.run_for(5 * SECOND);
        world.kill(SEED);
        world.start(SEED);
        let alone = |world: &World| duties(world, SEED) == DUTIES;
        assert!(!world.run_until(10 * SECOND, alone), "seed {seed}");
        assert!(world.converged() && duties(&world, SEED) > 0, "seed {seed}");
    }
}

#[test]
fn who_is_left_alone_takes_over_and_forgets_who_was_forgotten() {
    let mut world = cluster(1, 3);
    (0..3).for_each(|member| world.kill(member));
    world.start(2);
    assert!(world.run_until(10 * SECOND, |world| duties(world, 2) == DUTIES));
    world.start(1);
    assert!(world.run_until(10 * SECOND, World::converged));
    world.kill(1);
    let down =
        |world: &World| world.members[2].core.as_ref().is_some_and(|core| core.live_peers().is_empty());
    assert!(world.run_until(20 * SECOND, down));
    world.run_for(60 * SECOND);
    world.forget(2, 1);
    let core = world.members[2].core.as_ref().expect("it runs");
    let left: Vec<_> = core.last_known().iter().map(|last| last.address.ip().to_string()).collect();
    assert_eq!(left, ["10.0.0.100"], "it was not met since the start, so none could forget it");
}

/// Its past life still counted when it came back at another address, and whoever refused it for that died.
#[test]
fn who_was_refused_once_takes_over_when_it_is_alone() {
    let mut world = cluster(1, 2);
    world.kill(1);
    world.change_adapters(1, |adapters| adapters[0].address = "10.0.0.201".parse().expect("an address"));
    world.start(1);
    let refused = |world: &World| {
        let core = world.members[1].core.as_ref().expect("it runs");
        core.status(world.now).problems.iter().any(|problem| problem.contains("identity"))
    };
    assert!(world.run_until(5 * SECOND, refused));
    world.kill(SEED);
    assert!(world.run_until(90 * SECOND, |world| duties(world, 1) == DUTIES));
}

fn address(member: usize) -> IpAddr {
    format!("10.0.0.{}", 100 + member).parse().expect("an address")
}

/// What a table that is empty after a start does not tell: how many members there are.
#[test]
fn a_minority_that_restarts_is_no_majority() {
    for seed in 1..=4 {
        let mut world = cluster_with(seed, 5, Quorum::Majority);
        world.network.partition(&[0, 1, 2].map(address), &[3, 4].map(address));
        world.run_for(20 * SECOND);
        for member in [3, 4] {
            world.kill(member);
            world.start(member);
        }
        let owns = |world: &World| [3, 4].iter().any(|&member| duties(world, member) > 0);
        assert!(!world.run_until(120 * SECOND, owns), "seed {seed}: a minority owns");
        let core = world.members[3].core.as_ref().expect("it runs");
        let problems = core.status(world.now).problems;
        assert!(
            problems.iter().any(|problem| problem.starts_with("3 of the members of before")),
            "{problems:?}"
        );
        world.network.heal();
        assert!(world.run_until(30 * SECOND, |world| world.converged() && owns(world)), "seed {seed}");
    }
}

#[test]
fn islands_that_formed_without_a_seed_find_each_other() {
    for seed in 1..=4 {
        let mut world = cluster(seed, 5);
        (0..5).for_each(|member| world.kill(member));
        world.network.partition(&[1, 2].map(address), &[3, 4].map(address));
        (1..5).for_each(|member| world.start(member));
        world.run_for(150 * SECOND);
        assert!(!world.converged(), "seed {seed}");
        world.network.heal();
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: they stay apart");
    }
}

/// Started with a copy of the seed's state directory while all start, a node does not take the seed's place: the others
/// remember where that was.
#[test]
fn a_copy_that_starts_with_all_others_displaces_nobody() {
    for (seed, at) in (1..=6).flat_map(|seed| ["10.0.0.77", "10.0.0.177"].map(|at| (seed, at))) {
        let mut world = cluster(seed, 5);
        (0..5).for_each(|member| world.kill(member));
        world.run_for(SECOND);
        let copy = world.add_copy(SEED, &[at]);
        (1..5).for_each(|member| world.start(member));
        // Or the seed takes longer to come up.
        world.run_for(SECOND * (seed as u32 % 3) * 3);
        world.start(SEED);
        let (mut both, mut alone) = (false, false);
        for _ in 0..1_500 {
            world.run_for(SECOND / 50);
            both |= duties(&world, SEED) > 0 && duties(&world, copy) > 0;
            alone |= duties(&world, copy) == DUTIES;
        }
        let runs = |member: usize| world.members[member].core.is_some();
        assert!(world.converged() && runs(SEED) && !runs(copy), "seed {seed}, {at}");
        assert!(!both && !alone, "seed {seed}, {at}: the copy owned something, {both}");
    }
}

/// One that moved while all were down is waited for where it was, and let in then; one that is not back after that, too.
#[test]
fn who_moved_while_all_were_down_is_let_in() {
    for seed in 1..=4 {
        let mut world = cluster(seed, 5);
        (0..5).for_each(|member| world.kill(member));
        for moved in [SEED, 2] {
            world.change_adapters(moved, |adapters| {
                adapters[0].address = format!("10.0.0.{}", 200 + moved).parse().expect("an address");
            });
        }
        (0..5).for_each(|member| world.start(member));
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}");
        world.run_for(30 * SECOND);
        assert!(world.converged() && duties(&world, SEED) + duties(&world, 2) > 0, "seed {seed}");
        let problems =
            |at: usize| world.members[at].core.as_ref().map(|core| core.status(world.now).problems);
        assert!((0..5).all(|at| problems(at).is_some_and(|problems| problems.is_empty())), "seed {seed}");
    }
}
