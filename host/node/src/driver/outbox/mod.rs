//! Messages on their way out: waiting for room, for an owner, or for their fate.

mod batch;
mod early;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use overlan_core::{Fate, FateReport, Instant, Outgoing as Messages, SendError};
use overlan_wire::limits::MAX_STREAM;
use overlan_wire::{MessageMode, NodeId};
use tokio::sync::oneshot;

use super::NodeCore;
use crate::app::Target;
use batch::{Batch, Holder, MAX_SLOTS};
pub(crate) use batch::{BatchId, MAX_BATCH};

/// Why a message was not taken. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// No such member.
    #[error("no member is called `{0}`; `overlan members` lists names and ids")]
    UnknownNode(String),
    /// Nobody owns the responsibility.
    #[error("nobody owns `{0}` now; `overlan plan` lists the responsibilities and their owners")]
    NoOwner(String),
    /// Nobody else is alive.
    #[error("no other member is alive; `overlan members` lists them")]
    NoPeers,
    /// Over 16 MiB.
    #[error("the message is larger than 16 MiB; split it")]
    TooLarge,
    /// Over 1,048,576 messages.
    #[error("a batch has at most {MAX_BATCH} messages; split it")]
    TooMany,
    /// There is no such stream.
    #[error("streams are numbered 0 to {MAX_STREAM}")]
    UnknownStream,
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// How messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// How.
    pub mode: MessageMode,
    /// In which stream, 0 to 255: each is ordered, and held up by a slow reader, for itself.
    pub stream: u16,
    /// Bounds the wait for delivery.
    pub lifetime: Option<Duration>,
}

impl SendOptions {
    /// In stream 0, for as long as it takes.
    pub fn new(mode: MessageMode) -> Self {
        SendOptions { mode, stream: 0, lifetime: None }
    }
}

/// What became of a batch at one member. Messages are named by their place in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberOutcome {
    /// The member.
    pub node: NodeId,
    /// Messages that a consumer there accepted. Of unreliable ones nobody knows: none.
    pub delivered: usize,
    /// Messages with another fate, and that fate.
    pub failed: Vec<(usize, Fate)>,
    /// Messages for a role that went on to another owner (or to this one again, once it was restarted), and why. They
    /// may have been delivered here; the other owner is told so ([`Received::redelivered`](crate::Received)).
    pub moved: Vec<(usize, Fate)>,
    /// Of messages for a role: which were delivered here.
    pub got: Vec<usize>,
}

impl MemberOutcome {
    fn new(node: NodeId) -> Self {
        MemberOutcome { node, delivered: 0, failed: Vec::new(), moved: Vec::new(), got: Vec::new() }
    }
}

/// Messages on their way to the driver.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: Target,
    pub(crate) options: SendOptions,
    pub(crate) payloads: Vec<Bytes>,
    /// Told once every message is queued.
    pub(crate) queued: oneshot::Sender<Result<Queued, SendFailure>>,
    /// Told once every fate is known.
    pub(crate) outcome: oneshot::Sender<Vec<MemberOutcome>>,
}

/// Whom messages were queued for.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) batch: BatchId,
    pub(crate) nodes: Vec<NodeId>,
}

/// Messages given to the core at once: what it has no room for comes back.
const MAX_AT_ONCE: usize = 4_096;

/// Parts of batches in the order they came, and how many there may be before they are looked through for those that
/// nobody waits for any more.
#[derive(Default)]
struct Parked {
    parts: VecDeque<(BatchId, usize)>,
    look_at: usize,
}

/// A batch: its number, counted from the first one, and its slot.
type Place = (u64, u32);

/// So few are not looked through.
const FEW_PARKED: usize = 4;

enum Slot {
    Used(Box<Batch>),
    Free(BatchId),
}

