//! Flows through one bottleneck in virtual time: what the controllers reach, the same on every machine.

extern crate std;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::{Ack, PacketNumber, PathId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::receive::ReceiveSpace;
use super::recovery::{Contents, Outcome, Recovery};
use super::rtt::RttEstimator;
use crate::config::Congestion;
use crate::time::Instant;

const DATAGRAM: usize = 1_452;
const MILLISECOND: u64 = 1_000_000;

/// The bottleneck.
#[derive(Clone, Copy)]
struct Link {
    bits_per_second: u64,
    /// Longest queue, in time; what finds it full is dropped.
    buffer: Duration,
    round_trip: Duration,
    loss: f64,
    /// Nothing passes between these times.
    dead: (Duration, Duration),
}

const LINK: Link = Link {
    bits_per_second: 100_000_000,
    buffer: Duration::from_millis(50),
    round_trip: Duration::from_millis(1),
    loss: 0.0,
    dead: (Duration::ZERO, Duration::ZERO),
};

#[expect(clippy::large_enum_variant, reason = "a few at a time")]
enum Event {
    Wake,
    Arrive(PacketNumber),
    AckTimer,
    Acked(Ack),
}

struct Flow {
    recovery: Recovery,
    rtt: RttEstimator,
    received: ReceiveSpace,
    arrived: u64,
    outcome: Outcome,
    wake: Option<Instant>,
}

struct World {
    link: Link,
    rng: ChaCha8Rng,
    now: Instant,
    busy_until: Instant,
    events: BTreeMap<(Instant, u64), (usize, Event)>,
    next_event: u64,
    flows: Vec<Flow>,
    /// How long something small would have waited, each millisecond.
    waits: Vec<Duration>,
    /// Bytes that arrived by each tenth of a second.
    progress: VecDeque<u64>,
}

impl World {
    fn new(link: Link, congestion: &[Congestion], seed: u64) -> Self {
        let flow = |&congestion: &Congestion| {
            let mut rtt = RttEstimator::default();
            rtt.sample(link.round_trip, Duration::ZERO, Instant::ZERO);
            let (received, outcome) = (ReceiveSpace::default(), Outcome::default());
            Flow { recovery: Recovery::new(congestion), rtt, received, arrived: 0, outcome, wake: None }
        };
        World {
            link,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Instant::ZERO,
            busy_until: Instant::ZERO,
            events: BTreeMap::new(),
            next_event: 0,
            flows: congestion.iter().map(flow).collect(),
            waits: Vec::new(),
            progress: VecDeque::new(),
        }
    }

    fn after(&mut self, time: Duration, flow: usize, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + time, self.next_event), (flow, event));
    }

    /// Flows start one after the other, `apart`.
    fn run(mut self, time: Duration, apart: Duration) -> Self {
        for flow in 0..self.flows.len() {
            self.after(apart * flow as u32, flow, Event::Wake);
        }
        let end = Instant::ZERO + time;
        let mut sampled = Instant::ZERO;
        while let Some(((at, _), (flow, event))) = self.events.pop_first().filter(|((at, _), _)| *at <= end) {
            while sampled <= at {
                self.waits.push(self.busy_until.since(sampled));
                if self.waits.len().is_multiple_of(100) {
                    self.progress.push_back(self.flows.iter().map(|flow| flow.arrived).sum());
                }
                sampled = sampled + Duration::from_millis(1);
            }
            self.now = at;
            self.handle(flow, event);
        }
        self
    }

    fn handle(&mut self, at: usize, event: Event) {
        let now = self.now;
        let flow = &mut self.flows[at];
        match event {
            Event::Wake => {
                flow.wake = None;
                let deadline = flow.recovery.next_deadline(&flow.rtt, Duration::from_secs(1), false);
                if deadline.is_some_and(|deadline| deadline <= now) {
                    let (rtt, outcome) = (&flow.rtt, &mut flow.outcome);
                    flow.recovery.handle_timeout(rtt, Duration::from_secs(1), false, DATAGRAM, now, outcome);
                    outcome.clear();
                }
                self.send(at);
            }
            Event::Arrive(number) => {
                let in_sequence = flow.received.note(number, now);
                flow.received.owe(in_sequence, now);
                flow.arrived += DATAGRAM as u64;
                self.acknowledge(at);
                self.after(super::receive::MAX_ACK_DELAY, at, Event::AckTimer);
            }
            Event::AckTimer => self.acknowledge(at),
            Event::Acked(ack) => {
                flow.recovery.handle_ack(&ack, &mut flow.rtt, DATAGRAM, now, &mut flow.outcome);
                flow.outcome.clear();
                self.send(at);
            }
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let received = &mut self.flows[at].received;
        if received.ack_due(self.now)
            && let Some(ack) = received.ack(PathId(0), self.now)
        {
            received.note_acked();
            if !self.is_dead() {
                self.after(self.link.round_trip / 2, at, Event::Acked(ack));
            }
        }
    }

    fn is_dead(&self) -> bool {
        let now = self.now.since(Instant::ZERO);
        (self.link.dead.0..self.link.dead.1).contains(&now)
    }

    fn send(&mut self, at: usize) {
        let now = self.now;
        loop {
            let recovery = &mut self.flows[at].recovery;
            if !recovery.probe_due() && recovery.room(DATAGRAM, now) < DATAGRAM {
                break;
            }
            let number = recovery.next_number();
            recovery.note_sent(number, DATAGRAM, Contents::new(), now);
            let lost = self.rng.random_bool(self.link.loss) || self.is_dead();
            let wait = self.busy_until.since(now);
            if lost || wait > self.link.buffer {
                continue;
            }
            let time = Duration::from_nanos(DATAGRAM as u64 * 8 * 1_000_000_000 / self.link.bits_per_second);
            self.busy_until = self.busy_until.max(now) + time;
            self.after(wait + time + self.link.round_trip / 2, at, Event::Arrive(number));
        }
        // Timers fire in whole milliseconds.
        let flow = &mut self.flows[at];
        let Some(deadline) = flow.recovery.next_deadline(&flow.rtt, Duration::from_secs(1), false) else {
            return;
        };
        let tick = (deadline.as_nanos() / MILLISECOND + 1) * MILLISECOND;
        let wake = Instant::from_nanos(tick).max(now + Duration::from_nanos(1));
        if flow.wake.is_none_or(|planned| wake < planned) {
            flow.wake = Some(wake);
            self.after(wake.since(now), at, Event::Wake);
        }
    }

    /// Of the bottleneck, in thousandths.
    fn utilisation(&self) -> u64 {
        let arrived: u64 = self.flows.iter().map(|flow| flow.arrived).sum();
        let nanos = self.now.as_nanos();
        (u128::from(arrived) * 8_000 * 1_000_000_000
            / u128::from(self.link.bits_per_second)
            / u128::from(nanos)) as u64
    }

    /// Once the start is over: slow start has to overshoot to find the rate. (Runs shorter than that count whole.)
    fn wait_p99(&self) -> Duration {
        let mut waits = self.waits[if self.waits.len() > 2_000 { 1_000 } else { 0 }..].to_vec();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }

    fn megabits(&self) -> u64 {
        self.utilisation() * self.link.bits_per_second / 1_000_000_000
    }
}

