//! One call to send: its messages, the members they go to, and what became of them.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use overlan_core::{Fate, Instant, Marks};
use overlan_wire::{MessageMode, NodeId};
use tokio::sync::oneshot;

use super::{MemberOutcome, Place, Queued, SendFailure};

/// A token is `generation | slot | index`: it leads to batch and message without a search, and a report that comes
/// after its batch is gone fits none.
const INDEX_BITS: u32 = 20;
const SLOT_BITS: u32 = 24;

/// Most messages of one batch.
pub(crate) const MAX_BATCH: usize = 1 << INDEX_BITS;
/// Most batches that are open at once.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// Which batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl BatchId {
    /// The token of its first message; the others follow one by one.
    pub(super) fn first_token(self) -> u64 {
        u64::from(self.generation) << (SLOT_BITS + INDEX_BITS) | u64::from(self.slot) << INDEX_BITS
    }

    /// Batch and message of a token.
    pub(super) fn of(token: u64) -> (BatchId, usize) {
        let slot = (token >> INDEX_BITS) as u32 & ((1 << SLOT_BITS) - 1);
        let generation = (token >> (SLOT_BITS + INDEX_BITS)) as u32;
        (BatchId { slot, generation }, token as usize & (MAX_BATCH - 1))
    }

    /// The next batch in the same slot.
    pub(super) fn next(self) -> Self {
        let generations = 1 << (u64::BITS - SLOT_BITS - INDEX_BITS);
        BatchId { generation: (self.generation + 1) % generations, ..self }
    }
}

/// Where a message of a batch for a role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// With the owner of this part.
    Part(u16),
    /// It waits for an owner.
    Nobody,
    /// Its fate is known.
    Done,
}

/// The role a batch is for.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: String,
    /// Where each message is.
    pub(super) holders: Vec<Holder>,
}

/// The messages of a batch for one member.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) outcome: MemberOutcome,
    /// Messages whose fate is known.
    settled: Marks,
    /// The messages in their order; `None`: all of the batch.
    order: Option<Vec<u32>>,
    /// What was queued, and how many there are.
    next: usize,
    end: usize,
}

impl Part {
    fn new(node: NodeId, end: usize) -> Self {
        Part { outcome: MemberOutcome::new(node), settled: Marks::default(), order: None, next: 0, end }
    }

    /// So many more were queued.
    pub(super) fn advance(&mut self, count: usize) {
        self.next += count;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.next > 0
    }
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    number: u64,
    pub(super) mode: MessageMode,
    pub(super) stream: u16,
    pub(super) deadline: Option<Instant>,
    count: usize,
    /// Emptied once nobody may want them any more; those of a batch for one member and no role: what is not queued.
    payloads: VecDeque<Bytes>,
    pub(super) role: Option<Role>,
    pub(super) parts: Vec<Part>,
    /// Fates that are not known yet.
    open: usize,
    /// Told once every message is queued.
    queued: Option<oneshot::Sender<Result<Queued, SendFailure>>>,
    /// Told once every fate is known.
    outcome: Option<oneshot::Sender<Vec<MemberOutcome>>>,
}

impl Batch {
    pub(super) fn new(
        id: BatchId,
        number: u64,
        nodes: &[NodeId],
        deadline: Option<Instant>,
        from: super::Outgoing,
    ) -> Self {
        let count = from.payloads.len();
        let role = match from.to {
            crate::app::Target::Role(name) if from.options.mode != MessageMode::Unreliable => {
                Some(Role { name, holders: vec![Holder::Part(0); count] })
            }
            _ => None,
        };
        Batch {
            id,
            number,
            mode: from.options.mode,
            stream: from.options.stream,
            deadline,
            role,
            parts: nodes.iter().map(|&node| Part::new(node, count)).collect(),
            open: count * nodes.len(),
            count,
            payloads: from.payloads.into(),
            queued: Some(from.queued),
            outcome: Some(from.outcome),
        }
    }

    pub(super) fn place(&self) -> Place {
        (self.number, self.id.slot)
    }