#[derive(Default)]
pub(crate) struct Outbox {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// What this node, having just started, cannot send yet.
    early: VecDeque<Outgoing>,
    /// Parts that wait for room in a stream to a member. Each batch holds its own messages.
    parked: BTreeMap<(NodeId, u16), Parked>,
    /// Batches that came so far.
    count: u64,
    /// Batches for roles, in the order they came.
    roles: BTreeSet<Place>,
    /// Of these, the ones with messages that nobody has.
    homeless: BTreeSet<Place>,
    /// Owners that lost messages they were sent, and for which roles.
    bereft: BTreeMap<NodeId, BTreeSet<String>>,
    /// Whether an owner may have been found for them.
    look_for_owners: bool,
    /// Batches whose messages may wait here past their deadline.
    deadlines: BTreeSet<(Instant, u32)>,
}

impl Outbox {
    /// Takes messages from a caller.
    pub(super) fn send(&mut self, core: &mut NodeCore, now: Instant, outgoing: Outgoing) {
        if self.is_early(core, now, &outgoing) {
            self.early.push_back(outgoing);
        } else {
            self.take(core, now, outgoing);
        }
    }

    fn take(&mut self, core: &mut NodeCore, now: Instant, outgoing: Outgoing) {
        if outgoing.queued.is_closed() {
            return;
        }
        let nodes = match resolve(core, &outgoing.to) {
            Ok(_) if self.free.is_empty() && self.slots.len() >= MAX_SLOTS => Err(SendFailure::TooMany),
            resolved => resolved,
        };
        let nodes = match nodes {
            Ok(nodes) => nodes,
            Err(failure) => return drop(outgoing.queued.send(Err(failure))),
        };
        let id = self.reserve();
        let deadline = outgoing.options.lifetime.map(|lifetime| now + lifetime);
        self.count += 1;
        let batch = Batch::new(id, self.count, &nodes, deadline, outgoing);
        if batch.role.is_some() {
            self.roles.insert(batch.place());
        }
        self.slots[id.slot as usize] = Slot::Used(Box::new(batch));
        for part in 0..nodes.len() {
            self.queue_or_park(core, now, id, part);
        }
        self.conclude(id);
    }

    fn reserve(&mut self) -> BatchId {
        if let Some(slot) = self.free.pop()
            && let Slot::Free(id) = self.slots[slot as usize]
        {
            return id;
        }
        let id = BatchId { slot: self.slots.len() as u32, generation: 0 };
        self.slots.push(Slot::Free(id));
        id
    }

    fn batch(&mut self, id: BatchId) -> Option<&mut Batch> {
        match self.slots.get_mut(id.slot as usize) {
            Some(Slot::Used(batch)) if batch.id == id => Some(batch),
            _ => None,
        }
    }

    fn id_in(&self, slot: u32) -> Option<BatchId> {
        match &self.slots[slot as usize] {
            Slot::Used(batch) => Some(batch.id),
            Slot::Free(_) => None,
        }
    }

    fn queue_or_park(&mut self, core: &mut NodeCore, now: Instant, id: BatchId, part: usize) {
        let Some(batch) = self.batch(id) else { return };
        let key = (batch.parts[part].outcome.node, batch.stream);
        let deadline = batch.deadline;
        if !self.parked.contains_key(&key) && self.queue(core, now, id, part) {
            return;
        }
        let waiting = self.parked.entry(key).or_default();
        waiting.parts.push_back((id, part));
        self.deadlines.extend(deadline.map(|deadline| (deadline, id.slot)));
        if waiting.parts.len() > waiting.look_at.max(FEW_PARKED) {
            self.let_go(core, now, key);
        }
    }

    /// Lets go of parked parts whose batch is gone, or whose caller stopped waiting: of a member that takes nothing for
    /// long, nothing else would ever do that.
    fn let_go(&mut self, core: &mut NodeCore, now: Instant, key: (NodeId, u16)) {
        self.retain_parked(key, |outbox, id, part| {
            if outbox.batch(id).is_some_and(|batch| !batch.is_withdrawn()) {
                return true;
            }
            outbox.queue(core, now, id, part);
            outbox.conclude(id);
            false
        });
    }

