//! Members that can't reach each other, both alive by what a third says.

use std::net::IpAddr;
use std::time::Duration;

use overlan_contract::Attributes;
use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_core::config::Quorum;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

const SECOND: Duration = Duration::from_secs(1);
/// The node ids, and with them who leads, are others with each seed.
const ADDRESSES: [&str; 3] = ["10.1.1.2", "10.2.1.2", "10.3.1.2"];
/// Who can't reach each other, and the third.
const HOLES: [(usize, usize, usize); 3] = [(0, 1, 2), (0, 2, 1), (1, 2, 0)];

/// Three members, configured with duties.
fn world(seed: u64, addresses: [&[&str]; 3], quorum: Quorum) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
    for (index, addresses) in addresses.into_iter().enumerate() {
        let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
        config.responsibilities = duties("configured");
        config.quorum = quorum;
        world.add_with(config, addresses);
    }
    world
}

fn meet(seed: u64, quorum: Quorum) -> World {
    let mut world = world(seed, [&ADDRESSES[0..1], &ADDRESSES[1..2], &ADDRESSES[2..3]], quorum);
    for index in 1..3 {
        reseed(&mut world, index, ADDRESSES[0]);
    }
    assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

/// Starts a member anew with this seed.
fn reseed(world: &mut World, index: usize, seed: &str) {
    world.kill(index);
    let seed: IpAddr = seed.parse().expect("an address");
    world.configure(index, |config| config.seeds = vec![(seed, 7400).into()]);
    world.start(index);
}

fn duties(name: &str) -> Vec<Responsibility> {
    let duty = |n| Responsibility {
        name: format!("{name}-{n}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Attributes::new(),
    };
    (0..24).map(duty).collect()
}

fn cut(world: &mut World, a: usize, b: usize) {
    let address = |index: usize| ADDRESSES[index].parse().expect("an address");
    world.network.partition(&[address(a)], &[address(b)]);
}

/// One member is alone for a while and then reaches the third again, but not the other, which has restarted meanwhile.
/// (One that did not restart would stay dead to it: nobody tells a member in a hole that it has to object.)
fn come_back(world: &mut World, alone: usize, other: usize) {
    world.network.dead.insert(ADDRESSES[alone].parse().expect("an address"));
    world.run_for(20 * SECOND);
    let third = 3 - alone - other;
    reseed(world, other, ADDRESSES[third]);
    world.run_for(5 * SECOND);
    world.network.heal();
    cut(world, alone, other);
}

/// All pairs of one that was alone and one that it does not reach.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    HOLES.into_iter().flat_map(|(a, b, _)| [(a, b), (b, a)])
}

/// A member that sees one alive whom its leader takes for dead reminds the leader, and they do not answer each other
/// as fast as they can.
#[test]
fn reminders_are_few() {
    for (alone, other) in pairs() {
        let mut world = meet(0, Quorum::None);
        come_back(&mut world, alone, other);
        let sent = |world: &World| world.members.iter().map(|member| member.sent).sum::<u64>();
        for second in 0..40 {
            let before = sent(&world);
            world.run_for(SECOND);
            let datagrams = sent(&world) - before;
            assert!(datagrams < 500, "{alone} without {other}, second {second}: {datagrams} datagrams");
        }
    }
}
