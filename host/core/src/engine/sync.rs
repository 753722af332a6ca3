//! Anti-entropy of the table, and the agreement on it.
//!
//! Summary (digest) → buckets (hashes, where the digests differ) → leaves (versions, of buckets that differ)
//! → records, wanted or offered. Every step is idempotent, so that losses cost only time.
//!
//! The member with the lowest live node id collects the digests that summaries carry; when all live
//! members hold its table, it publishes the next agreement.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::frame::FRAME_HEADER;
use overlan_wire::{Digest, DocumentId, Frame, NodeId, RefusedDocument};
use rand::Rng;

use super::Core;
use super::answers::Given;
use super::cluster::{Origin, ROOM};
use crate::crypto::Crypto;
use crate::event::Event;
use crate::plan::Plans;
use crate::time::Instant;

/// Summaries to the leader and to one other member, when nothing changes.
const PERIOD: Duration = Duration::from_secs(1);
/// Changes of the table are collected for this long before the leader is told.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// One member gets a list of buckets at most this often.
const ANSWER_PAUSE: Duration = Duration::from_millis(20);
/// An epoch that is further from the own one is made up: each table that is agreed takes one.
const MAX_LEAP: u64 = 1 << 20;
/// Bucket hashes in one frame.
const BUCKETS: usize = 128;

/// What is agreed, and what this node knows of the others' tables.
#[derive(Debug)]
pub(super) struct Agreement {
    pub(super) epoch: u64,
    pub(super) digest: Digest,
    /// The tables of members as they told it last, and when.
    pub(super) told: BTreeMap<NodeId, (Digest, Instant)>,
    next: Instant,
    changed_at: Instant,
    pub(super) took: Option<Duration>,
    /// Another took itself for the leader, published this agreement, and knew perhaps few members.
    untold: bool,
    /// When all were told last.
    told_all: Option<Instant>,
    /// Who was told lately that what it takes for agreed is not, and when.
    corrected: BTreeMap<NodeId, Instant>,
}

impl Agreement {
    pub(super) fn new(now: Instant) -> Self {
        Agreement {
            epoch: 0,
            digest: Digest::default(),
            told: BTreeMap::new(),
            next: now + PERIOD,
            changed_at: now,
            took: None,
            untold: false,
            told_all: None,
            corrected: BTreeMap::new(),
        }
    }

    /// Whether this member may be told once more. (One of an earlier release takes no lower epoch, and answers.)
    fn may_correct(&mut self, node: NodeId, now: Instant) -> bool {
        self.corrected.retain(|_, at| now.since(*at) < PERIOD);
        let may = !self.corrected.contains_key(&node);
        if may {
            self.corrected.insert(node, now);
        }
        may
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.next
    }

    /// The next summary may go now, where it would be due until `horizon`.
    pub(super) fn handle_beat(&mut self, now: Instant, horizon: Instant) {
        if self.next <= horizon {
            self.next = self.next.min(now);
        }
    }

    pub(super) fn table_changed(&mut self, now: Instant) {
        self.changed_at = now;
        self.took = None;
        self.hurry(now);
    }

    /// Something that the leader should hear about soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now + DEBOUNCE);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.told.remove(&node);
    }
}

impl<C: Crypto> Core<C> {
    pub(super) fn sync_timeout(&mut self) {
        if self.now < self.agreement.next {
            return;
        }
        self.agreement.next = self.now + PERIOD;
        let peers = self.live_peers();
        if peers.is_empty() || self.left {
            self.check_agreement();
            self.check_document_agreement();
            return;
        }
        let leader = self.leader();
        let other = self.any_of(&peers);
        let mut targets = vec![other];
        if leader != self.id && leader != other {
            targets.push(leader);
        }
        self.summarize_to(&targets);
        self.check_agreement();
        self.check_document_agreement();
    }

    /// The lowest live node id.
    pub(super) fn leader(&self) -> NodeId {
        let mut lower = self.peers.range(..self.id).map(|(&id, _)| id);
        lower.find(|&id| self.is_live(id)).unwrap_or(self.id)
    }

