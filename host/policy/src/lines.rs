//! How many lines one source may add to the log over time.

use std::time::{Duration, Instant};

/// What a budget is for.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines that one source wrote in the last minute or part of it, so that a source that says something again and again
/// does not drown the others. What is left out is counted, and told once a minute at most.
#[derive(Debug, Default)]
pub struct LineBudget {
    window: Option<Instant>,
    written: u32,
    told: bool,
    left_out: u64,
}

impl LineBudget {
    /// Whether one more line may be written at `now`, of at most `most` in a minute; counts it either way.
    pub fn take(&mut self, now: Instant, most: u32) -> bool {
        self.roll(now);
        let fits = self.written < most;
        if fits {
            self.written += 1;
        } else {
            self.leave_out();
        }
        fits
    }

    /// Counts a line that is left out for another reason.
    pub fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// How many lines were left out since this was told last; `None` where that is not to be told now.
    /// Called after each answer: the clock is read only where there is something to tell.
    pub fn handle_end(&mut self, now: impl FnOnce() -> Instant) -> Option<u64> {
        if self.left_out == 0 {
            return None;
        }
        self.roll(now());
        if self.told {
            return None;
        }
        self.told = true;
        Some(std::mem::take(&mut self.left_out))
    }

    fn roll(&mut self, now: Instant) {
        if self.window.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            (self.window, self.written, self.told) = (Some(now), 0, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_over_time_and_what_is_left_out_is_told_once_a_minute() {
        let mut budget = LineBudget::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let taken = |budget: &mut LineBudget, second| (0..10).filter(|_| budget.take(at(second), 4)).count();
        assert_eq!(budget.handle_end(|| at(0)), None);
        assert_eq!((taken(&mut budget, 0), budget.handle_end(|| at(0))), (4, Some(6)));
        assert_eq!((taken(&mut budget, 59), budget.handle_end(|| at(59))), (0, None));
        budget.leave_out();
        assert_eq!(budget.handle_end(|| at(60)), Some(11), "what came after it was told");
        assert_eq!((taken(&mut budget, 60), budget.handle_end(|| at(61))), (4, None));
        assert_eq!(budget.handle_end(|| at(120)), Some(6));
    }
}
