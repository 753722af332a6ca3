//! One stream's messages on their way.

use alloc::collections::VecDeque;

use bytes::Bytes;
use overlan_wire::limits::MESSAGE_WINDOW;
use overlan_wire::{Fragment, MessageId, MessageMode};
use rangemap::RangeSet;

use crate::delivery::{INITIAL_CREDIT, MESSAGE_COST};
use crate::time::Instant;

/// A message as the application gave it.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) mode: MessageMode,
    pub(crate) redelivered: bool,
    pub(crate) payload: Bytes,
    pub(crate) token: u64,
    pub(crate) deadline: Option<Instant>,
}

impl Queued {
    pub(super) fn cost(&self) -> usize {
        self.payload.len() + MESSAGE_COST as usize
    }

    pub(super) fn late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// A reliable message whose number is given, until the peer's consumer accepted it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) message: Queued,
    pub(super) order: u64,
    pub(super) total: u32,
    /// Bytes below it were sent at least once.
    pub(super) sent: u32,
    /// Bytes below it are acknowledged.
    acked_below: u32,
    /// And these above it.
    acked: RangeSet<u32>,
    /// All bytes are acknowledged; the payload is freed.
    pub(super) complete: bool,
    /// Its fate was reported.
    pub(super) reported: bool,
    /// Accepted, and only kept for the numbers before it.
    pub(super) closed: bool,
}

impl Open {
    pub(super) fn new(message: Queued, order: u64, sent: u32) -> Self {
        Open {
            order,
            total: message.payload.len() as u32,
            message,
            sent,
            acked_below: 0,
            acked: RangeSet::new(),
            complete: false,
            reported: false,
            closed: false,
        }
    }

    pub(super) fn fragment(&self, stream: u16, id: MessageId, offset: u32, len: u32) -> Fragment<'_> {
        Fragment {
            message: id,
            mode: self.message.mode,
            redelivered: self.message.redelivered,
            stream,
            order: self.order,
            total: self.total,
            offset,
            payload: &self.message.payload[offset as usize..(offset + len) as usize],
        }
    }

    /// The first bytes within these that are not acknowledged: offset and length.
    pub(super) fn gap(&self, offset: u32, len: u32) -> Option<(u32, u32)> {
        if self.complete {
            return None;
        }
        if self.total == 0 {
            return Some((0, 0));
        }
        let range = offset.max(self.acked_below)..offset + len;
        if range.is_empty() {
            return None;
        }
        self.acked.gaps(&range).next().map(|gap| (gap.start, gap.end - gap.start))
    }

    /// These bytes arrived.
    pub(super) fn note_acked(&mut self, offset: u32, len: u32) {
        if self.complete {
            return;
        }
        let end = offset + len;
        if offset <= self.acked_below {
            self.acked_below = self.acked_below.max(end);
            while let Some(next) = self.acked.first().filter(|next| next.start <= self.acked_below).cloned() {
                self.acked_below = self.acked_below.max(next.end);
                self.acked.remove(next);
            }
        } else {
            self.acked.insert(offset..end);
        }
        if self.acked_below == self.total {
            self.note_complete();
        }
    }

    /// All of it arrived.
    pub(super) fn note_complete(&mut self) {
        self.complete = true;
        self.message.payload = Bytes::new();
        self.acked = RangeSet::new();
    }
}

/// One stream to a peer.
#[derive(Debug)]
pub(super) struct OutStream {
    /// Waiting for a number.
    pub(super) queue: VecDeque<Queued>,
    /// Messages from number `base` on.
    pub(super) open: VecDeque<Open>,
    /// All below it were accepted.
    pub(super) base: u64,
    /// An unreliable message whose bytes were not all sent yet.
    pub(super) unreliable: Option<(Queued, u32)>,
    pub(super) next_unreliable: u64,
    pub(super) next_order: u64,
    pub(super) opened_cost: u64,
    pub(super) credit: u64,
    /// Bytes that wait or are open.
    pub(super) queued_bytes: usize,
}

impl OutStream {
    pub(super) fn new() -> Self {
        OutStream {
            queue: VecDeque::new(),
            open: VecDeque::new(),
            base: 0,
            unreliable: None,
            next_unreliable: 0,
            next_order: 0,
            opened_cost: 0,
            credit: INITIAL_CREDIT,
            queued_bytes: 0,
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.base + self.open.len() as u64
    }

    /// The open message that was not wholly sent yet.
    pub(super) fn current(&self) -> Option<&Open> {
        self.open.back().filter(|open| open.sent < open.total)
    }

    /// Whether a message is on its way in pieces.
    pub(super) fn in_pieces(&self) -> bool {
        self.unreliable.is_some() || self.current().is_some()
    }

    /// Whether the next message may be opened, if the peer's credit in all leaves `room`.
    pub(super) fn may_open(&self, room: u64) -> bool {
        self.queue.front().is_some_and(|next| {
            let cost = next.cost() as u64;
            next.mode == MessageMode::Unreliable
                || (self.open.len() as u64) < MESSAGE_WINDOW
                    && cost <= room
                    && self.opened_cost + cost <= self.credit
        })
    }

    /// An open message by its number.
    pub(super) fn open_mut(&mut self, id: u64) -> Option<&mut Open> {
        let index = usize::try_from(id.checked_sub(self.base)?).ok()?;
        self.open.get_mut(index)
    }

    /// Gives back memory that a burst took.
    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to(0);
        self.open.shrink_to(0);
    }
}