    fn retain_parked(&mut self, key: (NodeId, u16), mut keep: impl FnMut(&mut Self, BatchId, usize) -> bool) {
        let Some(mut waiting) = self.parked.remove(&key) else { return };
        waiting.parts.retain(|&(id, part)| keep(self, id, part));
        waiting.look_at = 2 * waiting.parts.len();
        if !waiting.parts.is_empty() {
            self.parked.insert(key, waiting);
        }
    }

    /// Gives what is left of a part to the core; whether all found room.
    fn queue(&mut self, core: &mut NodeCore, now: Instant, id: BatchId, part: usize) -> bool {
        let Some(batch) = self.batch(id) else { return true };
        let withdrawn = batch.is_withdrawn();
        let node = batch.parts[part].outcome.node;
        let redelivered =
            batch.role.is_some() && batch.parts.iter().any(|part| !part.outcome.moved.is_empty());
        let late = batch.deadline.is_some_and(|deadline| deadline <= now);
        while let Some(range) = batch.peek(part, MAX_AT_ONCE) {
            if withdrawn || late {
                batch.parts[part].advance(range.len());
                batch.settle(part, range, if late { Fate::Expired } else { Fate::Abandoned });
                continue;
            }
            let messages = Messages {
                mode: batch.mode,
                stream: batch.stream,
                redelivered,
                payloads: batch.payloads(range.clone()),
                token: batch.token(range.start),
                lifetime: batch.deadline.map(|deadline| deadline.since(now)),
            };
            let queued = match core.send(now, node, messages) {
                Ok(()) => range.len(),
                Err((SendError::QueueFull, rest)) => {
                    let queued = range.len() - rest.payloads.len();
                    batch.put_back(rest.payloads);
                    queued
                }
                Err((error, _)) => {
                    if batch.parts.len() == 1 && !batch.parts[part].has_begun() {
                        batch.refuse(failure(error, node));
                    }
                    batch.parts[part].advance(range.len());
                    batch.settle(part, range, Fate::Abandoned);
                    continue;
                }
            };
            batch.parts[part].advance(queued);
            if batch.mode == MessageMode::Unreliable {
                batch.forget(part, range.start..range.start + queued);
            }
            if queued < range.len() {
                return false;
            }
        }
        true
    }

    /// A stream to a member has room again.
    pub(super) fn handle_writable(&mut self, core: &mut NodeCore, now: Instant, node: NodeId, stream: u16) {
        // This node's own queue has one limit for all streams.
        let streams = if node == core.id() { 0..=u16::MAX } else { stream..=stream };
        let keys = self.parked.range((node, *streams.start())..=(node, *streams.end()));
        for key in keys.map(|(key, _)| *key).collect::<Vec<_>>() {
            let Some(mut waiting) = self.parked.remove(&key) else { continue };
            while let Some((id, part)) = waiting.parts.pop_front() {
                if !self.queue(core, now, id, part) {
                    waiting.parts.push_front((id, part));
                    self.parked.insert(key, waiting);
                    break;
                }
                self.conclude(id);
            }
        }
    }

    /// Takes what the core tells of messages.
    pub(super) fn hear_fates(&mut self, core: &mut NodeCore) {
        while let Some(report) = core.poll_fate() {
            self.handle_fate(report);
        }
    }

