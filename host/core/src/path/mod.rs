//! One path: from a local adapter address to one of a peer's. All state that belongs to a path alone
//! lives here, apart from the peer's messages, so that one message can cross from path to path.

pub(crate) mod congestion;
pub(crate) mod flight;
pub(crate) mod health;
pub(crate) mod mtu;
pub(crate) mod pacer;
pub(crate) mod receive;
pub(crate) mod recovery;
pub(crate) mod rtt;
#[cfg(test)]
mod tests;
mod together;

use alloc::collections::VecDeque;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::failover::{PathState, Timing};
use overlan_contract::sizing;
use overlan_wire::limits::{BASE_DATAGRAM, LEAST_DATAGRAM, MAX_DATAGRAM};
use overlan_wire::{Adapter, PathId};

use crate::config::Congestion;
use crate::table::socket_address;
use crate::time::Instant;
use health::{Health, HealthEvent};
use mtu::{MtuSearch, Waits};
use recovery::Recovery;
use rtt::RttEstimator;

/// Downs are remembered this long for the flap count.
const FLAP_MEMORY: Duration = Duration::from_secs(600);
/// Most downs remembered.
const MAX_FLAPS: usize = 64;
/// Full datagrams that may be before a reply in a queue.
const QUEUED_DATAGRAMS: u32 = 4;
/// A path is probed no more often than each time in which it carries so many full datagrams: a probe and an answer are a
/// tenth of one.
const PROBE_PART: u32 = 8;
/// And so many times the present queue later: it is not made longer.
const PROBE_QUEUES: u32 = 4;
/// After so many pings in vain a path that never answered is asked half as often, down to an eighth.
const PATIENT_PINGS: usize = 4;
/// Pings that may wait for their pong: five a second over a round trip of 2 s, and those of a path that is late.
const MAX_PINGS: usize = 16;

/// One path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) id: PathId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) dscp: u8,
    /// What the links at both ends carry, in bytes, IP header included.
    link_mtu: u32,
    pub(crate) health: Health,
    pub(crate) timing: Timing,
    pub(crate) sizing: sizing::Answer,
    pub(crate) weight: u32,
    pub(crate) rtt: RttEstimator,
    pub(crate) recovery: Recovery,
    pub(crate) mtu: MtuSearch,
    /// It carries less than the base datagram, as last looked.
    narrow: bool,
    pub(crate) next_probe: Instant,
    pub(crate) pings: VecDeque<(u32, Instant)>,
    /// When the last of them went out that was answered.
    pub(crate) answered: Option<Instant>,
    /// Pings to answer on this path.
    pub(crate) pongs_due: VecDeque<u32>,
    /// A ping is to be sent now.
    pub(crate) ping_due: bool,
    flaps: VecDeque<Instant>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Bytes spread here so far, scaled by weight: for `Mode::Spread`. (64 bits would wrap within hours.)
    pub(crate) spread_share: u128,
}

impl Path {
    pub(crate) fn new(
        id: PathId,
        (ours, theirs): (&Adapter, &Adapter),
        timing: Timing,
        sizing: sizing::Answer,
        congestion: Congestion,
        now: Instant,
    ) -> Self {
        let mut path = Path {
            id,
            local: socket_address(ours),
            remote: socket_address(theirs),
            dscp: ours.dscp,
            link_mtu: ours.mtu.min(theirs.mtu),
            health: Health::new(now),
            timing,
            sizing,
            weight: 1,
            rtt: RttEstimator::default(),
            recovery: Recovery::new(congestion),
            mtu: MtuSearch::new(),
            narrow: false,
            next_probe: now,
            pings: VecDeque::new(),
            answered: None,
            pongs_due: VecDeque::new(),
            ping_due: false,
            flaps: VecDeque::new(),
            sent: 0,
            received: 0,
            spread_share: 0,
        };
        path.mtu.set_limit(path.largest_datagram(), now);
        path.narrow = path.mtu.is_narrow();
        path
    }

    /// The facts of an adapter at one end changed.
    pub(crate) fn set_adapters(&mut self, ours: &Adapter, theirs: &Adapter, now: Instant) {
        self.dscp = ours.dscp;
        self.link_mtu = ours.mtu.min(theirs.mtu);
        self.mtu.set_limit(self.largest_datagram(), now);
        self.note_width(now);
    }

    /// IP and UDP header bytes.
    pub(crate) fn overhead(&self) -> u32 {
        if self.remote.is_ipv4() { 28 } else { 48 }
    }

    /// Largest datagram that both links allow: so far path MTU discovery goes, whatever the policy says, which answers
    /// by what was discovered.
    pub(crate) fn largest_datagram(&self) -> usize {
        let link = self.link_mtu.saturating_sub(self.overhead());
        (link as usize).clamp(LEAST_DATAGRAM, MAX_DATAGRAM)
    }

