//! What members hold that this one does not hear: others that hear them say so.
//!
//! Behind its summary a member tells from whom it heard lately that they hold its table, and its document. What a member
//! says itself outdates that. Only who heard a member itself speaks of it, so that no word goes round.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::limits::MAX_HEARD_BITMAP;
use overlan_wire::{Digest, DocumentId, Frame, NodeId};

use super::cluster::Origin;
use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::time::Instant;

/// A summary is passed on for so long, and what was passed on counts for as long: three periods of summaries, so that one
/// that is lost changes nothing. Together they bound the age of what is known of a member by others.
const LATELY: Duration = Duration::from_secs(3);

/// What others said of members that are not heard here.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    tables: BTreeMap<NodeId, (Digest, Instant)>,
    documents: BTreeMap<NodeId, (DocumentId, Instant)>,
    /// The document of the last who knew members that will not take it, or another's.
    contested: Option<(DocumentId, Instant)>,
}

impl Hearsay {
    /// It spoke itself, or is no member any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.tables.remove(&node);
        self.documents.remove(&node);
    }
}

impl<C: Crypto> Core<C> {
    /// Whether a member is known to hold the table that is held here.
    pub(super) fn holds_table(&self, peer: NodeId) -> bool {
        let own = self.table.digest();
        let told = self.agreement.told.get(&peer).is_some_and(|(digest, _)| *digest == own);
        told || self.is_said(self.hearsay.tables.get(&peer), own)
    }

    /// Whether a member is known to hold the document that is held here.
    pub(super) fn holds_document(&self, peer: NodeId) -> bool {
        let own = self.documents.id();
        self.documents.known.get(&peer) == Some(&own) || self.is_said(self.hearsay.documents.get(&peer), own)
    }

    /// Whether another knows live members that will not take each other's document.
    pub(super) fn is_said_contested(&self) -> bool {
        self.is_said(self.hearsay.contested.as_ref(), self.documents.id())
    }

    fn is_said<T: PartialEq>(&self, said: Option<&(T, Instant)>, what: T) -> bool {
        said.is_some_and(|(said, at)| *said == what && self.now.since(*at) < LATELY)
    }

    fn heard_lately(&self, peer: NodeId) -> Option<Digest> {
        let (digest, at) = self.agreement.told.get(&peer)?;
        (self.now.since(*at) < LATELY).then_some(*digest)
    }

    /// Tells whom this member heard itself. Of two there is no third to tell of.
    pub(super) fn emit_heard(&self, out: &mut Vec<u8>) {
        if self.peers.len() < 2 {
            return;
        }
        let (table, document) = (self.table.digest(), self.documents.id());
        let (mut tables, mut documents) = (Vec::new(), Vec::new());
        for (place, id) in self.table.ids().enumerate().take(8 * MAX_HEARD_BITMAP) {
            let Some(digest) = self.heard_lately(id) else { continue };
            if digest == table {
                set(&mut tables, place);
            }
            if document.version > 0 && self.documents.known.get(&id) == Some(&document) {
                set(&mut documents, place);
            }
        }
        let agreed_by = self.document_agreed_by();
        let contested = self.contested();
        Frame::Heard { agreed_by, contested, tables: &tables, documents: &documents }.emit(out);
    }

    /// Takes what a member tells of others behind a summary.
    pub(super) fn handle_heard(
        &mut self,
        origin: Origin,
        (agreed_by, contested): (Option<NodeId>, bool),
        tables: &[u8],
        documents: &[u8],
    ) {
        let Some(&from) = self.boots.get(&origin.boot) else { return };
        let document = self.documents.known.get(&from).copied().unwrap_or_default();
        if contested && document == self.documents.id() {
            self.hearsay.contested = Some((document, self.now));
        }
        self.note_agreed_by(document, agreed_by);
        let table = self.table.digest();
        let told = self.agreement.told.get(&from);
        // The cheap question first: each member hears some each second.
        if self.all_is_agreed() || told.is_none_or(|(digest, _)| *digest != table) {
            return;
        }
        let unheard: Vec<(usize, NodeId)> = self
            .table
            .ids()
            .enumerate()
            .filter(|&(place, _)| is_set(tables, place) || is_set(documents, place))
            .filter(|&(_, id)| id != self.id && is_live(self.state_of(id)) && self.heard_lately(id).is_none())
            .collect();
        for (place, id) in unheard {
            if is_set(tables, place) {
                self.hearsay.tables.insert(id, (table, self.now));
            }
            if is_set(documents, place) {
                self.hearsay.documents.insert(id, (document, self.now));
            }
        }
        self.check_agreement();
        self.check_document_agreement();
    }

    fn all_is_agreed(&self) -> bool {
        self.documents.agreed == self.documents.id() && !self.awaits_agreement()
    }
}

fn set(bitmap: &mut Vec<u8>, place: usize) {
    bitmap.resize(bitmap.len().max(place / 8 + 1), 0);
    bitmap[place / 8] |= 1 << (place % 8);
}

fn is_set(bitmap: &[u8], place: usize) -> bool {
    bitmap.get(place / 8).is_some_and(|byte| byte & 1 << (place % 8) != 0)
}
