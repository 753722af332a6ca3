//! Waiting, always bounded.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Panics
/// After `limit`, with `what` was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    within(limit, condition).unwrap_or_else(|| panic!("waited {limit:?} in vain for: {what}"))
}

/// Waits until `observe` gives a value that `enough` accepts.
///
/// # Panics
/// After `limit`, with the last value that was seen.
pub fn wait_until<T: Debug>(
    what: &str,
    limit: Duration,
    mut observe: impl FnMut() -> T,
    enough: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    within(limit, || {
        let seen = observe();
        if enough(&seen) {
            return Some(seen);
        }
        last = Some(seen);
        None
    })
    .unwrap_or_else(|| panic!("waited {limit:?} in vain for: {what}; last seen: {last:#?}"))
}

/// Checks that a condition holds at every look for as long as `period`.
///
/// # Panics
/// As soon as it does not hold.
pub fn stays(what: &str, period: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + period;
    while Instant::now() < end {
        assert!(holds(), "it did not stay so: {what}");
        thread::sleep(LOOK);
    }
}

/// Waits at most `limit` for a value.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK);
    }
}
