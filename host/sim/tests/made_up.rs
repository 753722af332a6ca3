//! What entries of nodes that never ran cost those who hold them.

use std::alloc::System;
use std::time::Duration;

use overlan_sim::forged::made_up;
use overlan_sim::{Insider, Network, World};
use overlan_wire::Frame;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MALLORY: usize = 2;
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn an_entry_of_nobody_costs_little() {
    let mut world = World::new(81, Network::with_delay(Duration::from_micros(100)));
    world.add("a", &["10.1.1.2", "10.1.2.2"], &[]);
    world.add("b", &["10.2.1.2", "10.2.2.2"], &["10.1.1.2"]);
    world.add("mallory", &["10.3.1.2", "10.3.2.2"], &["10.1.1.2"]);
    assert!(world.run_until(Duration::from_secs(5), World::converged));
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    world.run_for(Duration::from_secs(10));
    let counters =
        |world: &World| world.members[0].core.as_ref().expect("it runs").status(world.now).counters;
    let before = counters(&world).policy_questions;
    let mut next = 0;
    // Bytes allocated for the next entries, each in its own datagram.
    let mut take = |world: &mut World, count: u32| {
        let records: Vec<Vec<u8>> = (next..next + count).map(|number| made_up(number, 1, 8).1).collect();
        next += count;
        let region = Region::new(ALLOCATOR);
        for record in &records {
            mallory.cluster_frame(world, 0, &Frame::Record(record));
            world.run_for(PAUSE);
        }
        region.change().bytes_allocated / records.len()
    };
    take(&mut world, 500);
    // One by one, a hundred a second: what is done for the whole table is done for several together.
    let each = take(&mut world, 50);
    let core = world.members[0].core.as_ref().expect("it runs");
    assert_eq!(core.table().entries.len(), 3 + 550);
    let asked = counters(&world).policy_questions - before;
    assert!(asked < 1_000, "{asked} questions about 550 that never were");
    assert!(each < 1_500_000, "an entry among 500 allocates {each} bytes");
}