    /// What became of messages, all of one batch.
    fn handle_fate(&mut self, report: FateReport) {
        let FateReport { tokens, node, fate } = report;
        let (id, first) = BatchId::of(tokens.start);
        let Some(batch) = self.batch(id) else { return };
        let range = first..first + (tokens.end - tokens.start) as usize;
        if batch.role.is_none() {
            if let Some(part) = batch.part_of(node, range.start) {
                batch.settle(part, range, fate);
            }
        } else {
            let lost = matches!(fate, Fate::PeerLostState | Fate::Abandoned);
            for index in range {
                match batch.part_of(node, index) {
                    None => {}
                    Some(part) if lost => batch.take_away(part, index, fate),
                    Some(part) => batch.settle(part, index..index + 1, fate),
                }
            }
            let place = batch.place();
            let role = batch.role.as_ref().filter(|_| lost).map(|role| role.name.clone());
            if let Some(role) = role {
                self.homeless.insert(place);
                self.bereft.entry(node).or_default().insert(role);
                self.look_for_owners = true;
            }
        }
        self.conclude(id);
    }

    /// Another plan is in force: what an owner of before has not accepted goes to the new one.
    pub(super) fn handle_plan(&mut self, core: &mut NodeCore, now: Instant) {
        // While nobody owns it, the owner of before may still be there.
        self.take_back(core, now, |core, _, role, node| core.owner(role).is_some_and(|owner| owner != node));
        self.look_for_owners = true;
        self.rehome(core, now);
    }

    /// Takes back what members have not accepted of the batches for roles that this holds for.
    fn take_back(
        &mut self,
        core: &mut NodeCore,
        now: Instant,
        of: impl Fn(&NodeCore, MessageMode, &str, NodeId) -> bool,
    ) {
        // By member; of each batch the first range, then the second.
        let mut moved: BTreeMap<(NodeId, usize), Vec<Range<u64>>> = BTreeMap::new();
        for &place in &self.roles {
            let Slot::Used(batch) = &mut self.slots[place.1 as usize] else { continue };
            let mut rows: Vec<(NodeId, Range<usize>)> = Vec::new();
            for index in 0..batch.len() {
                let (Some(part), Some(role)) = (batch.holder(index), &batch.role) else { continue };
                let node = batch.parts[part].outcome.node;
                if of(core, batch.mode, &role.name, node) {
                    batch.take_away(part, index, Fate::Expired);
                    match rows.last_mut() {
                        Some((before, row)) if (*before, row.end) == (node, index) => row.end += 1,
                        _ => rows.push((node, index..index + 1)),
                    }
                    self.homeless.insert(place);
                }
            }
            for (at, (node, row)) in rows.into_iter().enumerate() {
                let tokens = batch.token(row.start)..batch.token(row.end);
                moved.entry((node, at)).or_default().push(tokens);
            }
        }
        for ((node, _), mut tokens) in moved {
            tokens.sort_unstable_by_key(|range| range.start);
            core.cancel_all(now, node, &tokens);
        }
        // While nobody has them, the reports of that fit none of them.
        self.hear_fates(core);
        // What waited for room does so no more; it would come before what is given anew.
        for key in self.parked.keys().copied().collect::<Vec<_>>() {
            self.retain_parked(key, |outbox, id, part| {
                outbox.batch(id).is_some_and(|batch| batch.peek(part, 1).is_some())
            });
        }
    }

