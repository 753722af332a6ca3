//! Messages on their way to a peer.
//!
//! A message waits in its stream's queue, is *opened* (numbered) when its first bytes leave, and stays open
//! until the peer's consumer accepted it. Numbers are given at opening, so that a message that
//! expires in the queue leaves no gap for the receiver to wait on. Small messages leave in runs, many to a frame;
//! larger ones in fragments.

mod batch;
#[cfg(test)]
mod check;
mod emit;
mod resend;
mod stream;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use overlan_wire::frame::{Accepted, FRAGMENT_HEADER, RUN_ENTRY, RUN_HEADER, RunWriter};
use overlan_wire::limits::CLUSTER_STREAM;
use overlan_wire::{Frame, MessageId, PathId};

use super::{Content, INITIAL_CREDIT, SharedQueue, stream_window};
use crate::event::Fate;
use crate::time::Instant;
pub(crate) use batch::Queued;
use batch::cost;
use resend::Resends;
pub(crate) use resend::{Take, Via};
use stream::OutStream;

/// A fragment smaller than this is not worth starting at the end of a datagram.
pub(crate) const MIN_FRAGMENT: usize = 64;

/// What of a datagram the outbox may fill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Bytes left in it.
    pub(crate) room: usize,
    /// Bytes an empty one has.
    pub(crate) full: usize,
    /// Bytes after which no further message joins those that are in it.
    pub(crate) budget: usize,
}

/// What would leave next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Something that was sent before.
    Again,
    /// A message of so many bytes, of which nothing was sent yet.
    Whole(usize),
    /// More of a message.
    Piece,
}

