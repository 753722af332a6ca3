//! Packetisation-layer path MTU discovery (RFC 8899), in bytes of UDP payload.
//!
//! A path starts at the base datagram that every path should carry and probes upwards with padded pings.
//! A size is given up only after several probes of it were lost while small packets passed: plain
//! loss alone never shrinks a path (RFC 8899 section 4.3; the mistake in quinn#1855).
//!
//! A path that does not carry the base datagram either is *narrow*: it is left where another carries it, and searched between
//! the least datagram and the base (the RFC's error phase, section 5.2). That it is takes probes of the base beside short
//! ones, of which so many more of the short ones are answered as loss would not explain.

#[cfg(test)]
mod tests;

use core::time::Duration;

use overlan_wire::limits::{BASE_DATAGRAM, LEAST_DATAGRAM};

use super::recovery::Large;
use super::rtt::RttEstimator;
use crate::time::Instant;

/// Probes of a new size before it counts as too large. RFC 8899 has 3 (MAX_PROBES), which a path that loses 15% each
/// way reaches once in fifty times.
const MAX_PROBES: u8 = 5;
/// Probes of the size in use, in a row, with no packet of that size acknowledged meanwhile, before it counts as a
/// black hole: a path that loses 15% each way reaches this once in 300,000 times.
const BLACK_HOLE_PROBES: u8 = 10;
/// Probes of the base, none of which was answered though a short one behind it was, before the path is narrow: a path that
/// loses 30% each way comes so far once in 6,000 times.
const NARROW_PROBES: u8 = 8;
/// After a search, the limit is tried again (RFC 8899 PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// A narrow path is tried with the base this often.
const WIDEN: Duration = Duration::from_secs(1);
/// A confirmed size above the base is confirmed again this often, to notice a black hole.
const CONFIRM: Duration = Duration::from_secs(15);
/// What one probe of the size in use seems to tell of the path is asked of another so long after: short ones are between.
const AGAIN: Duration = Duration::from_secs(3);
/// The search ends when the open interval is this small.
const PRECISION: u16 = 16;
/// The base datagram as sizes are kept.
const BASE: u16 = BASE_DATAGRAM as u16;
/// The least.
const LEAST: u16 = LEAST_DATAGRAM as u16;
/// Probes wait at least this long for their pong; longer where the path is long.
const PROBE_WAIT: Duration = Duration::from_millis(250);

/// How long probes wait for their pongs on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// RFC 8899 section 5.1.1 has a second and more, where nothing is known of the path.
    usual: Duration,
    /// While messages wait for it to be known whether the base passes: as long as any reply.
    urgent: Duration,
}

impl Waits {
    pub(crate) fn new(rtt: &RttEstimator, reply_timeout: Duration) -> Self {
        let usual = rtt.measured().map_or(PROBE_WAIT, |_| PROBE_WAIT.max(2 * rtt.probe_timeout()));
        Waits { usual, urgent: reply_timeout.min(usual) }
    }
}

/// Times that large packets were late or lost in a row, with none of their size acknowledged meanwhile, before the
/// size in use is in doubt.
const DOUBTFUL: u8 = 3;

/// A padded ping.
#[derive(Clone, Copy, Debug)]
struct Probe {
    token: u32,
    size: u16,
}

/// What is known of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// Every path should carry it.
    Assumed,
    /// It was seen to pass.
    Passes,
    /// It does not pass.
    Narrow,
}

/// The search on one path. There are many: sizes are kept in 16 bits, which hold any datagram.
#[derive(Clone, Debug)]
pub(crate) struct MtuSearch {
    confirmed: u16,
    base: Base,
    /// Times in a row that large packets were late or lost, with none of their size acknowledged meanwhile: once for
    /// all that were sent before that was seen, as one stall has no more to say.
    doubts: u8,
    /// The last of these times.
    doubted: Instant,
    /// Size of the smallest of these packets.
    missed: u16,
    /// Packets of this size are in doubt, and smaller ones sent meanwhile; 0: none are.
    doubtful: u16,
    /// Nothing above this is tried.
    ceiling: u16,
    limit: u16,
    lost: u8,
    /// Probes of the base that were lost while short ones passed.
    unpaired: u8,
    /// What waits for its pong, and since when.
    outstanding: Option<(Probe, Instant)>,
    /// The last that was not answered in time. It may be yet: the path has become longer.
    late: Option<Probe>,
    next: Option<Instant>,
    /// When sizes above the ceiling are tried again.
    raise: Option<Instant>,
}

impl MtuSearch {
    pub(crate) fn new() -> Self {
        MtuSearch {
            confirmed: BASE,
            base: Base::Assumed,
            doubts: 0,
            doubted: Instant::ZERO,
            missed: 0,
            doubtful: 0,
            ceiling: BASE,
            limit: BASE,
            lost: 0,
            unpaired: 0,
            outstanding: None,
            late: None,
            next: None,
            raise: None,
        }
    }

    /// Largest datagram seen to pass.
    pub(crate) fn confirmed(&self) -> usize {
        self.confirmed.into()
    }

