//! What happens to a datagram between two addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use overlan_core::Instant;
use rand::{Rng, RngExt};

/// The faults of the network. Rates are per million.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much more, drawn for each datagram: reordering, unless the order is kept.
    pub jitter: Duration,
    /// None overtakes another between the same two addresses, as on a radio link: what has to wait holds up what follows.
    pub in_order: Option<InOrder>,
    /// What is under way is handed over each such time, all at once, as where a radio's turn comes; zero: as it comes.
    pub turn: Duration,
    /// Datagrams that take [`late`](Self::late) longer, so that others overtake them.
    pub late_ppm: u32,
    /// How much longer.
    pub late: Duration,
    /// Datagrams lost.
    pub loss_ppm: u32,
    /// Datagrams delivered twice.
    pub duplicate_ppm: u32,
    /// Datagrams with one byte changed.
    pub corrupt_ppm: u32,
    /// Directed pairs of addresses that carry nothing.
    pub cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Addresses that carry nothing either way.
    pub dead: BTreeSet<IpAddr>,
    /// Largest UDP payload that passes; 0: any.
    pub mtu: usize,
    /// Directed pairs of addresses between which no larger UDP payload passes, whatever others do.
    pub holes: BTreeMap<(IpAddr, IpAddr), usize>,
    /// Directed pairs of addresses between which datagrams that are sent together and have more bytes are dropped: a filter
    /// that sees them before they are split.
    pub filters: BTreeMap<(IpAddr, IpAddr), usize>,
    /// Addresses whose own link carries no larger UDP payload: their kernel refuses it and says so (EMSGSIZE).
    pub refused: BTreeMap<IpAddr, usize>,
    /// Links that carry so much and no more. A datagram passes the first that is on its way.
    pub links: Vec<Link>,
}

/// Between which addresses something arrives last, and when.
#[derive(Clone, Debug, Default)]
pub struct InOrder(BTreeMap<(IpAddr, IpAddr), Instant>);

impl InOrder {
    /// How long after `now` it arrives, rather than after `delay`.
    fn held(&mut self, now: Instant, from: IpAddr, to: IpAddr, delay: Duration) -> Duration {
        let last = self.0.entry((from, to)).or_default();
        *last = (*last).max(now + delay);
        last.since(now)
    }
}

/// A link of limited rate, before which a queue drops what does not fit (drop-tail).
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes per second, headers of IP and UDP among them.
    pub rate: u64,
    /// Bytes that may wait.
    pub queue: usize,
    /// Directed pairs of addresses whose datagrams pass it.
    pub pairs: BTreeSet<(IpAddr, IpAddr)>,
    /// Datagrams and bytes that it took.
    pub taken: (u64, u64),
    /// Datagrams that found no room.
    pub dropped: u64,
    /// When all that waits will have passed.
    empty_at: Instant,
}

/// Bytes that headers of IP and UDP add to each datagram.
pub const HEADERS: usize = 28;

impl Link {
    /// A link of this rate in bits per second for these pairs.
    pub fn new(bits: u64, queue: usize, pairs: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Self {
        let pairs = pairs.into_iter().collect();
        Link { rate: bits / 8, queue, pairs, taken: (0, 0), dropped: 0, empty_at: Instant::ZERO }
    }

    /// How long what waits takes to pass.
    pub fn queue_delay(&self, now: Instant) -> Duration {
        self.empty_at.since(now)
    }

    /// How long a datagram takes that comes now; `None`: there is no room for it.
    fn pass(&mut self, len: usize, now: Instant) -> Option<Duration> {
        let len = (len + HEADERS) as u64;
        let waits = self.queue_delay(now);
        if waits.as_nanos() * u128::from(self.rate) / 1_000_000_000 + u128::from(len) > self.queue as u128 {
            self.dropped += 1;
            return None;
        }
        let takes = waits + Duration::from_nanos(len * 1_000_000_000 / self.rate);
        self.taken = (self.taken.0 + 1, self.taken.1 + len);
        self.empty_at = now + takes;
        Some(takes)
    }
}

impl Network {
    /// A quiet network with this delay.
    pub fn with_delay(delay: Duration) -> Self {
        Network { delay, ..Network::default() }
    }

    /// Cuts both directions between two groups of addresses.
    pub fn partition(&mut self, some: &[IpAddr], others: &[IpAddr]) {
        for &a in some {
            for &b in others {
                self.cut.insert((a, b));
                self.cut.insert((b, a));
            }
        }
    }

    /// Ends every cut and revives every address.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.dead.clear();
    }

    /// The delays after which copies of the datagram arrive, each with whether it is damaged.
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        from: IpAddr,
        to: IpAddr,
        len: usize,
        rng: &mut impl Rng,
    ) -> Vec<(Duration, bool)> {
        let dead = self.dead.contains(&from) || self.dead.contains(&to) || self.cut.contains(&(from, to));
        let mut hits = |ppm: u32| ppm > 0 && rng.random_ratio(ppm.min(1_000_000), 1_000_000);
        let too_large =
            self.mtu > 0 && len > self.mtu || self.holes.get(&(from, to)).is_some_and(|&most| len > most);
        if dead || too_large || hits(self.loss_ppm) {
            return Vec::new();
        }
        let link = self.links.iter_mut().find(|link| link.pairs.contains(&(from, to)));
        let Some(queued) = link.map_or(Some(Duration::ZERO), |link| link.pass(len, now)) else {
            return Vec::new();
        };
        let copies = 1 + usize::from(hits(self.duplicate_ppm));
        let damaged: Vec<bool> = (0..copies).map(|_| hits(self.corrupt_ppm)).collect();
        let jitter = self.jitter.as_nanos() as u64;
        let late = if hits(self.late_ppm) { self.late } else { Duration::ZERO };
        damaged
            .into_iter()
            .map(|damaged| {
                let extra = if jitter > 0 { rng.random_range(0..jitter) } else { 0 };
                let mut delay = queued + self.delay + late + Duration::from_nanos(extra);
                if let Some(turns) = (now + delay).as_nanos().checked_div(self.turn.as_nanos() as u64) {
                    let at = Duration::from_nanos((turns + 1) * self.turn.as_nanos() as u64);
                    delay = (Instant::ZERO + at).since(now);
                }
                let order = self.in_order.as_mut();
                (order.map_or(delay, |order| order.held(now, from, to, delay)), damaged)
            })
            .collect()
    }
}
