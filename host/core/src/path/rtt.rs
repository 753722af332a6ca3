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
/// So many full datagrams in a row are late beside short ones on a slow path: one on a path that jitters is now and then.
const FULL_PROBES: usize = 4;
/// And by so many mean deviations of the short ones.
const JITTERS: u32 = 3;
/// The floor rises by such a part of the way with each short one.
const FLOOR_PART: u32 = 16;
/// A short one follows a full one that is sent so soon after its answer.
const FOLLOWS: Duration = Duration::from_millis(5);
/// A new path on which any are late is measured so often in a row: what is exchanged at first makes it vary for a while.
const TRIES: u8 = 8;
/// What is measured of them is kept in units of so many microseconds.
const UNIT_US: u128 = 4;

/// Smoothed round-trip time, its mean deviation and minimum, and what size adds to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    sampled: Option<Sampled>,
    /// What the last full datagrams alone took beyond the least of short ones; zero: no more than one that jitters does.
    passages: [u16; FULL_PROBES],
    /// How often they were late at all before the path was known to be slow.
    tries: u8,
    /// When the last of them was answered.
    full_at: Instant,
    /// Short datagrams while nothing else was in flight: their mean round trip and its mean deviation, in microseconds...
    short_us: Mean,
    /// ... of those that followed a full one, when no beat filled the queue, the same...
    lone_us: Mean,
    /// ... and about the least of the last minute, in nanoseconds.
    floor: u32,
}

/// A mean and its mean deviation; zeros: there is none.
type Mean = (u32, u32);

#[derive(Clone, Copy, Debug)]
struct Sampled {
    smoothed: Duration,
    variance: Duration,
    /// These two in nanoseconds.
    min: u64,
    latest: u64,
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
                min: rtt.as_nanos() as u64,
                latest: rtt.as_nanos() as u64,
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
        held.latest = rtt.as_nanos() as u64;
        held.min = held.min.min(held.latest);
        let delay = ack_delay.min(ACK_DELAY);
        let adjusted = if rtt >= Duration::from_nanos(held.min) + delay { rtt - delay } else { rtt };
        held.variance = (3 * held.variance + held.smoothed.abs_diff(adjusted)) / 4;
        held.smoothed = (7 * held.smoothed + adjusted) / 8;
        adjusted
    }

    /// The least round trip of the last seconds: what the path is without a queue. Routes change, so that the least of all
    /// time would not do.
    pub(crate) fn recent_min(&self) -> Duration {
        self.sampled.map_or(INITIAL, |held| held.recent_min())
    }

    /// The same; but on a slow path, where one datagram of our own hides it for seconds, what it was when nothing was in
    /// flight last.
    pub(crate) fn base(&self) -> Duration {
        if self.passage().is_zero() { self.recent_min() } else { self.floor() }
    }

    fn floor(&self) -> Duration {
        Duration::from_nanos(self.floor.into()).min(self.recent_min())
    }

    /// The round trip of a short datagram, while nothing else was in flight.
    pub(crate) fn note_short(&mut self, rtt: Duration, sent: Instant) {
        if sent < self.full_at {
            // It waited behind a full one.
            return;
        }
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        if self.short_us.0 == 0 {
            self.floor = nanos(self.recent_min());
        }
        let averaged = |held: Mean| {
            let (mean, deviation) = if held.0 == 0 { (sample, sample / 2) } else { held };
            let part =
                |old: u32, new: u32, of: u64| ((u64::from(old) * (of - 1) + u64::from(new)) / of) as u32;
            (part(mean, sample, 8), part(deviation, mean.abs_diff(sample), 4))
        };
        self.short_us = averaged(self.short_us);
        if sent.since(self.full_at) < FOLLOWS {
            self.lone_us = averaged(self.lone_us);
        }
        // A beat in which others send may hide it for seconds, but a longer path stays so.
        let least = nanos(self.recent_min());
        self.floor = least.min(self.floor + least.saturating_sub(self.floor) / FLOOR_PART);
    }

    /// The round trip of a full datagram with a short answer, while nothing else was in flight: what it takes beyond that of
    /// short ones is what the links need for its bytes, unless they vary as much. Whether it is to be measured once more
    /// soon, as it looks slow and is not known to be.
    pub(crate) fn note_full(&mut self, rtt: Duration, now: Instant) -> bool {
        self.full_at = now;
        let mean = self.short_us.0;
        if mean == 0 {
            return false;
        }
        let least = self.recent_min();
        let passage = units(rtt.saturating_sub(least));
        let micros = |value: u32| Duration::from_micros(value.into());
        // The path has become longer than they were.
        if micros(self.lone_us.0) < least {
            self.lone_us = (0, 0);
        }
        let exceeds = |(mean, deviation): Mean| {
            mean > 0 && rtt > micros(mean) + SLOW_PASSAGE.max(JITTERS * micros(deviation))
        };
        let slow = [self.short_us, self.lone_us].into_iter().any(exceeds);
        let hidden = !self.passage().is_zero() && micros(mean) > self.floor() + self.passage();
        if slow || passage <= units(SLOW_PASSAGE) {
            self.passages.rotate_right(1);
            self.passages[0] = if slow { passage } else { 0 };
        } else if !hidden {
            // It does not show. (What others send may hide it for as long as it lasts.)
            self.passages = self.passages.map(|held| held / 4 * 3);
        }
        if !self.passage().is_zero() || passage <= units(SLOW_PASSAGE) {
            return false;
        }
        self.tries = self.tries.saturating_add(1);
        slow || self.tries <= TRIES
    }

    /// Whether a short one is to follow a full one of this round trip: it looks slow.
    pub(crate) fn doubts(&self, full: Duration) -> bool {
        full > self.recent_min() + SLOW_PASSAGE
    }

    /// The round trip of a full datagram, whatever else was in flight: the links need no longer for it.
    pub(crate) fn bound_passage(&mut self, rtt: Duration) {
        if !self.passage().is_zero() {
            let most = units(rtt.saturating_sub(self.floor()));
            self.passages = self.passages.map(|held| held.min(most));
        }
    }

    /// How long a slow path's links need for a full datagram, the time under way aside: that of one in a queue. More than
    /// 4 ms and at most 250; zero where the path is not slow, or not known to be.
    pub(crate) fn passage(&self) -> Duration {
        let least = self.passages.into_iter().fold(u16::MAX, u16::min);
        let passage = Duration::from_micros(u64::from(least) * UNIT_US as u64);
        if passage > SLOW_PASSAGE { passage } else { Duration::ZERO }
    }

    /// (smoothed, variance, min), once there was a sample.
    pub(crate) fn measured(&self) -> Option<(Duration, Duration, Duration)> {
        self.sampled.map(|held| (held.smoothed, held.variance, Duration::from_nanos(held.min)))
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
        let base = self.sampled.map_or(INITIAL, |held| held.smoothed.max(Duration::from_nanos(held.latest)));
        (base * 9 / 8).max(GRANULARITY)
    }
}

