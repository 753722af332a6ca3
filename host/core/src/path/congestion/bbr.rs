//! A controller that models the path, after BBR (draft-ietf-ccwg-bbr): the bottleneck's rate is the highest delivery
//! rate of the last rounds, its length the least round trip. Loss below a tenth of a round is taken for noise.

use core::time::Duration;

use super::{Delivery, MAX_WINDOW, STANDING_QUEUE, Sign, rate, scaled};
use crate::time::Instant;

/// Rounds that a rate is remembered, and how long one counts for at the least: on a path of microseconds, ten rounds
/// would not outlast a pause of the scheduler.
const RATE_ROUNDS: usize = 10;
const RATE_ROUND: Duration = Duration::from_millis(5);
/// Gains in hundredths. 2/ln 2: the rate doubles each round trip.
const STARTUP_GAIN: u64 = 289;
const DRAIN_GAIN: u64 = 35;
/// One phase each round trip: more is tried, the queue it made drains, then six steady ones.
const CYCLE: [u64; 8] = [125, 75, 100, 100, 100, 100, 100, 100];
/// Rounds without a quarter more: the pipe is full.
const FULL_ROUNDS: u32 = 3;
/// In flight beyond what the path holds, for sends and acknowledgements that come in batches...
const BATCH_DATAGRAMS: usize = 16;
/// ... but no more than leave in this time, where that is more than two...
const BATCH_TIME: Duration = Duration::from_millis(20);
/// ... and on a fast path three of what is sent at once (the draft's offload budget), half a millisecond's worth each, up
/// to one offloaded send.
const BATCH_QUANTA: usize = 3;
const QUANTA_PER_SECOND: u64 = 2_000;
const MAX_QUANTUM: u64 = 64 << 10;
/// Startup ends with a queue of so many datagrams on a slow path.
const QUEUED_DATAGRAMS: u32 = 4;
/// How often, and how long, the queue is emptied to see the true round trip.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_RTT_TIME: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Startup,
    Drain,
    Cycle,
    ProbeRtt,
}

/// The controller.
#[derive(Debug, Default)]
pub(crate) struct Bbr {
    phase: Phase,
    /// Highest rate of each of the last rounds.
    rates: [u64; RATE_ROUNDS],
    round: usize,
    round_since: Instant,
    full_rate: u64,
    full_rounds: u32,
    min_rtt: Option<Duration>,
    cycle: usize,
    phase_since: Instant,
    rtt_probed: Instant,
    pub(super) window: Option<usize>,
    /// What many losses leave, until rounds without them raise it.
    cap: Option<usize>,
    lost_in_round: usize,
    delivered_in_round: usize,
}

impl Bbr {
    pub(super) fn window(&self) -> Option<usize> {
        self.window
    }

    pub(super) fn pacing_rate(&self) -> Option<u64> {
        let best = self.best_rate();
        (best > 0).then(|| best * self.gain() / 100)
    }

