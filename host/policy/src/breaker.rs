//! Stops asking a plugin that keeps failing.
//!
//! ```text
//!            faults_to_open faults in a row             now >= retry_at
//!   Closed ---------------------------------> Open ---------------------> HalfOpen
//!     ^                                        ^                            |   |
//!     |                                        +---- a fault: backoff x 2 --+   |
//!     +------------------------------- an answer -------------------------------+
//! ```

use std::time::Duration;

/// When a breaker opens and how long it stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Faults in a row that open it, at least 1. Default 3. More tolerates flaky plugins, at the
    /// price of that many late or missing decisions.
    pub faults_to_open: u32,
    /// How long it stays open the first time. Default 1 s.
    pub first_backoff: Duration,
    /// The longest it stays open; the time doubles up to here. Default 5 min.
    pub max_backoff: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            faults_to_open: 3,
            first_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
        }
    }
}

/// Whether a plugin is being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is asked.
    Closed {
        /// Faults in a row so far.
        faults: u32,
    },
    /// It is not asked before `retry_at`.
    Open {
        /// When it is tried again, on the caller's clock.
        retry_at: Duration,
        /// How long the breaker was opened for.
        backoff: Duration,
    },
    /// The question under way decides: an answer closes, a fault opens for longer.
    HalfOpen {
        /// How long the breaker was opened for last.
        backoff: Duration,
    },
}

#[derive(Clone, Copy)]
enum Event {
    Question,
    Answer,
    Fault,
}

pub(crate) struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self { config, state: BreakerState::Closed { faults: 0 } }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a question may go through; if not, when the next may.
    pub(crate) fn handle_question(&mut self, now: Duration) -> Result<(), Duration> {
        self.step(Event::Question, now);
        match self.state {
            BreakerState::Open { retry_at, .. } => Err(retry_at),
            BreakerState::Closed { .. } | BreakerState::HalfOpen { .. } => Ok(()),
        }
    }

    pub(crate) fn handle_answer(&mut self, now: Duration) {
        self.step(Event::Answer, now);
    }

    pub(crate) fn handle_fault(&mut self, now: Duration) {
        self.step(Event::Fault, now);
    }

    fn step(&mut self, event: Event, now: Duration) {
        use BreakerState::{Closed, HalfOpen, Open};
        let open = |backoff: Duration| {
            let backoff = backoff.min(self.config.max_backoff);
            Open { retry_at: now.saturating_add(backoff), backoff }
        };
        self.state = match (self.state, event) {
            (state @ Closed { .. }, Event::Question) => state,
            (Closed { .. }, Event::Answer) => Closed { faults: 0 },
            (Closed { faults }, Event::Fault) if faults.saturating_add(1) >= self.config.faults_to_open => {
                open(self.config.first_backoff)
            }
            (Closed { faults }, Event::Fault) => Closed { faults: faults + 1 },
            (Open { retry_at, backoff }, Event::Question) if now >= retry_at => HalfOpen { backoff },
            // Nothing was asked while open, so nothing is heard; an outcome would be a stray one.
            (state @ Open { .. }, Event::Question | Event::Answer | Event::Fault) => state,
            (state @ HalfOpen { .. }, Event::Question) => state,
            (HalfOpen { .. }, Event::Answer) => Closed { faults: 0 },
            (HalfOpen { backoff }, Event::Fault) => open(backoff.saturating_mul(2)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn opens_after_faults_in_a_row_and_doubles() {
        let mut breaker = Breaker::new(BreakerConfig { max_backoff: s(3), ..BreakerConfig::default() });
        for _ in 0..2 {
            assert_eq!(breaker.handle_question(s(0)), Ok(()));
            breaker.handle_fault(s(0));
        }
        breaker.handle_answer(s(0));
        assert_eq!(breaker.state(), BreakerState::Closed { faults: 0 });
        for _ in 0..3 {
            breaker.handle_fault(s(10));
        }
        assert_eq!(breaker.handle_question(s(10)), Err(s(11)));
        assert_eq!(breaker.handle_question(s(11)), Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen { backoff: s(1) });
        breaker.handle_fault(s(12));
        assert_eq!(breaker.state(), BreakerState::Open { retry_at: s(14), backoff: s(2) });
        assert_eq!(breaker.handle_question(s(14)), Ok(()));
        breaker.handle_fault(s(14));
        assert_eq!(breaker.handle_question(s(15)), Err(s(17)), "capped at max_backoff");
        assert_eq!(breaker.handle_question(s(17)), Ok(()));
        breaker.handle_answer(s(17));
        assert_eq!(breaker.state(), BreakerState::Closed { faults: 0 });
    }
}