const BOTH: [Congestion; 2] = [Congestion::Cubic, Congestion::Bbr];

#[test]
fn a_narrow_path_is_filled_and_its_queue_stays_short() {
    for congestion in BOTH {
        for round_trip in [Duration::from_micros(60), Duration::from_millis(1), Duration::from_millis(20)] {
            let world = World::new(Link { round_trip, ..LINK }, &[congestion], 1);
            let world = world.run(Duration::from_secs(3), Duration::ZERO);
            let (filled, wait) = (world.utilisation(), world.wait_p99());
            std::println!("{congestion:?} {round_trip:?}: {filled} per mille, wait p99 {wait:?}");
            assert!(filled >= 900, "{congestion:?} at {round_trip:?} fills {filled} per mille");
            assert!(wait < Duration::from_millis(20), "{congestion:?} at {round_trip:?}: {wait:?}");
        }
    }
}

#[test]
fn two_flows_share() {
    for congestion in BOTH {
        for apart in [Duration::ZERO, Duration::from_secs(1)] {
            let world = World::new(LINK, &[congestion; 2], 2).run(Duration::from_secs(6), apart);
            // From when both are there.
            let lead = world.link.bits_per_second / 8 * apart.as_secs();
            let (first, second) = (world.flows[0].arrived.saturating_sub(lead), world.flows[1].arrived);
            let share = first.max(second) * 100 / (first + second);
            let wait = world.wait_p99();
            std::println!(
                "{congestion:?} {apart:?} apart: {share}%, wait p99 {wait:?}, {}",
                world.utilisation()
            );
            assert!(share <= 60, "{congestion:?}, {apart:?} apart: {share}%");
            assert!(wait < Duration::from_millis(20), "{congestion:?}: {wait:?}");
            assert!(world.utilisation() >= 900);
        }
    }
}

#[test]
fn random_loss() {
    let link =
        Link { bits_per_second: 10_000_000_000, round_trip: Duration::from_micros(60), loss: 0.02, ..LINK };
    let mut rates = vec![];
    for congestion in BOTH {
        let world = World::new(link, &[congestion], 3).run(Duration::from_millis(300), Duration::ZERO);
        std::println!("{congestion:?}: {} Mbit/s, wait p99 {:?}", world.megabits(), world.wait_p99());
        rates.push(world.megabits());
    }
    assert!(rates[0] >= 500 && rates[1] >= 5_000, "{rates:?}");
}

#[test]
fn a_blackout_ends() {
    for congestion in BOTH {
        let dead = (Duration::from_secs(2), Duration::from_millis(2_300));
        let world = World::new(Link { dead, ..LINK }, &[congestion], 4);
        let world = world.run(Duration::from_secs(5), Duration::ZERO);
        let second = (world.progress[44] - world.progress[34]) * 8 / 100_000;
        std::println!("{congestion:?}: {second} per mille in a second after the blackout");
        assert!(second >= 900, "{congestion:?}: {second}");
    }
}