    fn best_rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    fn gain(&self) -> u64 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Drain => DRAIN_GAIN,
            Phase::Cycle => CYCLE[self.cycle],
            Phase::ProbeRtt => 100,
        }
    }

    /// Bytes that fill the path.
    fn pipe(&self) -> usize {
        let nanos = self.min_rtt.map_or(0, |rtt| rtt.as_nanos());
        (u128::from(self.best_rate()) * nanos / 1_000_000_000).min(MAX_WINDOW as u128) as usize
    }

    pub(super) fn on_delivery(&mut self, delivery: &Delivery) {
        self.min_rtt = Some(delivery.min_rtt);
        self.delivered_in_round += delivery.bytes;
        if delivery.round {
            self.end_round(delivery);
        }
        let place = &mut self.rates[self.round % RATE_ROUNDS];
        // A sender with little to say shows less than the path carries.
        if delivery.limited || delivery.rate > *place {
            *place = (*place).max(delivery.rate);
        }
        self.advance(delivery);
        self.resize(delivery);
    }

    fn end_round(&mut self, delivery: &Delivery) {
        if self.lost_in_round * 10 > self.delivered_in_round + self.lost_in_round {
            self.cap = Some((delivery.in_flight.0 * 7 / 10).max(4 * delivery.datagram));
        } else {
            self.cap =
                self.cap.map(|cap| cap + cap / 8 + delivery.datagram).filter(|&cap| cap < 2 * MAX_WINDOW);
        }
        (self.lost_in_round, self.delivered_in_round) = (0, 0);
        // Where the application sends little, what was measured stays good.
        if !delivery.limited {
            return;
        }
        if self.phase == Phase::Startup {
            let best = self.best_rate();
            if best >= self.full_rate + self.full_rate / 4 {
                (self.full_rate, self.full_rounds) = (best, 0);
            } else {
                self.full_rounds += 1;
            }
        }
        if delivery.now.since(self.round_since) >= RATE_ROUND {
            self.round_since = delivery.now;
            self.round += 1;
            self.rates[self.round % RATE_ROUNDS] = 0;
        }
    }

    fn advance(&mut self, delivery: &Delivery) {
        let now = delivery.now;
        let in_phase = now.since(self.phase_since);
        let next = match self.phase {
            Phase::Startup if self.full_rounds >= FULL_ROUNDS || is_queued(delivery) => Phase::Drain,
            Phase::Drain if delivery.in_flight.1 <= self.pipe() => Phase::Cycle,
            Phase::Cycle if now.since(self.rtt_probed) > PROBE_RTT_INTERVAL => Phase::ProbeRtt,
            Phase::Cycle => {
                // A short path's phase lasts a few milliseconds, or timers would blur it.
                if in_phase > delivery.min_rtt.max(Duration::from_millis(1)) {
                    self.cycle = (self.cycle + 1) % CYCLE.len();
                    self.phase_since = now;
                }
                return;
            }
            Phase::ProbeRtt if in_phase > PROBE_RTT_TIME => {
                self.rtt_probed = now;
                Phase::Cycle
            }
            Phase::Startup | Phase::Drain | Phase::ProbeRtt => return,
        };
        if self.phase == Phase::Startup {
            self.rtt_probed = now;
        }
        if next == Phase::Cycle {
            self.cycle = 2;
        }
        (self.phase, self.phase_since) = (next, now);
    }

    /// Bytes in flight beyond what the path holds.
    fn batch(&self, delivery: &Delivery) -> usize {
        let most = BATCH_TIME.as_micros().checked_div(delivery.passage.as_micros()).unwrap_or(u128::MAX);
        let datagrams = most.clamp(2, BATCH_DATAGRAMS as u128) as usize;
        let quantum = (self.best_rate() / QUANTA_PER_SECOND).min(MAX_QUANTUM) as usize;
        (datagrams * delivery.datagram).max(BATCH_QUANTA * quantum)
    }

    fn resize(&mut self, delivery: &Delivery) {
        let batch = self.batch(delivery);
        let pipe = self.pipe();
        let target = match self.phase {
            Phase::Startup => {
                (scaled(pipe, STARTUP_GAIN as usize, 100) + batch).max(self.window.unwrap_or(0))
            }
            Phase::Drain | Phase::Cycle => 2 * pipe + batch,
            Phase::ProbeRtt => pipe / 2 + batch.min(4 * delivery.datagram),
        };
        self.window = Some(target.min(self.cap.unwrap_or(MAX_WINDOW)).min(MAX_WINDOW));
    }

    pub(super) fn on_sign(&mut self, sign: Sign, _sent_at: Instant, datagram: usize, _now: Instant) {
        match sign {
            Sign::Loss { bytes } => self.lost_in_round += bytes,
            // A tenth of the round's bytes would have had to be lost: marks mean a standing queue.
            Sign::Marked => self.cap = self.window.map(|window| (window * 85 / 100).max(4 * datagram)),
            // What is lost counts by the round, and little.
            Sign::Reordered => {}
            Sign::Persistent => {
                let rtt_probed = self.rtt_probed;
                *self = Bbr { rtt_probed, window: Some(4 * datagram), ..Bbr::default() };
            }
        }
    }
}

/// On a slow path, a few datagrams more are in flight than it holds.
fn is_queued(delivery: &Delivery) -> bool {
    let queue = QUEUED_DATAGRAMS * delivery.passage;
    queue > STANDING_QUEUE && delivery.rtt.is_some_and(|rtt| rtt > delivery.min_rtt + queue)
}

/// The rate of bytes that arrived, over the longer of the times it took to send and to acknowledge them.
pub(crate) fn delivery_rate(bytes: u64, send: Duration, ack: Duration) -> u64 {
    let time = send.max(ack);
    if time < Duration::from_micros(10) { 0 } else { rate(bytes as usize, time) }
}