    pub(super) fn token(&self, index: usize) -> u64 {
        self.id.first_token() + index as u64
    }

    /// The next messages of a part that are not queued yet, with places in the batch one by one and at most so many;
    /// `None`: all are.
    pub(super) fn peek(&mut self, part: usize, most: usize) -> Option<Range<usize>> {
        let to = &mut self.parts[part];
        let Some(role) = &self.role else {
            let end = to.end.min(to.next + most);
            return (to.next < end).then_some(to.next..end);
        };
        let place = |to: &Part, at: usize| to.order.as_ref().map_or(at, |order| order[at] as usize);
        let held = |index: usize| role.holders[index] == Holder::Part(part as u16);
        while to.next < to.end && !held(place(to, to.next)) {
            to.next += 1;
        }
        let first = (to.next < to.end).then(|| place(to, to.next))?;
        let row = (to.next + 1..to.end).zip(first + 1..first + most);
        let len = 1 + row.take_while(|&(at, index)| place(to, at) == index && held(index)).count();
        Some(first..first + len)
    }

    /// The messages of a part that are queued and have no fate yet.
    pub(super) fn queued(&self, part: usize) -> Vec<Range<usize>> {
        let part = &self.parts[part];
        let mut queued = Vec::new();
        let mut open = |range: Range<u32>| {
            part.settled.gaps(range, |gap| queued.push(gap.start as usize..gap.end as usize));
        };
        match &part.order {
            None => open(0..part.next as u32),
            Some(order) => {
                let rows = order[..part.next].chunk_by(|before, next| before + 1 == *next);
                rows.filter_map(|row| Some(*row.first()?..*row.last()? + 1)).for_each(open);
            }
        }
        queued
    }

    /// The bytes of messages: given away where nobody else wants them.
    pub(super) fn payloads(&mut self, range: Range<usize>) -> Vec<Bytes> {
        if self.is_shared() {
            return self.payloads.range(range).cloned().collect();
        }
        if range.len() == self.payloads.len() {
            return std::mem::take(&mut self.payloads).into();
        }
        self.payloads.drain(..range.len()).collect()
    }

    /// Whether messages are kept once they are queued: another member may want them, too.
    fn is_shared(&self) -> bool {
        self.parts.len() > 1 || self.role.is_some()
    }

    /// Bytes that were not taken.
    pub(super) fn put_back(&mut self, payloads: Vec<Bytes>) {
        if !self.is_shared() {
            payloads.into_iter().rev().for_each(|payload| self.payloads.push_front(payload));
        }
    }

    /// The part that a report of `node` on message `index` is about; `None` where that is settled.
    pub(super) fn part_of(&self, node: NodeId, index: usize) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        if let Some(role) = &self.role {
            let Holder::Part(part) = role.holders[index] else { return None };
            return (self.parts[usize::from(part)].outcome.node == node).then_some(usize::from(part));
        }
        // In the order of their ids.
        self.parts.binary_search_by_key(&node, |part| part.outcome.node).ok()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The part whose member has this message, of a batch for a role.
    pub(super) fn holder(&self, index: usize) -> Option<usize> {
        match self.role.as_ref()?.holders[index] {
            Holder::Part(part) => Some(usize::from(part)),
            Holder::Nobody | Holder::Done => None,
        }
    }

    /// The last word on messages.
    pub(super) fn settle(&mut self, part: usize, range: Range<usize>, fate: Fate) {
        let role = self.role.is_some();
        self.close(part, range, |outcome, new| match fate {
            Fate::Delivered => {
                outcome.delivered += new.len();
                if role {
                    outcome.got.extend(new);
                }
            }
            Fate::Expired | Fate::PeerLostState | Fate::Abandoned => {
                outcome.failed.extend(new.map(|index| (index, fate)));
            }
        });
    }

    /// Unreliable messages went their way: nobody will say what became of them.
    pub(super) fn forget(&mut self, part: usize, range: Range<usize>) {
        self.close(part, range, |_, _| {});
    }

