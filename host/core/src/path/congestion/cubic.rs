//! CUBIC (RFC 9438), with the slow start of HyStart++ (RFC 9406), and a bound on the queue.
//!
//! The bound is ours: membership traffic shares the bottleneck, so that a queue of 10 ms through a whole round trip
//! counts as congestion. The window then falls to what the path itself holds: the queue drains, and all who share it
//! see the true round trip. Integer arithmetic: the same on every machine.

use core::time::Duration;

use super::{Delivery, INITIAL_DATAGRAMS, MAX_WINDOW, MINIMUM_DATAGRAMS, Sign, scaled};
use crate::time::Instant;

/// A queue this long, through a round trip, is congestion.
const MAX_QUEUE: Duration = Duration::from_millis(10);
/// What is left of it then, lest the bottleneck run dry.
const SPARED_QUEUE: Duration = Duration::from_millis(1);
/// Samples that make a round's least round trip (RFC 9406 section 4.3).
const ROUND_SAMPLES: u32 = 8;
/// RFC 9406 section 4.3.
const CAUTIOUS_ROUNDS: u32 = 5;
/// Growth is divided by this in conservative slow start (RFC 9406 section 4.3).
const CAUTIOUS_DIVISOR: usize = 4;

/// Where the window grows to.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Milliseconds until the curve is back at `plateau`.
    back_ms: u64,
    plateau: usize,
    /// What Reno would have.
    reno: usize,
}

/// The controller.
#[derive(Debug, Default)]
pub(crate) struct Cubic {
    window: Option<usize>,
    slow_start_until: Option<usize>,
    /// Packets sent before it say nothing new about congestion.
    recovery_start: Option<Instant>,
    /// The window before the last reduction.
    last_max: usize,
    epoch: Option<Epoch>,
    last_delivery: Instant,
    round: Round,
    last_min: Option<Duration>,
    /// Rounds left in conservative slow start, and the round trip that began it.
    cautious: Option<(u32, Duration)>,
}

/// The present round trip.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    samples: u32,
    min: Option<Duration>,
}

impl Cubic {
    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    pub(super) fn slow_start(&self) -> bool {
        self.slow_start_until.is_none_or(|until| self.window.is_none_or(|window| window < until))
    }

    pub(super) fn on_delivery(&mut self, delivery: &Delivery) {
        let window = *self.window.get_or_insert(INITIAL_DATAGRAMS * delivery.datagram);
        let passed = delivery.now.since(self.last_delivery);
        self.last_delivery = delivery.now;
        if let Some(rtt) = delivery.rtt {
            self.round.samples += 1;
            self.round.min = Some(self.round.min.map_or(rtt, |min| min.min(rtt)));
        }
        if delivery.round {
            self.end_round(delivery);
        } else if self.slow_start() {
            self.watch_slow_start();
            // It doubles while a round trip passes: the bound can't wait for the round's end.
            if self.round.samples >= ROUND_SAMPLES {
                self.bound_queue(delivery);
            }
        }
        if self.recovery_start.is_some_and(|start| delivery.sent_at <= start) {
            return;
        }
        if !delivery.limited {
            // The curve stands still meanwhile (RFC 9438 section 5.8).
            if let Some(epoch) = &mut self.epoch {
                epoch.start = epoch.start + passed;
            }
            return;
        }
        let grown = if self.slow_start() {
            let divisor = if self.cautious.is_some() { CAUTIOUS_DIVISOR } else { 1 };
            window + delivery.bytes / divisor
        } else {
            self.avoidance(window, delivery)
        };
        self.window = Some(grown.min(MAX_WINDOW));
    }

    /// RFC 9438 section 4.
    fn avoidance(&mut self, window: usize, delivery: &Delivery) -> usize {
        let datagram = delivery.datagram;
        let epoch = self.epoch.get_or_insert_with(|| {
            let plateau = self.last_max.max(window);
            // K is the cube root of (W_max - cwnd) / C, with C = 0.4 segments per second cubed.
            let cubed = (plateau - window) as u64 * 2_500_000_000 / datagram as u64;
            Epoch { start: delivery.now, back_ms: cube_root(cubed), plateau, reno: window }
        });
        // As fast as Reno, in its fair share (section 4.3): 9/17 of a datagram each round trip below the old window.
        let share = if epoch.reno < epoch.plateau { (9, 17) } else { (1, 1) };
        epoch.reno += scaled(datagram * share.0, delivery.bytes, window * share.1).max(1);
        let elapsed = delivery.now.since(epoch.start);
        if epoch.curve(elapsed, datagram) < epoch.reno {
            return window.max(epoch.reno);
        }
        let target = epoch.curve(elapsed + delivery.smoothed, datagram).clamp(window, window * 3 / 2);
        window + scaled(target - window, delivery.bytes.min(window), window)
    }