    /// Gives messages that nobody has to the owners of their roles; whether there was a reason to look for such.
    pub(super) fn rehome(&mut self, core: &mut NodeCore, now: Instant) -> bool {
        if !std::mem::take(&mut self.look_for_owners) {
            return false;
        }
        // What was to come after messages that got lost comes after them.
        let bereft = std::mem::take(&mut self.bereft);
        if !bereft.is_empty() {
            self.take_back(core, now, |_, mode, role, node| {
                mode == MessageMode::Ordered && bereft.get(&node).is_some_and(|roles| roles.contains(role))
            });
        }
        for place in std::mem::take(&mut self.homeless) {
            let Some(id) = self.id_in(place.1) else { continue };
            let Some(batch) = self.batch(id) else { continue };
            let owner = batch.role.as_ref().and_then(|role| core.owner(&role.name));
            let deadline = batch.deadline;
            let Some(part) = owner.and_then(|owner| batch.give(owner)) else {
                self.homeless.insert(place);
                self.deadlines.extend(deadline.map(|deadline| (deadline, place.1)));
                continue;
            };
            self.queue_or_park(core, now, id, part);
            self.conclude(id);
        }
        true
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at).into_iter().chain(self.early_timeout()).min()
    }

    /// Ends the wait of messages whose deadline passed before they were queued.
    pub(super) fn handle_timeout(&mut self, core: &mut NodeCore, now: Instant) {
        while let Some(&(at, slot)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, slot));
            let Some(id) = self.id_in(slot) else { continue };
            let Some(batch) = self.batch(id) else { continue };
            // The slot may have got another batch since.
            if batch.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            let parts = batch.parts.len();
            if let Some(role) = &batch.role {
                let nobody = |index: &usize| role.holders[*index] == Holder::Nobody;
                let waiting: Vec<usize> = (0..role.holders.len()).filter(nobody).collect();
                waiting
                    .into_iter()
                    .for_each(|index| batch.settle(parts - 1, index..index + 1, Fate::Expired));
            }
            let place = batch.place();
            self.homeless.remove(&place);
            for part in 0..parts {
                self.queue(core, now, id, part);
            }
            self.conclude(id);
        }
    }

    /// The caller wants a batch no more.
    pub(super) fn cancel(&mut self, core: &mut NodeCore, now: Instant, id: BatchId) {
        let Some(batch) = self.batch(id) else { return };
        // What waits here expires now, and so does what the core has: it reports that.
        for part in 0..batch.parts.len() {
            let (node, queued) = (batch.parts[part].outcome.node, batch.queued(part));
            for range in queued {
                core.cancel(now, node, batch.token(range.start)..batch.token(range.end));
            }
        }
        if let Some(before) = batch.deadline.replace(now) {
            self.deadlines.remove(&(before, id.slot));
        }
        self.deadlines.insert((now, id.slot));
        self.handle_timeout(core, now);
    }

    /// The node stops: whatever is open is abandoned.
    pub(super) fn abandon(&mut self) {
        self.parked.clear();
        for slot in std::mem::take(&mut self.slots) {
            if let Slot::Used(mut batch) = slot {
                batch.abandon();
            }
        }
        *self = Outbox::default();
    }

    fn conclude(&mut self, id: BatchId) {
        if self.batch(id).is_some_and(Batch::tell) {
            self.release(id);
        }
    }

    fn release(&mut self, id: BatchId) {
        let slot = std::mem::replace(&mut self.slots[id.slot as usize], Slot::Free(id.next()));
        if let Slot::Used(batch) = slot {
            self.roles.remove(&batch.place());
            self.homeless.remove(&batch.place());
            if let Some(deadline) = batch.deadline {
                self.deadlines.remove(&(deadline, id.slot));
            }
        }
        self.free.push(id.slot);
    }
}

fn failure(error: SendError, node: NodeId) -> SendFailure {
    match error {
        SendError::TooLarge => SendFailure::TooLarge,
        SendError::UnknownStream => SendFailure::UnknownStream,
        SendError::UnknownNode | SendError::QueueFull => SendFailure::UnknownNode(node.to_string()),
    }
}

/// The members meant, in the order of their ids.
fn resolve(core: &NodeCore, to: &Target) -> Result<Vec<NodeId>, SendFailure> {
    match to {
        Target::Node(name) => {
            core.find(name).map(|node| vec![node]).ok_or_else(|| SendFailure::UnknownNode(name.clone()))
        }
        Target::Role(role) => {
            core.owner(role).map(|node| vec![node]).ok_or_else(|| SendFailure::NoOwner(role.clone()))
        }
        Target::All => Some(core.live_peers()).filter(|nodes| !nodes.is_empty()).ok_or(SendFailure::NoPeers),
    }
}