    /// Gives `settled` those of the messages that were open until now.
    fn close(
        &mut self,
        part: usize,
        range: Range<usize>,
        mut settled: impl FnMut(&mut MemberOutcome, Range<usize>),
    ) {
        let Batch { parts, open, role, payloads, .. } = self;
        let part = &mut parts[part];
        part.settled.insert(range.start as u32..range.end as u32, |new| {
            let new = new.start as usize..new.end as usize;
            *open -= new.len();
            if let Some(role) = role {
                role.holders[new.clone()].fill(Holder::Done);
                payloads.range_mut(new.clone()).for_each(|payload| *payload = Bytes::new());
            }
            settled(&mut part.outcome, new);
        });
    }

    /// The node stops: whatever has no fate is abandoned.
    pub(super) fn abandon(&mut self) {
        for index in 0..self.count {
            match self.role.as_ref().map(|role| role.holders[index]) {
                Some(Holder::Done) => {}
                Some(Holder::Part(part)) => {
                    self.settle(usize::from(part), index..index + 1, Fate::Abandoned);
                }
                Some(Holder::Nobody) => self.settle(self.parts.len() - 1, index..index + 1, Fate::Abandoned),
                None => {
                    let parts = 0..self.parts.len();
                    parts.for_each(|part| self.settle(part, index..index + 1, Fate::Abandoned));
                }
            }
        }
        self.refuse(SendFailure::Stopped);
        self.tell();
    }

    /// A message for a role leaves its owner without a last word.
    pub(super) fn take_away(&mut self, part: usize, index: usize, fate: Fate) {
        self.parts[part].outcome.moved.push((index, fate));
        if let Some(role) = &mut self.role {
            role.holders[index] = Holder::Nobody;
        }
    }

    /// Gives all messages that nobody has to `node`; the part.
    pub(super) fn give(&mut self, node: NodeId) -> Option<usize> {
        let role = self.role.as_mut()?;
        let known = self.parts.iter().position(|part| part.outcome.node == node);
        let part = known.unwrap_or(self.parts.len());
        let number = u16::try_from(part).ok()?;
        if known.is_none() {
            self.parts.push(Part { order: Some(Vec::new()), ..Part::new(node, 0) });
        }
        let to = &mut self.parts[part];
        let mut order = to.order.take().unwrap_or_else(|| (0..to.end as u32).collect());
        // Behind what was queued: what waits for that, and what nobody has.
        let unsent = order.split_off(to.next);
        order
            .extend(unsent.into_iter().filter(|index| role.holders[*index as usize] == Holder::Part(number)));
        let homeless = role.holders.iter_mut().enumerate().filter(|(_, holder)| **holder == Holder::Nobody);
        order.extend(homeless.map(|(index, holder)| {
            *holder = Holder::Part(number);
            index as u32
        }));
        to.end = order.len();
        to.order = Some(order);
        Some(part)
    }

    /// Whether the caller stopped waiting for room.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.queued.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// Nothing was queued.
    pub(super) fn refuse(&mut self, failure: SendFailure) {
        if let Some(queued) = self.queued.take() {
            let _ = queued.send(Err(failure));
        }
    }

    /// Tells the caller what there is to tell; whether the batch is over.
    pub(super) fn tell(&mut self) -> bool {
        if self.queued.is_some() && (0..self.parts.len()).all(|part| self.peek(part, 1).is_none()) {
            if self.role.is_none() {
                self.payloads = VecDeque::new();
            }
            let nodes = self.parts.iter().map(|part| part.outcome.node).collect();
            if let Some(queued) = self.queued.take() {
                let _ = queued.send(Ok(Queued { batch: self.id, nodes }));
            }
        }
        if self.open > 0 {
            return false;
        }
        if let Some(outcome) = self.outcome.take() {
            // Nobody waiting for it is fine.
            let _ = outcome.send(self.parts.drain(..).map(|part| part.outcome).collect());
        }
        true
    }
}
