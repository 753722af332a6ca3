//! Cluster documents that a member will not take: told in its summaries, and a problem in the status at both ends.
//!
//! All members must want the same operator's signature, or none: else what one takes another refuses. Each names its operator in
//! its table entry, and while live members differ nobody applies a document. What two sides of a partition applied before they
//! met again, or another release wrote, may still be refused: whoever refuses goes on with what it holds, and there is one
//! plan all the same, for the leader's document.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use overlan_wire::{DocumentId, NodeId, OperatorId, RefusedDocument};

use super::Core;
use super::documents::ApplyError;
use crate::crypto::Crypto;

/// Documents that are remembered as refused; the highest count.
const MAX_REFUSED: usize = 8;
/// Members that one sentence names.
const MAX_NAMES: usize = 8;

/// What to do where members refuse what others hold.
const MEND: &str = "give all members the same [cluster] operator_key and name and the same release, or apply a later \
                    version that all take";

/// How an operator's public key is told in table entries.
pub(super) fn operator_id(key: [u8; 32]) -> OperatorId {
    OperatorId(core::array::from_fn(|at| key[at]))
}

/// What was refused, here and elsewhere.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Documents above the own that this member may not take, with their codes: they are not fetched again.
    here: BTreeMap<DocumentId, u8>,
    /// What the others say that they refuse.
    elsewhere: BTreeMap<NodeId, RefusedDocument>,
    /// The document of this member's life before, which it may not take any more.
    stored: Option<RefusedDocument>,
}

impl Refusals {
    /// The highest document that is refused here.
    pub(super) fn highest(&self) -> Option<RefusedDocument> {
        self.here.last_key_value().map(|(&document, &code)| RefusedDocument { document, code })
    }

    pub(super) fn is_refused(&self, document: DocumentId) -> bool {
        self.here.contains_key(&document)
    }

    /// Whether it was refused for its version alone.
    pub(super) fn is_leap(&self, document: DocumentId) -> bool {
        self.here.get(&document) == Some(&RefusedDocument::TOO_FAR)
    }

    pub(super) fn forgive(&mut self, document: DocumentId) {
        self.here.remove(&document);
    }

    pub(super) fn note(&mut self, document: DocumentId, why: &ApplyError) {
        self.insert(document, code(why));
    }

    pub(super) fn note_unreadable(&mut self, document: DocumentId) {
        self.insert(document, RefusedDocument::UNREADABLE);
    }

    pub(super) fn note_stored(&mut self, document: DocumentId, why: &ApplyError) {
        self.stored = Some(RefusedDocument { document, code: code(why) });
    }

    fn insert(&mut self, document: DocumentId, code: u8) {
        self.here.insert(document, code);
        if self.here.len() > MAX_REFUSED {
            self.here.pop_first();
        }
    }

    /// What another member refuses now.
    pub(super) fn note_elsewhere(&mut self, from: NodeId, refused: Option<RefusedDocument>) {
        match refused {
            Some(refused) => drop(self.elsewhere.insert(from, refused)),
            None => drop(self.elsewhere.remove(&from)),
        }
    }

    /// A document is held now: nobody here wants lower ones, nor the stored one.
    pub(super) fn outdate(&mut self, held: DocumentId) {
        self.here.retain(|refused, _| *refused > held);
        self.stored = None;
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.elsewhere.remove(&node);
    }
}

fn code(why: &ApplyError) -> u8 {
    match why {
        ApplyError::OtherCluster(_) => RefusedDocument::OTHER_CLUSTER,
        ApplyError::TooFar => RefusedDocument::TOO_FAR,
        _ => RefusedDocument::UNSIGNED,
    }
}

impl<C: Crypto> Core<C> {
    /// Which operator's signature is wanted where, if not all live members want the same.
    pub(super) fn operators(&self) -> Option<String> {
        let own = self.config.operator_key.map(operator_id);
        let mut others: BTreeMap<Option<OperatorId>, Vec<NodeId>> = BTreeMap::new();
        for entry in self.live_peers().into_iter().filter_map(|id| self.table.entry(id)) {
            if entry.operator != own {
                others.entry(entry.operator).or_default().push(entry.id);
            }
        }
        let key = |key: &Option<OperatorId>| key.map_or("none".to_string(), |key| format!("{key}..."));
        let others: Vec<String> = others
            .iter()
            .map(|(named, members)| format!("{} at {}", key(named), self.names(members)))
            .collect();
        (!others.is_empty()).then(|| format!("{}, {} here", others.join(", "), key(&own)))
    }

