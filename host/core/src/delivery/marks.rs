//! Which of a row of things are done, where that mostly happens in their order.

use core::ops::Range;

use rangemap::RangeSet;

/// A set of small numbers. What is marked in order, from 0 on, takes neither memory nor time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// All below it are marked.
    below: u32,
    /// And these above it.
    above: RangeSet<u32>,
}

impl Marks {
    /// Whether a number is marked.
    pub fn contains(&self, at: u32) -> bool {
        at < self.below || self.above.contains(&at)
    }

    /// Whether all numbers below `len` are marked.
    pub fn cover(&self, len: u32) -> bool {
        self.below >= len
    }

    /// The first numbers of a range that are not marked.
    pub fn next_gap(&self, range: Range<u32>) -> Option<Range<u32>> {
        let range = range.start.max(self.below)..range.end;
        if range.is_empty() {
            None
        } else if self.above.is_empty() {
            Some(range)
        } else {
            self.above.gaps(&range).next()
        }
    }

    /// Gives `each` the numbers of a range that are not marked.
    pub fn gaps(&self, mut range: Range<u32>, mut each: impl FnMut(Range<u32>)) {
        while let Some(gap) = self.next_gap(range.clone()) {
            range.start = gap.end;
            each(gap);
        }
    }

    /// Marks a range; gives `new` the numbers of it that were not marked before.
    pub fn insert(&mut self, range: Range<u32>, new: impl FnMut(Range<u32>)) {
        self.gaps(range.clone(), new);
        if range.start > self.below {
            if !range.is_empty() {
                self.above.insert(range);
            }
            return;
        }
        self.below = self.below.max(range.end);
        while let Some(next) = self.above.first().filter(|next| next.start <= self.below).cloned() {
            self.below = self.below.max(next.end);
            self.above.remove(next);
        }
    }

    /// Ranges kept beside the first.
    #[cfg(test)]
    pub(crate) fn len_above(&self) -> usize {
        self.above.len()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use super::*;

    /// Against a plain set, in an order that is not the numbers'.
    #[test]
    fn marks_are_a_set() {
        let (mut marks, mut plain) = (Marks::default(), BTreeSet::new());
        for step in 0..200_u32 {
            let start = step * 37 % 101;
            let range = start..start + step % 7;
            let mut new = Vec::new();
            marks.insert(range.clone(), |part| new.extend(part));
            let expected: Vec<u32> = range.filter(|at| plain.insert(*at)).collect();
            assert_eq!(new, expected);
            for at in 0..120 {
                assert_eq!(marks.contains(at), plain.contains(&at));
                assert_eq!(marks.cover(at), (0..at).all(|below| plain.contains(&below)));
            }
            let mut gaps = Vec::new();
            marks.gaps(5..110, |gap| gaps.extend(gap));
            assert_eq!(gaps, (5..110).filter(|at| !plain.contains(at)).collect::<Vec<u32>>());
        }
        assert_eq!(marks.len_above(), 0, "what joins the rest is no range of its own");
    }
}