    /// Largest datagram that policy and both links allow.
    pub(crate) fn datagram_limit(&self) -> usize {
        self.largest_datagram().min((self.sizing.datagram as usize).max(BASE_DATAGRAM))
    }

    /// Largest datagram to send now.
    pub(crate) fn datagram(&self) -> usize {
        self.mtu.usable().min(self.datagram_limit())
    }

    /// Whether it carries less than the base datagram.
    pub(crate) fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Looks whether it carries the base datagram; whether that changed. One that does again must prove itself, as one that
    /// came back.
    pub(crate) fn note_width(&mut self, now: Instant) -> bool {
        if self.mtu.is_narrow() == self.narrow {
            return false;
        }
        self.narrow = !self.narrow;
        if self.narrow {
            self.note_flap(now);
        } else {
            self.health.hold_down(&self.timing, now);
        }
        true
    }

    fn note_flap(&mut self, now: Instant) {
        if self.flaps.len() == MAX_FLAPS {
            self.flaps.pop_front();
        }
        self.flaps.push_back(now);
    }

    /// How long probes of sizes wait for their pongs.
    pub(crate) fn probe_waits(&self) -> Waits {
        Waits::new(&self.rtt, self.reply_timeout())
    }

    pub(crate) fn state(&self) -> PathState {
        self.health.state()
    }

    /// What the policy says; but no reply is late before it can be there, on a slow path behind a few datagrams in a queue.
    pub(crate) fn reply_timeout(&self) -> Duration {
        let policy = Duration::from_micros(self.timing.reply_timeout_us.into());
        let least = |(smoothed, ..): (Duration, Duration, Duration)| smoothed * 9 / 8 + self.queue();
        self.rtt.measured().map_or(policy, |measured| policy.max(least(measured)))
    }

    /// What a few datagrams in a queue take on this path.
    pub(crate) fn queue(&self) -> Duration {
        QUEUED_DATAGRAMS * self.rtt.passage()
    }

    /// What the policy says; but a slow path is not filled with probes, and a queue that they meet not made longer.
    pub(crate) fn probe_interval(&self) -> Duration {
        let policy = Duration::from_micros(self.timing.probe_interval_us.into());
        let Some((smoothed, ..)) = self.rtt.measured() else {
            // Nobody knows how slow it is, or whether there is anyone.
            return policy * (1 << (self.pings.len() / PATIENT_PINGS).min(3));
        };
        let passage = self.rtt.passage();
        if passage.is_zero() {
            return policy;
        }
        policy.max(PROBE_PART * passage) + PROBE_QUEUES * smoothed.saturating_sub(self.rtt.base())
    }

    /// How often it went down in the last ten minutes.
    pub(crate) fn flaps(&self, now: Instant) -> u32 {
        self.flaps.iter().filter(|&&at| now.since(at) < FLAP_MEMORY).count() as u32
    }

    /// Applies an event to the health; returns whether the state changed.
    pub(crate) fn apply(&mut self, event: HealthEvent, now: Instant) -> bool {
        let before = self.state();
        if event == HealthEvent::AdapterUp && before != PathState::Up {
            // What it did not answer before tells nothing.
            self.pings.clear();
        }
        self.health.apply(event, &self.timing, now);
        let after = self.state();
        if after == before {
            return false;
        }
        // A first contact that never came is not a flap, and may come late: nobody knows yet how long the path is.
        if after == PathState::Down && before != PathState::Unverified {
            self.note_flap(now);
            self.pings.clear();
        }
        true
    }

    /// Notes a ping that goes out now.
    pub(crate) fn note_ping(&mut self, token: u32, now: Instant) {
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        if self.pings.is_empty() {
            // Mostly it stays the only one: a queue that grows by itself has room for four.
            self.pings.reserve_exact(1);
        }
        self.pings.push_back((token, now));
        self.health.note_asked(now);
        self.ping_due = false;
    }

    /// When this path next needs attention on its own account, probing aside. `open`: there is a session to send in.
    pub(crate) fn next_deadline(&self, has_alternate: bool, open: bool) -> Option<Instant> {
        let late = self.health.waiting_since().map(|since| since + self.reply_timeout());
        let recovery = self.recovery.next_deadline(&self.rtt, self.reply_timeout(), has_alternate);
        // Sizes are probed only where small packets pass.
        let mtu =
            self.mtu.next_deadline(self.probe_waits()).filter(|_| open && self.state() == PathState::Up);
        [late, recovery, mtu].into_iter().flatten().min()
    }
}