    /// Largest datagram for messages: those that wait do not wait until it is sure that a size passes no more.
    pub(crate) fn usable(&self) -> usize {
        match self.doubtful {
            0 => self.confirmed,
            doubtful => self.confirmed.min(below(doubtful)),
        }
        .into()
    }

    /// Whether the path carries less than every path should.
    pub(crate) fn is_narrow(&self) -> bool {
        self.base == Base::Narrow || self.limit < BASE
    }

    /// The links allow another size.
    pub(crate) fn set_limit(&mut self, limit: usize, now: Instant) {
        let limit = narrow(limit);
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        self.ceiling = self.top();
        // Where the base was out of the question, it is to be tried.
        if self.confirmed < BASE && self.base != Base::Narrow {
            self.confirmed = BASE;
        }
        self.confirmed = self.confirmed.min(limit);
        self.forget_probes();
        self.next = Some(now);
    }

    /// The path's first reply came, or it came back: search again. What was late while it was down tells nothing of
    /// sizes.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.ceiling = self.top();
        (self.doubts, self.doubtful) = (0, 0);
        self.forget_probes();
        self.next = Some(now);
    }

    /// The largest size to try: the base first, where that did not pass.
    fn top(&self) -> u16 {
        if self.base == Base::Narrow { BASE.min(self.limit) } else { self.limit }
    }

    fn forget_probes(&mut self) {
        (self.lost, self.unpaired) = (0, 0);
        (self.outstanding, self.late) = (None, None);
    }

    pub(crate) fn next_deadline(&self, waits: Waits) -> Option<Instant> {
        match self.outstanding {
            Some((probe, sent)) => Some(sent + self.wait(probe, waits)),
            None => self.next,
        }
    }

    fn wait(&self, probe: Probe, waits: Waits) -> Duration {
        if self.is_urgent(probe.size) { waits.urgent } else { waits.usual }
    }

    /// The base is probed, and messages wait for what comes of it.
    fn is_urgent(&self, size: u16) -> bool {
        size == BASE && self.doubts_base()
    }

    fn doubts_base(&self) -> bool {
        (1..=BASE).contains(&self.doubtful) && self.base != Base::Narrow && self.limit >= BASE
    }

    /// The size to probe now, if any; and whether a short ping is to follow at once, to tell loss from size.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(usize, bool)> {
        if self.outstanding.is_some() || self.next.is_none_or(|next| now < next) {
            return None;
        }
        if self.raise.take_if(|raise| now >= *raise).is_some() {
            self.ceiling = self.top();
        }
        let size = self.target();
        Some((size.into(), size == BASE && self.base != Base::Narrow))
    }

    fn target(&self) -> u16 {
        if self.doubts_base() || self.base == Base::Assumed && self.lost > 0 && self.confirmed == BASE {
            // Larger ones tell nothing while nobody knows whether this one passes.
            BASE
        } else if self.ceiling <= self.confirmed || self.doubtful > 0 {
            // Nothing to search, or nothing larger: confirm what is used.
            self.confirmed
        } else if self.ceiling == self.limit || self.ceiling == BASE {
            self.ceiling
        } else {
            self.confirmed + (self.ceiling - self.confirmed).div_ceil(2)
        }
    }

    pub(crate) fn note_sent(&mut self, token: u32, size: usize, now: Instant) {
        self.outstanding = Some((Probe { token, size: narrow(size) }, now));
    }

    /// A pong arrived. Returns when the probe of the size in use went out that it answers in time.
    pub(crate) fn handle_pong(&mut self, token: u32, now: Instant) -> Option<Instant> {
        let probes = [self.outstanding.map(|(probe, _)| probe), self.late];
        let Probe { size, .. } = probes.into_iter().flatten().find(|probe| probe.token == token)?;
        let sent = self.outstanding.filter(|(probe, _)| probe.token == token).map(|(_, sent)| sent);
        // A larger one may still be under way.
        self.outstanding.take_if(|(probe, _)| probe.size <= size);
        self.late = None;
        self.lost = 0;
        self.clear_doubts(size);
        if size >= BASE {
            self.base_passes();
        }
        self.confirmed = self.confirmed.max(size).min(self.limit);
        self.schedule(now);
        sent.filter(|_| size == self.confirmed)
    }

    /// A packet of this size passed.
    fn clear_doubts(&mut self, size: u16) {
        if size >= self.missed {
            self.doubts = 0;
        }
        if size >= self.doubtful {
            self.doubtful = 0;
        }
    }

    fn base_passes(&mut self) {
        self.unpaired = 0;
        if self.base == Base::Narrow {
            // It was narrow: all sizes are open again.
            self.ceiling = self.limit;
        }
        self.base = Base::Passes;
    }

    /// The size in use is to be probed once more soon.
    pub(crate) fn probe_again(&mut self, now: Instant) {
        let soon = now + AGAIN;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// A probe waits for its pong.
    pub(crate) fn is_probing(&self) -> bool {
        self.outstanding.is_some()
    }

    /// A packet of this size was acknowledged: what is in use passes.
    pub(crate) fn note_passed(&mut self, size: usize) {
        let size = narrow(size);
        self.clear_doubts(size);
        let confirming = self.outstanding.is_none_or(|(probe, _)| probe.size <= self.confirmed);
        // A full datagram is whole blocks of the cipher.
        let full = size.saturating_add(PRECISION);
        if full > self.confirmed && size > LEAST && confirming {
            self.lost = 0;
        }
        if full > BASE && self.base != Base::Narrow {
            self.base_passes();
        }
    }

    /// Large packets are late or lost: soon confirm that the size in use still passes.
    pub(crate) fn suspect(&mut self, large: Large, now: Instant) {
        let size = narrow(large.size);
        if self.confirmed <= LEAST || self.doubtful > 0 && size > narrow(self.usable()) {
            return;
        }
        if self.doubts == 0 {
            (self.doubts, self.doubted, self.missed) = (1, now, size);
        } else if large.sent >= self.doubted {
            self.doubts = self.doubts.saturating_add(1);
            (self.doubted, self.missed) = (now, self.missed.min(size));
            if self.doubts == DOUBTFUL {
                (self.doubtful, self.doubts) = (self.missed, 0);
                // Those of a larger size say nothing of this one.
                (self.lost, self.unpaired) = (0, 0);
                if self.doubts_base() {
                    self.outstanding = None;
                    self.next = Some(now);
                }
            }
        }
        let soon = now + PROBE_WAIT;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Time has passed. `alive`: small packets pass meanwhile, so that a lost probe tells of size. `answered`: when the last
    /// of those went out that was answered.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        waits: Waits,
        alive: bool,
        answered: Option<Instant>,
    ) {
        let over = |&(probe, sent): &(Probe, Instant)| now >= sent + self.wait(probe, waits);
        let Some((probe, sent)) = self.outstanding.filter(over) else { return };
        let Probe { size, .. } = probe;
        self.late = Some(probe);
        self.outstanding = None;
        self.next = Some(now);
        if self.base == Base::Narrow && size >= BASE {
            // Once more after a while.
            self.ceiling = self.confirmed;
            return self.schedule(now);
        }
        if size == BASE && self.limit >= BASE {
            // The short one behind it came through, and it did not.
            if answered.is_some_and(|answered| answered >= sent) {
                self.unpaired += 1;
            }
            if self.unpaired >= NARROW_PROBES {
                self.give_up(size, now);
            }
            return;
        }
        if !alive {
            self.next = Some(now + waits.usual);
            return;
        }
        self.lost += 1;
        let most = if size <= self.confirmed { BLACK_HOLE_PROBES } else { MAX_PROBES };
        if self.lost >= most {
            self.give_up(size, now);
        }
    }

    /// The kernel refused a datagram of this size: the own link is as narrow.
    pub(crate) fn refuse(&mut self, size: usize, now: Instant) {
        let size = narrow(size);
        if size > LEAST && size <= self.confirmed.max(self.ceiling) {
            self.outstanding = None;
            if size <= BASE {
                self.give_up(BASE, now);
            }
            self.give_up(size, now);
        }
    }

    fn give_up(&mut self, size: u16, now: Instant) {
        (self.lost, self.unpaired) = (0, 0);
        if size <= BASE && self.base != Base::Narrow && self.limit >= BASE {
            self.base = Base::Narrow;
        }
        if size <= self.confirmed {
            // A black hole: what used to pass does not any more.
            self.confirmed = below(size).min(self.limit);
            (self.doubts, self.doubtful) = (0, 0);
            if self.base == Base::Passes {
                // Nor is it known that the base does.
                self.base = Base::Assumed;
            }
        }
        self.ceiling = self.ceiling.min(size.saturating_sub(1)).max(self.confirmed);
        self.schedule(now);
    }

    /// Goes on searching, or rests.
    fn schedule(&mut self, now: Instant) {
        if self.searching() {
            self.next = Some(now);
            return;
        }
        self.ceiling = self.confirmed;
        if self.base == Base::Narrow && self.limit >= BASE {
            self.raise = Some(now + WIDEN);
        } else if self.confirmed < self.limit && self.raise.is_none() {
            self.raise = Some(now + RAISE);
        }
        let rest = match (self.confirmed > BASE, self.doubtful) {
            _ if self.base == Base::Narrow => WIDEN,
            (true, 0) => CONFIRM,
            (true, _) => PROBE_WAIT,
            (false, _) => RAISE,
        };
        self.next = Some(now + rest);
    }

    fn searching(&self) -> bool {
        let whole = self.ceiling == self.limit || self.ceiling == BASE;
        self.ceiling > self.confirmed && (whole || self.ceiling - self.confirmed >= PRECISION)
    }
}

/// The size that is used where this one does not pass.
fn below(size: u16) -> u16 {
    if size > BASE { BASE } else { LEAST }
}

/// A size of a datagram as it is kept: none is larger than 16 bits hold.
fn narrow(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}
