//! Round-trip time of a path (RFC 9002 section 5).

use core::time::Duration;

use super::receive::MAX_ACK_DELAY;
use crate::time::Instant;

/// Before the first sample (RFC 9002 section 6.2.2).
const INITIAL: Duration = Duration::from_millis(333);
/// Timer granularity (RFC 9002 section 6.1.2).
const GRANULARITY: Duration = Duration::from_millis(1);
/// What an acknowledgement may wait for, and 4 ms for a busy peer.
const ACK_DELAY: Duration = Duration::from_millis(MAX_ACK_DELAY.as_millis() as u64 + 4);

/// The least round trip of once to twice this time counts as recent.
const RECENT: Duration = Duration::from_secs(5);

/// Smoothed round-trip time, its mean deviation and minimum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    sampled: Option<Sampled>,
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    smoothed: Duration,
    variance: Duration,
    min: Duration,
    latest: Duration,
    /// The least since `recent_since`, and of the time before.
    recent: (Duration, Duration),
    recent_since: Instant,
}

impl RttEstimator {
    /// Takes a sample; `ack_delay` is what the peer says it waited. Returns the sample without it.
    pub(crate) fn sample(&mut self, rtt: Duration, ack_delay: Duration, now: Instant) -> Duration {
        let Some(held) = &mut self.sampled else {
            self.sampled = Some(Sampled {
                smoothed: rtt,
                variance: rtt / 2,
                min: rtt,
                latest: rtt,
                recent: (rtt, rtt),
                recent_since: now,
            });
            return rtt;
        };
        if now.since(held.recent_since) >= RECENT {
            held.recent = (rtt, held.recent.0);
            held.recent_since = now;
        }
        held.recent.0 = held.recent.0.min(rtt);
        held.latest = rtt;
        held.min = held.min.min(rtt);
        let delay = ack_delay.min(ACK_DELAY);
        let adjusted = if rtt >= held.min + delay { rtt - delay } else { rtt };
        held.variance = (3 * held.variance + held.smoothed.abs_diff(adjusted)) / 4;
        held.smoothed = (7 * held.smoothed + adjusted) / 8;
        adjusted
    }

    /// The least round trip of the last seconds: what the path is without a queue. Routes change, so that the least
    /// of all time would not do.
    pub(crate) fn recent_min(&self) -> Duration {
        self.sampled.map_or(INITIAL, |held| held.recent.0.min(held.recent.1))
    }

    /// (smoothed, variance, min), once there was a sample.
    pub(crate) fn measured(&self) -> Option<(Duration, Duration, Duration)> {
        self.sampled.map(|held| (held.smoothed, held.variance, held.min))
    }

    /// Probe timeout without backoff (RFC 9002 section 6.2.1).
    pub(crate) fn probe_timeout(&self) -> Duration {
        match self.sampled {
            Some(held) => held.smoothed + (4 * held.variance).max(GRANULARITY) + ACK_DELAY,
            None => 3 * INITIAL,
        }
    }

    /// A packet is lost when it is this much older than a later one that arrived (RFC 9002 section
    /// 6.1.2).
    pub(crate) fn loss_delay(&self) -> Duration {
        let base = self.sampled.map_or(INITIAL, |held| held.smoothed.max(held.latest));
        (base * 9 / 8).max(GRANULARITY)
    }
}
