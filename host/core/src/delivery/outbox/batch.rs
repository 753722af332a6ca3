//! Messages that were queued together.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use overlan_wire::{Fragment, MessageId, MessageMode};

use crate::delivery::MESSAGE_COST;
use crate::delivery::marks::Marks;
use crate::time::Instant;

/// Messages as the application gave them: alike but for their bytes.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) mode: MessageMode,
    pub(crate) redelivered: bool,
    pub(crate) payloads: Vec<Bytes>,
    /// The first one's; the others' follow one by one.
    pub(crate) token: u64,
    pub(crate) deadline: Option<Instant>,
}

impl Queued {
    pub(super) fn cost(&self) -> usize {
        self.payloads.iter().map(cost).sum()
    }

    pub(super) fn tokens(&self, part: Range<u32>) -> Range<u64> {
        self.token + u64::from(part.start)..self.token + u64::from(part.end)
    }

    /// Takes the messages from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        Queued { payloads: self.payloads.split_off(at), token: self.token + at as u64, ..*self }
    }
}

/// What a message counts for in queues and credit.
pub(super) fn cost(payload: &Bytes) -> usize {
    payload.len() + MESSAGE_COST as usize
}

/// Messages that were queued together, until the peer's consumer accepted the last of them. Their bytes are held until
/// it accepted each.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) queued: Queued,
    /// Batches of a stream leave in this order.
    pub(super) turn: u64,
    /// Messages that were opened; of unreliable ones: that left.
    pub(super) opened: usize,
    /// Number of the first message; none is so high before it is opened.
    pub(super) first: u64,
    /// Its place in the order.
    order: u64,
    /// Messages that arrived.
    pub(super) complete: Marks,
    /// Messages that were accepted.
    closed: Marks,
    /// Open messages whose fate was told already.
    reported: Marks,
    /// Bytes that arrived of messages that left in fragments.
    pieces: BTreeMap<u32, Marks>,
}

impl Batch {
    pub(super) fn new(queued: Queued, turn: u64) -> Self {
        Batch {
            queued,
            turn,
            opened: 0,
            first: u64::MAX,
            order: 0,
            complete: Marks::default(),
            closed: Marks::default(),
            reported: Marks::default(),
            pieces: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queued.payloads.len()
    }

    /// Whether all of it was opened.
    pub(super) fn is_opened(&self) -> bool {
        self.opened == self.len()
    }

    /// Whether all of it was accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.cover(self.len() as u32)
    }

    /// Whether a message was accepted.
    #[cfg(test)]
    pub(super) fn is_closed_at(&self, at: u32) -> bool {
        self.closed.contains(at)
    }

    /// The message to open next.
    pub(super) fn next(&self) -> Option<&Bytes> {
        self.queued.payloads.get(self.opened)
    }

    /// The next message gets this number and this place in the order.
    pub(super) fn open(&mut self, id: u64, order: u64) {
        if self.opened == 0 {
            (self.first, self.order) = (id, order);
        }
        self.opened += 1;
    }

    /// The open messages with these numbers.
    pub(super) fn part(&self, ids: &Range<u64>) -> Range<u32> {
        let place = |id: u64| id.saturating_sub(self.first).min(self.opened as u64) as u32;
        place(ids.start)..place(ids.end)
    }

    /// A message's place in the order.
    pub(super) fn order(&self, at: u32) -> u64 {
        if self.queued.mode == MessageMode::Ordered { self.order + u64::from(at) } else { 0 }
    }

    pub(super) fn payload(&self, at: u32) -> &Bytes {
        &self.queued.payloads[at as usize]
    }

    pub(super) fn fragment(&self, stream: u16, at: u32, offset: u32, len: u32) -> Fragment<'_> {
        let payload = self.payload(at);
        Fragment {
            message: MessageId(self.first + u64::from(at)),
            mode: self.queued.mode,
            redelivered: self.queued.redelivered,
            stream,
            order: self.order(at),
            total: payload.len() as u32,
            offset,
            payload: &payload[offset as usize..(offset + len) as usize],
        }
    }

    /// The first of these bytes of a message that have not arrived: offset and length.
    pub(super) fn gap(&self, at: u32, offset: u32, len: u32) -> Option<(u32, u32)> {
        if self.complete.contains(at) {
            return None;
        }
        if self.payload(at).is_empty() {
            return Some((0, 0));
        }
        let missing = match self.pieces.get(&at) {
            Some(arrived) => arrived.next_gap(offset..offset + len)?,
            None => offset..offset + len,
        };
        Some((missing.start, missing.end - missing.start))
    }

    /// These bytes of a message arrived.
    pub(super) fn note_arrived(&mut self, at: u32, offset: u32, len: u32) {
        if self.complete.contains(at) {
            return;
        }
        let total = self.payload(at).len() as u32;
        let arrived = self.pieces.entry(at).or_default();
        arrived.insert(offset..offset + len, |_| {});
        if arrived.cover(total) {
            self.note_complete(at..at + 1);
        }
    }

    /// All of these messages arrived.
    pub(super) fn note_complete(&mut self, part: Range<u32>) {
        let Batch { complete, pieces, .. } = self;
        complete.insert(part, |new| {
            while let Some((&at, _)) = pieces.range(new.clone()).next() {
                pieces.remove(&at);
            }
        });
    }

    /// The peer's consumer accepted these messages: gives `told` the tokens of those that had no fate; the bytes that
    /// are free now.
    pub(super) fn close(&mut self, part: Range<u32>, mut told: impl FnMut(Range<u64>)) -> usize {
        let mut freed = 0;
        self.closed.insert(part.clone(), |new| {
            for payload in &mut self.queued.payloads[new.start as usize..new.end as usize] {
                freed += cost(payload);
                *payload = Bytes::new();
            }
            self.reported.gaps(new, |untold| told(self.queued.tokens(untold)));
        });
        self.note_complete(part);
        freed
    }

    /// The fate of these open messages is told now, if it was not: gives `told` their tokens.
    pub(super) fn report(&mut self, part: Range<u32>, mut told: impl FnMut(Range<u64>)) {
        self.closed.gaps(part, |open| {
            self.reported.insert(open, |new| told(self.queued.tokens(new)));
        });
    }

    /// Whether the fate of some message is still to be told.
    pub(super) fn is_pending(&self) -> bool {
        let mut pending = false;
        self.closed.gaps(0..self.len() as u32, |open| pending |= self.reported.next_gap(open).is_some());
        pending
    }
}
