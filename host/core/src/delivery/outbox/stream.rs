//! One stream's messages on their way.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use overlan_wire::MessageMode;
use overlan_wire::limits::MESSAGE_WINDOW;

use super::batch::{Batch, Queued, cost};
use crate::delivery::INITIAL_CREDIT;
use crate::time::Instant;

/// Batches that are taken out of a queue one by one.
const FEW: usize = 16;

/// An unreliable message that is on its way in pieces.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) payload: Bytes,
    pub(super) redelivered: bool,
    pub(super) sent: u32,
}

/// One stream to a peer.
#[derive(Debug)]
pub(super) struct OutStream {
    /// Reliable messages: batches before `next` are open, that one partly, those behind it wait for their numbers.
    pub(super) reliable: VecDeque<Batch>,
    pub(super) next: usize,
    /// Unreliable messages that wait.
    pub(super) unreliable: VecDeque<Batch>,
    /// Batches that came.
    turns: u64,
    /// The bytes that left of the last message opened, where that is not all of them.
    pub(super) current: Option<u32>,
    /// An unreliable message whose bytes were not all sent yet.
    pub(super) piece: Option<Piece>,
    /// All below it were accepted.
    pub(super) base: u64,
    pub(super) next_id: u64,
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
            reliable: VecDeque::new(),
            next: 0,
            unreliable: VecDeque::new(),
            turns: 0,
            current: None,
            piece: None,
            base: 0,
            next_id: 0,
            next_unreliable: 0,
            next_order: 0,
            opened_cost: 0,
            credit: INITIAL_CREDIT,
            queued_bytes: 0,
        }
    }

    /// Queues messages, at least one.
    pub(super) fn push(&mut self, queued: Queued) {
        let unreliable = queued.mode == MessageMode::Unreliable;
        let batch = Batch::new(queued, self.turns);
        self.turns += 1;
        if unreliable { &mut self.unreliable } else { &mut self.reliable }.push_back(batch);
    }

    /// Whether a message is on its way in pieces.
    pub(super) fn in_pieces(&self) -> bool {
        self.piece.is_some() || self.current.is_some()
    }

    /// Whether something was not sent yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.in_pieces() || self.next < self.reliable.len() || !self.unreliable.is_empty()
    }

    /// The batch with the next message that may be opened, if the peer's credit in all leaves `room`.
    pub(super) fn head(&self, room: u64) -> Option<&Batch> {
        let reliable = self.reliable.get(self.next).filter(|batch| {
            batch.next().is_some_and(|next| {
                let cost = cost(next) as u64;
                self.next_id - self.base < MESSAGE_WINDOW
                    && cost <= room
                    && self.opened_cost + cost <= self.credit
            })
        });
        reliable.into_iter().chain(self.unreliable.front()).min_by_key(|batch| batch.turn)
    }

    /// Messages of batches from this place on may have the number, those before may not.
    fn place(&self, id: u64) -> usize {
        // Mostly the oldest.
        if self.reliable.get(1).is_none_or(|second| second.first > id) {
            return 0;
        }
        self.reliable.partition_point(|batch| batch.first <= id).saturating_sub(1)
    }

    /// An open message by its number: its batch and its place there.
    pub(super) fn find(&mut self, id: u64) -> Option<(&mut Batch, u32)> {
        let at = self.place(id);
        let batch = self.reliable.get_mut(at)?;
        let part = batch.part(&(id..id.checked_add(1)?));
        (!part.is_empty()).then_some((batch, part.start))
    }

    /// Gives `each` the batches of open messages with these numbers, and their places there.
    pub(super) fn find_all(&mut self, ids: Range<u64>, mut each: impl FnMut(&mut Batch, Range<u32>)) {
        let mut at = self.place(ids.start);
        while let Some(batch) = self.reliable.get_mut(at).filter(|batch| batch.first < ids.end) {
            let part = batch.part(&ids);
            if !part.is_empty() {
                each(batch, part);
            }
            at += 1;
        }
    }

    /// The first of these messages that has not arrived.
    pub(super) fn missing(&self, ids: Range<u64>) -> Option<u64> {
        let batches = self.reliable.range(self.place(ids.start).min(self.reliable.len())..);
        let mut batches = batches.take_while(|batch| batch.first < ids.end);
        batches.find_map(|batch| {
            let gap = batch.complete.next_gap(batch.part(&ids))?;
            Some(batch.first + u64::from(gap.start))
        })
    }

    /// The peer's consumer accepted these messages, row by row in the order of their numbers: gives `told` the tokens
    /// of those that had no fate; the bytes that are free now.
    pub(super) fn close(
        &mut self,
        rows: impl Iterator<Item = Range<u64>>,
        mut told: impl FnMut(Range<u64>),
    ) -> usize {
        let (mut freed, mut at) = (0, 0);
        for row in rows {
            while self.reliable.get(at + 1).is_some_and(|next| next.first <= row.start) {
                at += 1;
            }
            while let Some(batch) = self.reliable.get_mut(at).filter(|batch| batch.first < row.end) {
                freed += batch.close(batch.part(&row), &mut told);
                at += 1;
            }
            at = at.saturating_sub(1);
        }
        self.drop_closed();
        freed
    }

    fn drop_closed(&mut self) {
        while self.next > 0 && self.reliable.front().is_some_and(Batch::is_closed) {
            self.reliable.pop_front();
            self.next -= 1;
        }
    }

    /// Messages that `which` names are wanted no more: those that wait are dropped, the open ones go on without a
    /// report. Gives `told` the tokens of reliable ones that had no fate; the bytes that are free now.
    pub(super) fn give_up(
        &mut self,
        which: impl Fn(&Queued) -> Range<usize>,
        mut told: impl FnMut(Range<u64>),
    ) -> usize {
        let mut freed = give_up(&mut self.reliable, &which, &mut told);
        // Nobody asks for the fate of unreliable ones.
        freed += give_up(&mut self.unreliable, &which, |_| {});
        self.next = self.reliable.iter().take_while(|batch| batch.is_opened()).count();
        self.drop_closed();
        freed
    }

    /// No message whose fate is still to be told, and none that waits, has an earlier deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let pending = self.reliable.iter().filter(|batch| batch.is_pending());
        pending.chain(&self.unreliable).filter_map(|batch| batch.queued.deadline).min()
    }

    /// The peer lost what it had: gives `told` the tokens of open messages that had no fate; a stream with those that
    /// it never saw.
    pub(super) fn restart(self, mut told: impl FnMut(Range<u64>)) -> Self {
        let mut fresh = OutStream { turns: self.turns, ..OutStream::new() };
        for mut batch in self.reliable {
            batch.report(0..batch.opened as u32, &mut told);
            let unseen = batch.queued.split_off(batch.opened);
            fresh.reliable.extend((!unseen.payloads.is_empty()).then(|| Batch::new(unseen, batch.turn)));
        }
        for mut batch in self.unreliable {
            let unseen = batch.queued.split_off(batch.opened);
            fresh.unreliable.extend((!unseen.payloads.is_empty()).then(|| Batch::new(unseen, batch.turn)));
        }
        let waiting = fresh.reliable.iter().chain(&fresh.unreliable);
        fresh.queued_bytes = waiting.map(|batch| batch.queued.cost()).sum();
        fresh
    }

    /// Gives back memory that a burst took.
    pub(super) fn shrink(&mut self) {
        self.reliable.shrink_to(0);
        self.unreliable.shrink_to(0);
    }
}

