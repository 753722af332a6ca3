//! Swapping without end: nothing grows.

use std::time::Duration;

use overlan_guests::{questions, sizing};
use overlan_policy::{BreakerConfig, Engine, Limits, Plugin, Sizing, Slot};

const SWAPS: u32 = 1_000;
const WARM_UP: u32 = 200;

#[test]
fn a_thousand_swaps_do_not_grow_the_process() {
    let engine = Engine::new().expect("the engine runs here");
    let mut slot = Slot::<Sizing>::new(BreakerConfig::default());
    let mut after_warm_up = 0;
    for round in 0..SWAPS {
        let file = sizing(1_472, round, 65_536).component();
        let plugin = Plugin::load(&engine, "swap", &file, &[], Limits::default()).expect("it loads");
        drop(slot.swap(plugin));
        let answered = slot.ask(&questions::sizing(), Duration::ZERO).expect("it answers");
        assert_eq!(answered.answer.coalesce, round, "the new one answers at once");
        if round == WARM_UP {
            after_warm_up = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(after_warm_up);
    assert!(grown < 16 << 10, "resident memory grew by {grown} KiB over {} swaps", SWAPS - WARM_UP);
}

/// Resident memory of this process (`VmRSS`, proc(5)).
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
