//! A member that holds the cluster key writes what it likes into the membership gossip: nobody that lives is taken
//! for dead for longer than it takes to object, and false deaths and restarts end as they should.

use std::time::Duration;

use foca::{Header, Member, Message, State};
use overlan_core::status::MemberState;
use overlan_sim::{Insider, Network, World};
use overlan_wire::{Frame, MessageMode};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const MALLORY: usize = 3;

/// The core's identity as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    id: [u8; 16],
    boot: [u8; 16],
    order: u64,
}

/// Gossip in the name of the fourth member, whose own core is stopped.
fn gossip(mallory: &mut Insider, world: &mut World, to: usize, updates: &[Member<Identity>]) {
    let (src, dst) = (identity(world, MALLORY, 0), identity(world, to, 0));
    let header = Header { src, src_incarnation: 0, dst, message: Message::Gossip };
    let mut data = postcard::to_allocvec(&header).expect("it encodes");
    data.extend((updates.len() as u16).to_be_bytes());
    updates.iter().for_each(|update| data.extend(postcard::to_allocvec(update).expect("it encodes")));
    mallory.cluster_frame(world, to, &Frame::Membership(&data));
}

/// A member's first identity, its order raised by `ahead`. Members of these tests publish once before they meet.
fn identity(world: &World, member: usize, ahead: u64) -> Identity {
    Identity { id: world.members[member].id.0, boot: world.credentials(member).1.0, order: 1 + ahead }
}

fn four(seed: u64) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_micros(100)));
    world.add("a", &["10.1.1.2"], &[]);
    for (name, address) in [("b", "10.2.1.2"), ("c", "10.3.1.2"), ("mallory", "10.4.1.2")] {
        world.add(name, &[address], &["10.1.1.2"]);
    }
    assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

fn state(world: &World, observer: usize, whom: usize) -> MemberState {
    let core = world.members[observer].core.as_ref().expect("it runs");
    let id = world.members[whom].id.to_string();
    core.members(world.now).into_iter().find(|member| member.id == id).expect("it is known").state
}

fn version(world: &World, whom: usize) -> u64 {
    let table = world.members[A].core.as_ref().expect("it runs").table();
    let id = world.members[whom].id.to_string();
    table.entries.into_iter().find(|entry| entry.id == id).expect("it is known").version
}

fn see_alive(world: &World, whom: usize) -> bool {
    [A, B, C].into_iter().filter(|&at| at != whom).all(|at| state(world, at, whom) == MemberState::Alive)
}

#[test]
fn an_identity_beyond_the_signed_version_counts_for_nothing() {
    for (seed, state) in [State::Down, State::Suspect, State::Alive].into_iter().enumerate() {
        let mut world = four(seed as u64);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let before = version(&world, B);
        for ahead in [before, 1 << 40, u64::MAX - 1] {
            for to in [A, B, C] {
                let forged = Member::new(identity(&world, B, ahead), u16::MAX, state);
                gossip(&mut mallory, &mut world, to, &[forged]);
            }
            assert!(
                !world.run_until(5 * SECOND, |world| !see_alive(world, B)),
                "{state:?} {ahead} was believed"
            );
        }
        assert_eq!(version(&world, B), before, "nothing to object to");
    }
}

#[test]
fn an_identity_of_another_boot_or_of_nobody_counts_for_nothing() {
    let mut world = four(4);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    let other_boot = Identity { boot: [7; 16], ..identity(&world, B, 0) };
    let nobody = (0..200).map(|n| Identity { id: [n; 16], boot: [n; 16], order: 1 });
    let mut updates: Vec<_> = nobody.map(Member::alive).collect();
    updates.push(Member::down(other_boot));
    for to in [A, B, C] {
        for chunk in updates.rchunks(20) {
            gossip(&mut mallory, &mut world, to, chunk);
        }
    }
    assert!(!world.run_until(5 * SECOND, |world| !see_alive(world, B)));
}

/// Its own version bounds what can be said of a member, so that the next one ends it.
#[test]
fn a_member_outranks_whatever_its_version_allows_to_be_forged() {
    for state in [State::Down, State::Suspect, State::Alive] {
        let mut world = four(5);
        // Versions that no identity was taken under.
        for mtu in [1_400, 1_300, 1_200] {
            world.change_adapters(B, |adapters| adapters[0].mtu = mtu);
        }
        assert!(world.run_until(5 * SECOND, World::converged));
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let before = version(&world, B);
        let forged = Member::new(identity(&world, B, before - 1), u16::MAX, state);
        for to in [A, C] {
            gossip(&mut mallory, &mut world, to, std::slice::from_ref(&forged));
        }
        world.run_for(Duration::from_millis(10));
        let outranked = |world: &World| see_alive(world, B) && version(world, B) > before;
        assert!(world.run_until(10 * SECOND, outranked), "{state:?}: b stays dead");
        assert!(!world.run_until(10 * SECOND, |world| !see_alive(world, B)), "{state:?}: b died again");
    }
}