    fn summary(&self) -> Frame<'static> {
        Frame::Summary {
            digest: self.table.digest(),
            epoch: self.agreement.epoch,
            agreed: self.agreement.digest,
            documents: [self.documents.id(), self.documents.agreed],
            refused: self.refusals.highest(),
        }
    }

    /// One of these, of those that something from here may reach, if there are any.
    fn any_of(&mut self, peers: &[NodeId]) -> NodeId {
        let may_hear = |id: &NodeId| self.peers.get(id).is_some_and(|peer| !peer.is_out_of_reach());
        let near: Vec<NodeId> = peers.iter().copied().filter(may_hear).collect();
        let among = if near.is_empty() { peers } else { &near };
        among[self.rng.next_u64() as usize % among.len()]
    }

    pub(super) fn summarize_to(&mut self, to: &[NodeId]) {
        let mut frames = Vec::new();
        self.summary().emit(&mut frames);
        let Plans { in_force, above } = self.planner.plans();
        if in_force.is_some() || above.is_some() {
            Frame::Plans { in_force, above }.emit(&mut frames);
        }
        self.emit_heard(&mut frames);
        for &to in to {
            self.send_cluster(to, |out| out.extend_from_slice(&frames));
        }
    }

    /// Tells a member all that goes with a summary, as an answer to one of its own.
    pub(super) fn summarize_back(&mut self, origin: Origin, to: NodeId) {
        if self.answers.is_first(Given::Told) && self.may_give(origin, ROOM) {
            self.summarize_to(&[to]);
        }
    }

    pub(super) fn send_summary(&mut self, to: Origin) {
        if self.answers.is_first(Given::Summary) {
            let summary = self.summary();
            self.answer(to, |out| summary.emit(out));
        }
    }

    pub(super) fn handle_summary(
        &mut self,
        origin: Origin,
        digest: Digest,
        (epoch, agreed): (u64, Digest),
        documents: [DocumentId; 2],
        refused: Option<RefusedDocument>,
    ) {
        if let Some(&from) = self.boots.get(&origin.boot) {
            self.refusals.note_elsewhere(from, refused);
            self.agreement.told.insert(from, (digest, self.now));
            self.hearsay.forget(from);
            if self.believes_agreed(from, (epoch, agreed)) {
                (self.agreement.epoch, self.agreement.digest) = (epoch, agreed);
                self.agreement.untold = true;
                self.note_agreement();
            }
            self.check_agreement();
            // It may have missed what all were told. Whoever holds more takes nothing from here, so that this ends.
            let behind = (epoch, agreed) < (self.agreement.epoch, self.agreement.digest);
            let misled = self.leader() == self.id && (agreed != digest || self.is_far_above(epoch));
            if digest == self.agreement.digest
                && (behind || misled && self.agreement.may_correct(from, self.now))
            {
                self.send_summary(origin);
            }
            self.handle_document_summary(origin, from, documents);
        }
        if digest != self.table.digest()
            && self.senders.may_answer(origin, self.answer_pause(origin), self.now)
        {
            let hashes = self.table.bucket_hashes();
            for (index, chunk) in hashes.chunks(BUCKETS).enumerate() {
                let frame = Frame::Buckets { first: (index * BUCKETS) as u8, hashes: chunk.to_vec() };
                self.answer(origin, |out| frame.emit(out));
            }
        }
    }

    /// Whether what a member says is agreed takes the place of what is known here. The leader says it, and others hand it on to
    /// those who hold the table that it is about. Two that both took themselves for the leader may have agreed as often:
    /// the higher of the two counts everywhere, and where that is not the table, the leader says so in the next. What was
    /// made up is outdated by what the leader says of the table that is held here, though its epoch is lower.
    fn believes_agreed(&self, from: NodeId, (epoch, agreed): (u64, Digest)) -> bool {
        let (known, table, leader) = (&self.agreement, self.table.digest(), self.leader());
        let leads = leader == self.id;
        let above = (epoch, agreed) > (known.epoch, known.digest)
            && epoch <= known.epoch.saturating_add(MAX_LEAP)
            && (leads || from == leader || agreed == table);
        let made_up = from == leader && known.epoch > epoch.saturating_add(MAX_LEAP);
        above || !leads && agreed == table && (known.digest != table || made_up)
    }

    /// Nobody agreed so often.
    fn is_far_above(&self, epoch: u64) -> bool {
        epoch > self.agreement.epoch.saturating_add(MAX_LEAP)
    }

    pub(super) fn handle_plans(&mut self, origin: Origin, plans: Plans) {
        if let Some(&from) = self.boots.get(&origin.boot) {
            self.planner.handle_plans(self.now, from, origin.boot, plans);
        }
    }

    /// As the leader: does everybody hold this table?
    pub(super) fn check_agreement(&mut self) {
        // The cheap question first: the leader hears every member each second.
        if !self.awaits_agreement() || self.left || self.leader() != self.id {
            return;
        }
        // What another took for agreed is told to all once in a while: whoever says so again and again is no reason to.
        let digest = self.table.digest();
        let told = self.agreement.told_all.is_some_and(|at| self.now.since(at) < PERIOD);
        if told && self.agreement.digest == digest {
            return;
        }
        let peers = self.live_peers();
        if !peers.iter().all(|&peer| self.holds_table(peer)) {
            return;
        }
        if self.agreement.digest != digest {
            self.agreement.epoch = self.agreement.epoch.checked_add(1).unwrap_or(1);
            self.agreement.digest = digest;
            self.note_agreement();
        }
        (self.agreement.untold, self.agreement.told_all) = (false, Some(self.now));
        self.summarize_to(&peers);
    }

    /// Nothing was agreed on the table as it is, or by another than this member, which leads.
    pub(super) fn awaits_agreement(&self) -> bool {
        let untold = self.agreement.untold && self.leader() == self.id;
        self.agreement.digest != self.table.digest() || untold
    }

    /// What an answer of the sync protocol changes shows two round trips later: until then another would say the same.
    fn answer_pause(&self, origin: Origin) -> Duration {
        let peer = self.boots.get(&origin.boot).and_then(|id| self.peers.get(id));
        peer.and_then(|peer| peer.round_trip()).map_or(ANSWER_PAUSE, |trip| ANSWER_PAUSE.max(2 * trip))
    }

    fn note_agreement(&mut self) {
        if self.agreement.digest == self.table.digest() {
            self.agreement.took = Some(self.now.since(self.agreement.changed_at));
            self.events
                .push_back(Event::Agreed { epoch: self.agreement.epoch, digest: self.agreement.digest });
        }
    }

    pub(super) fn handle_buckets(&mut self, origin: Origin, first: u8, hashes: &[u64]) {
        let own = self.table.bucket_hashes();
        let mut datagram = Vec::new();
        for (index, &hash) in hashes.iter().enumerate() {
            let bucket = usize::from(first) + index;
            if own.get(bucket) == Some(&hash) || !self.answers.is_first(Given::Leaves(bucket as u8)) {
                continue;
            }
            // A bucket too full for a datagram goes in pieces; each piece speaks only of its nodes.
            let leaves = self.table.leaves(bucket as u8);
            const LEAF: usize = 16 + 8 + 1;
            let pieces = leaves.chunks((ROOM - FRAME_HEADER - 1) / LEAF);
            let mut frames: Vec<Frame<'_>> =
                pieces.map(|piece| Frame::Leaves { bucket: bucket as u8, leaves: piece.to_vec() }).collect();
            if frames.is_empty() {
                frames.push(Frame::Leaves { bucket: bucket as u8, leaves: Vec::new() });
            }
            // They may hold what a past life of ours, or a copy of us, wrote under the version that ours has.
            frames.extend((usize::from(self.id.0[0]) == bucket).then(|| Frame::Want(vec![self.id])));
            for frame in frames {
                let mut bytes = Vec::new();
                frame.emit(&mut bytes);
                if datagram.len() + bytes.len() > ROOM {
                    let full = core::mem::take(&mut datagram);
                    self.answer(origin, |out| out.extend_from_slice(&full));
                }
                datagram.extend_from_slice(&bytes);
            }
        }
        if !datagram.is_empty() {
            self.answer(origin, |out| out.extend_from_slice(&datagram));
        }
    }

    pub(super) fn handle_leaves(&mut self, origin: Origin, bucket: u8, leaves: &[(NodeId, u64, bool)]) {
        let theirs: BTreeMap<NodeId, (u64, bool)> =
            leaves.iter().map(|&(id, version, forgotten)| (id, (version, forgotten))).collect();
        let ours: BTreeMap<NodeId, (u64, bool)> = self
            .table
            .leaves(bucket)
            .into_iter()
            .map(|(id, version, forgotten)| (id, (version, forgotten)))
            .collect();
        let wanted: Vec<NodeId> = theirs
            .iter()
            .filter(|(id, theirs)| id.0[0] == bucket && ours.get(id).is_none_or(|ours| ours < theirs))
            .map(|(&id, _)| id)
            .collect();
        for chunk in wanted.chunks((ROOM - FRAME_HEADER) / 16) {
            let want = Frame::Want(chunk.to_vec());
            self.answer(origin, |out| want.emit(out));
        }
        let offered: Vec<NodeId> = ours
            .iter()
            .filter(|(id, ours)| theirs.get(id).is_none_or(|theirs| theirs < ours))
            .map(|(&id, _)| id)
            .collect();
        self.handle_want(origin, &offered);
    }

    pub(super) fn handle_want(&mut self, origin: Origin, nodes: &[NodeId]) {
        for &node in nodes {
            if !self.answers.is_first(Given::Record(node)) {
                continue;
            }
            if let Some(bytes) = self.table.record(node).map(|record| record.bytes().to_vec()) {
                self.answer(origin, |out| Frame::Record(&bytes).emit(out));
            }
        }
    }
}
