//! CUBIC (RFC 9438), with the slow start of HyStart++ (RFC 9406), and a bound on the queue.
//!
//! The bound is ours, since membership traffic shares the bottleneck. A queue above 4 ms takes a little of the window
//! each round trip, the more the longer it is: in proportion, so that flows that measure the queue a little differently
//! still share. Since a queue that stands hides the path's own round trip, it is drained for a moment now and then; who
//! notices that another flow does so joins in, so that all of them see it. What stays then, or though next to nothing is
//! in flight, is no queue: the path has become longer, or its delay varies, as that of radio links does. Nor is it one of
//! ours as long as twice as much arrives as two rounds before: slow start goes on then, whatever the delay (which HyStart++
//! alone would end), and is resumed where it had ended for a delay that turns out to be the path's.
//!
//! Where few datagrams fit into a round trip, a queue of ours or of others is most of what varies, and must not pass for the
//! path's delay. So a round of fewer than `ROUND_SAMPLES` samples is no measure of rates. A drain is no respite: the window
//! gives way to the queue that is about to be drained, too. And drains come each `DRAIN_INTERVAL_ROUNDS` rounds as long as
//! they are, not as they would be without a queue, so that in nearly all of them who fills a long queue gives way to it.
//! Integer arithmetic: the same on every machine.

use core::time::Duration;

use super::{Delivery, INITIAL_DATAGRAMS, MAX_WINDOW, MINIMUM_DATAGRAMS, STANDING_QUEUE, Sign, scaled};
use crate::time::Instant;

/// A queue this long, through a round trip, ends slow start.
const MAX_QUEUE: Duration = Duration::from_millis(10);
/// What is left of it then, lest the bottleneck run dry.
const SPARED_QUEUE: Duration = Duration::from_millis(1);
/// A queue above this takes some of the window each round trip...
const LOW_QUEUE: Duration = Duration::from_millis(4);
/// ... and one of this length as much as a loss does.
const FULL_QUEUE: Duration = Duration::from_millis(16);
/// But on a slow path so many datagrams are no queue, and twice as many a full one.
const QUEUED_DATAGRAMS: u32 = 2;
/// Twice the mean deviation that bursts through a queue of ours make.
const QUEUE_JITTER: Duration = Duration::from_millis(3);
/// So many times the mean difference of successive rounds is how much a round may differ from the path's own mean.
const WANDERS: u32 = 4;
/// How often a queue that stands is drained, to see the path's own round trip, and for how long, or a round.
const DRAIN_INTERVAL: Duration = Duration::from_secs(2);
const DRAIN_TIME: Duration = Duration::from_millis(10);
/// But so many times the delay that it had: others see it vanish a round later.
const DRAIN_DELAYS: u32 = 3;
/// It takes so many rounds at the least: the first shows what was before, and in the second the other flows join in.
const DRAIN_ROUNDS: u16 = 2;
/// But where a round trip is long, by the path or by the queue, it is done each so many: a quarter of the window less for two
/// of them is 2 %.
const DRAIN_INTERVAL_ROUNDS: u32 = 24;
/// Who notices that another flow does so joins in once such a part of that time has passed, lest two take turns.
const JOINING: u32 = 8;
/// Samples that a round must have for half of what it shows.
const LEVEL_SAMPLES: u32 = 16;
/// A queue shorter than this hides little.
const HIDING_QUEUE: Duration = Duration::from_millis(2);
/// With so many datagrams in flight, for so many rounds, no queue is ours.
const FEW_DATAGRAMS: usize = 4;
const FEW_ROUNDS: u16 = 4;
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
    pub(super) window: Option<usize>,
    slow_start_until: Option<usize>,
    /// Packets sent before it say nothing new about congestion.
    recovery_start: Option<Instant>,
    /// The window before the last reduction.
    last_max: usize,
    epoch: Option<Epoch>,
    last_delivery: Instant,
    drain: Drain,
    round: Round,
    /// The mean queue of the round before.
    last_queue: Duration,
    last_min: Option<Duration>,
    last_mean: Duration,
    /// How much the mean round trips of successive rounds differ.
    wander: Duration,
    /// The highest delivery rates of the last two rounds, the newer first.
    rates: [u32; 2],
    /// The path's own mean round trip without a queue, where it is above the least of the last seconds: the path varies, or
    /// became longer.
    level: Option<Duration>,
    /// The largest window since the queue was last drained; windows are below 4 GiB.
    peak: u32,
    /// Rounds with few datagrams in flight, and a queue all the same.
    few_rounds: u16,
    /// Slow start ended for a delay that was not seen to be a queue yet.
    hesitant: bool,
    /// What there was before the last reduction, to be restored if that was for packets that came after all.
    before: Option<Before>,
    /// Rounds left in conservative slow start, and the round trip that began it.
    cautious: Option<(u32, Duration)>,
}