    /// Where members do not take the same documents, in sentences.
    pub(super) fn document_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(operators) = self.operators() {
            problems.push(format!(
                "[cluster] operator_key differs: {operators}; no cluster document is applied until all live members have \
                 the same: write it into every member's file and start those again"
            ));
        }
        problems.extend(self.refused_here());
        if let Some(stored) = self.refusals.stored {
            problems.push(format!(
                "version {} of the cluster document, which this member had stored, is not in force here any more: {}",
                stored.document.version,
                stored.why()
            ));
        }
        problems.extend(self.refused_elsewhere());
        if problems.is_empty() && self.is_said_contested() {
            problems.push(format!(
                "another member says that not all live members take the cluster document: its status says which; {MEND}"
            ));
        }
        if let Some(displaced) = self.documents.displaced {
            problems.push(format!(
                "version {} of the cluster document ({}), which was in force here, gave way to version {} that was not made \
                 from it, but at the same time or while members did not see each other: what only it said is undone; \
                 look with `overlan get`, and apply that again where it is wanted",
                displaced.version,
                displaced.digest.short(),
                self.documents.id().version
            ));
        }
        problems
    }

    /// Whether live members hold what others refuse, as they say themselves.
    pub(super) fn contested(&self) -> bool {
        let mut refused = self.refusals.here.keys();
        refused.any(|document| self.holders(document).next().is_some()) || self.refusers().next().is_some()
    }

    /// Live members that hold this document.
    pub(super) fn holders(&self, document: &DocumentId) -> impl Iterator<Item = NodeId> {
        let holds = move |peer: &NodeId| self.documents.known.get(peer) == Some(document);
        self.live_peers().into_iter().filter(holds)
    }

    /// Live members that refuse the document held here.
    fn refusers(&self) -> impl Iterator<Item = NodeId> {
        let own = self.documents.id();
        let refused = self.refusals.elsewhere.iter().filter(move |(_, refused)| refused.document == own);
        refused.map(|(&peer, _)| peer).filter(|&peer| self.is_live(peer))
    }

    /// Of documents that live members hold and this one will not take.
    fn refused_here(&self) -> impl Iterator<Item = String> {
        let goes_on = if self.leader() == self.id { "leads with" } else { "goes on with" };
        let own = match self.documents.id().version {
            0 => String::from("none"),
            version => format!("version {version}"),
        };
        self.refusals.here.iter().filter_map(move |(&document, &code)| {
            let holders: Vec<NodeId> = self.holders(&document).collect();
            let verb = if holders.len() == 1 { "holds" } else { "hold" };
            (!holders.is_empty()).then(|| {
                format!(
                    "version {} of the cluster document, which {} {verb}, was refused here, and this member {goes_on} \
                     {own}: {}; {MEND}",
                    document.version,
                    self.names(&holders),
                    RefusedDocument { document, code }.why()
                )
            })
        })
    }

    fn refused_elsewhere(&self) -> Option<String> {
        let refusers: Vec<NodeId> = self.refusers().collect();
        let told = self.refusals.elsewhere.get(refusers.first()?)?;
        let verb = if refusers.len() == 1 { "refuses" } else { "refuse" };
        Some(format!(
            "{} {verb} version {} of the cluster document, which this member holds: {}; {MEND}",
            self.names(&refusers),
            told.document.version,
            told.why()
        ))
    }

    fn names(&self, members: &[NodeId]) -> String {
        let mut names: Vec<String> = members.iter().take(MAX_NAMES).map(|id| self.name_of(*id)).collect();
        if members.len() > MAX_NAMES {
            names.push(format!("{} more", members.len() - MAX_NAMES));
        }
        names.join(", ")
    }
}
