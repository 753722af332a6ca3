//! The cluster document: who holds which, and how the newest gets to everybody.
//!
//! Summaries name the sender's document. Whoever hears of one above its own fetches it, from few members at a time, as a
//! reliable message of the cluster's own stream; whoever took a new one tells others at once. The member with the
//! lowest live node id says when all live members hold it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use overlan_contract::assignment::Responsibility;
use overlan_wire::{DocumentId, NodeId};

use super::Core;
use super::cluster::Origin;
use crate::config::Quorum;
use crate::crypto::Crypto;
use crate::document::{self, Document, SignedDocument};
use crate::event::Event;
use crate::status::DocumentStatus;
use crate::time::Instant;

/// First byte of the messages on the cluster's own stream that are no planner's.
const KIND_FETCH: u8 = 0x10;
const KIND_DOCUMENT: u8 = 0x11;
/// A member that was asked is not asked again before.
const FETCH_WAIT: Duration = Duration::from_secs(2);
/// Members that are asked at a time.
const MAX_FETCHES: usize = 4;
/// Versions that the others' document may be ahead of the own: more than anybody applies. Without this, one message of the last
/// version would be the end of all documents.
const MAX_LEAP: u64 = 1 << 32;
/// One member is sent the same document at most this often.
const ANSWER_PAUSE: Duration = Duration::from_millis(500);
/// Live members told at once of a new document; the others hear of it from these.
const DIRECT: usize = 32;

/// Why a document was not applied. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Another was applied first.
    #[error(
        "the race is lost: version {} is in force, and this change was made from version {based_on}; look at it with \
         `overlan get` and apply again", .in_force.version
    )]
    Raced {
        /// What is held.
        in_force: DocumentId,
        /// The version that the change was made from.
        based_on: u64,
    },
    /// Not signed as `[cluster] operator_key` demands.
    #[error(
        "this cluster takes documents signed by its operator alone: add `--sign KEYFILE`, and the key must be the one that \
         [cluster] operator_key names"
    )]
    NotSigned,
    /// It bears another cluster's name.
    #[error("the document is for the cluster `{0}`, which is another one")]
    OtherCluster(String),
    /// Live members want another operator's signature than this one: whatever one takes, another would refuse.
    #[error(
        "[cluster] operator_key differs among the live members, so that not all would take the document: {0}; write the \
         same key into every member's file, start those again, and apply it then"
    )]
    OperatorsDiffer(String),
    /// Its version is so far above the one held here that nobody can have come there change by change.
    #[error("the document's version is too far above the one in force: nobody made as many changes")]
    TooFar,
    /// The member that was asked sees no majority, and [`Quorum::Majority`] is configured.
    #[error(
        "this member sees no more than half of the members ([cluster] quorum = \"majority\"), and what the others \
         decide would be undone: apply it at a member that sees most of them, or when they are back"
    )]
    NoQuorum,
}

/// What this member knows of cluster documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) held: Option<SignedDocument>,
    /// The latest held here that the leader found with all live members.
    pub(super) agreed: DocumentId,
    /// Who led when it said so last.
    pub(super) agreed_by: Option<NodeId>,
    /// What the held one took the place of without being made from it.
    pub(super) displaced: Option<DocumentId>,
    /// What the others hold.
    pub(super) known: BTreeMap<NodeId, DocumentId>,
    /// Who was asked for a document lately, and when.
    asked: BTreeMap<NodeId, Instant>,
    answered: BTreeMap<NodeId, (DocumentId, Instant)>,
}

impl Documents {
    pub(super) fn forget(&mut self, node: NodeId) {
        self.known.remove(&node);
        self.asked.remove(&node);
        self.answered.remove(&node);
    }

    pub(super) fn id(&self) -> DocumentId {
        self.held.as_ref().map(SignedDocument::id).unwrap_or_default()
    }

    pub(super) fn document(&self) -> Option<&Document> {
        self.held.as_ref().map(SignedDocument::document)
    }

    /// The held one, if what comes was certainly not made from it. Of one that is more than a version later this is not
    /// known: those between may have been missed.
    fn displaced_by(&self, document: &Document) -> Option<DocumentId> {
        let held = self.id();
        let beside = document.version == held.version;
        let past = document.version == held.version + 1 && document.parent != held.digest;
        (held.version > 0 && (beside || past)).then_some(held)
    }
}

impl<C: Crypto> Core<C> {
    /// The cluster document held here; `None` where none was applied.
    pub fn document(&self) -> Option<&SignedDocument> {
        self.documents.held.as_ref()
    }

    /// Its version and digest; the default for none.
    pub fn document_id(&self) -> DocumentId {
        self.documents.id()
    }

    /// Whether all live members are known to hold the document that is held here.
    pub fn document_agreed(&self) -> bool {
        self.documents.agreed == self.documents.id() && !self.contested() && !self.is_said_contested()
    }

