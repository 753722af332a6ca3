//! Putting fragments together.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use overlan_wire::{Fragment, MessageMode};
use rangemap::RangeSet;

use crate::delivery::pool::Pool;
use crate::time::Instant;

/// A message has at most one gap for each so many of its bytes: no sender cuts fragments that small, and what is
/// remembered of gaps stays in proportion to the message.
pub(super) const BYTES_FOR_A_GAP: usize = 32;

/// A message of which fragments are missing.
#[derive(Debug)]
pub(super) struct Partial {
    /// Grows with what arrives: bytes behind the last that did are not there.
    bytes: Vec<u8>,
    /// All bytes below it are there.
    filled: u32,
    /// And these above it.
    islands: RangeSet<u32>,
    total: u32,
    mode: MessageMode,
    order: u64,
    pub(super) since: Instant,
}

/// What became of a fragment.
pub(super) enum Assembled {
    Incomplete,
    Duplicate,
    /// It does not fit the message's other fragments.
    Contradiction,
    Complete(Bytes),
}

/// Puts a fragment where it belongs. The parser has checked that it lies within the message.
pub(super) fn assemble<K: Ord + Copy>(
    partials: &mut BTreeMap<K, Partial>,
    key: K,
    fragment: &Fragment<'_>,
    pool: &mut Pool,
    now: Instant,
) -> Assembled {
    if fragment.payload.len() as u32 == fragment.total && !partials.contains_key(&key) {
        return Assembled::Complete(Bytes::copy_from_slice(fragment.payload));
    }
    let partial = partials.entry(key).or_insert_with(|| Partial::new(fragment, pool, now));
    if (partial.total, partial.mode, partial.order) != (fragment.total, fragment.mode, fragment.order) {
        return Assembled::Contradiction;
    }
    match partial.insert(fragment.offset, fragment.payload) {
        Assembled::Incomplete if partial.filled == partial.total => {
            let bytes = partials.remove(&key).map(|partial| partial.bytes);
            Assembled::Complete(pool.share(bytes.unwrap_or_default()))
        }
        assembled => assembled,
    }
}

impl Partial {
    fn new(fragment: &Fragment<'_>, pool: &mut Pool, now: Instant) -> Self {
        Partial {
            bytes: pool.take(fragment.total as usize),
            filled: 0,
            islands: RangeSet::new(),
            total: fragment.total,
            mode: fragment.mode,
            order: fragment.order,
            since: now,
        }
    }

    /// Bytes of the whole message.
    pub(super) fn total(&self) -> usize {
        self.total as usize
    }

    #[cfg(test)]
    pub(super) fn gaps(&self) -> usize {
        self.islands.len()
    }

    fn insert(&mut self, offset: u32, payload: &[u8]) -> Assembled {
        let range = offset..offset + payload.len() as u32;
        if offset == self.filled && self.islands.is_empty() {
            // In order: no byte is touched twice.
            self.bytes.extend_from_slice(payload);
            self.filled = range.end;
            return Assembled::Incomplete;
        }
        let missing = range.start.max(self.filled)..range.end;
        if missing.is_empty() || self.islands.gaps(&missing).next().is_none() {
            return Assembled::Duplicate;
        }
        if self.islands.len() > self.total() / BYTES_FOR_A_GAP + 1 {
            return Assembled::Contradiction;
        }
        if self.bytes.len() < range.end as usize {
            self.bytes.resize(range.end as usize, 0);
        }
        self.bytes[range.start as usize..range.end as usize].copy_from_slice(payload);
        if range.start <= self.filled {
            self.filled = range.end;
            while let Some(next) = self.islands.first().filter(|next| next.start <= self.filled).cloned() {
                self.filled = self.filled.max(next.end);
                self.islands.remove(next);
            }
        } else {
            self.islands.insert(range);
        }
        Assembled::Incomplete
    }
}
