//! What is seen again and again, until it is seen no more.

use core::time::Duration;

use crate::time::Instant;

/// What was not seen for so long is over.
const FADES: Duration = Duration::from_secs(60);

/// How often something was seen, without a minute's pause.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sighting {
    times: u64,
    last: Option<Instant>,
}

impl Sighting {
    pub(crate) fn note(&mut self, now: Instant) {
        self.times = self.lasting(now).unwrap_or(0) + 1;
        self.last = Some(now);
    }

    /// How often, unless it is over.
    pub(crate) fn lasting(&self, now: Instant) -> Option<u64> {
        self.last.filter(|&last| now.since(last) < FADES).map(|_| self.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_until_a_pause_and_begins_again() {
        let mut sighting = Sighting::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        assert_eq!(sighting.lasting(at(0)), None);
        for second in [1, 30, 89] {
            sighting.note(at(second));
        }
        assert_eq!(sighting.lasting(at(148)), Some(3));
        assert_eq!(sighting.lasting(at(149)), None);
        sighting.note(at(149));
        assert_eq!(sighting.lasting(at(150)), Some(1));
    }
}
