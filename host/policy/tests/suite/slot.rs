//! Swapping, rolling back, counting, and leaving a failing plugin alone.

use std::time::Duration;

use crate::guests::{questions, sizing};
use overlan_policy::{
    BreakerConfig, BreakerState, Engine, FaultKind, Limits, NoAnswer, Plugin, Sizing, Slot,
};

const NOW: Duration = Duration::from_secs(100);

fn plugin(engine: &Engine, datagram: u32) -> Plugin<Sizing> {
    let file = sizing(datagram, 0, 65_536).component();
    Plugin::load(engine, &format!("d{datagram}"), &file, &[], Limits::default()).unwrap()
}

fn datagram(slot: &mut Slot<Sizing>) -> u32 {
    slot.ask(&questions::sizing(), NOW).unwrap().answer.datagram
}

#[test]
fn swap_rollback_unset() {
    fn assert_send<T: Send>(_: &T) {}
    let engine = Engine::new().unwrap();
    let mut slot = Slot::new(BreakerConfig::default());
    assert_send(&slot);
    assert_eq!(slot.ask(&questions::sizing(), NOW), Err(NoAnswer::Empty));
    assert!(!slot.rollback());
    assert!(slot.swap(plugin(&engine, 1_300)).is_none());
    assert_eq!(datagram(&mut slot), 1_300);
    assert!(slot.swap(plugin(&engine, 1_400)).is_none());
    assert_eq!((datagram(&mut slot), slot.counters().answers, slot.totals().answers), (1_400, 1, 2));
    assert!(slot.rollback());
    assert_eq!((datagram(&mut slot), slot.previous().unwrap().name()), (1_300, "d1400"));
    assert_eq!(slot.swap(plugin(&engine, 1_450)).unwrap().name(), "d1400");
    slot.unset();
    assert_eq!(slot.ask(&questions::sizing(), NOW), Err(NoAnswer::Empty));
    assert!(slot.rollback());
    assert_eq!(datagram(&mut slot), 1_450);
}

#[test]
fn the_breaker_stops_asking_and_tries_again() {
    let engine = Engine::new().unwrap();
    let mut slot = Slot::new(BreakerConfig::default());
    slot.swap(plugin(&engine, 7));
    for _ in 0..3 {
        assert!(matches!(slot.ask(&questions::sizing(), NOW), Err(NoAnswer::Fault(_))));
    }
    let retry_at = NOW + Duration::from_secs(1);
    assert_eq!(slot.ask(&questions::sizing(), NOW), Err(NoAnswer::Open { retry_at }));
    assert!(matches!(slot.ask(&questions::sizing(), retry_at), Err(NoAnswer::Fault(_))));
    assert!(
        matches!(slot.breaker(), BreakerState::Open { backoff, .. } if backoff == Duration::from_secs(2))
    );
    let counters = slot.counters();
    assert_eq!((counters.questions, counters.skipped, counters.faults[&FaultKind::Invalid]), (4, 1, 4));
    assert!(counters.last_fault.as_ref().unwrap().contains("datagram is 7"));
    slot.swap(plugin(&engine, 1_400));
    assert_eq!(datagram(&mut slot), 1_400);
}
