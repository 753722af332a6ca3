//! What members cost that have nothing to do: how often each wakes, and what it sends.

use std::time::Duration;

use overlan_sim::{Network, World};

const DELAY: Duration = Duration::from_micros(100);
/// Policies look at the age of a state for its first half a minute.
const SETTLED: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);

/// Members that idle, each with so many adapters: of each, wake-ups and datagrams within a minute.
fn idle(seed: u64, members: usize, adapters: usize) -> Vec<(u64, u64)> {
    let mut world = World::new(seed, Network::with_delay(DELAY));
    for member in 0..members {
        let addresses: Vec<String> =
            (1..=adapters).map(|network| format!("10.{network}.0.{}", member + 1)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.add(&format!("m{member}"), &addresses, if member == 0 { &[] } else { &["10.1.0.1"] });
    }
    assert!(world.run_until(Duration::from_secs(20), World::converged), "seed {seed}: no convergence");
    world.run_for(SETTLED);
    let before: Vec<_> = world.members.iter().map(|member| (member.wakes, member.sent)).collect();
    world.run_for(MINUTE);
    let after = world.members.iter().map(|member| (member.wakes, member.sent));
    after.zip(before).map(|(after, before)| (after.0 - before.0, after.1 - before.1)).collect()
}

#[test]
fn print() {
    for (members, adapters) in [(1, 1), (2, 1), (2, 2), (5, 1), (8, 1), (10, 1)] {
        for seed in 0..3 {
            println!("{members} {adapters}: {:?}", idle(seed, members, adapters));
        }
    }
}