    fn end_round(&mut self, delivery: &Delivery) {
        let Some(min) = self.round.min else { return };
        self.bound_queue(delivery);
        self.round = Round::default();
        if self.slow_start()
            && let Some((left, _)) = &mut self.cautious
        {
            *left -= 1;
            if *left == 0 {
                self.slow_start_until = self.window;
                self.cautious = None;
            }
        }
        self.last_min = Some(min);
    }

    fn bound_queue(&mut self, delivery: &Delivery) {
        let Some(min) = self.round.min else { return };
        if min > delivery.min_rtt + MAX_QUEUE {
            let kept = (delivery.min_rtt + SPARED_QUEUE).as_micros() as usize;
            let all = min.as_micros() as usize;
            let window = self.window.unwrap_or_default();
            let fallen = scaled(window, kept, all).clamp(window / 4, window * 7 / 10);
            self.reduce(fallen, delivery.sent_at, delivery.datagram, delivery.now);
        }
    }

    /// RFC 9406 section 4.2.
    fn watch_slow_start(&mut self) {
        let (Some(last), Some(min)) = (self.last_min, self.round.min) else { return };
        if self.round.samples < ROUND_SAMPLES {
            return;
        }
        match self.cautious {
            None => {
                let threshold = (last / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
                if min >= last + threshold {
                    self.cautious = Some((CAUTIOUS_ROUNDS, min));
                }
            }
            Some((_, baseline)) if min < baseline => self.cautious = None,
            Some(_) => {}
        }
    }

    pub(super) fn on_sign(&mut self, sign: Sign, sent_at: Instant, datagram: usize, now: Instant) {
        let window = self.window.unwrap_or(INITIAL_DATAGRAMS * datagram);
        match sign {
            Sign::Loss { .. } | Sign::Marked => self.reduce(window * 7 / 10, sent_at, datagram, now),
            Sign::Persistent => {
                self.recovery_start = None;
                self.reduce(window * 7 / 10, sent_at, datagram, now);
                self.window = Some(MINIMUM_DATAGRAMS * datagram);
                self.recovery_start = None;
            }
        }
    }

    /// Once for all that was sent before (RFC 9438 section 4.6, fast convergence section 4.7).
    fn reduce(&mut self, to: usize, sent_at: Instant, datagram: usize, now: Instant) {
        if self.recovery_start.is_some_and(|start| sent_at <= start) {
            return;
        }
        let window = self.window.unwrap_or(INITIAL_DATAGRAMS * datagram);
        self.recovery_start = Some(now);
        self.last_max = if window < self.last_max { window * 17 / 20 } else { window };
        let to = to.max(MINIMUM_DATAGRAMS * datagram);
        self.window = Some(to);
        self.slow_start_until = Some(to);
        self.cautious = None;
        self.epoch = None;
    }
}

impl Epoch {
    /// Bytes on the curve after this time: the plateau, and C times the cube of the distance to it.
    fn curve(&self, elapsed: Duration, datagram: usize) -> usize {
        const LIMIT_MS: i128 = 100_000;
        let distance = (elapsed.as_millis() as i128 - i128::from(self.back_ms)).clamp(-LIMIT_MS, LIMIT_MS);
        let bytes = distance * distance * distance * datagram as i128 / 2_500_000_000;
        (self.plateau as i128 + bytes).clamp(0, MAX_WINDOW as i128) as usize
    }
}

/// The integer cube root.
fn cube_root(value: u64) -> u64 {
    let (mut low, mut high) = (0u64, 2_642_245);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if middle * middle * middle <= value {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cube_roots() {
        for (value, root) in
            [(0, 0), (1, 1), (7, 1), (8, 2), (999_999, 99), (1_000_000, 100), (u64::MAX, 2_642_245)]
        {
            assert_eq!(cube_root(value), root);
        }
    }
}
