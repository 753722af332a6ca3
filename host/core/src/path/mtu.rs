//! Packetisation-layer path MTU discovery (RFC 8899), in bytes of UDP payload.
//!
//! A path starts at the base datagram that every path carries and probes upwards with padded pings.
//! A size is given up only after several probes of it were lost while small packets passed: plain
//! loss alone never shrinks a path (RFC 8899 section 4.3; the mistake in quinn#1855).

use core::time::Duration;

use overlan_wire::limits::BASE_DATAGRAM;

use super::recovery::Large;
use super::rtt::RttEstimator;
use crate::time::Instant;

/// Probes of a new size before it counts as too large. RFC 8899 has 3 (MAX_PROBES), which a path that loses 15% each
/// way reaches once in fifty times.
const MAX_PROBES: u8 = 5;
/// Probes of the size in use, in a row, with no packet of that size acknowledged meanwhile, before it counts as a
/// black hole: a path that loses 15% each way reaches this once in 300,000 times.
const BLACK_HOLE_PROBES: u8 = 10;
/// After a search, the limit is tried again (RFC 8899 PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// A confirmed size above the base is confirmed again this often, to notice a black hole.
const CONFIRM: Duration = Duration::from_secs(15);
/// What one probe of the size in use seems to tell of the path is asked of another so long after: short ones are between.
const AGAIN: Duration = Duration::from_secs(3);
/// The search ends when the open interval is this small.
const PRECISION: u16 = 16;
/// The base datagram as sizes are kept.
const BASE: u16 = BASE_DATAGRAM as u16;
/// Probes wait at least this long for their pong; longer where the path is long.
const PROBE_WAIT: Duration = Duration::from_millis(250);

