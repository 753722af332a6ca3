//! What the suites share.

use std::net::IpAddr;
use std::time::Duration;

use overlan_contract::assignment::Responsibility;
use overlan_core::{Core, Fate};
use overlan_seal::Seal;
use overlan_sim::{Network, World};
use overlan_wire::MessageMode;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// Two members with this many adapters each, every adapter on a subnet of its own.
pub(crate) fn two(seed: u64, adapters: usize, network: Network) -> World {
    let mut world = World::new(seed, network);
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let addresses: Vec<String> = (0..adapters).map(|at| address(index, at).to_string()).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.add(name, &addresses, if index == 0 { &[] } else { &["10.0.0.2"] });
    }
    world
}

/// This many members with one adapter each; the first is everybody's seed.
pub(crate) fn many(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, lan());
    for index in 0..count {
        let own = address(index, 0).to_string();
        world.add(&format!("n{index}"), &[&own], if index == 0 { &[] } else { &["10.0.0.2"] });
    }
    world
}

pub(crate) fn address(member: usize, adapter: usize) -> IpAddr {
    IpAddr::from([10, member as u8, adapter as u8, 2])
}

/// So many duties for one owner each.
pub(crate) fn duties(count: usize) -> Vec<Responsibility> {
    let duty = |at| Responsibility {
        name: format!("r{at}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Vec::new(),
    };
    (0..count).map(duty).collect()
}

pub(crate) fn lan() -> Network {
    Network { delay: Duration::from_micros(100), jitter: Duration::from_micros(50), ..Network::default() }
}

pub(crate) fn core(world: &World, member: usize) -> &Core<Seal> {
    world.members[member].core.as_ref().expect("it runs")
}

/// Cuts a group of members off from the others.
pub(crate) fn isolate(world: &mut World, group: &[usize]) {
    let of = |inside: bool| -> Vec<IpAddr> {
        let members = (0..world.members.len()).filter(|member| group.contains(member) == inside);
        members.flat_map(|member| (0..4).map(move |adapter| address(member, adapter))).collect()
    };
    let (some, others) = (of(true), of(false));
    world.network.partition(&some, &others);
}

/// Every third message is reliable, the others ordered; every fifth is empty but for its number.
pub(crate) fn mode(token: u64) -> MessageMode {
    if token.is_multiple_of(3) { MessageMode::Reliable } else { MessageMode::Ordered }
}

/// A numbered payload.
pub(crate) fn payload(token: u64) -> Vec<u8> {
    let len = [8, 700, 5_000, 40_000, 9][token as usize % 5];
    let mut bytes = vec![token as u8; len];
    bytes[..8].copy_from_slice(&token.to_be_bytes());
    bytes
}

/// Messages `tokens` from the first member to the second: each exactly once and whole, ordered ones in order,
/// each with the one fate `delivered`.
pub(crate) fn check_exactly_once(world: &World, tokens: std::ops::Range<u64>, what: &str) {
    let from = world.members[0].id;
    let mut received = Vec::new();
    for message in world.members[1].received.iter().filter(|message| message.from == from) {
        let token = u64::from_be_bytes(*message.payload.first_chunk().expect("numbered"));
        assert_eq!(message.payload, payload(token), "{what}: {token} is damaged");
        received.push(token);
    }
    received.retain(|token| tokens.contains(token));
    let ordered: Vec<u64> =
        received.iter().copied().filter(|&token| mode(token) == MessageMode::Ordered).collect();
    assert!(ordered.is_sorted(), "{what}: out of order {ordered:?}");
    received.sort_unstable();
    assert_eq!(received, tokens.clone().collect::<Vec<_>>(), "{what}: lost or doubled");
    for token in tokens {
        assert_eq!(world.members[0].fates.get(&token), Some(&vec![Fate::Delivered]), "{what}: {token}");
    }
}