/// All messages to one peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Boxed: a map has room for eleven values, and most peers have one or two streams.
    streams: BTreeMap<u16, Box<OutStream>>,
    /// Streams of the applications with something to send, in turn.
    turns: VecDeque<u16>,
    resends: Resends,
    /// What the applications' streams have opened and may open, by the peer's credit in all.
    opened_cost: u64,
    credit: u64,
    queued_bytes: usize,
    limit: usize,
    /// Streams that refused a message since they had room.
    refused: BTreeSet<u16>,
    /// By tokens.
    fates: VecDeque<(Range<u64>, Fate)>,
    /// No message's deadline is earlier.
    earliest: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Outbox {
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
            resends: Resends::default(),
            opened_cost: 0,
            credit: INITIAL_CREDIT,
            queued_bytes: 0,
            limit,
            refused: BTreeSet::new(),
            fates: VecDeque::new(),
            earliest: None,
        }
    }

    /// Queues messages, as many as the stream's share of the queue has room for; gives back the rest. The cluster's own
    /// always fit.
    pub(crate) fn push(&mut self, id: u16, mut queued: Queued) -> Result<(), Queued> {
        let queue = self.queue();
        let stream = self.streams.entry(id).or_insert_with(|| Box::new(OutStream::new()));
        let own = id == CLUSTER_STREAM;
        if own {
            stream.credit = stream.credit.max(stream_window(id, 0));
        }
        let room = if own { usize::MAX } else { queue.room(stream.queued_bytes) };
        // The last one may exceed it.
        let (mut bytes, mut count) = (0, 0);
        while bytes < room
            && let Some(payload) = queued.payloads.get(count)
        {
            bytes += cost(payload);
            count += 1;
        }
        let rest = (count < queued.payloads.len()).then(|| queued.split_off(count));
        if count > 0 {
            if !own {
                self.queued_bytes += bytes;
                if !stream.has_unsent() {
                    self.turns.push_back(id);
                }
            }
            stream.queued_bytes += bytes;
            self.earliest = [self.earliest, queued.deadline].into_iter().flatten().min();
            stream.push(queued);
        }
        match rest {
            Some(rest) => {
                self.refused.insert(id);
                Err(rest)
            }
            None => Ok(()),
        }
    }

    /// What the cluster's own stream holds.
    pub(crate) fn cluster_bytes(&self) -> usize {
        self.streams.get(&CLUSTER_STREAM).map_or(0, |stream| stream.queued_bytes)
    }

    /// Whether the peer has accepted all that there was.
    pub(crate) fn is_settled(&self) -> bool {
        self.streams.values().all(|stream| stream.queued_bytes == 0)
    }

    /// A stream that refused a message and has room again; each once.
    pub(crate) fn take_writable(&mut self) -> Option<u16> {
        let queue = self.queue();
        let held = |id| self.streams.get(id).map_or(0, |stream| stream.queued_bytes);
        let id = *self.refused.iter().find(|id| queue.is_writable(held(id)))?;
        self.refused.remove(&id);
        Some(id)
    }

    fn queue(&self) -> SharedQueue {
        SharedQueue { held: self.queued_bytes, limit: self.limit }
    }

    /// What became of the next messages, by their tokens.
    pub(crate) fn poll_fate(&mut self) -> Option<(Range<u64>, Fate)> {
        self.fates.pop_front()
    }

    /// What the path may take now.
    pub(crate) fn next(&self, take: Take) -> Next {
        if self.resends.fits(take) {
            return Next::Again;
        }
        let Some(id) = self.next_stream().filter(|_| take.fresh) else { return Next::Nothing };
        let stream = &self.streams[&id];
        match stream.head(self.room(id)).and_then(|batch| batch.next()) {
            Some(next) if !stream.in_pieces() => Next::Whole(next.len()),
            _ => Next::Piece,
        }
    }

    /// What the peer's credit in all leaves for a stream.
    fn room(&self, id: u16) -> u64 {
        if id == CLUSTER_STREAM { u64::MAX } else { self.credit - self.opened_cost }
    }

    /// The stream whose turn it is to send something new.
    fn next_stream(&self) -> Option<u16> {
        let may = |id: &u16| {
            let stream = self.streams.get(id);
            stream.is_some_and(|stream| stream.in_pieces() || stream.head(self.room(*id)).is_some())
        };
        Some(CLUSTER_STREAM).filter(may).or_else(|| self.turns.iter().copied().find(may))
    }

    /// Appends the next frame to a datagram; returns what to remember of reliable messages, `Some(None)` for
    /// unreliable ones, `None` where there is nothing, or nothing that fits.
    pub(crate) fn emit(&mut self, take: Take, space: Space, out: &mut Vec<u8>) -> Option<Option<Content>> {
        while let Some((via, content)) = self.resends.pop(take) {
            match self.emit_again(via, content, space, out) {
                Again::Done => {}
                Again::NoRoom => return None,
                Again::Sent(content) => return Some(Some(content)),
            }
        }
        if !take.fresh {
            return None;
        }
        let id = self.next_stream()?;
        let credit = self.room(id);
        let stream = self.streams.get_mut(&id)?;
        let before = stream.opened_cost;
        let sent = stream.emit(id, space, credit, out);
        if id == CLUSTER_STREAM {
            return sent.map(|sent| sent.content);
        }
        self.opened_cost += stream.opened_cost - before;
        let sent = sent?;
        self.queued_bytes -= sent.forgotten;
        // The next one's turn.
        self.turns.retain(|&turn| turn != id);
        if stream.has_unsent() {
            self.turns.push_back(id);
        }
        Some(sent.content)
    }

    fn emit_again(&mut self, via: Via, content: Content, space: Space, out: &mut Vec<u8>) -> Again {
        match content {
            Content::Accepted { .. } => Again::Done,
            Content::Fragment { stream, message, offset, len } => {
                let held = self.streams.get_mut(&stream);
                let Some((batch, at)) = held.and_then(|held| held.find(message.0)) else {
                    return Again::Done;
                };
                // What was acknowledged meanwhile is not sent again.
                let Some((start, missing)) = batch.gap(at, offset, len) else { return Again::Done };
                if space.room < FRAGMENT_HEADER + MIN_FRAGMENT.min(missing as usize) {
                    self.resends.put_back(via, content);
                    return Again::NoRoom;
                }
                let sent = missing.min((space.room - FRAGMENT_HEADER) as u32);
                Frame::Fragment(batch.fragment(stream, at, start, sent)).emit(out);
                let rest = offset + len - (start + sent);
                if rest > 0 {
                    let rest = Content::Fragment { stream, message, offset: start + sent, len: rest };
                    self.resends.put_back(via, rest);
                }
                Again::Sent(Content::Fragment { stream, message, offset: start, len: sent })
            }
            Content::Run { stream, first, count } => {
                self.emit_run_again(via, stream, first, count, space, out)
            }
        }
    }

    fn emit_run_again(
        &mut self,
        via: Via,
        stream: u16,
        first: MessageId,
        count: u16,
        space: Space,
        out: &mut Vec<u8>,
    ) -> Again {
        let Some(held) = self.streams.get_mut(&stream) else { return Again::Done };
        let end = first.0 + u64::from(count);
        let Some(start) = held.missing(first.0..end) else { return Again::Done };
        let rest = |from: u64| Content::Run { stream, first: MessageId(from), count: (end - from) as u16 };
        let Some((batch, at)) = held.find(start) else { return Again::Done };
        let total = batch.payload(at).len();
        let whole = RUN_HEADER + RUN_ENTRY + total;
        if whole > space.full {
            // It left by a path with larger datagrams.
            let (message, len) = (MessageId(start), total as u32);
            if start + 1 < end {
                self.resends.put_back(via, rest(start + 1));
            }
            self.resends.put_back(via, Content::Fragment { stream, message, offset: 0, len });
            return Again::Done;
        }
        if whole > space.room {
            self.resends.put_back(via, rest(start));
            return Again::NoRoom;
        }
        let (mode, redelivered) = (batch.queued.mode, batch.queued.redelivered);
        let mut run = RunWriter::start(out, stream, mode, redelivered, MessageId(start), batch.order(at));
        let mut next = start;
        while next < end
            && let Some((batch, at)) = held.find(next)
            && !batch.complete.contains(at)
            && let payload = batch.payload(at)
            && run.len() + RUN_ENTRY + payload.len() <= space.room
        {
            run.push(payload);
            next += 1;
        }
        run.finish();
        if next < end {
            self.resends.put_back(via, rest(next));
        }
        Again::Sent(Content::Run { stream, first: MessageId(start), count: (next - start) as u16 })
    }

    /// A content arrived at the peer.
    pub(crate) fn handle_acked(&mut self, content: Content) {
        match content {
            Content::Fragment { stream, message, offset, len } => {
                let stream = self.streams.get_mut(&stream);
                if let Some((batch, at)) = stream.and_then(|stream| stream.find(message.0)) {
                    batch.note_arrived(at, offset, len);
                }
            }
            Content::Run { stream, first, count } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    let ids = first.0..first.0 + u64::from(count);
                    stream.find_all(ids, |batch, part| batch.note_complete(part));
                }
            }
            Content::Accepted { .. } => {}
        }
    }

    /// A content is to be sent again.
    pub(crate) fn handle_lost(&mut self, content: Content, via: Via) {
        if self.is_missing(content) {
            self.resends.push(content, via);
        }
    }

    /// In active mode, another path carries the same.
    pub(crate) fn copy(&mut self, content: Content, path: PathId) {
        if self.is_missing(content) {
            self.resends.push_copy(content, path);
        }
    }

    /// Whether the peer is not known to have all of a content.
    fn is_missing(&self, content: Content) -> bool {
        let (stream, first, count) = match content {
            Content::Fragment { stream, message, .. } => (stream, message.0, 1),
            Content::Run { stream, first, count } => (stream, first.0, u64::from(count)),
            Content::Accepted { .. } => return false,
        };
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.missing(first..first + count).is_some())
    }

    /// Copies meant for a path that can't carry them now are not needed.
    pub(crate) fn drop_copies(&mut self, path: PathId) {
        self.resends.drop_copies(path);
    }

    /// What the peer's consumers accepted of a stream, and its credit. `false` where the frame speaks of messages that
    /// were not sent yet.
    pub(crate) fn handle_accepted(&mut self, accepted: &Accepted<'_>) -> bool {
        let Some(stream) = self.streams.get_mut(&accepted.stream) else {
            // Its first word may come before any message.
            self.credit = self.credit.max(accepted.credit_in_all);
            return accepted.floor.0 == 0 && accepted.bitmap.iter().all(|&byte| byte == 0);
        };
        // A message can't be accepted before all of it was sent.
        let sent = stream.next_id - u64::from(stream.current.is_some());
        let set = accepted.bitmap.iter().enumerate().rev().find(|(_, byte)| **byte != 0);
        let floor = accepted.floor.0;
        let end = set.map_or(floor, |(index, byte)| {
            floor.saturating_add(index as u64 * 8 + u64::from(8 - byte.leading_zeros()))
        });
        if end > sent {
            return false;
        }
        if accepted.stream != CLUSTER_STREAM {
            self.credit = self.credit.max(accepted.credit_in_all);
        }
        stream.credit = stream.credit.max(accepted.credit);
        let fates = &mut self.fates;
        let mut told = |tokens: Range<u64>| {
            // Nobody asks for the cluster's own.
            if accepted.stream != CLUSTER_STREAM {
                fates.push_back((tokens, Fate::Delivered));
            }
        };
        // What is below the floor is one row more.
        let mut row = stream.base..floor;
        let bytes = (floor..).step_by(8).zip(accepted.bitmap).filter(|(_, byte)| **byte != 0);
        let mut ids = bytes
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at + bit));
        let rows = core::iter::from_fn(|| {
            loop {
                match ids.next() {
                    Some(id) if id == row.end => row.end += 1,
                    Some(id) => return Some(core::mem::replace(&mut row, id..id + 1)),
                    None => return Some(core::mem::take(&mut row)).filter(|row| !row.is_empty()),
                }
            }
        });
        let freed = stream.close(rows, &mut told);
        stream.base = stream.base.max(floor);
        stream.queued_bytes -= freed;
        if accepted.stream != CLUSTER_STREAM {
            self.queued_bytes -= freed;
        }
        true
    }

    /// When [`expire`](Self::expire) is due. The message may have gone since: looking at each for every datagram
    /// would cost more than a call in vain.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Messages whose deadline passed: those not opened are dropped, the others go on without a report.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            let late = |queued: &Queued| queued.deadline.is_some_and(|deadline| deadline <= now);
            self.give_up(Fate::Expired, |queued| if late(queued) { 0..queued.payloads.len() } else { 0..0 });
        }
    }

    /// The sender wants messages no more: they are dropped, or go on without a report. Whether any was there.
    pub(crate) fn cancel(&mut self, tokens: &[Range<u64>]) -> bool {
        let before = self.fates.len();
        self.give_up(Fate::Expired, |queued| {
            let next = tokens.partition_point(|range| range.end <= queued.token);
            let Some(range) = tokens.get(next) else { return 0..0 };
            let place = |token: u64| token.saturating_sub(queued.token).min(queued.payloads.len() as u64);
            place(range.start) as usize..place(range.end) as usize
        });
        self.fates.len() > before
    }

    /// The peer is forgotten: whatever was for it is abandoned, and who waits for room is to be told so.
    pub(crate) fn abandon(&mut self) {
        self.give_up(Fate::Abandoned, |queued| 0..queued.payloads.len());
        let (fates, refused) = (core::mem::take(&mut self.fates), core::mem::take(&mut self.refused));
        *self = Outbox { fates, refused, ..Outbox::new(self.limit) };
    }

    fn give_up(&mut self, fate: Fate, which: impl Fn(&Queued) -> Range<usize>) {
        let mut earliest = None;
        for (&id, stream) in self.streams.iter_mut().filter(|(id, _)| **id != CLUSTER_STREAM) {
            let freed = stream.give_up(&which, |tokens| self.fates.push_back((tokens, fate)));
            stream.queued_bytes -= freed;
            self.queued_bytes -= freed;
            if !stream.has_unsent() {
                self.turns.retain(|&turn| turn != id);
            }
            earliest = stream.next_deadline().into_iter().chain(earliest).min();
        }
        self.earliest = earliest;
    }

    /// The peer lost its state: what it may have seen is reported, what it never saw stays queued.
    pub(crate) fn restart(&mut self) {
        let old = core::mem::replace(self, Outbox::new(self.limit));
        self.fates = old.fates;
        self.refused = old.refused;
        self.earliest = old.earliest;
        for (id, stream) in old.streams.into_iter().filter(|&(id, _)| id != CLUSTER_STREAM) {
            let stream = stream.restart(|tokens| self.fates.push_back((tokens, Fate::PeerLostState)));
            if stream.has_unsent() {
                self.queued_bytes += stream.queued_bytes;
                self.turns.push_back(id);
                self.streams.insert(id, Box::new(stream));
            }
        }
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        self.streams.values_mut().for_each(|stream| stream.shrink());
        self.fates.shrink_to(0);
    }
}

/// What became of a content to send again.
enum Again {
    /// It is not needed any more, or another form of it is queued.
    Done,
    /// It waits on.
    NoRoom,
    /// So much of it was sent.
    Sent(Content),
}
