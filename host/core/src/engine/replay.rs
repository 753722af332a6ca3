//! Which numbers of a sender's cluster datagrams have come.
//!
//! A bitmap that moves on with the numbers (after RFC 6479). A sender has one count for all whom it sends to, by all
//! routes, and a receiver empties one socket before the next: in a burst, what is new may be thousands of numbers old.
//! So what is remembered goes by time as well, and takes a few bytes of an idle sender.

use alloc::boxed::Box;
use core::time::Duration;

use crate::time::Instant;

/// Numbers in a block.
const BLOCK: u64 = u64::BITS as u64;
/// Most blocks, 16,384 numbers: what a member of a large cluster sends in a burst to all of it.
const MAX_BLOCKS: u64 = 256;
/// Blocks below a sender's first datagram, which others may overtake as well.
const FIRST_BLOCKS: u64 = 16;
/// What came is remembered for so long at the least, while it fits.
const KEPT: Duration = Duration::from_secs(1);

/// The replay window of one sender.
pub(super) struct Window {
    /// The block of the lowest number that is remembered; lower ones are refused.
    first: u64,
    /// Bits of the numbers that came, block by block. A slice: there is one for each idle peer.
    blocks: Box<[u64]>,
    /// When the window was last cut, and the block that was the last one then.
    cut: Instant,
    last: u64,
}

impl Window {
    /// The window of a sender whose first datagram has this number.
    pub(super) fn new(number: u64, now: Instant) -> Self {
        let last = number / BLOCK;
        let first = last.saturating_sub(FIRST_BLOCKS);
        let mut window = Window { first, blocks: Box::default(), cut: now, last };
        window.note(number, now);
        window
    }

    /// Whether the number has not come, and is not too old to tell.
    pub(super) fn is_new(&self, number: u64) -> bool {
        let Some(at) = (number / BLOCK).checked_sub(self.first) else { return false };
        let block = usize::try_from(at).ok().and_then(|at| self.blocks.get(at));
        block.is_none_or(|block| block >> (number % BLOCK) & 1 == 0)
    }

    /// Notes the number of an authentic datagram that [is new](Self::is_new).
    pub(super) fn note(&mut self, number: u64, now: Instant) {
        if now.since(self.cut) >= KEPT {
            self.cut(now);
        }
        let block = number / BLOCK;
        if block >= self.end() {
            self.keep(self.first.max((block + 1).saturating_sub(MAX_BLOCKS)), block + 1);
        }
        let at = block.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(bits) = at.and_then(|at| self.blocks.get_mut(at)) {
            *bits |= 1 << (number % BLOCK);
        }
    }

    /// The highest number that came.
    pub(super) fn highest(&self) -> u64 {
        let start = self.end().saturating_sub(1) * BLOCK;
        let last = self.blocks.last().and_then(|block| block.checked_ilog2());
        last.map_or(start.saturating_sub(1), |bit| start + u64::from(bit))
    }

    /// Starts anew from this number on, the next that the sender will use: all above were made up.
    pub(super) fn set_back(&mut self, next: u64, now: Instant) {
        let (block, sent) = (next / BLOCK, (1 << (next % BLOCK)) - 1);
        *self = Window { first: block, blocks: Box::new([sent]), cut: now, last: block };
    }

    /// When the last datagram came, to within [`KEPT`].
    pub(super) fn noted(&self) -> Instant {
        self.cut
    }

    /// The block after the last.
    fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// Forgets what came long ago: before the last cut, and all of it where that was so long ago that what came after it
    /// did, too.
    fn cut(&mut self, now: Instant) {
        let last = self.end().saturating_sub(1);
        let first = if now.since(self.cut) >= 2 * KEPT { last } else { self.last };
        if first > self.first {
            self.keep(first, self.end());
        }
        (self.cut, self.last) = (now, last);
    }

