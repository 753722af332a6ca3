//! Spreads what leaves on a path (RFC 9002 section 7.7): a bucket of tokens, filled at the controller's rate.
//!
//! The bucket holds what two milliseconds bring, since timers fire once in a millisecond: fast paths never wait.

use core::time::Duration;

use crate::time::Instant;

/// The bucket holds what this time brings.
const BURST: Duration = Duration::from_millis(2);
/// But at least so many datagrams. (RFC 9002 section 7.7 would have the initial window of ten, which a slow path queues for long.)
const BURST_DATAGRAMS: usize = 4;

/// The bucket, as the time at which it was or will be empty.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes per second; 0: not yet known, nothing waits.
    rate: u64,
    empty_at: Instant,
    /// Bytes of a datagram that found too few tokens.
    wanted: Option<usize>,
}

impl Pacer {
    pub(crate) const NEW: Pacer = Pacer { rate: 0, empty_at: Instant::ZERO, wanted: None };

    pub(crate) fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// Bytes that may leave now.
    pub(crate) fn room(&mut self, datagram: usize, now: Instant) -> usize {
        if self.rate == 0 {
            return usize::MAX;
        }
        let least = BURST_DATAGRAMS * datagram;
        let full = if self.bytes_in(BURST) >= least { BURST } else { BURST.max(self.time_of(least)) };
        self.empty_at = self.empty_at.max(now - full);
        let waited = now.since(self.empty_at);
        let room = self.bytes_in(waited);
        // However slow, one datagram leaves in the longest time that one waits.
        if room < datagram && waited >= self.time_of(datagram) { datagram } else { room }
    }

    /// Bytes that a time brings.
    fn bytes_in(&self, time: Duration) -> usize {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Asked for each datagram: the narrow product nearly always does.
        let bytes = match self.rate.checked_mul(nanos) {
            Some(product) => product / 1_000_000_000,
            None => {
                let wide = u128::from(self.rate) * u128::from(nanos) / 1_000_000_000;
                u64::try_from(wide).unwrap_or(u64::MAX)
            }
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// How long that many bytes take; at most a second.
    fn time_of(&self, bytes: usize) -> Duration {
        const LONGEST: u64 = 1_000_000_000;
        let nanos = (bytes as u64).saturating_mul(1_000_000_000).div_ceil(self.rate.max(1));
        Duration::from_nanos(nanos.min(LONGEST))
    }

    pub(crate) fn note_sent(&mut self, size: usize) {
        if self.rate > 0 {
            self.empty_at = self.empty_at + self.time_of(size);
        }
    }

    /// Whether a datagram waits for tokens, and how large it is.
    pub(crate) fn set_wanted(&mut self, wanted: Option<usize>) {
        self.wanted = wanted;
    }

    /// When what waits may leave.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        Some(self.empty_at + self.time_of(self.wanted?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_may_leave_when_its_time_has_come() {
        for rate in [1, 24, 1_500, 1 << 20, u64::MAX] {
            let mut pacer = Pacer::NEW;
            pacer.set_rate(rate);
            let mut now = Instant::ZERO + Duration::from_secs(1_000);
            for _ in 0..100 {
                while pacer.room(1_472, now) >= 1_472 && rate < 1 << 30 {
                    pacer.note_sent(1_472);
                }
                pacer.set_wanted(Some(1_472));
                now = now.max(pacer.next_deadline().unwrap());
                assert!(pacer.room(1_472, now) >= 1_472, "{rate} bytes a second");
            }
        }
    }
}
