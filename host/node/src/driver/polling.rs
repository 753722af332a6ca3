//! Whether the driver polls or sleeps while it has nothing to do.

use std::time::Duration;

use overlan_core::Instant;

use crate::config::BusyPoll;

/// What comes so soon is worth polling for: falling asleep and being woken takes about as long (a bare round trip of UDP
/// on an idle machine: 60 us asleep, 9 us spinning), so that polling in vain costs about twice what the better choice
/// would have (the ski rental problem; Linux's KVM polls in the same way before it halts, `halt_poll_ns`).
const WINDOW: Duration = Duration::from_micros(100);
/// So many times in a row something has to come that soon, half as many where it did before. The answers of idle peers
/// do not.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives it so many inputs, each so long after it fell idle; whether it would poll the next time it is idle.
    fn polls_after(inputs: u32, idle: Duration, work: usize, mode: BusyPoll) -> bool {
        let mut polling = Polling::new(mode);
        let mut now = Instant::ZERO;
        for _ in 0..inputs {
            polling.note_idle(now);
            now = now + idle;
            polling.note_work(now, work);
        }
        polling.note_idle(now)
    }

    #[test]
    fn polls_where_single_inputs_follow_each_other_closely() {
        assert!(polls_after(8, WINDOW, 1, BusyPoll::Adaptive));
        assert!(!polls_after(7, WINDOW, 1, BusyPoll::Adaptive), "too few");
        assert!(!polls_after(100, WINDOW * 2, 1, BusyPoll::Adaptive), "too far apart");
        assert!(!polls_after(100, WINDOW, LIGHT + 1, BusyPoll::Adaptive), "too many at a time");
        assert!(!polls_after(100, WINDOW, 1, BusyPoll::Never));
        assert!(polls_after(0, WINDOW, 1, BusyPoll::Always));
    }

    #[test]
    fn sleeps_where_nothing_came_in_time() {
        let mut polling = Polling::new(BusyPoll::Adaptive);
        let mut now = Instant::ZERO;
        for _ in 0..STREAK {
            polling.note_idle(now);
            polling.note_work(now, 1);
        }
        assert!(polling.note_idle(now));
        now = now + WINDOW * 2;
        assert!(!polling.note_idle(now));
        // One that came late does not end it for long: four more do.
        polling.note_work(now, 1);
        assert!(!polling.note_idle(now));
        for _ in 0..STREAK / 2 {
            polling.note_idle(now);
            polling.note_work(now, 1);
        }
        assert!(polling.note_idle(now));
    }

    #[test]
    fn what_comes_between_two_idle_times_counts_together() {
        let mut polling = Polling::new(BusyPoll::Adaptive);
        for _ in 0..STREAK {
            polling.note_idle(Instant::ZERO);
            for _ in 0..=LIGHT {
                polling.note_work(Instant::ZERO, 1);
            }
        }
        assert!(!polling.note_idle(Instant::ZERO));
    }
}