impl Sampled {
    fn recent_min(&self) -> Duration {
        Duration::from_nanos(self.recent[0].min(self.recent[1]).into())
    }
}

/// A passage as it is kept.
fn units(time: Duration) -> u16 {
    (time.min(LONGEST_PASSAGE).as_micros() / UNIT_US) as u16
}

fn nanos(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An estimator that saw short ones of these round trips, then full ones, in milliseconds.
    fn measured(short: &[u64], full: &[u64]) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        let mut now = Instant::ZERO;
        for &millis in short {
            now = now + Duration::from_secs(1);
            rtt.sample(Duration::from_millis(millis), Duration::ZERO, now);
            rtt.note_short(Duration::from_millis(millis), now);
        }
        full.iter().for_each(|&millis| _ = rtt.note_full(Duration::from_millis(millis), now));
        rtt
    }

    #[test]
    fn four_late_full_datagrams_in_a_row_show_a_slow_path() {
        let short = [40, 41, 40, 42, 41, 40, 41, 40, 41, 40, 41, 40, 41, 40, 41];
        assert_eq!(measured(&short, &[160; 3]).passage(), Duration::ZERO);
        assert_eq!(measured(&short, &[160, 158, 159, 161]).passage(), Duration::from_millis(118));
        assert_eq!(measured(&short, &[160, 158, 159, 43]).passage(), Duration::ZERO, "that one was fast");
        let varying = [40, 80, 55, 70, 45, 60, 75, 50, 80, 42, 66, 58];
        assert_eq!(measured(&varying, &[80, 70, 75, 80, 78, 80]).passage(), Duration::ZERO, "as short ones");
    }

    #[test]
    fn no_full_packet_is_faster_than_the_path() {
        let mut rtt = measured(&[40; 16], &[160; 4]);
        rtt.bound_passage(Duration::from_millis(400));
        assert_eq!(rtt.passage(), Duration::from_millis(120));
        rtt.bound_passage(Duration::from_millis(70));
        assert_eq!(rtt.passage(), Duration::from_millis(30));
        rtt.bound_passage(Duration::from_millis(42));
        assert_eq!(rtt.passage(), Duration::ZERO);
    }

    /// On a slow path the least round trip follows a longer path within a minute of idleness.
    #[test]
    fn the_least_of_a_slow_path_does_not_last() {
        let mut rtt = measured(&[40; 16], &[160; 4]);
        for second in 20..80 {
            let now = Instant::ZERO + Duration::from_secs(second);
            rtt.sample(Duration::from_millis(400), Duration::ZERO, now);
            rtt.note_short(Duration::from_millis(400), now);
        }
        assert!(!rtt.passage().is_zero());
        assert!(rtt.base() > Duration::from_millis(380), "{:?}", rtt.base());
    }
}
