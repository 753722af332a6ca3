//! What arrived on one of the peer's paths: the replay window, and what to acknowledge.

use alloc::vec::Vec;

use overlan_wire::limits::MAX_ACK_RANGES;
use overlan_wire::{PacketNumber, PathId};

use crate::time::Instant;

/// Ranges of packet numbers remembered; older gaps close, so that what falls into them counts as
/// replayed.
const MAX_RANGES: usize = 64;

/// One packet-number space of the peer.
#[derive(Debug, Default)]
pub(crate) struct ReceiveSpace {
    /// Inclusive ranges, descending, disjoint and not adjacent.
    ranges: Vec<(u64, u64)>,
    /// Numbers below it are refused.
    floor: u64,
    largest_at: Instant,
    /// An acknowledgement is owed.
    pub(crate) owed: bool,
    pub(crate) last_at: Instant,
}

impl ReceiveSpace {
    /// Whether the number was not seen before and is not too old to tell.
    pub(crate) fn is_new(&self, number: PacketNumber) -> bool {
        // The last number is never used, so that its successor always exists.
        number.0 >= self.floor
            && number.0 < u64::MAX
            && !self.ranges.iter().any(|&(low, high)| (low..=high).contains(&number.0))
    }

    /// Notes an authenticated packet.
    pub(crate) fn note(&mut self, number: PacketNumber, now: Instant) {
        let number = number.0;
        if self.ranges.first().is_none_or(|&(_, high)| number > high) {
            self.largest_at = now;
        }
        self.last_at = now;
        let at = self.ranges.iter().position(|&(low, _)| number >= low).unwrap_or(self.ranges.len());
        let joins_above = at > 0 && self.ranges[at - 1].0 == number + 1;
        let joins_below = self.ranges.get(at).is_some_and(|&(_, high)| high + 1 == number);
        match (joins_above, joins_below) {
            (true, true) => {
                self.ranges[at - 1].0 = self.ranges[at].0;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].0 = number,
            (false, true) => self.ranges[at].1 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        if self.ranges.len() > MAX_RANGES {
            let (low, _) = self.ranges.pop().expect("more than the limit");
            self.floor = self.floor.max(low + 1);
            if let Some(&(low, _)) = self.ranges.last() {
                self.floor = low;
            }
        }
    }

    /// The acknowledgement of what arrived, if anything did.
    pub(crate) fn ack(&self, path: PathId, now: Instant) -> Option<overlan_wire::Ack> {
        if self.ranges.is_empty() {
            return None;
        }
        Some(overlan_wire::Ack {
            path,
            delay_us: u32::try_from(now.since(self.largest_at).as_micros()).unwrap_or(u32::MAX),
            ranges: self
                .ranges
                .iter()
                .take(MAX_ACK_RANGES)
                .map(|&(low, high)| (PacketNumber(low), PacketNumber(high)))
                .collect(),
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
}
