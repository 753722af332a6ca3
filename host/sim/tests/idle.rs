//! What members cost that have nothing to do: how often each wakes, what it sends, and what memory a peer takes.

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use overlan_sim::{Network, World};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held while members are measured: the allocator counts for all threads of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Policies look at the age of a state for its first half a minute.
const SETTLED: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);

/// So many members with so many adapters each, that have known each other for a while.
fn settled(seed: u64, members: usize, adapters: usize) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_micros(100)));
    for member in 1..=members {
        let addresses: Vec<String> =
            (1..=adapters).map(|network| format!("10.{network}.0.{member}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.add(&format!("m{member}"), &addresses, &["10.1.0.1"]);
    }
    assert!(world.run_until(Duration::from_secs(20), World::converged), "seed {seed}: no convergence");
    world.run_for(SETTLED);
    world
}

/// Wake-ups and datagrams of each member within an idle minute.
fn idle_minute(seed: u64, members: usize, adapters: usize) -> Vec<(u64, u64)> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = settled(seed, members, adapters);
    let before: Vec<_> = world.members.iter().map(|member| (member.wakes, member.sent)).collect();
    world.run_for(MINUTE);
    let after = world.members.iter().map(|member| (member.wakes, member.sent));
    after.zip(before).map(|(after, before)| (after.0 - before.0, after.1 - before.1)).collect()
}

/// Heap of a member, bytes.
fn heap(members: usize, adapters: usize) -> usize {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let region = Region::new(ALLOCATOR);
    let world = settled(1, members, adapters);
    let change = region.change();
    drop(world);
    (change.bytes_allocated - change.bytes_deallocated) / members
}

/// Each half second: a wake-up for a probe, one for its answer. The rest is path MTU discovery's, each 15 s.
const PAIR: u64 = 280;
/// Others do not keep the beat to the microsecond; the leader hears from each of them each second.
const MANY: u64 = 480;

#[test]
fn a_lone_member_wakes_each_second() {
    assert_eq!(idle_minute(1, 1, 1), [(60, 0)]);
}

#[test]
fn two_members_share_their_wake_ups() {
    for (seed, adapters) in [(1, 1), (2, 1), (3, 2)] {
        for (wakes, sent) in idle_minute(seed, 2, adapters) {
            assert!(wakes <= PAIR, "seed {seed}: {wakes} wake-ups of members with {adapters} adapters");
            let paths = (adapters * adapters) as u64;
            assert!(sent <= 280 + 150 * paths, "seed {seed}: {sent} datagrams over {paths} paths");
        }
    }
}

#[test]
fn ten_members_wake_little_more_often_than_two() {
    let mut wakes: Vec<u64> = idle_minute(1, 10, 1).into_iter().map(|(wakes, _)| wakes).collect();
    wakes.sort_unstable();
    let leader = wakes.pop().expect("there are ten");
    assert!(wakes.iter().all(|&wakes| wakes <= MANY), "{wakes:?}");
    assert!(leader <= MANY + 10 * MINUTE.as_secs(), "{leader}");
}

/// Most memory of an idle peer, in bytes, by adapters of each member: one path, and four.
const PEER: [(usize, usize); 2] = [(1, 6_000), (2, 8_000)];

/// Among few all paths are probed, in sessions; among many there are sessions with those alone that there was traffic with.
#[test]
fn an_idle_peer_takes_little_memory() {
    for (adapters, most) in PEER {
        for (few, many) in [(2, 8), (10, 20)] {
            let peer = (heap(many, adapters) - heap(few, adapters)) / (many - few);
            assert!(peer < most, "with {adapters} adapters each of {many} peers takes {peer} bytes");
        }
    }
}
