//! Members that are far from each other: round trips of up to two seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use overlan_core::Config;
use overlan_core::status::MemberState;
use overlan_sim::{Network, World};
use overlan_wire::{BootId, MessageMode};

use crate::common::{MS, SECOND, address, check_exactly_once, core, lan, mode, payload, two};

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

/// Whether all paths of all members are up.
fn verified(world: &World) -> bool {
    let states = |member: usize| core(world, member).paths(world.now).into_iter().map(|path| path.state);
    (0..world.members.len()).all(|member| states(member).all(|state| format!("{state:?}") == "Up"))
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

/// Sends in all modes from the first member to the second, and checks what arrived.
fn exchange(world: &mut World, tokens: std::ops::Range<u64>, what: &str) {
    let before = world.members[1].received.len();
    for token in tokens.clone() {
        assert!(world.send(0, 1, mode(token), payload(token), token), "{what}");
    }
    let unreliable = 5;
    for token in 0..unreliable {
        assert!(world.send(0, 1, MessageMode::Unreliable, u64::MAX.to_be_bytes().to_vec(), 1_000 + token));
    }
    let told = |world: &World| tokens.clone().all(|token| world.members[0].fates.contains_key(&token));
    assert!(world.run_until(60 * SECOND, told), "{what}: messages are missing");
    world.run_for(5 * SECOND);
    let received = &world.members[1].received[before..];
    let count = received.iter().filter(|message| message.mode == MessageMode::Unreliable).count();
    assert_eq!(count as u64, unreliable, "{what}: unreliable ones");
    check_exactly_once(world, tokens, what);
}

#[test]
fn one_session_comes_up_however_long_the_round_trip() {
    for (seed, round_trip) in [450, 900, 1_300, 1_600, 2_000].into_iter().enumerate() {
        for count in [2, 3] {
            let what = format!("{count} members, {round_trip} ms");
            let round_trip = round_trip * MS;
            for mut world in
                [all_know_all(seed as u64, count, far(round_trip)), two(seed as u64, 1, far(round_trip))]
            {
                assert!(world.run_until(5 * round_trip, World::converged), "{what}: no convergence");
                // Opening, answer, proof, and a probe each way.
                assert!(world.run_until(5 * round_trip, verified), "{what}: no session");
                exchange(&mut world, 0..20, &what);
                let members = 0..world.members.len();
                let completed: u64 = members
                    .map(|member| core(&world, member).status(world.now).counters.handshakes_completed)
                    .sum();
                let pairs = world.members.len() as u64 * (world.members.len() as u64 - 1) / 2;
                assert!(completed <= 3 * pairs, "{what}: {completed} handshakes of {pairs} pairs");
                let before = handshakes(&world);
                world.run_for(30 * SECOND);
                assert_eq!(handshakes(&world), before, "{what}: handshakes go on");
            }
        }
    }
}

fn handshakes(world: &World) -> u64 {
    let counters = (0..world.members.len()).map(|member| core(world, member).status(world.now).counters);
    counters.map(|counters| counters.handshakes_started + counters.handshakes_completed).sum()
}

#[test]
fn far_members_come_back_and_stand_loss() {
    for seed in 0..4 {
        let network =
            Network { loss_ppm: 50_000, duplicate_ppm: 20_000, jitter: 100 * MS, ..far(1_200 * MS) };
        let mut world = all_know_all(seed, 2, network);
        assert!(world.run_until(60 * SECOND, |world| world.converged() && verified(world)), "seed {seed}");
        world.network.loss_ppm = 0;
        exchange(&mut world, 0..10, &format!("seed {seed}"));
        world.kill(1);
        world.run_for(SECOND);
        world.members[1].received.clear();
        world.start(1);
        world.run_for(5 * SECOND);
        assert!(world.run_until(60 * SECOND, |world| world.converged() && verified(world)), "seed {seed}");
        exchange(&mut world, 10..20, &format!("seed {seed}, restarted"));
    }
}

fn datagram(world: &World) -> usize {
    core(world, 0).paths(world.now)[0].datagram as usize
}

#[test]
fn long_paths_carry_large_datagrams() {
    for (seed, round_trip) in [300, 500, 1_000, 2_000].into_iter().enumerate() {
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
    for (seed, round_trip) in [300, 500, 900].into_iter().enumerate() {
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
    for (seed, round_trip) in [300, 500, 700, 1_000, 2_000].into_iter().enumerate() {
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
    for round_trip in [20, 100, 200, 300, 500, 700, 1_000, 2_000] {
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
    let distant = [(far(500 * MS), 6_000), (far(SECOND), 10_000), (far(2 * SECOND), 20_000)];
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
