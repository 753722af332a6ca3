//! Sets of streams.

use std::ops::RangeInclusive;

use overlan_wire::limits::{BENCH_STREAMS, COMPONENT_STREAM, MAX_STREAM};

/// Components, then measurements.
const INTERNAL: RangeInclusive<u16> = COMPONENT_STREAM..=*BENCH_STREAMS.end();
const WORDS: usize = (MAX_STREAM as usize + 1) / 64;

/// A set of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    application: [u64; WORDS],
    /// Those that nodes use themselves.
    internal: u128,
}

impl Streams {
    /// None.
    pub const NONE: Self = Streams { application: [0; WORDS], internal: 0 };
    /// All that applications use: 0 to 255.
    pub const ALL: Self = Streams { application: [u64::MAX; WORDS], internal: 0 };

    /// Whether a stream is among them.
    pub fn contains(&self, stream: u16) -> bool {
        match self.application.get(usize::from(stream / 64)) {
            Some(word) => word >> (stream % 64) & 1 == 1,
            None => self.internal & internal_bit(stream) != 0,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// The streams in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=MAX_STREAM).chain(INTERNAL).filter(|stream| self.contains(*stream))
    }

    pub(crate) fn add(&mut self, other: &Streams) {
        self.application.iter_mut().zip(other.application).for_each(|(word, other)| *word |= other);
        self.internal |= other.internal;
    }

    pub(crate) fn without(mut self, other: &Streams) -> Self {
        self.application.iter_mut().zip(other.application).for_each(|(word, other)| *word &= !other);
        self.internal &= !other.internal;
        self
    }
}

/// A stream's place among those that nodes use themselves; none where it is not one of them.
fn internal_bit(stream: u16) -> u128 {
    if INTERNAL.contains(&stream) { 1 << (stream - INTERNAL.start()) } else { 0 }
}

/// Streams that do not exist are left out.
impl FromIterator<u16> for Streams {
    fn from_iter<I: IntoIterator<Item = u16>>(streams: I) -> Self {
        let mut set = Self::NONE;
        for stream in streams {
            match set.application.get_mut(usize::from(stream / 64)) {
                Some(word) => *word |= 1 << (stream % 64),
                None => set.internal |= internal_bit(stream),
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let (first, last) = INTERNAL.into_inner();
        let set: Streams = [0, 63, 64, 255, 256, first - 1, first, last, last + 1].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255, first, last]);
        assert!(!set.contains(256) && !Streams::ALL.contains(first));
        assert_eq!(set.without(&Streams::ALL).iter().collect::<Vec<_>>(), [first, last]);
        assert_eq!(BENCH_STREAMS.collect::<Streams>().iter().count(), 64);
    }
}
