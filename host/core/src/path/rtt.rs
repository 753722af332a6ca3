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
/// A path whose links need longer than this for a full datagram is seldom seen without a queue: 3 Mbit/s.
const SLOW_PASSAGE: Duration = Duration::from_millis(4);
/// No datagram is taken to need longer than this: 48 kbit/s.
const LONGEST_PASSAGE: Duration = Duration::from_millis(250);

/// Smoothed round-trip time, its mean deviation and minimum, and what size adds to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    sampled: Option<Sampled>,
    /// The last two measured of what [`passage`](Self::passage) says, in microseconds.
    passages_us: [u32; 2],
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    smoothed: Duration,
    variance: Duration,
    min: Duration,
    latest: Duration,
    /// The least since `recent_since`, and of the time before, in nanoseconds, at most 4 s.
    recent: [u32; 2],
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
                recent: [nanos(rtt); 2],
                recent_since: now,
            });
            return rtt;
        };
        if now.since(held.recent_since) >= RECENT {
            held.recent = [nanos(rtt), held.recent[0]];
            held.recent_since = now;
        }
        held.recent[0] = held.recent[0].min(nanos(rtt));
        held.latest = rtt;
        held.min = held.min.min(rtt);
        let delay = ack_delay.min(ACK_DELAY);
        let adjusted = if rtt >= held.min + delay { rtt - delay } else { rtt };
        held.variance = (3 * held.variance + held.smoothed.abs_diff(adjusted)) / 4;
        held.smoothed = (7 * held.smoothed + adjusted) / 8;
        adjusted
    }

    /// What the path is without a queue: the least round trip of the last seconds. Routes change, so that the least of
    /// all time would not do, but where one datagram of our own hides it for seconds.
    pub(crate) fn base(&self) -> Duration {
        let slow = self.passage() > SLOW_PASSAGE;
        self.sampled.map_or(INITIAL, |held| if slow { held.min } else { held.recent_min() })
    }

    /// The round trip of a full datagram with a short answer, while nothing else was in flight: what it takes beyond that of
    /// short ones is what the links need for its bytes. Whether that is news: a path is slow that shows it twice.
    pub(crate) fn note_full(&mut self, rtt: Duration) -> bool {
        let Some(held) = self.sampled else { return false };
        let passage = rtt.saturating_sub(held.recent_min()).min(LONGEST_PASSAGE);
        let before = Duration::from_micros(self.passages_us[0].into());
        self.passages_us = [passage.as_micros() as u32, self.passages_us[0]];
        passage > SLOW_PASSAGE && before <= SLOW_PASSAGE
    }

    /// How long the path's links need for a full datagram, the time under way aside: that of one in a queue. At most
    /// 250 ms; zero before it was measured.
    pub(crate) fn passage(&self) -> Duration {
        Duration::from_micros(self.passages_us[0].min(self.passages_us[1]).into())
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

impl Sampled {
    fn recent_min(&self) -> Duration {
        Duration::from_nanos(self.recent[0].min(self.recent[1]).into())
    }
}

fn nanos(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
