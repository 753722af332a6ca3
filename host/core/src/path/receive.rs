//! What arrived on one of the peer's paths: the replay window, and what to acknowledge.

use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::limits::MAX_ACK_RANGES;
use overlan_wire::{PacketNumber, PathId};

use crate::time::Instant;

/// Ranges of packet numbers remembered; older gaps close, so that what falls into them counts as
/// replayed.
const MAX_RANGES: usize = 64;
/// A packet that wants an acknowledgement waits at most this long for something to carry it (RFC 9000 section
/// 13.2.1): the answer of an application, say.
pub(crate) const MAX_ACK_DELAY: Duration = Duration::from_millis(1);
/// What arrived longer ago than once to twice this time was acknowledged often enough: a path that loses much would carry
/// little but acknowledgements.
const TOLD_FOR: Duration = Duration::from_secs(1);
/// Packets that want an acknowledgement, as many as are acknowledged without waiting (RFC 9000 section 13.2.2).
const ACK_FREQUENCY: u32 = 2;

/// One packet-number space of the peer.
#[derive(Debug, Default)]
pub(crate) struct ReceiveSpace {
    /// Inclusive ranges, ascending, disjoint and not adjacent.
    ranges: Vec<(u64, u64)>,
    /// Numbers below it are refused.
    floor: u64,
    largest_at: Instant,
    /// Packets that arrived marked CE.
    ce: u64,
    /// Packets that want an acknowledgement and have none.
    unacked: u32,
    /// When the first of them arrived.
    unacked_since: Instant,
    /// One of them tells of a gap or of congestion: the sender should know at once.
    urgent: bool,
    pub(crate) last_at: Instant,
    /// The largest number once to twice [`TOLD_FOR`] ago, and the largest of half that time ago.
    told: (u64, u64),
    told_at: Instant,
}

impl ReceiveSpace {
    /// Whether the number was not seen before and is not too old to tell.
    pub(crate) fn is_new(&self, number: PacketNumber) -> bool {
        // The last number is never used, so that its successor always exists.
        if number.0 == u64::MAX || number.0 < self.floor {
            return false;
        }
        let below = self.ranges.iter().rev().find(|&&(low, _)| low <= number.0);
        below.is_none_or(|&(_, high)| number.0 > high)
    }

    /// Notes an authenticated packet; whether it came in sequence.
    pub(crate) fn note(&mut self, number: PacketNumber, now: Instant) -> bool {
        let number = number.0;
        self.last_at = now;
        if now.since(self.told_at) >= TOLD_FOR {
            self.told = (self.told.1, self.ranges.last().map_or(0, |&(_, high)| high));
            self.told_at = now;
        }
        match self.ranges.last_mut() {
            Some((_, high)) if number.checked_sub(1) == Some(*high) => {
                *high = number;
                self.largest_at = now;
                true
            }
            _ => {
                self.note_elsewhere(number, now);
                false
            }
        }
    }