/// The state before a reduction; windows are below 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: u32,
    slow_start_until: Option<u32>,
    last_max: u32,
}

/// The last time that the window was cut below what the path holds, so that no queue of ours stands.
#[derive(Clone, Copy, Debug, Default)]
struct Drain {
    at: Instant,
    /// The window to go back to, while it is cut; windows are below 4 GiB.
    held: Option<u32>,
    /// Rounds that ended since, until what was sent meanwhile is acknowledged.
    rounds: Option<u16>,
    /// How long it takes at the least.
    time_us: u32,
    /// The least mean round trip of what was sent meanwhile.
    least: Option<Duration>,
}

/// The present round trip.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// The highest delivery rate, in bytes per second.
    rate: u32,
    samples: u32,
    sum: Duration,
    /// Of the distances from the smoothed round trip.
    deviation: Duration,
    min: Option<Duration>,
}

impl Cubic {
    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    pub(super) fn slow_start(&self) -> bool {
        self.drain.held.is_none()
            && self.slow_start_until.is_none_or(|until| self.window.is_none_or(|window| window < until))
    }

    pub(super) fn on_delivery(&mut self, delivery: &Delivery) {
        self.window.get_or_insert(INITIAL_DATAGRAMS * delivery.datagram);
        let passed = delivery.now.since(self.last_delivery);
        self.last_delivery = delivery.now;
        if let Some(rtt) = delivery.rtt {
            self.round.samples += 1;
            self.round.sum += rtt;
            self.round.deviation += rtt.abs_diff(delivery.smoothed);
            self.round.min = Some(self.round.min.map_or(rtt, |min| min.min(rtt)));
        }
        self.round.rate = self.round.rate.max(u32::try_from(delivery.rate).unwrap_or(u32::MAX));
        if delivery.round {
            self.end_round(delivery);
        } else if self.slow_start() && !self.speeds_up() {
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
            // The curve stands still meanwhile (RFC 9438 section 5.8), as it does all through a drain.
            if let Some(epoch) = self.epoch.as_mut().filter(|_| self.drain.held.is_none()) {
                epoch.start = epoch.start + passed;
            }
            return;
        }
        let Some(window) = self.window.filter(|_| self.drain.held.is_none()) else { return };
        let grown = if self.slow_start() {
            let low = low_queue(delivery);
            let standing = self.base(delivery) + low.max(STANDING_QUEUE);
            if low > LOW_QUEUE && delivery.rtt.is_some_and(|rtt| rtt > standing) {
                return;
            }
            let divisor = if self.cautious.is_some() { CAUTIOUS_DIVISOR } else { 1 };
            window + delivery.bytes / divisor
        } else {
            self.avoidance(window, delivery)
        };
        self.window = Some(grown.min(MAX_WINDOW));
    }