    /// Moves on to these blocks; `first` is no lower than before.
    fn keep(&mut self, first: u64, end: u64) {
        let held = |block: u64| usize::try_from(block - self.first).ok().and_then(|at| self.blocks.get(at));
        self.blocks = (first..end).map(|block| held(block).copied().unwrap_or(0)).collect();
        self.first = first;
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeSet, VecDeque};

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn take(window: &mut Window, number: u64, now: Instant) -> bool {
        let new = window.is_new(number);
        if new {
            window.note(number, now);
        }
        new
    }

    /// Whatever comes when, no number is taken twice; what is at most a second late is taken once.
    #[test]
    fn each_number_counts_once() {
        for seed in 0..20 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (mut now, mut highest) = (Instant::ZERO, rng.random_range(0..1_000));
            let (mut window, mut seen) = (Window::new(highest, now), BTreeSet::from([highest]));
            let oldest = highest;
            // What was sent when: the highest number up to then.
            let mut sent = VecDeque::from([(now, highest)]);
            for _ in 0..20_000 {
                if rng.random_ratio(1, 20) {
                    now = now + Duration::from_micros(rng.random_range(0..60_000));
                }
                highest += rng.random_range(0..20);
                sent.push_back((now, highest));
                while sent.len() > 1 && now.since(sent[1].0) >= KEPT {
                    sent.pop_front();
                }
                let most = [2, 100, 5_000, 50_000][rng.random_range(0..4)];
                let back = rng.random_range(0..most);
                let number = highest.saturating_sub(back);
                let taken = take(&mut window, number, now);
                assert!(!taken || !seen.contains(&number), "seed {seed}: {number} was taken twice");
                let late = number < sent[0].1.max(oldest) || back >= (MAX_BLOCKS - 1) * BLOCK;
                assert!(taken || late || seen.contains(&number), "seed {seed}: {number} was refused");
                if taken {
                    seen.insert(number);
                }
            }
        }
    }

    /// One socket is emptied before the other.
    #[test]
    fn a_burst_may_come_in_two_halves() {
        let mut window = Window::new(0, Instant::ZERO);
        let halves = (2..8_000).step_by(2).chain((1..8_000).step_by(2));
        for number in halves {
            assert!(take(&mut window, number, Instant::ZERO), "{number}");
        }
        assert!((0..8_000).all(|number| !window.is_new(number)));
    }

    #[test]
    fn an_idle_sender_takes_little_memory() {
        let (mut window, mut now) = (Window::new(0, Instant::ZERO), Instant::ZERO);
        (1..10_000).for_each(|number| window.note(number, now));
        for second in 0..100 {
            now = now + Duration::from_secs(1);
            window.note(10_000 + 20 * second, now);
        }
        assert!(window.blocks.len() <= 3, "{}", window.blocks.len());
        assert!((0..11_980).all(|number| number % 20 != 0 || !window.is_new(number)));
    }

    /// Nothing that was sent is taken twice, and all that comes is taken.
    #[test]
    fn a_window_goes_back_to_what_was_sent() {
        for next in [0, 1, 63, 64, 1_000, 1 << 20] {
            let mut window = Window::new(3, Instant::ZERO);
            window.note(u64::MAX, Instant::ZERO);
            assert_eq!(window.highest(), u64::MAX);
            window.set_back(next, Instant::ZERO);
            assert_eq!(window.highest(), next.saturating_sub(1));
            assert!((next.saturating_sub(200)..next).all(|number| !window.is_new(number)), "{next}");
            let now = Instant::ZERO + 5 * KEPT;
            assert!((next..next + 200).all(|number| take(&mut window, number, now)), "{next}");
            assert_eq!(window.highest(), next + 199);
        }
    }

    /// Numbers may end anywhere.
    #[test]
    fn a_jump_is_no_harm() {
        let mut window = Window::new(5, Instant::ZERO);
        for number in [1 << 40, u64::MAX - 1, u64::MAX] {
            assert!(take(&mut window, number, Instant::ZERO));
            assert!(!window.is_new(number) && !window.is_new(5));
        }
        assert!(window.blocks.len() <= MAX_BLOCKS as usize);
    }
}
