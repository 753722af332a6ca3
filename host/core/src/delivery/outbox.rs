//! Messages on their way to a peer.
//!
//! A message waits in a queue, is *opened* (numbered) when its first fragment leaves, and stays open
//! until the peer's consumer accepted it. Numbers are given at opening, so that a message that
//! expires in the queue leaves no gap for the receiver to wait on.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use overlan_wire::frame::Accepted;
use overlan_wire::limits::MESSAGE_WINDOW;
use overlan_wire::{Fragment, MessageId, MessageMode, PathId};
use rangemap::RangeSet;

use super::{
    CLASS_APPLICATION, CLASS_CLUSTER, CLUSTER_BYTES, CLUSTER_FIRST, CLUSTER_WINDOW, INITIAL_CREDIT,
    MESSAGE_COST,
};
use crate::event::Fate;
use crate::path::recovery::Content;
use crate::time::Instant;

/// A message as the application gave it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) mode: MessageMode,
    pub(crate) class: u8,
    pub(crate) payload: Bytes,
    pub(crate) token: u64,
    pub(crate) deadline: Option<Instant>,
}

/// Which path a fragment may take once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// Preferably another than this one.
    Not(PathId),
    /// Only this one: a copy, in active mode.
    Only(PathId),
}

#[derive(Debug)]
struct Open {
    message: Queued,
    order: u64,
    /// Bytes below it were sent at least once.
    sent: u32,
    acked: RangeSet<u32>,
    /// All bytes are acknowledged; the payload is freed.
    complete: bool,
    total: u32,
    expired: bool,
}

#[derive(Debug)]
struct Resend {
    message: MessageId,
    range: Range<u32>,
    via: Via,
}

/// What of the outbox a path may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take {
    pub(crate) path: PathId,
    /// New data as well as what is sent again.
    pub(crate) fresh: bool,
    /// Also fragments that would rather take another path: there is none.
    pub(crate) last_resort: bool,
    /// Fragments that avoid this path, too: the caller is their alternate.
    pub(crate) instead_of: Option<PathId>,
}

