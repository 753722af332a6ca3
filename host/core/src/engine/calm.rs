//! What follows from the whole table: done at once, and then not for each of many changes.

use core::time::Duration;

use crate::time::Instant;

/// What was done for one change is done again for later ones no sooner. It takes as long as the table is large, and whoever makes
/// up entries changes the table as often as it likes.
const PAUSE: Duration = Duration::from_millis(100);

/// Something to do after changes, with a pause between.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calm {
    wanted: bool,
    last: Option<Instant>,
}

impl Calm {
    /// Something changed.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether it is to be done now; it counts as done then.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.next_deadline().is_some_and(|at| at <= now);
        if due {
            self.done(now);
        }
        due
    }

    /// It was done, for whatever reason.
    pub(super) fn done(&mut self, now: Instant) {
        (self.wanted, self.last) = (false, Some(now));
    }

    /// When it is to be done, if at all.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wanted.then(|| self.last.map_or(Instant::ZERO, |last| last + PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_counts_at_once_and_the_others_together() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut calm = Calm::default();
        assert!(!calm.take(at(0)));
        calm.want();
        assert!(calm.take(at(1)) && !calm.take(at(1)));
        for millis in 2..50 {
            calm.want();
            assert!(!calm.take(at(millis)));
        }
        assert_eq!(calm.next_deadline(), Some(at(101)));
        assert!(calm.take(at(101)) && calm.next_deadline().is_none());
    }
}
