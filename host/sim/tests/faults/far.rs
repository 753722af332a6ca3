//! Members that are far from each other: round trips of up to two seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use overlan_core::Config;
use overlan_core::status::MemberState;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

use crate::common::{MS, SECOND, address, core, lan, two};

fn far(round_trip: Duration) -> Network {
    Network { delay: round_trip / 2, jitter: MS, ..Network::default() }
}

/// Members with one adapter each that all know each other's addresses: they greet and open sessions at once.
fn all_know_all(seed: u64, count: usize, network: Network) -> World {
    let mut world = World::new(seed, network);
    for index in 0..count {
        let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
        let others = (0..count).filter(|&other| other != index);
        config.seeds = others.map(|other| (address(other, 0), 7400).into()).collect();
        world.add_with(config, &[&address(index, 0).to_string()]);
    }
    world
}

/// How often somebody was suspected, and how often found dead, in 20 ms steps of this time.
fn watch(world: &mut World, duration: Duration) -> (u32, u32) {
    let (mut found, mut before) = ((0, 0), BTreeMap::new());
    let end = world.now + duration;
    while world.now < end {
        world.run_for(20 * MS);
        let running =
            world.members.iter().enumerate().filter_map(|(at, member)| Some((at, member.core.as_ref()?)));
        for (at, core) in running {
            for seen in core.members(world.now) {
                let was = before.insert((at, seen.id), seen.state).unwrap_or(MemberState::Alive);
                found.0 += u32::from(was != seen.state && seen.state == MemberState::Suspect);
                found.1 += u32::from(was != seen.state && seen.state == MemberState::Down);
            }
        }
    }
    found
}

fn datagram(world: &World) -> usize {
    core(world, 0).paths(world.now)[0].datagram as usize
}

#[test]
fn long_paths_carry_large_datagrams() {
    for (seed, round_trip) in [300, 500].into_iter().enumerate() {
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
    for (seed, round_trip) in [300, 500].into_iter().enumerate() {
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

#[test]
fn nobody_is_suspected_for_being_far() {
    for (seed, round_trip) in [300, 500, 700].into_iter().enumerate() {
        for count in [2, 3] {
            let mut world = all_know_all(seed as u64, count, far(round_trip * MS));
            assert!(world.run_until(60 * SECOND, World::converged));
            // The first answer tells how far it is.
            let (suspected, dead) = watch(&mut world, 30 * SECOND);
            let most = if round_trip > 1_000 { count as u32 * (count as u32 - 1) } else { 0 };
            assert!(suspected <= most, "{count} at {round_trip} ms: suspected {suspected} times");
            assert_eq!(dead, 0, "{count} at {round_trip} ms");
            assert_eq!(watch(&mut world, 30 * SECOND), (0, 0), "{count} at {round_trip} ms");
        }
    }
}

#[test]
fn a_cut_path_kills_nobody_who_answers_by_another() {
    for round_trip in [20, 100, 200, 300, 500, 700] {
        for seed in 0..4 {
            let mut world = two(seed, 2, far(round_trip * MS));
            assert!(world.run_until(60 * SECOND, World::converged));
            world.run_for(20 * SECOND);
            world.network.partition(&[address(0, 0)], &[address(1, 0), address(1, 1)]);
            let (_, dead) = watch(&mut world, 30 * SECOND);
            assert_eq!(dead, 0, "{round_trip} ms, seed {seed}");
        }
    }
}

#[test]
fn the_dead_are_found_as_soon_as_their_distance_allows() {
    let near = [(lan(), 3_600), (far(50 * MS), 3_600), (far(100 * MS), 3_600)];
    let distant = [(far(500 * MS), 6_000)];
    for (network, most_ms) in near.into_iter().chain(distant) {
        for (seed, count) in [(0, 2), (1, 2), (2, 3)] {
            let what = format!("{:?} one way, {count} members", network.delay);
            let mut world = all_know_all(seed, count, network.clone());
            assert!(world.run_until(60 * SECOND, World::converged), "{what}");
            world.run_for(20 * SECOND + seed as u32 * 130 * MS);
            world.kill(1);
            let id = world.members[1].id;
            assert!(world.run_until(most_ms * MS, |world| !core(world, 0).is_live(id)), "{what}");
        }
    }
}