/// All messages to one peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Waiting: the cluster's own first, then the applications'.
    queues: [VecDeque<Queued>; 2],
    open: BTreeMap<u64, Open>,
    /// The open message whose bytes were not all sent yet, by number; and the unreliable one.
    current: Option<u64>,
    current_unreliable: Option<(MessageId, Queued, u32)>,
    resend: VecDeque<Resend>,
    next_id: u64,
    next_cluster: u64,
    /// Bytes of the cluster's own open messages.
    cluster_bytes: usize,
    next_unreliable: u64,
    next_order: u64,
    opened_cost: u64,
    credit: u64,
    /// Everything below was accepted.
    floor: u64,
    queued_bytes: usize,
    limit: usize,
    refused: bool,
    /// No message's deadline is earlier.
    earliest: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Outbox {
            queues: [VecDeque::new(), VecDeque::new()],
            open: BTreeMap::new(),
            current: None,
            current_unreliable: None,
            resend: VecDeque::new(),
            next_id: 0,
            next_cluster: CLUSTER_FIRST,
            cluster_bytes: 0,
            next_unreliable: 0,
            next_order: 0,
            opened_cost: 0,
            credit: INITIAL_CREDIT,
            floor: 0,
            queued_bytes: 0,
            limit,
            refused: false,
            earliest: None,
        }
    }

    /// Queues a message; gives it back where the queue is full. The cluster's own always fit.
    pub(crate) fn push(&mut self, message: Queued) -> Result<(), Queued> {
        let application = message.class == CLASS_APPLICATION;
        if application && self.queued_bytes >= self.limit {
            self.refused = true;
            return Err(message);
        }
        self.queued_bytes += cost(&message);
        self.earliest = [self.earliest, message.deadline].into_iter().flatten().min();
        self.queues[usize::from(application)].push_back(message);
        Ok(())
    }

    /// Whether a sender was refused and there is room again; true once.
    pub(crate) fn take_writable(&mut self) -> bool {
        let writable = self.refused && self.queued_bytes <= self.limit / 2;
        if writable {
            self.refused = false;
        }
        writable
    }

    /// Whether the path may take something now.
    pub(crate) fn has_work(&self, take: Take) -> bool {
        self.resend.iter().any(|resend| resend.fits(take))
            || take.fresh
                && (self.current.is_some()
                    || self.current_unreliable.is_some()
                    || self.queues.iter().any(|queue| queue.front().is_some_and(|next| self.may_open(next))))
    }

    fn may_open(&self, next: &Queued) -> bool {
        if next.class == CLASS_CLUSTER {
            let oldest = self.open.range(CLUSTER_FIRST..).next();
            return oldest.is_none_or(|(&oldest, _)| {
                self.next_cluster < oldest + CLUSTER_WINDOW
                    && self.cluster_bytes + next.payload.len() <= CLUSTER_BYTES
            });
        }
        next.mode == MessageMode::Unreliable
            || self.next_id < self.floor + MESSAGE_WINDOW
                && self.opened_cost + next.payload.len() as u64 + MESSAGE_COST <= self.credit
    }

    /// Gives the next fragment of at most `room` payload bytes to `emit`; returns what to remember of
    /// a reliable one, `Some(None)` for an unreliable one, `None` where there is nothing.
    pub(crate) fn take_fragment(
        &mut self,
        take: Take,
        room: usize,
        emit: impl FnOnce(Fragment<'_>),
    ) -> Option<Option<Content>> {
        if let Some(content) = self.take_resend(take, room) {
            let Content::Fragment { message, offset, len } = content else { return None };
            let open = self.open.get(&message.0)?;
            emit(open.fragment(message, offset, len));
            return Some(Some(content));
        }
        if !take.fresh {
            return None;
        }
        if self.current.is_none() && self.current_unreliable.is_none() {
            self.open_next();
        }
        if let Some((id, message, sent)) = &mut self.current_unreliable {
            let total = message.payload.len() as u32;
            let len = (total - *sent).min(room as u32);
            let payload = &message.payload[*sent as usize..(*sent + len) as usize];
            let (mode, class, offset) = (message.mode, message.class, *sent);
            emit(Fragment { message: *id, mode, class, stream: 0, order: 0, total, offset, payload });
            *sent += len;
            if *sent == total {
                self.queued_bytes -= cost(message);
                self.current_unreliable = None;
            }
            return Some(None);
        }
        let id = self.current?;
        let open = self.open.get_mut(&id).expect("the current message is open");
        let offset = open.sent;
        let len = (open.total - offset).min(room as u32);
        open.sent += len;
        if open.sent == open.total {
            self.current = None;
        }
        emit(open.fragment(MessageId(id), offset, len));
        Some(Some(Content::Fragment { message: MessageId(id), offset, len }))
    }

    fn take_resend(&mut self, take: Take, room: usize) -> Option<Content> {
        loop {
            let at = self.resend.iter().position(|resend| resend.fits(take))?;
            let resend = &mut self.resend[at];
            let message = resend.message;
            let Some(open) = self.open.get(&message.0).filter(|open| !open.complete) else {
                self.resend.remove(at);
                continue;
            };
            // What was acknowledged meanwhile is not sent again.
            let gap = open.acked.gaps(&resend.range).next();
            let Some(gap) = gap.or_else(|| resend.range.is_empty().then(|| resend.range.clone())) else {
                self.resend.remove(at);
                continue;
            };
            let end = gap.end.min(gap.start + room as u32);
            if end >= resend.range.end {
                self.resend.remove(at);
            } else {
                resend.range.start = end;
            }
            return Some(Content::Fragment { message, offset: gap.start, len: end - gap.start });
        }
    }

    fn open_next(&mut self) {
        let Some(queue) =
            (0..2).find(|&queue| self.queues[queue].front().is_some_and(|next| self.may_open(next)))
        else {
            return;
        };
        let message = self.queues[queue].pop_front().expect("just seen");
        if message.mode == MessageMode::Unreliable {
            self.current_unreliable = Some((MessageId(self.next_unreliable), message, 0));
            self.next_unreliable += 1;
            return;
        }
        let order = self.next_order;
        self.next_order += u64::from(message.mode == MessageMode::Ordered);
        let total = message.payload.len() as u32;
        let next = if message.class == CLASS_CLUSTER {
            self.cluster_bytes += message.payload.len();
            &mut self.next_cluster
        } else {
            self.opened_cost += u64::from(total) + MESSAGE_COST;
            &mut self.next_id
        };
        let id = *next;
        *next += 1;
        let open =
            Open { message, order, sent: 0, acked: RangeSet::new(), complete: false, total, expired: false };
        self.open.insert(id, open);
        self.current = Some(id);
    }

    /// A fragment arrived at the peer.
    pub(crate) fn handle_acked(&mut self, content: Content) {
        let Content::Fragment { message, offset, len } = content else { return };
        let Some(open) = self.open.get_mut(&message.0) else { return };
        if len > 0 {
            open.acked.insert(offset..offset + len);
        }
        if open.total == 0 || open.acked.iter().next() == Some(&(0..open.total)) {
            open.complete = true;
            open.message.payload = Bytes::new();
            open.acked.clear();
            if message.0 >= CLUSTER_FIRST {
                self.cluster_bytes -= open.total as usize;
                self.queued_bytes -= open.total as usize + MESSAGE_COST as usize;
                self.open.remove(&message.0);
            }
        }
    }

    /// A fragment is to be sent again.
    pub(crate) fn handle_lost(&mut self, content: Content, via: Via) {
        let Content::Fragment { message, offset, len } = content else { return };
        if self.open.get(&message.0).is_some_and(|open| !open.complete) {
            self.resend.push_back(Resend { message, range: offset..offset + len, via });
        }
    }

    /// In active mode, another path carries the same.
    pub(crate) fn copy(&mut self, content: Content, path: PathId) {
        self.handle_lost(content, Via::Only(path));
    }

    /// Copies meant for a path that can't carry them now are not needed.
    pub(crate) fn drop_copies(&mut self, path: PathId) {
        self.resend.retain(|resend| resend.via != Via::Only(path));
    }

    /// What the peer's consumers accepted, and its credit. Returns the fates to report, or `None` where the
    /// frame speaks of messages that were not sent yet.
    pub(crate) fn handle_accepted(&mut self, accepted: &Accepted) -> Option<Vec<(u64, Fate)>> {
        // A message can't be accepted before all of it was sent.
        let sent = self.current.filter(|&id| id < CLUSTER_FIRST).unwrap_or(self.next_id);
        let floor = accepted.floor.0;
        let end = accepted
            .bitmap
            .iter()
            .enumerate()
            .rev()
            .find(|(_, byte)| **byte != 0)
            .map_or(floor, |(index, byte)| {
                floor.saturating_add(index as u64 * 8 + u64::from(8 - byte.leading_zeros()))
            });
        if end > sent {
            return None;
        }
        self.credit = self.credit.max(accepted.credit);
        let mut fates = Vec::new();
        while let Some((&id, _)) = self.open.first_key_value().filter(|&(&id, _)| id < accepted.floor.0) {
            self.close(id, &mut fates);
        }
        self.floor = self.floor.max(accepted.floor.0);
        for (index, byte) in accepted.bitmap.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                self.close(accepted.floor.0 + index as u64 * 8 + bit, &mut fates);
            }
        }
        Some(fates)
    }

    fn close(&mut self, id: u64, fates: &mut Vec<(u64, Fate)>) {
        if let Some(open) = self.open.remove(&id) {
            self.queued_bytes -= open.total as usize + MESSAGE_COST as usize;
            if !open.expired {
                fates.push((open.message.token, Fate::Delivered));
            }
        }
    }

    /// When [`expire`](Self::expire) is due. The message may have gone since: looking at each for every datagram
    /// would cost more than a call in vain.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Messages whose deadline passed: those not opened are dropped, the others go on without a report.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(u64, Fate)> {
        let mut fates = Vec::new();
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return fates;
        }
        let late = |message: &Queued| message.deadline.is_some_and(|deadline| deadline <= now);
        for queue in &mut self.queues {
            queue.retain(|message| {
                if late(message) {
                    self.queued_bytes -= cost(message);
                    if message.mode != MessageMode::Unreliable {
                        fates.push((message.token, Fate::Expired));
                    }
                }
                !late(message)
            });
        }
        for open in self.open.values_mut().filter(|open| !open.expired && late(&open.message)) {
            open.expired = true;
            fates.push((open.message.token, Fate::Expired));
        }
        let open = self.open.values().filter(|open| !open.expired).map(|open| &open.message);
        self.earliest = self.queues.iter().flatten().chain(open).filter_map(|message| message.deadline).min();
        fates
    }

    /// The peer lost its state: what it may have seen is reported, what it never saw stays queued.
    pub(crate) fn restart(&mut self) -> Vec<(u64, Fate)> {
        let mut fresh = Outbox::new(self.limit);
        let mut fates = Vec::new();
        for open in core::mem::take(&mut self.open).into_values() {
            if !open.expired && open.message.class == CLASS_APPLICATION {
                fates.push((open.message.token, Fate::PeerLostState));
            }
        }
        core::mem::swap(&mut fresh.queues, &mut self.queues);
        fresh.queues[0].clear();
        fresh.queued_bytes = fresh.queues.iter().flatten().map(cost).sum();
        fresh.refused = self.refused;
        fresh.earliest = self.earliest;
        *self = fresh;
        fates
    }

    /// The peer was given up. Messages that are open stay, without a report: should the peer come back in the same
    /// life, it waits for their numbers.
    pub(crate) fn abandon(&mut self) -> Vec<(u64, Fate)> {
        let mut fates = Vec::new();
        let mut give_up = |message: &Queued| {
            if message.class == CLASS_APPLICATION && message.mode != MessageMode::Unreliable {
                fates.push((message.token, Fate::Abandoned));
            }
        };
        for open in self.open.values_mut().filter(|open| !open.expired) {
            open.expired = true;
            give_up(&open.message);
        }
        for message in self.queues.iter_mut().flat_map(|queue| queue.drain(..)) {
            self.queued_bytes -= cost(&message);
            give_up(&message);
        }
        fates
    }
}

impl Resend {
    fn fits(&self, take: Take) -> bool {
        match self.via {
            Via::Only(path) => path == take.path,
            Via::Not(path) if path == take.path => take.last_resort,
            Via::Not(path) => take.fresh || take.instead_of == Some(path),
        }
    }
}

impl Open {
    fn fragment(&self, id: MessageId, offset: u32, len: u32) -> Fragment<'_> {
        Fragment {
            message: id,
            mode: self.message.mode,
            class: self.message.class,
            stream: 0,
            order: self.order,
            total: self.total,
            offset,
            payload: &self.message.payload[offset as usize..(offset + len) as usize],
        }
    }
}

fn cost(message: &Queued) -> usize {
    message.payload.len() + MESSAGE_COST as usize
}