    /// The first, or one before or behind a gap.
    fn note_elsewhere(&mut self, number: u64, now: Instant) {
        if self.ranges.last().is_none_or(|&(_, high)| number > high) {
            self.largest_at = now;
        }
        // The first range above the number.
        let at = self.ranges.iter().rposition(|&(low, _)| low < number).map_or(0, |below| below + 1);
        let joins_below = at > 0 && self.ranges[at - 1].1 == number - 1;
        let joins_above = self.ranges.get(at).is_some_and(|&(low, _)| low - 1 == number);
        match (joins_below, joins_above) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => {
                if self.ranges.is_empty() {
                    // Mostly it stays the only one: a vector that grows by itself has room for four.
                    self.ranges.reserve_exact(1);
                }
                self.ranges.insert(at, (number, number));
            }
        }
        if self.ranges.len() > MAX_RANGES {
            self.ranges.remove(0);
            self.floor = self.ranges[0].0;
        }
    }

    /// Notes that the packet came marked CE (RFC 3168): the sender learns it at once.
    pub(crate) fn note_marked(&mut self) {
        self.ce += 1;
        self.urgent = true;
    }

    /// The packet just noted wants an acknowledgement; one out of sequence at once.
    pub(crate) fn owe(&mut self, in_sequence: bool, now: Instant) {
        if self.unacked == 0 {
            self.unacked_since = now;
        }
        self.unacked = self.unacked.saturating_add(1);
        self.urgent |= !in_sequence;
    }

    /// Whether an acknowledgement is owed: what leaves anyway carries it.
    pub(crate) fn is_owed(&self) -> bool {
        self.unacked > 0
    }

    /// Whether it is worth a datagram of its own. Asked at the end of a batch of received datagrams.
    pub(crate) fn ack_due(&self, now: Instant) -> bool {
        let enough = self.urgent || self.unacked >= ACK_FREQUENCY;
        self.ack_deadline().is_some_and(|at| enough || at <= now)
    }

    /// When it will be, if nothing else happens.
    pub(crate) fn ack_deadline(&self) -> Option<Instant> {
        self.is_owed().then(|| self.unacked_since + MAX_ACK_DELAY)
    }

    /// The acknowledgement is sent, or there is no way to send it.
    pub(crate) fn note_acked(&mut self) {
        (self.unacked, self.urgent) = (0, false);
    }

    /// The acknowledgement of what arrived, if anything did.
    pub(crate) fn ack(&self, path: PathId, now: Instant) -> Option<overlan_wire::Ack> {
        if self.ranges.is_empty() {
            return None;
        }
        let newest = self.ranges.iter().rev().take(MAX_ACK_RANGES);
        let newest = newest.take_while(|&&(_, high)| high >= self.told.0);
        Some(overlan_wire::Ack {
            path,
            delay_us: u32::try_from(now.since(self.largest_at).as_micros()).unwrap_or(u32::MAX),
            ce: self.ce,
            ranges: newest.map(|&(low, high)| (PacketNumber(low), PacketNumber(high))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ranges() {
        let mut space = ReceiveSpace::default();
        for number in [0, 1, 5, 3, 4, 9, 2] {
            assert!(space.is_new(PacketNumber(number)));
            space.note(PacketNumber(number), Instant::ZERO);
            assert!(!space.is_new(PacketNumber(number)));
        }
        let ack = space.ack(PathId(0), Instant::ZERO).unwrap();
        let pairs: Vec<_> = ack.ranges.iter().map(|(low, high)| (low.0, high.0)).collect();
        assert_eq!(pairs, [(9, 9), (0, 5)]);
    }

    #[test]
    fn forgotten_numbers_are_refused() {
        let mut space = ReceiveSpace::default();
        for number in (0..400).step_by(2) {
            space.note(PacketNumber(number), Instant::ZERO);
        }
        assert!(!space.is_new(PacketNumber(1)));
        assert!(space.is_new(PacketNumber(399)));
    }

    #[test]
    fn one_packet_waits_and_two_or_a_gap_do_not() {
        let mut space = ReceiveSpace::default();
        space.note(PacketNumber(0), Instant::ZERO);
        let owe = |space: &mut ReceiveSpace, number| {
            let in_sequence = space.note(PacketNumber(number), Instant::ZERO);
            space.owe(in_sequence, Instant::ZERO);
        };
        owe(&mut space, 1);
        assert!(space.is_owed() && !space.ack_due(Instant::ZERO));
        assert!(space.ack_due(space.ack_deadline().unwrap()));
        owe(&mut space, 2);
        assert!(space.ack_due(Instant::ZERO));
        space.note_acked();
        assert!(!space.is_owed() && space.ack_deadline().is_none());
        owe(&mut space, 4);
        assert!(space.ack_due(Instant::ZERO));
        space.note_acked();
        space.note_marked();
        assert!(!space.ack_due(Instant::ZERO));
        owe(&mut space, 5);
        assert!(space.ack_due(Instant::ZERO));
        assert_eq!(space.ack(PathId(0), Instant::ZERO).map(|ack| ack.ce), Some(1));
    }

    /// Old gaps are not told of for ever: each would make every acknowledgement longer.
    #[test]
    fn what_was_told_for_long_is_not_told_again() {
        let mut space = ReceiveSpace::default();
        let at = |number: u64| Instant::ZERO + Duration::from_millis(50 * number);
        for number in (0..200).step_by(2) {
            space.note(PacketNumber(number), at(number));
        }
        let ranges = space.ack(PathId(0), at(200)).unwrap().ranges;
        assert_eq!(ranges[0], (PacketNumber(198), PacketNumber(198)));
        assert!((10..=21).contains(&ranges.len()), "{} of two seconds at most", ranges.len());
        space.note(PacketNumber(151), at(200));
        let ranges = space.ack(PathId(0), at(200)).unwrap().ranges;
        assert!(ranges.iter().all(|(low, _)| low.0 > 140), "{ranges:?}");
    }
}
