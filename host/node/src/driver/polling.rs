//! Whether the driver polls or sleeps while it has nothing to do.

use std::time::Duration;

use overlan_core::Instant;

use crate::config::BusyPoll;

/// What comes so soon is worth polling for: falling asleep and being woken costs about as much, so that polling in vain
/// never costs more than twice what the better choice would have (the ski rental problem; Linux's KVM polls in the
/// same way before it halts, `halt_poll_ns`).
const WINDOW: Duration = Duration::from_micros(100);
/// So many times in a row something has to come that soon. The answers of idle peers do not.
const STREAK: u8 = 8;
/// Datagrams and commands between two idle times at most: where there are more, it is throughput that counts, and
/// waiting gathers what is cheaper together.
const LIGHT: usize = 4;

/// What the driver has seen of its idle times.
pub(super) struct Polling {
    mode: BusyPoll,
    idle_since: Option<Instant>,
    /// Datagrams and commands since it was idle.
    load: usize,
    /// How often in a row something light came within [`WINDOW`], up to [`STREAK`].
    streak: u8,
}

impl Polling {
    pub(super) fn new(mode: BusyPoll) -> Self {
        Polling { mode, idle_since: None, load: 0, streak: 0 }
    }

    /// So many datagrams and commands came and went.
    pub(super) fn note_work(&mut self, now: Instant, work: usize) {
        if work == 0 {
            return;
        }
        if let Some(since) = self.idle_since.take() {
            let soon = now.since(since) <= WINDOW;
            self.streak = if soon { (self.streak + 1).min(STREAK) } else { self.streak / 2 };
            self.load = 0;
        }
        self.load += work;
        if self.load > LIGHT {
            self.streak = 0;
        }
    }

    /// There is nothing to do: whether to look again rather than to sleep.
    pub(super) fn note_idle(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        match self.mode {
            BusyPoll::Always => true,
            BusyPoll::Adaptive if self.streak == STREAK && now.since(since) < WINDOW => {
                // Others on this processor go first.
                std::thread::yield_now();
                true
            }
            BusyPoll::Adaptive | BusyPoll::Never => false,
        }
    }

    /// Whether the driver may have looked again rather than slept, so that only a system call tells what has come.
    pub(super) fn is_polling(&self) -> bool {
        self.mode == BusyPoll::Always || self.mode == BusyPoll::Adaptive && self.streak == STREAK
    }
}