#[test]
fn a_false_death_is_objected_to_and_loses_no_message() {
    let mut world = four(6);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    let boot = world.credentials(B).1;
    let mut sent = 0;
    for round in 0..5 {
        let first = identity(&world, B, 0);
        // The present order, whichever it is: the signed version at most.
        let updates: Vec<_> = (0..version(&world, B))
            .map(|order| Member::down(Identity { order: order + 1, ..first }))
            .collect();
        for _ in 0..4 {
            world.send(A, B, MessageMode::Ordered, vec![round], sent);
            sent += 1;
        }
        for to in [A, B, C] {
            gossip(&mut mallory, &mut world, to, &updates);
        }
        world.run_for(Duration::from_millis(5));
        let recovered = |world: &World| see_alive(world, B) && world.members[A].fates.len() as u64 == sent;
        assert!(world.run_until(10 * SECOND, recovered), "round {round}: b stays dead");
    }
    assert_eq!(world.credentials(B).1, boot);
    assert_eq!(world.members[B].received.len() as u64, sent);
    // An old identity, dead or alive, is old.
    let before = version(&world, B);
    let old = identity(&world, B, 0);
    for to in [A, B, C] {
        gossip(&mut mallory, &mut world, to, &[Member::down(old), Member::alive(old)]);
    }
    assert!(!world.run_until(5 * SECOND, |world| !see_alive(world, B)), "an old identity came back");
    assert_eq!(version(&world, B), before);
}

/// What both say under their new identities is for those that are gone, and nobody else is there to tell them.
#[test]
fn two_that_renew_their_identities_at_once_go_on_watching_each_other() {
    let mut world = World::new(9, Network::with_delay(Duration::from_millis(1)));
    world.add("a", &["10.1.1.2"], &[]);
    for (name, address) in [("b", "10.2.1.2"), ("c", "10.3.1.2")] {
        world.add(name, &[address], &["10.1.1.2"]);
    }
    assert!(world.run_until(5 * SECOND, World::converged));
    let mut insider = Insider::take_over(&mut world, C);
    let gone = |world: &World| [A, B].into_iter().all(|at| state(world, at, C) == MemberState::Down);
    assert!(world.run_until(10 * SECOND, gone));
    for to in [A, B] {
        let (src, dst) = (identity(&world, C, 0), identity(&world, to, 0));
        let header = Header { src, src_incarnation: 0, dst, message: Message::TurnUndead };
        let data = postcard::to_allocvec(&header).expect("it encodes");
        insider.cluster_frame(&mut world, to, &Frame::Membership(&data));
    }
    world.run_for(10 * SECOND);
    assert_eq!([version(&world, A), version(&world, B)], [2, 2], "both renewed");
    world.kill(B);
    assert!(world.run_until(5 * SECOND, |world| state(world, A, B) == MemberState::Down), "nobody looks");
}

/// What a flood of false deaths can make a member publish is bounded.
#[test]
fn a_flood_of_false_deaths_costs_few_versions() {
    let mut world = four(7);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    let before = version(&world, B);
    for _ in 0..1_000 {
        let first = identity(&world, B, 0);
        let latest = version(&world, B);
        let updates: Vec<_> = (latest.saturating_sub(10)..latest)
            .map(|order| Member::down(Identity { order: order + 1, ..first }))
            .collect();
        gossip(&mut mallory, &mut world, B, &updates);
        world.run_for(Duration::from_millis(1));
    }
    assert!(version(&world, B) - before <= 6, "{} versions in a second", version(&world, B) - before);
    assert!(world.run_until(10 * SECOND, |world| see_alive(world, B)));
}

#[test]
fn restarts_and_real_deaths_are_seen() {
    let mut world = four(8);
    for _ in 0..3 {
        world.kill(B);
        world.run_for(Duration::from_millis(300));
        world.start(B);
        assert!(world.run_until(20 * SECOND, World::converged), "b did not come back");
    }
    world.kill(B);
    let dead = |world: &World| [A, C].into_iter().all(|at| state(world, at, B) == MemberState::Down);
    assert!(world.run_until(30 * SECOND, dead));
    world.start(B);
    assert!(world.run_until(20 * SECOND, World::converged), "b did not come back from the dead");
}
