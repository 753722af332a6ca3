//! Packetisation-layer path MTU discovery (RFC 8899), in bytes of UDP payload.
//!
//! A path starts at the base datagram that every path carries and probes upwards with padded pings.
//! A size is given up only after several probes of it were lost while small packets passed: plain
//! loss alone never shrinks a path (RFC 8899 section 4.3; the mistake in quinn#1855).

use core::time::Duration;

use overlan_wire::limits::BASE_DATAGRAM;

use super::recovery::Large;
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
/// The search ends when the open interval is this small.
const PRECISION: usize = 16;
/// Probes wait at least this long for their pong.
const PROBE_WAIT: Duration = Duration::from_millis(250);

/// Times that large packets were late or lost in a row, with none of their size acknowledged meanwhile, before the
/// size in use is in doubt.
const DOUBTFUL: u8 = 3;

/// The search on one path.
#[derive(Clone, Debug)]
pub(crate) struct MtuSearch {
    confirmed: usize,
    /// Times in a row that large packets were late or lost, with none of their size acknowledged meanwhile: once for
    /// all that were sent before that was seen, as one stall has no more to say.
    doubts: u8,
    /// The last of these times.
    doubted: Instant,
    /// Size of the smallest of these packets.
    missed: usize,
    /// Nothing above this is tried.
    ceiling: usize,
    limit: usize,
    lost: u8,
    outstanding: Option<(u32, usize, Instant)>,
    next: Option<Instant>,
    /// When sizes above the ceiling are tried again.
    raise: Option<Instant>,
}

impl MtuSearch {
    pub(crate) fn new() -> Self {
        MtuSearch {
            confirmed: BASE_DATAGRAM,
            doubts: 0,
            doubted: Instant::ZERO,
            missed: 0,
            ceiling: BASE_DATAGRAM,
            limit: BASE_DATAGRAM,
            lost: 0,
            outstanding: None,
            next: None,
            raise: None,
        }
    }

    /// Largest datagram seen to pass.
    pub(crate) fn confirmed(&self) -> usize {
        self.confirmed
    }

    /// Largest datagram for messages: those that wait do not wait until it is sure that a size passes no more.
    pub(crate) fn usable(&self) -> usize {
        if self.doubts < DOUBTFUL { self.confirmed } else { BASE_DATAGRAM }
    }

    /// The links allow another size.
    pub(crate) fn set_limit(&mut self, limit: usize, now: Instant) {
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        self.ceiling = limit;
        self.confirmed = self.confirmed.min(limit);
        self.lost = 0;
        self.outstanding = None;
        self.next = Some(now);
    }

    /// The path's first reply came, or it came back: search again. What was late while it was down tells nothing of
    /// sizes.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.ceiling = self.limit;
        (self.lost, self.doubts) = (0, 0);
        self.outstanding = None;
        self.next = Some(now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.outstanding {
            Some((_, _, sent)) => Some(sent + PROBE_WAIT),
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
        Some(self.target())
    }

    fn target(&self) -> usize {
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
        self.outstanding = Some((token, size, now));
    }

    /// A pong arrived.
    pub(crate) fn handle_pong(&mut self, token: u32, now: Instant) {
        if let Some((outstanding, size, _)) = self.outstanding
            && outstanding == token
        {
            self.outstanding = None;
            (self.lost, self.doubts) = (0, 0);
            self.confirmed = self.confirmed.max(size).min(self.limit);
            self.schedule(now);
        }
    }

    /// A packet of this size was acknowledged: what is in use passes.
    pub(crate) fn note_passed(&mut self, size: usize) {
        if size >= self.missed {
            self.doubts = 0;
        }
        let confirming = self.outstanding.is_none_or(|(_, probed, _)| probed <= self.confirmed);
        // A full datagram is whole blocks of the cipher.
        if size + PRECISION > self.confirmed && size > BASE_DATAGRAM && confirming {
            self.lost = 0;
        }
    }

    /// Large packets are late or lost: soon confirm that the size in use still passes.
    pub(crate) fn suspect(&mut self, large: Large, now: Instant) {
        if self.confirmed <= BASE_DATAGRAM {
            return;
        }
        if self.doubts == 0 {
            (self.doubts, self.doubted, self.missed) = (1, now, large.size);
        } else if large.sent >= self.doubted {
            self.doubts = self.doubts.saturating_add(1);
            if self.doubts == DOUBTFUL {
                // Those of a larger size say nothing of this one.
                self.lost = 0;
            }
            (self.doubted, self.missed) = (now, self.missed.min(large.size));
        }
        let soon = now + PROBE_WAIT;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Time has passed. `alive`: small packets pass meanwhile, so that a lost probe tells of size.
    pub(crate) fn handle_timeout(&mut self, now: Instant, alive: bool) {
        let Some((_, size, sent)) = self.outstanding else { return };
        if now < sent + PROBE_WAIT {
            return;
        }
        self.outstanding = None;
        self.next = Some(now);
        if !alive {
            self.next = Some(now + PROBE_WAIT);
            return;
        }
        self.lost += 1;
        let most = if size <= self.confirmed { BLACK_HOLE_PROBES } else { MAX_PROBES };
        if self.lost >= most {
            self.give_up(size, now);
        }
    }

    fn give_up(&mut self, size: usize, now: Instant) {
        self.lost = 0;
        if size <= self.confirmed {
            // A black hole: what used to pass does not any more.
            (self.confirmed, self.doubts) = (BASE_DATAGRAM, 0);
        }
        self.ceiling = size.saturating_sub(1).max(BASE_DATAGRAM);
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
        let rest = match (self.confirmed > BASE_DATAGRAM, self.doubts) {
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
            search.handle_timeout(now, true);
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
            assert!(found <= real && found + PRECISION > real, "{limit} {real}: {found}");
        }
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
            search.handle_pong(9, Instant::ZERO)
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