/// As [`OutStream::give_up`], of one row of batches.
fn give_up(
    batches: &mut VecDeque<Batch>,
    which: impl Fn(&Queued) -> Range<usize>,
    mut told: impl FnMut(Range<u64>),
) -> usize {
    let (mut freed, mut at) = (0, 0);
    // Places of batches of which nothing is left.
    let mut emptied = Vec::new();
    while let Some(batch) = batches.get_mut(at) {
        let (part, opened) = (which(&batch.queued), batch.opened);
        let reliable = batch.queued.mode != MessageMode::Unreliable;
        if reliable {
            batch.report(part.start.min(opened) as u32..part.end.min(opened) as u32, &mut told);
        }
        let waiting = part.start.max(opened)..part.end.max(opened);
        if !waiting.is_empty() {
            let rest = batch.queued.split_off(waiting.end);
            let dropped = batch.queued.split_off(waiting.start);
            freed += dropped.cost();
            told(dropped.tokens(0..dropped.payloads.len() as u32));
            let turn = batch.turn;
            // What unreliable messages left behind is nothing.
            let kept = batch.len() > 0 && (reliable || !batch.is_opened());
            match (kept, rest.payloads.is_empty()) {
                (true, true) => {}
                (true, false) => {
                    at += 1;
                    batches.insert(at, Batch::new(rest, turn));
                }
                (false, true) => {
                    batch.queued.payloads.clear();
                    emptied.push(at);
                }
                (false, false) => *batch = Batch::new(rest, turn),
            }
        }
        at += 1;
    }
    // A few are taken out one by one: going through all of a long queue would cost more.
    if emptied.len() <= FEW {
        emptied.into_iter().rev().for_each(|at| drop(batches.remove(at)));
    } else {
        batches.retain(|batch| batch.len() > 0);
    }
    freed
}
