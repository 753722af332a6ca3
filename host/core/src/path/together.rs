//! Whether datagrams that are sent together arrive. The kernel hands them on as one packet (UDP_SEGMENT), and only the link
//! splits it: a filter before that takes it for one that is too long, or a policer for a burst, and drops it whole, while
//! each datagram alone would pass.

use core::time::Duration;

use overlan_wire::PacketNumber;

use crate::time::Instant;

/// Datagrams in sends lost whole one after the other, from which on they go alone. Chance loses so many rarely: at 30% in
/// one of 1,400 cases.
const MANY: u64 = 6;
/// And so many sends: an outage loses one, since the next is looked at once later ones arrived.
const SENDS: u8 = 2;
/// How long datagrams go alone before another send of several is tried.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause doubles so often.
const MAX_DOUBLINGS: u8 = 6;

/// What became of sends of several datagrams, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// The first packet of one under way, and how many there are.
    awaited: Option<(u64, u64)>,
    /// Sends lost whole since one arrived, or a part of it.
    sends: u8,
    /// Datagrams in them.
    datagrams: u64,
    pauses: u8,
    /// Datagrams go alone until then, and then all but for one send that shows whether it passes.
    alone_until: Option<Instant>,
}

impl Together {
    /// Whether datagrams may be sent together.
    pub(crate) fn may(&self, now: Instant) -> bool {
        self.alone_until.is_none_or(|until| until <= now && self.awaited.is_none())
    }

    /// So many packets from this one on were sent together.
    pub(crate) fn note_sent(&mut self, first: u64, count: u64) {
        self.awaited.get_or_insert((first, count));
    }

    /// Packets of these ranges arrived.
    pub(crate) fn note_arrived(&mut self, ranges: &[(PacketNumber, PacketNumber)]) {
        let Some((first, count)) = self.awaited else { return };
        if ranges.iter().any(|(low, high)| low.0 < first + count && high.0 >= first) {
            *self = Together::default();
        }
    }

    /// Packets were found lost; `in_flight` tells whether one of so many packets is still under way.
    pub(crate) fn note_lost(&mut self, in_flight: impl FnOnce(u64, u64) -> bool, now: Instant) {
        let Some((_, count)) = self.awaited.take_if(|(first, count)| !in_flight(*first, *count)) else {
            return;
        };
        self.sends = self.sends.saturating_add(1);
        self.datagrams += count;
        if self.alone_until.is_some() || self.sends >= SENDS && self.datagrams >= MANY {
            self.alone_until = Some(now + FIRST_PAUSE * (1 << self.pauses));
            self.pauses = (self.pauses + 1).min(MAX_DOUBLINGS);
        }
    }

    /// Packets that were found lost came after all: they were overtaken.
    pub(crate) fn note_overtaken(&mut self) {
        *self = Together { awaited: self.awaited, ..Together::default() };
    }

    /// The path is down: what was under way on it is given up, and tells nothing.
    pub(crate) fn abandon(&mut self) {
        self.awaited = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends so many at a time, each a millisecond after the other, and loses them; whether the next may go together.
    fn lose(together: &mut Together, now: &mut Instant, counts: &[u64]) -> bool {
        for &count in counts {
            together.note_sent(100, count);
            *now = *now + MS;
            together.note_lost(|_, _| false, *now);
        }
        together.may(*now)
    }

    fn arrive(together: &mut Together, number: u64) {
        together.note_arrived(&[(PacketNumber(number), PacketNumber(number))]);
    }

    #[test]
    fn many_that_are_lost_together_go_alone() {
        let (mut together, mut now) = (Together::default(), Instant::ZERO);
        assert!(lose(&mut together, &mut now, &[46]), "an outage");
        assert!(!lose(&mut together, &mut now, &[2]));
        let mut together = Together::default();
        assert!(lose(&mut together, &mut now, &[2, 2]), "by chance, perhaps");
        assert!(!lose(&mut together, &mut now, &[2]));
    }

    #[test]
    fn what_arrives_in_part_passes() {
        let (mut together, mut now) = (Together::default(), Instant::ZERO);
        for _ in 0..10 {
            assert!(lose(&mut together, &mut now, &[46]));
            together.note_sent(100, 46);
            arrive(&mut together, 99);
            together.note_lost(|first, count| (first, count) == (100, 46), now);
            arrive(&mut together, 145);
        }
    }

    /// One send shows whether others pass; each that does not makes the pause twice as long.
    #[test]
    fn one_is_tried_after_a_pause() {
        let (mut together, mut now) = (Together::default(), Instant::ZERO);
        lose(&mut together, &mut now, &[46, 46]);
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            now = now + Duration::from_secs(pause) - MS;
            assert!(!together.may(now), "{pause}");
            now = now + MS;
            assert!(together.may(now), "{pause}");
            together.note_sent(200, 2);
            assert!(!together.may(now), "one at a time");
            now = now + MS;
            together.note_lost(|_, _| false, now);
        }
        now = now + Duration::from_secs(64);
        together.note_sent(200, 2);
        arrive(&mut together, 201);
        assert!(together.may(now));
        assert!(lose(&mut together, &mut now, &[46]), "all is forgotten");
    }
}