    /// Live members that are not known to hold the document that is held here; none once all do.
    pub fn document_missing(&self) -> Vec<NodeId> {
        let mut missing = if self.document_agreed() { Vec::new() } else { self.live_peers() };
        missing.retain(|&peer| !self.holds_document(peer));
        missing
    }

    pub(super) fn document_status(&self) -> DocumentStatus {
        let id = self.documents.id();
        let signed = self.documents.held.as_ref().is_some_and(|held| held.signed_part().is_some());
        DocumentStatus {
            version: id.version,
            digest: format!("{}", id.digest),
            agreed: self.document_agreed(),
            signed,
        }
    }

    /// Puts in force a document made from the one that is held.
    ///
    /// # Errors
    /// See [`ApplyError`]; nothing changed.
    pub fn apply_document(
        &mut self,
        now: Instant,
        offered: SignedDocument,
    ) -> Result<DocumentId, ApplyError> {
        self.now = now;
        self.check_offer(&offered)?;
        let id = offered.id();
        self.hold(offered);
        self.pump();
        Ok(id)
    }

    /// Whether [`apply_document`](Self::apply_document) would put it in force now.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn check_offer(&self, offered: &SignedDocument) -> Result<(), ApplyError> {
        self.check_document(offered)?;
        if let Some(operators) = self.operators() {
            return Err(ApplyError::OperatorsDiffer(operators));
        }
        if self.config.quorum == Quorum::Majority && !self.planner.quorate() {
            return Err(ApplyError::NoQuorum);
        }
        let (held, document) = (self.documents.id(), offered.document());
        if document.parent != held.digest || document.version != held.version + 1 {
            let based_on = document.version - 1;
            return Err(ApplyError::Raced { in_force: held, based_on });
        }
        Ok(())
    }

    /// The responsibilities as they stand: the document's; without one those of the plan in force, else the own.
    pub fn responsibilities(&self) -> Vec<Responsibility> {
        match (self.documents.document(), self.planner.responsibilities()) {
            (Some(document), _) => document.responsibilities.clone(),
            (None, Some(planned)) => planned.to_vec(),
            (None, None) => self.config.responsibilities.clone(),
        }
    }

    /// Whether [`responsibilities`](Self::responsibilities) are those of all members: not before there is a document or
    /// a plan, nor while none of the others was met.
    pub fn responsibilities_settled(&self) -> bool {
        self.documents.held.is_some() || !self.awaits_others() && self.planner.responsibilities().is_some()
    }

    /// Takes the document of an earlier life.
    pub(super) fn restore_document(&mut self) {
        let Some(bytes) = self.config.document.take() else { return };
        match SignedDocument::parse(bytes) {
            Ok(document) => match self.check_document(&document) {
                Ok(()) => self.documents.held = Some(document),
                Err(why) => {
                    self.counters.documents_refused += 1;
                    self.refusals.note_stored(document.id(), &why);
                }
            },
            Err(_) => self.counters.documents_refused += 1,
        }
    }

    fn check_document(&self, offered: &SignedDocument) -> Result<(), ApplyError> {
        let cluster = &offered.document().cluster;
        if *cluster != self.config.cluster {
            return Err(ApplyError::OtherCluster(cluster.clone()));
        }
        let Some(key) = &self.config.operator_key else { return Ok(()) };
        let signed = offered.signed_part();
        let genuine = signed.is_some_and(|(text, signature)| self.crypto.verify(key, &text, &signature));
        if genuine { Ok(()) } else { Err(ApplyError::NotSigned) }
    }

    /// Whether versions may have come as far since the one held here: as few as that, or as the operator signed, or most of the
    /// others hold it, whatever led them there.
    fn is_near(&self, document: DocumentId) -> bool {
        let peers = self.live_peers();
        document.version <= self.documents.id().version.saturating_add(MAX_LEAP)
            || self.config.operator_key.is_some()
            || 2 * self.holders(&document).count() > peers.len()
    }

    /// What was refused as too far ahead is not, once most of the others hold it.
    fn forgive_leap(&mut self, document: DocumentId) {
        if self.refusals.is_leap(document) && self.is_near(document) {
            self.refusals.forgive(document);
        }
    }

    fn hold(&mut self, document: SignedDocument) {
        let id = document.id();
        self.documents.displaced = self.documents.displaced_by(document.document());
        self.events.extend(self.documents.displaced.map(Event::DocumentDisplaced));
        self.documents.held = Some(document);
        self.documents.asked.clear();
        self.refusals.outdate(id);
        self.facts_changed = true;
        self.events.push_back(Event::Document(id));
        let mut peers = self.live_peers();
        peers.truncate(DIRECT);
        self.summarize_to(&peers);
        self.agreement.hurry(self.now);
        self.check_document_agreement();
    }

    /// What a summary says of documents.
    pub(super) fn handle_document_summary(
        &mut self,
        origin: Origin,
        from: NodeId,
        [held, agreed]: [DocumentId; 2],
    ) {
        self.documents.known.insert(from, held);
        // Only the leader says so, and of another document than the own it need not be known.
        let leader = self.leader();
        if agreed == self.documents.id() && from == leader {
            self.note_document_agreed(leader);
        } else if held == self.documents.agreed && agreed < held && self.document_agreed_by() == Some(leader)
        {
            // A late comer that caught up learns at once that all hold it, also one that the leader does not reach.
            self.summarize_back(origin, from);
        }
        self.forgive_leap(held);
        if self.refusals.is_refused(held) {
            // Who holds what is refused here is to know.
            self.summarize_back(origin, from);
        } else if held > self.documents.id() {
            self.fetch_document(from);
        }
        self.check_document_agreement();
    }

    /// One that promises and gives nothing keeps nobody from being asked.
    fn fetch_document(&mut self, from: NodeId) {
        let now = self.now;
        let asked = &mut self.documents.asked;
        asked.retain(|_, at| now.since(*at) < FETCH_WAIT);
        if asked.len() < MAX_FETCHES && !asked.contains_key(&from) {
            asked.insert(from, now);
            self.send_internal(from, [KIND_FETCH].to_vec());
        }
    }

    /// Takes a message of the cluster's own stream, if it is about documents; whether it is.
    pub(super) fn handle_document_message(&mut self, from: NodeId, message: &Bytes) -> bool {
        match message.first() {
            Some(&KIND_FETCH) => self.answer_fetch(from),
            Some(&KIND_DOCUMENT) => self.handle_document(from, message.slice(1..)),
            _ => return false,
        }
        true
    }

    fn answer_fetch(&mut self, from: NodeId) {
        let Some(document) = &self.documents.held else { return };
        let (id, answered) = (document.id(), self.documents.answered.get(&from));
        if answered.is_none_or(|&(sent, at)| sent != id || self.now.since(at) >= ANSWER_PAUSE) {
            let message: Vec<u8> = [&[KIND_DOCUMENT], &document.bytes()[..]].concat();
            self.documents.answered.insert(from, (id, self.now));
            self.send_internal(from, message);
        }
    }

    fn handle_document(&mut self, from: NodeId, bytes: Bytes) {
        self.documents.asked.remove(&from);
        // It is a slice of a message that may be much larger than it.
        let Ok(document) = SignedDocument::parse(Bytes::copy_from_slice(&bytes)) else {
            self.counters.dropped_malformed += 1;
            // Of a later release, if it is what the sender says that it holds; others may have that one whole.
            let known = self.documents.known.get(&from);
            if let Some(id) =
                known.filter(|id| **id > self.documents.id() && id.digest == document::digest(&bytes))
            {
                self.refusals.note_unreadable(*id);
                self.summarize_to(&[from]);
            }
            return;
        };
        self.documents.known.insert(from, document.id());
        if document.id() <= self.documents.id() {
            return;
        }
        let near = if self.is_near(document.id()) { Ok(()) } else { Err(ApplyError::TooFar) };
        if let Err(why) = near.and_then(|()| self.check_document(&document)) {
            self.counters.documents_refused += 1;
            self.refusals.note(document.id(), &why);
            self.summarize_to(&[from]);
            return;
        }
        self.hold(document);
    }

    /// As the leader: does everybody hold this document?
    pub(super) fn check_document_agreement(&mut self) {
        let id = self.documents.id();
        if id.version == 0 || self.documents.agreed == id || self.left || self.leader() != self.id {
            return;
        }
        let peers = self.live_peers();
        if peers.iter().all(|&peer| self.holds_document(peer)) {
            self.note_document_agreed(self.id);
            self.summarize_to(&peers);
        }
    }

    /// Who leads, as far as known here, and says that all hold the document held here.
    pub(super) fn document_agreed_by(&self) -> Option<NodeId> {
        let id = self.documents.id();
        let by = if self.leader() == self.id { Some(self.id) } else { self.documents.agreed_by };
        by.filter(|_| id.version > 0 && self.documents.agreed == id)
    }

    /// A member that holds this document has from another that all do.
    pub(super) fn note_agreed_by(&mut self, document: DocumentId, leader: Option<NodeId>) {
        let same = document == self.documents.id();
        if let Some(leader) = leader.filter(|leader| same && *leader == self.leader() && *leader != self.id) {
            self.note_document_agreed(leader);
        }
    }

    fn note_document_agreed(&mut self, leader: NodeId) {
        let id = self.documents.id();
        if id.version == 0 {
            return;
        }
        self.documents.agreed_by = Some(leader);
        if self.documents.agreed != id {
            self.documents.agreed = id;
            self.events.push_back(Event::DocumentAgreed(id));
        }
    }
}
