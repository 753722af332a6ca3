//! What happens to a datagram between two addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rand::{Rng, RngExt};

/// The faults of the network. Rates are per million.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much more, drawn for each datagram: reordering.
    pub jitter: Duration,
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
        &self,
        from: IpAddr,
        to: IpAddr,
        len: usize,
        rng: &mut impl Rng,
    ) -> Vec<(Duration, bool)> {
        let dead = self.dead.contains(&from) || self.dead.contains(&to) || self.cut.contains(&(from, to));
        let mut hits = |ppm: u32| ppm > 0 && rng.random_ratio(ppm.min(1_000_000), 1_000_000);
        if dead || self.mtu > 0 && len > self.mtu || hits(self.loss_ppm) {
            return Vec::new();
        }
        let copies = 1 + usize::from(hits(self.duplicate_ppm));
        let damaged: Vec<bool> = (0..copies).map(|_| hits(self.corrupt_ppm)).collect();
        let jitter = self.jitter.as_nanos() as u64;
        let late = if hits(self.late_ppm) { self.late } else { Duration::ZERO };
        damaged
            .into_iter()
            .map(|damaged| {
                let extra = if jitter > 0 { rng.random_range(0..jitter) } else { 0 };
                (self.delay + late + Duration::from_nanos(extra), damaged)
            })
            .collect()
    }
}