/// How long a probe waits for its pong on a path with this round trip: RFC 8899 section 5.1.1 has a second and more, where
/// nothing is known of it.
pub(crate) fn probe_wait(rtt: &RttEstimator) -> Duration {
    rtt.measured().map_or(PROBE_WAIT, |_| PROBE_WAIT.max(2 * rtt.probe_timeout()))
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

/// The search on one path. There are many: sizes are kept in 16 bits, which hold any datagram.
#[derive(Clone, Debug)]
pub(crate) struct MtuSearch {
    confirmed: u16,
    /// Times in a row that large packets were late or lost, with none of their size acknowledged meanwhile: once for
    /// all that were sent before that was seen, as one stall has no more to say.
    doubts: u8,
    /// The last of these times.
    doubted: Instant,
    /// Size of the smallest of these packets.
    missed: u16,
    /// Nothing above this is tried.
    ceiling: u16,
    limit: u16,
    lost: u8,
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
            doubts: 0,
            doubted: Instant::ZERO,
            missed: 0,
            ceiling: BASE,
            limit: BASE,
            lost: 0,
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
        if self.doubts < DOUBTFUL { self.confirmed.into() } else { BASE_DATAGRAM }
    }

    /// The links allow another size.
    pub(crate) fn set_limit(&mut self, limit: usize, now: Instant) {
        let limit = narrow(limit);
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        self.ceiling = limit;
        self.confirmed = self.confirmed.min(limit);
        self.lost = 0;
        (self.outstanding, self.late) = (None, None);
        self.next = Some(now);
    }

    /// The path's first reply came, or it came back: search again. What was late while it was down tells nothing of
    /// sizes.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.ceiling = self.limit;
        (self.lost, self.doubts) = (0, 0);
        (self.outstanding, self.late) = (None, None);
        self.next = Some(now);
    }

    /// `wait`: what [`probe_wait`] says.
    pub(crate) fn next_deadline(&self, wait: Duration) -> Option<Instant> {
        match self.outstanding {
            Some((_, sent)) => Some(sent + wait),
            None => self.next,
        }
    }

    /// The size to probe now, if any.
    pub(crate) fn due(&mut self, now: Instant) -> Option<usize> {
        if self.outstanding.is_some() || self.next.is_none_or(|next| now < next) {
            return None;
        }
        if self.raise.take_if(|raise| now >= *raise).is_some() {
            self.ceiling = self.limit;
        }
        Some(self.target().into())
    }

    fn target(&self) -> u16 {
        if self.ceiling <= self.confirmed || self.doubts >= DOUBTFUL {
            // Nothing to search, or nothing larger: confirm what is used.
            self.confirmed
        } else if self.ceiling == self.limit {
            self.limit
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
        (self.lost, self.doubts) = (0, 0);
        self.confirmed = self.confirmed.max(size).min(self.limit);
        self.schedule(now);
        sent.filter(|_| size == self.confirmed)
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
        if size >= self.missed {
            self.doubts = 0;
        }
        let confirming = self.outstanding.is_none_or(|(probe, _)| probe.size <= self.confirmed);
        // A full datagram is whole blocks of the cipher.
        if size.saturating_add(PRECISION) > self.confirmed && size > BASE && confirming {
            self.lost = 0;
        }
    }

    /// Large packets are late or lost: soon confirm that the size in use still passes.
    pub(crate) fn suspect(&mut self, large: Large, now: Instant) {
        if self.confirmed <= BASE {
            return;
        }
        let size = narrow(large.size);
        if self.doubts == 0 {
            (self.doubts, self.doubted, self.missed) = (1, now, size);
        } else if large.sent >= self.doubted {
            self.doubts = self.doubts.saturating_add(1);
            if self.doubts == DOUBTFUL {
                // Those of a larger size say nothing of this one.
                self.lost = 0;
            }
            (self.doubted, self.missed) = (now, self.missed.min(size));
        }
        let soon = now + PROBE_WAIT;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Time has passed. `wait`: what [`probe_wait`] says. `alive`: small packets pass meanwhile, so that a lost probe tells
    /// of size.
    pub(crate) fn handle_timeout(&mut self, now: Instant, wait: Duration, alive: bool) {
        let Some((Probe { size, .. }, _)) = self.outstanding.filter(|&(_, sent)| now >= sent + wait) else {
            return;
        };
        self.late = self.outstanding.take().map(|(probe, _)| probe);
        self.next = Some(now);
        if !alive {
            self.next = Some(now + wait);
            return;
        }
        self.lost += 1;
        let most = if size <= self.confirmed { BLACK_HOLE_PROBES } else { MAX_PROBES };
        if self.lost >= most {
            self.give_up(size, now);
        }
    }

    fn give_up(&mut self, size: u16, now: Instant) {
        self.lost = 0;
        if size <= self.confirmed {
            // A black hole: what used to pass does not any more.
            (self.confirmed, self.doubts) = (BASE, 0);
        }
        self.ceiling = size.saturating_sub(1).max(BASE);
        self.schedule(now);
    }

    /// Goes on searching, or rests.
    fn schedule(&mut self, now: Instant) {
        if self.searching() {
            self.next = Some(now);
            return;
        }
        self.ceiling = self.confirmed;
        if self.confirmed < self.limit && self.raise.is_none() {
            self.raise = Some(now + RAISE);
        }
        let rest = match (self.confirmed > BASE, self.doubts) {
            (true, 0) => CONFIRM,
            (true, _) => PROBE_WAIT,
            (false, _) => RAISE,
        };
        self.next = Some(now + rest);
    }

    fn searching(&self) -> bool {
        self.ceiling > self.confirmed
            && (self.ceiling == self.limit || self.ceiling - self.confirmed >= PRECISION)
    }
}

/// A size of a datagram as it is kept: none is larger than 16 bits hold.
fn narrow(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives a search against a path that passes `real` bytes; returns what it settles on.
    fn settle(search: &mut MtuSearch, real: usize, mut now: Instant) -> usize {
        let end = now + Duration::from_secs(30);
        while now < end {
            if let Some(size) = search.due(now) {
                search.note_sent(7, size, now);
                if size <= real {
                    search.handle_pong(7, now);
                }
            }
            now = now + Duration::from_millis(50);
            search.handle_timeout(now, PROBE_WAIT, true);
        }
        search.confirmed()
    }

    #[test]
    fn finds_the_path_mtu() {
        for (limit, real) in
            [(1_472, 1_472), (8_972, 1_472), (1_472, 1_252), (65_507, 65_507), (1_472, 1_200)]
        {
            let mut search = MtuSearch::new();
            search.set_limit(limit, Instant::ZERO);
            let found = settle(&mut search, real, Instant::ZERO);
            assert!(found <= real && found + usize::from(PRECISION) > real, "{limit} {real}: {found}");
        }
    }

    /// Each probe is given up before its pong comes, and the next is under way.
    #[test]
    fn a_late_pong_counts() {
        let mut search = MtuSearch::new();
        search.set_limit(1_472, Instant::ZERO);
        let mut now = Instant::ZERO;
        for token in 0..2 {
            assert_eq!(search.due(now), Some(1_472));
            search.note_sent(token, 1_472, now);
            now = now + PROBE_WAIT;
            search.handle_timeout(now, PROBE_WAIT, true);
        }
        search.handle_pong(0, now);
        assert_eq!(search.confirmed(), BASE_DATAGRAM, "only the last is remembered");
        search.handle_pong(1, now);
        assert_eq!((search.confirmed(), search.due(now)), (1_472, None));
    }

    #[test]
    fn a_black_hole_is_noticed() {
        let mut search = MtuSearch::new();
        search.set_limit(1_472, Instant::ZERO);
        assert_eq!(settle(&mut search, 1_472, Instant::ZERO), 1_472);
        let found = settle(&mut search, 1_252, Instant::ZERO + Duration::from_secs(60));
        assert!((1_200..=1_252).contains(&found), "{found}");
    }

    #[test]
    fn messages_go_in_base_datagrams_while_the_size_is_in_doubt() {
        let mut search = MtuSearch::new();
        search.set_limit(8_972, Instant::ZERO);
        settle(&mut search, 8_972, Instant::ZERO);
        let second = |number| Instant::ZERO + Duration::from_secs(number);
        // A full datagram may be a little smaller than what was confirmed.
        let size = 8_960;
        for sign in [MtuSearch::note_passed as fn(&mut MtuSearch, usize), |search, _| {
            search.handle_pong(9, Instant::ZERO);
        }] {
            for times in 1..DOUBTFUL.into() {
                search.suspect(Large { size, sent: second(times) }, second(times + 1));
                search.suspect(Large { size, sent: second(times) }, second(times + 2));
            }
            assert_eq!(search.usable(), 8_972, "losses are just that, and a stall is one");
            search.suspect(Large { size, sent: second(10) }, second(11));
            search.note_passed(1_472);
            assert_eq!((search.usable(), search.confirmed()), (BASE_DATAGRAM, 8_972));
            search.note_sent(9, 8_972, Instant::ZERO);
            sign(&mut search, size);
            assert_eq!(search.usable(), 8_972);
        }
    }

    #[test]
    fn a_size_in_doubt_is_confirmed_before_larger_ones_are_searched() {
        let mut search = MtuSearch::new();
        search.set_limit(1_472, Instant::ZERO);
        let found = settle(&mut search, 1_420, Instant::ZERO);
        let second = |number| Instant::ZERO + Duration::from_secs(number);
        search.restart(second(100));
        for times in 100..100 + u64::from(DOUBTFUL) {
            search.suspect(Large { size: found, sent: second(times) }, second(times));
        }
        assert_eq!((search.due(second(110)), search.usable()), (Some(found), BASE_DATAGRAM));
        search.note_sent(1, found, second(110));
        search.handle_pong(1, second(110));
        assert_eq!((search.due(second(110)), search.usable()), (Some(1_472), found));
        for times in 110..110 + u64::from(DOUBTFUL) {
            search.suspect(Large { size: found, sent: second(times) }, second(times));
        }
        search.restart(second(120));
        assert_eq!(
            (search.due(second(120)), search.usable()),
            (Some(1_472), found),
            "a new start has no doubts"
        );
    }
}
