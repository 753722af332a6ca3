//! Whether a path answers.
//!
//! ```text
//!              reply                    late, misses reached
//! Unverified ────────▶ Up ◀───reply─── Suspect ────────────▶ Down
//!      ▲                └──late──────────▲                    │ ▲
//!      │                                           reply: Up, held down
//!      └── adapter up ── Down ◀── adapter down ── any state
//! ```
//!
//! A reply by another path takes one that is down up `one_way`: it carries traffic while no path works both ways.

use core::time::Duration;

use overlan_contract::failover::{PathState, Timing};

use crate::time::Instant;

/// Why a path is up that works one way.
const DETOUR: &str = "replies come by another path";

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthEvent {
    /// A reply came by it in time, or late: it works both ways.
    Reply,
    /// A reply came by another path, while none works both ways: this one works one way.
    Detour,
    /// No reply within the reply timeout.
    Late,
    /// The adapter at one end is down; the text names the end.
    AdapterDown(&'static str),
    /// The adapters at both ends are up again.
    AdapterUp,
}

/// Every event, for table tests.
#[cfg(test)]
pub(crate) const EVENTS: [HealthEvent; 5] = [
    HealthEvent::Reply,
    HealthEvent::Detour,
    HealthEvent::Late,
    HealthEvent::AdapterDown("test"),
    HealthEvent::AdapterUp,
];

/// The health of one path.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    state: PathState,
    since: Instant,
    why: &'static str,
    misses: u32,
    adapter_down: bool,
    one_way: bool,
    held_until: Option<Instant>,
    waiting_since: Option<Instant>,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        Health {
            state: PathState::Unverified,
            since: now,
            why: "not yet probed",
            misses: 0,
            adapter_down: false,
            one_way: false,
            held_until: None,
            waiting_since: None,
        }
    }

    pub(crate) fn state(&self) -> PathState {
        self.state
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn why(&self) -> &'static str {
        self.why
    }

    /// An adapter at one end is down: nothing may be sent.
    pub(crate) fn adapter_down(&self) -> bool {
        self.adapter_down
    }

    /// Its replies come by other paths alone.
    pub(crate) fn one_way(&self) -> bool {
        self.one_way
    }

    /// Since when a reply is awaited.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// Something that wants a reply went out.
    pub(crate) fn note_asked(&mut self, now: Instant) {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }

    /// Nothing is asked any more until the next probe.
    pub(crate) fn stop_waiting(&mut self) {
        self.waiting_since = None;
    }

    /// The wait for a reply starts over.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.waiting_since = self.waiting_since.map(|_| now);
    }

    /// Back after a failure and not yet trusted.
    pub(crate) fn held_down(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// When the hold-down ends, if it lies ahead.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|&until| now < until)
    }

    pub(crate) fn apply(&mut self, event: HealthEvent, timing: &Timing, now: Instant) {
        use HealthEvent::{AdapterDown, AdapterUp, Detour, Late, Reply};
        use PathState::{Down, Suspect, Unverified, Up};
        let was_one_way = self.one_way;
        match event {
            Reply => (self.misses, self.waiting_since, self.one_way) = (0, None, false),
            Detour if self.one_way || self.state == Down => (self.misses, self.waiting_since) = (0, None),
            Detour => {}
            Late => (self.misses, self.waiting_since) = (self.misses.saturating_add(1), Some(now)),
            AdapterDown(_) => (self.adapter_down, self.waiting_since) = (true, None),
            AdapterUp => self.adapter_down = false,
        }
        match (self.state, event) {
            (Unverified | Up | Suspect | Down, AdapterDown(why)) => self.enter(Down, why, now),
            (Down, AdapterUp) => {
                self.hold_down(timing, now);
                self.enter(Unverified, "adapter came up", now);
            }
            (Unverified | Up | Suspect, AdapterUp) => {}
            // A reply that was under way when the adapter went down proves nothing.
            (Down, Reply | Detour) if self.adapter_down => {}
            (Down, Reply) => {
                self.hold_down(timing, now);
                self.enter(Up, "replies again", now);
            }
            (Down, Detour) => {
                self.hold_down(timing, now);
                self.enter(Up, DETOUR, now);
                self.one_way = true;
            }
            (Suspect, Detour) if self.one_way => self.enter(Up, DETOUR, now),
            (Unverified | Up | Suspect, Detour) => {}
            (Unverified, Reply) => self.enter(Up, "replies", now),
            (Suspect, Reply) => self.enter(Up, "replies", now),
            (Up, Reply) if was_one_way => self.enter(Up, "replies again", now),
            (Up, Reply) => {}
            (Up | Suspect | Unverified, Late) if self.misses >= timing.misses => {
                self.enter(Down, "no reply", now);
            }
            (Up, Late) => self.enter(Suspect, "reply late", now),
            (Unverified | Suspect | Down, Late) => {}
        }
    }

    /// It is not trusted for a while.
    pub(crate) fn hold_down(&mut self, timing: &Timing, now: Instant) {
        self.held_until = Some(now + Duration::from_millis(timing.hold_down_ms.into()));
    }

    fn enter(&mut self, state: PathState, why: &'static str, now: Instant) {
        if self.state != state {
            self.since = now;
        }
        self.state = state;
        self.why = why;
        self.one_way &= matches!(state, PathState::Up | PathState::Suspect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing =
        Timing { probe_interval_us: 200_000, reply_timeout_us: 50_000, misses: 2, hold_down_ms: 5_000 };

    /// Every state with every event: the table under the diagram.
    #[test]
    fn every_pair() {
        use PathState::{Down, Suspect, Unverified, Up};
        let table = [
            (Unverified, [Up, Unverified, Unverified, Down, Unverified]),
            (Up, [Up, Up, Suspect, Down, Up]),
            (Suspect, [Up, Suspect, Down, Down, Suspect]),
            (Down, [Up, Up, Down, Down, Unverified]),
        ];
        for (start, ends) in table {
            for (event, end) in EVENTS.into_iter().zip(ends) {
                let mut health = Health::new(Instant::ZERO);
                health.state = start;
                health.misses = u32::from(start == Suspect);
                health.apply(event, &TIMING, Instant::from_nanos(1));
                assert_eq!(health.state(), end, "{start:?} + {event:?}");
            }
        }
    }

    #[test]
    fn fail_back_is_held_down() {
        let mut health = Health::new(Instant::ZERO);
        for event in [HealthEvent::Reply, HealthEvent::Late, HealthEvent::Late, HealthEvent::Reply] {
            health.apply(event, &TIMING, Instant::ZERO);
        }
        assert_eq!(health.state(), PathState::Up);
        assert!(health.held_down(Instant::ZERO + Duration::from_millis(4_999)));
        assert!(!health.held_down(Instant::ZERO + Duration::from_millis(5_000)));
    }

    #[test]
    fn one_way_ends_with_a_reply_of_its_own_or_with_none() {
        use HealthEvent::{Detour, Late, Reply};
        let after = |events: &[HealthEvent]| {
            let mut health = Health::new(Instant::ZERO);
            for event in [Late, Late].iter().chain(events) {
                health.apply(*event, &TIMING, Instant::ZERO);
            }
            (health.state(), health.one_way())
        };
        assert_eq!(after(&[Detour]), (PathState::Up, true));
        assert_eq!(after(&[Detour, Late]), (PathState::Suspect, true));
        assert_eq!(after(&[Detour, Late, Detour]), (PathState::Up, true));
        assert_eq!(after(&[Detour, Late, Late]), (PathState::Down, false));
        assert_eq!(after(&[Detour, Reply]), (PathState::Up, false));
        assert_eq!(after(&[Reply, Detour]), (PathState::Up, false));
    }

    #[test]
    fn a_reply_under_way_does_not_revive_a_dead_adapter() {
        let mut health = Health::new(Instant::ZERO);
        health.apply(HealthEvent::AdapterDown("test"), &TIMING, Instant::ZERO);
        health.apply(HealthEvent::Reply, &TIMING, Instant::ZERO);
        assert_eq!(health.state(), PathState::Down);
    }
}