    /// The path's own round trip.
    fn base(&self, delivery: &Delivery) -> Duration {
        self.level.unwrap_or_default().max(delivery.min_rtt)
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
        let samples = self.round.samples;
        // Not from the least: whoever sends more sees a lesser one.
        let mean = self.round.sum / samples.max(1);
        if self.slow_start() {
            if !self.speeds_up() {
                self.bound_queue(delivery);
            } else {
                self.level = Some(self.level.map_or(mean, |level| level.min(mean)));
            }
        } else {
            let variation = self.variation(delivery);
            self.lower_level(mean, samples, delivery);
            let queue = mean.saturating_sub(self.base(delivery) + variation);
            if !self.measure_drained(mean, delivery) {
                self.wander = (7 * self.wander + mean.abs_diff(self.last_mean)) / 8;
                self.yield_to_queue(queue, mean, delivery);
            }
        }
        self.last_mean = mean;
        self.rates = [self.round.rate, self.rates[0]];
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

    /// Whether more arrives as more is in flight: twice as much as two rounds before, in which the window grows to four
    /// times. What makes the round trip longer then is no queue, or one of others, whose part of the link grows smaller: whoever
    /// joins them gets half as much again and more as well. Few samples are no measure of it.
    fn speeds_up(&self) -> bool {
        let before = self.rates[1];
        self.round.samples >= ROUND_SAMPLES && before > 0 && self.round.rate > before.saturating_mul(2)
    }

    /// What varies more than a queue does is none: within a round, or, where the path is known to vary, from round to round.
    fn variation(&self, delivery: &Delivery) -> Duration {
        let queue = QUEUE_JITTER.max(2 * QUEUED_DATAGRAMS * delivery.passage);
        let within = (2 * self.round.deviation / self.round.samples.max(1)).saturating_sub(queue);
        let known = self.base(delivery).saturating_sub(delivery.min_rtt) / 2;
        within.max((WANDERS * self.wander).saturating_sub(queue).min(known))
    }

    /// A round of less than the path's own round trip shows that it is not as long.
    fn lower_level(&mut self, mean: Duration, samples: u32, delivery: &Delivery) {
        let part = samples.min(LEVEL_SAMPLES);
        let lowered = |level: Duration| level - level.saturating_sub(mean) * part / (2 * LEVEL_SAMPLES);
        self.level = self.level.map(lowered).filter(|&level| level > delivery.min_rtt + HIDING_QUEUE);
    }

    /// Whether the queue was drained in the round that ends, or the path is filled again after that: all at once, so that it
    /// says nothing. When all that was sent with the queue drained is acknowledged, its mean round trip is the path's own.
    fn measure_drained(&mut self, mean: Duration, delivery: &Delivery) -> bool {
        let Some(rounds) = &mut self.drain.rounds else { return false };
        *rounds = rounds.saturating_add(1);
        let Some(held) = self.drain.held else {
            match self.drain.least.take() {
                Some(least) => self.settle_level(least.min(mean), delivery),
                None => self.drain.rounds = None,
            }
            return true;
        };
        // The first round is of what was sent before.
        if *rounds > 1 {
            self.drain.least = Some(self.drain.least.map_or(mean, |least| least.min(mean)));
        }
        let passed = delivery.now.since(self.drain.at);
        if *rounds >= DRAIN_ROUNDS && passed >= Duration::from_micros(self.drain.time_us.into()) {
            (self.window, self.drain.held) = (Some(held as usize), None);
            // The curve stood still.
            if let Some(epoch) = &mut self.epoch {
                epoch.start = epoch.start + passed;
            }
        }
        true
    }

    /// The path's own mean round trip is this.
    fn settle_level(&mut self, level: Duration, delivery: &Delivery) {
        let own = low_queue(delivery).max(FEW_DATAGRAMS as u32 * delivery.passage);
        let was = self.base(delivery) + own;
        self.level = Some(level);
        if level > was {
            // What filled the path when it was shorter, and a queue as it was then, tells what fills it now.
            let most = self.window.unwrap_or_default().max(self.peak as usize);
            let until = scaled(most, level.as_micros() as usize, was.as_micros() as usize);
            // Unless it had never been filled.
            self.slow_start_until = Some(until).filter(|_| !self.hesitant);
            (self.epoch, self.few_rounds, self.rates) = (None, 0, [0; 2]);
        } else {
            self.hesitant = false;
        }
        self.peak = self.window.unwrap_or_default() as u32;
    }

    /// Gives way to the queue that there was, on average, in the round that ends.
    fn yield_to_queue(&mut self, queue: Duration, mean: Duration, delivery: &Delivery) {
        let Some(window) = self.window else { return };
        let low = low_queue(delivery);
        let own = low.max(FEW_DATAGRAMS as u32 * delivery.passage);
        let few = queue > own && window <= FEW_DATAGRAMS * delivery.datagram;
        self.few_rounds = if few { self.few_rounds.saturating_add(1) } else { 0 };
        let base = self.base(delivery);
        if self.few_rounds > FEW_ROUNDS {
            self.settle_level(mean, delivery);
            return;
        }
        self.peak = self.peak.max(window as u32);
        let before = core::mem::replace(&mut self.last_queue, queue);
        let most = FULL_QUEUE.max(2 * low) - low;
        let excess = queue.saturating_sub(low).min(most);
        if !excess.is_zero() {
            // What was before is no plateau to return to: flows that differ in it would grow differently.
            self.last_max = window;
            let (part, all) = (excess.as_micros() as usize, most.as_micros() as usize);
            self.settle_at(window - scaled(window * 3 / 10, part, all), delivery);
        }
        let passed = delivery.now.since(self.drain.at);
        let interval = DRAIN_INTERVAL.max(DRAIN_INTERVAL_ROUNDS * mean.max(base));
        let joins = before > HIDING_QUEUE && queue * 3 < before * 2 && passed > interval / JOINING;
        let hidden = mean.saturating_sub(delivery.min_rtt);
        if joins || hidden > HIDING_QUEUE && passed > interval {
            let (path, all) = (base.as_micros(), mean.max(base).as_micros());
            let cut = scaled(window, path as usize * 3, all as usize * 4);
            let time_us = DRAIN_TIME.max(DRAIN_DELAYS * hidden).as_micros() as u32;
            let held = self.window.map(|held| held as u32);
            self.drain = Drain { at: delivery.now, held, rounds: Some(0), time_us, least: None };
            self.window = self.window.map(|held| cut.min(held).max(MINIMUM_DATAGRAMS * delivery.datagram));
        }
    }

    /// The window is this from now on, and grows from here.
    fn settle_at(&mut self, window: usize, delivery: &Delivery) {
        let window = window.max(MINIMUM_DATAGRAMS * delivery.datagram);
        self.window = Some(window);
        self.slow_start_until = Some(window);
        self.epoch = None;
        self.before = None;
    }

    fn bound_queue(&mut self, delivery: &Delivery) {
        let Some(min) = self.round.min else { return };
        let base = self.base(delivery);
        let datagrams = QUEUED_DATAGRAMS * delivery.passage;
        if min > base + MAX_QUEUE.max(datagrams) {
            let kept = (base + SPARED_QUEUE.max(datagrams)).as_micros() as usize;
            let all = min.as_micros() as usize;
            let window = self.window.unwrap_or_default();
            let fallen = scaled(window, kept, all).clamp(window / 4, window * 7 / 10);
            self.hesitant |= self.reduce(fallen, delivery.sent_at, delivery.datagram, delivery.now);
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
        // Drained on purpose, it says nothing of the path.
        self.window = self.drain.held.take().map(|held| held as usize).or(self.window);
        (self.drain.rounds, self.drain.least) = (None, None);
        let window = self.window.unwrap_or(INITIAL_DATAGRAMS * datagram);
        match sign {
            Sign::Loss { .. } => {
                let before = Before {
                    window: window as u32,
                    slow_start_until: self.slow_start_until.map(|until| until as u32),
                    last_max: self.last_max as u32,
                };
                if self.reduce(window * 7 / 10, sent_at, datagram, now) {
                    self.before = Some(before);
                }
            }
            Sign::Marked => _ = self.reduce(window * 7 / 10, sent_at, datagram, now),
            Sign::Reordered => self.restore(),
            Sign::Persistent => {
                self.recovery_start = None;
                self.reduce(window * 7 / 10, sent_at, datagram, now);
                self.window = Some(MINIMUM_DATAGRAMS * datagram);
                self.recovery_start = None;
            }
        }
    }

    /// Nothing was lost: the window is as if it had not been reduced (RFC 9438 section 4.9).
    fn restore(&mut self) {
        let (Some(before), Some(window)) = (self.before.take(), self.window) else { return };
        self.window = Some(window.max(before.window as usize));
        self.slow_start_until = before.slow_start_until.map(|until| until as usize);
        self.last_max = before.last_max as usize;
        self.epoch = None;
    }

    /// Once for all that was sent before (RFC 9438 section 4.6, fast convergence section 4.7); whether it is this time.
    fn reduce(&mut self, to: usize, sent_at: Instant, datagram: usize, now: Instant) -> bool {
        if self.recovery_start.is_some_and(|start| sent_at <= start) {
            return false;
        }
        let window = self.window.unwrap_or(INITIAL_DATAGRAMS * datagram);
        self.recovery_start = Some(now);
        self.hesitant = false;
        self.before = None;
        self.last_max = if window < self.last_max { window * 17 / 20 } else { window };
        let to = to.max(MINIMUM_DATAGRAMS * datagram);
        self.window = Some(to);
        self.slow_start_until = Some(to);
        self.cautious = None;
        self.epoch = None;
        true
    }
}

/// A queue that takes nothing of the window.
fn low_queue(delivery: &Delivery) -> Duration {
    LOW_QUEUE.max(QUEUED_DATAGRAMS * delivery.passage)
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
    use alloc::collections::VecDeque;
    use alloc::format;
    use alloc::vec::Vec;

    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::path::rtt::RttEstimator;

    const DATAGRAM: usize = 1_472;
    const BASE: Duration = Duration::from_micros(100);
    /// At 100 Mbit/s.
    const TRANSMISSION: Duration = Duration::from_micros(118);

    /// A flow that always has something to send.
    #[derive(Default)]
    struct Flow {
        cubic: Cubic,
        rtt: RttEstimator,
        next: u64,
        round_end: u64,
        in_flight: usize,
        delivered: usize,
    }

    impl Flow {
        fn handle_ack(&mut self, number: u64, sent_at: Instant, now: Instant) {
            let before = self.in_flight;
            self.in_flight -= DATAGRAM;
            self.delivered += DATAGRAM;
            let sample = self.rtt.sample(now.since(sent_at), Duration::ZERO, now);
            let round = number >= self.round_end;
            if round {
                self.round_end = self.next;
            }
            let (smoothed, ..) = self.rtt.measured().unwrap();
            self.cubic.on_delivery(&Delivery {
                now,
                bytes: DATAGRAM,
                in_flight: (before, self.in_flight),
                sent_at,
                limited: true,
                round,
                rtt: Some(sample),
                smoothed,
                min_rtt: self.rtt.recent_min(),
                passage: Duration::ZERO,
                rate: 0,
                datagram: DATAGRAM,
            });
        }
    }

    /// Flows that begin at these times share a bottleneck, whose acknowledgements come up to `jitter` late; the bytes
    /// that each delivered in the last `measured` seconds, and the longest the queue was then.
    fn share(starts: &[Duration], jitter: Duration, seconds: u64, measured: u64) -> (Vec<usize>, Duration) {
        share_path(starts, |_| BASE, jitter, seconds, measured)
    }

    /// As `share`; how long the path is at a time.
    fn share_path(
        starts: &[Duration],
        base: impl Fn(Instant) -> Duration,
        jitter: Duration,
        seconds: u64,
        measured: u64,
    ) -> (Vec<usize>, Duration) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut flows: Vec<Flow> = starts.iter().map(|_| Flow::default()).collect();
        let mut queue: VecDeque<(usize, u64, Instant)> = VecDeque::new();
        let mut acks: VecDeque<(Instant, usize, u64, Instant)> = VecDeque::new();
        let mut now = Instant::ZERO;
        let (end, from) = (now + Duration::from_secs(seconds), now + Duration::from_secs(seconds - measured));
        let mut longest = 0;
        while now < end {
            while let Some(&(at, flow, number, sent_at)) = acks.front().filter(|(at, ..)| *at <= now) {
                let flow: &mut Flow = &mut flows[flow];
                flow.handle_ack(number, sent_at, at);
                acks.pop_front();
            }
            for (index, flow) in flows.iter_mut().enumerate() {
                let window = flow.cubic.window().unwrap_or(10 * DATAGRAM);
                while now >= Instant::ZERO + starts[index] && flow.in_flight + DATAGRAM <= window {
                    queue.push_back((index, flow.next, now));
                    flow.next += 1;
                    flow.in_flight += DATAGRAM;
                }
            }
            now = now + TRANSMISSION;
            if let Some((flow, number, sent_at)) = queue.pop_front() {
                // They do not overtake each other.
                let late = Duration::from_nanos(rng.next_u64() % (jitter.as_nanos() as u64 + 1));
                let at = (now + base(now) + late).max(acks.back().map_or(now, |(at, ..)| *at));
                acks.push_back((at, flow, number, sent_at));
            }
            if now < from {
                flows.iter_mut().for_each(|flow| flow.delivered = 0);
            } else {
                longest = longest.max(queue.len());
            }
        }
        (flows.iter().map(|flow| flow.delivered).collect(), TRANSMISSION * longest as u32)
    }

    #[test]
    fn a_slow_path_is_filled_and_its_queue_stays_short() {
        let (delivered, longest) = share(&[Duration::ZERO], Duration::ZERO, 12, 10);
        let capacity = DATAGRAM * (10_000_000 / TRANSMISSION.as_micros() as usize);
        assert!(delivered[0] > capacity * 97 / 100, "{} of {capacity}", delivered[0]);
        assert!(longest < Duration::from_millis(10), "{longest:?}");
    }

    /// In the second after it became so, and later.
    #[test]
    fn a_path_that_becomes_longer_is_filled() {
        let turn = Duration::from_secs(5);
        let capacity = DATAGRAM * (4_000_000 / TRANSMISSION.as_micros() as usize);
        for (first, more) in [(0, 4), (0, 5), (1, 5), (1, 8), (5, 8), (5, 50), (20, 5), (20, 10), (20, 20)] {
            for starts in [&[Duration::ZERO; 1][..], &[Duration::ZERO; 2]] {
                let path = |now: Instant| {
                    let added = if now.since(Instant::ZERO) > turn { more } else { 0 };
                    BASE + Duration::from_millis(first + added)
                };
                for (later, least) in [(1, 70), (4, 85)] {
                    let (delivered, longest) = share_path(starts, path, Duration::ZERO, 5 + later + 4, 4);
                    let used = delivered.iter().sum::<usize>() * 100 / capacity;
                    let case = format!("{first} + {more} ms, {} flows, {later} s later", starts.len());
                    assert!(used >= least, "{case}: {used}%");
                    assert!(longest < Duration::from_millis(40), "{case}: {longest:?}");
                }
            }
        }
    }

    #[test]
    fn jitter_is_no_queue() {
        let (delivered, _) = share(&[Duration::ZERO], Duration::from_millis(8), 12, 10);
        let capacity = DATAGRAM * (10_000_000 / TRANSMISSION.as_micros() as usize);
        assert!(delivered[0] > capacity * 90 / 100, "{} of {capacity}", delivered[0]);
    }

    /// The second measures the first one's queue before it has measured the path.
    #[test]
    fn whoever_comes_later_gets_no_more_and_no_less() {
        for later in [0, 200, 1_300, 3_000] {
            let starts = [Duration::ZERO, Duration::from_millis(later)];
            let (delivered, longest) = share(&starts, Duration::ZERO, 20, 12);
            let larger = delivered[0].max(delivered[1]) * 100 / (delivered[0] + delivered[1]);
            assert!(larger <= 60, "{later} ms later: {delivered:?}");
            assert!(longest < Duration::from_millis(20), "{later} ms later: {longest:?}");
        }
    }

    #[test]
    fn a_drained_window_is_no_measure_of_a_loss() {
        let mut flow = Flow::default();
        let full = 100 * DATAGRAM;
        (flow.cubic.window, flow.cubic.slow_start_until) = (Some(2 * DATAGRAM), Some(2 * DATAGRAM));
        flow.cubic.drain.held = Some(full as u32);
        let now = Instant::ZERO + Duration::from_millis(1);
        flow.cubic.on_sign(Sign::Loss { bytes: DATAGRAM }, Instant::ZERO, DATAGRAM, now);
        assert_eq!(flow.cubic.window(), Some(full * 7 / 10));
    }

    #[test]
    fn cube_roots() {
        for (value, root) in
            [(0, 0), (1, 1), (7, 1), (8, 2), (999_999, 99), (1_000_000, 100), (u64::MAX, 2_642_245)]
        {
            assert_eq!(cube_root(value), root);
        }
    }
}
