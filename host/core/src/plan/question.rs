//! The question as replicated data, and the digests over it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::marker::PhantomData;

use overlan_contract::assignment::{MAX_NODES, MAX_RESPONSIBILITIES, Node, Question, Responsibility};
use overlan_wire::{BootId, Digest, NodeId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::wire::{MAX_DOCUMENT, Proposal, check_responsibility, emit_document};

fn sha256(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(domain.as_bytes());
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Digest(hasher.finalize().into())
}

/// SHA-256 over the postcard encoding of the contract's [`Question`].
pub(crate) fn question_digest(question: &Question) -> Digest {
    sha256("overlan question 1", &[&Packed::new(question).bytes])
}

/// What is seldom looked at, in its postcard encoding: a fraction of what it takes to be read.
#[derive(Debug)]
pub(super) struct Packed<T> {
    bytes: Box<[u8]>,
    of: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Packed<T> {
    pub(super) fn new(value: &T) -> Self {
        let bytes = postcard::to_allocvec(value).expect("plain data of known lengths always encodes");
        Packed { bytes: bytes.into(), of: PhantomData }
    }

    pub(super) fn unpack(&self) -> T {
        postcard::from_bytes(&self.bytes).expect("what was encoded decodes")
    }
}

/// SHA-256 over the encoded responsibilities.
pub(crate) fn document_digest(document: &[Responsibility]) -> Digest {
    let mut bytes = Vec::new();
    emit_document(&mut bytes, document);
    sha256("overlan document 1", &[&bytes])
}

/// SHA-256 over each duty's name and the ids of its owners: free of epoch and indices, so that the plans two
/// members would make compare.
pub(crate) fn plan_digest(nodes: &[NodeId], document: &[Responsibility], owners: &[Vec<u32>]) -> Digest {
    let mut bytes = Vec::new();
    for (duty, list) in document.iter().zip(owners) {
        bytes.extend_from_slice(&(duty.name.len() as u32).to_be_bytes());
        bytes.extend_from_slice(duty.name.as_bytes());
        bytes.extend_from_slice(&(list.len() as u32).to_be_bytes());
        for node in list.iter().filter_map(|&index| nodes.get(index as usize)) {
            bytes.extend_from_slice(&node.0);
        }
    }
    sha256("overlan plan 1", &[&bytes])
}

/// SHA-256 over what a new plan is made for, apart from the document.
pub(super) fn inputs_digest(
    nodes: &Packed<Vec<Node>>,
    live: &BTreeMap<NodeId, BootId>,
    plugin: Digest,
    plugin_pending: bool,
) -> Digest {
    let live: Vec<u8> = live.iter().flat_map(|(node, boot)| node.0.into_iter().chain(boot.0)).collect();
    sha256("overlan inputs 1", &[&nodes.bytes, &live, &plugin.0, &[u8::from(plugin_pending)]])
}

/// Keeps the responsibilities that a question may carry, and says how many it may not: too many or too
/// long, named twice, or with replicas out of range.
pub(crate) fn checked_document(document: Vec<Responsibility>) -> (Vec<Responsibility>, usize) {
    let given = document.len();
    let mut names = BTreeSet::new();
    let mut bytes = 4;
    let kept: Vec<_> = document
        .into_iter()
        .filter(|duty| {
            let pairs: usize = duty.requires.iter().map(|(key, value)| 2 + key.len() + value.len()).sum();
            let fine = check_responsibility(duty).is_ok()
                && bytes + 7 + duty.name.len() + pairs <= MAX_DOCUMENT
                && names.len() < MAX_RESPONSIBILITIES
                && names.insert(duty.name.clone());
            if fine {
                bytes += 7 + duty.name.len() + pairs;
            }
            fine
        })
        .collect();
    let refused = given - kept.len();
    (kept, refused)
}

/// The nodes with their ids parsed, in table order, with `live` as the live set says; how many were refused.
pub(crate) fn checked_nodes(
    nodes: Vec<Node>,
    live: &BTreeMap<NodeId, BootId>,
) -> (Vec<NodeId>, Vec<Node>, usize) {
    let given = nodes.len();
    let by_id: BTreeMap<NodeId, Node> =
        nodes.into_iter().filter_map(|node| Some((node.id.parse().ok()?, node))).collect();
    let (ids, nodes): (Vec<NodeId>, Vec<Node>) = by_id
        .into_iter()
        .take(MAX_NODES)
        .map(|(id, node)| (id, Node { live: live.contains_key(&id), ..node }))
        .unzip();
    let refused = given - ids.len();
    (ids, nodes, refused)
}

/// A plan's owners as indices into `ids`, for the duties of `document`; owners that left are omitted.
pub(crate) fn carried_over(
    plan: Option<&Proposal>,
    ids: &[NodeId],
    document: &[Responsibility],
) -> Vec<Vec<u32>> {
    let Some(plan) = plan else { return document.iter().map(|_| Vec::new()).collect() };
    let by_name: BTreeMap<&str, &Vec<u32>> =
        plan.responsibilities.iter().map(|duty| duty.name.as_str()).zip(&plan.owners).collect();
    let translate = |&index: &u32| {
        let (node, _) = plan.nodes.get(index as usize)?;
        ids.binary_search(node).ok().map(|index| index as u32)
    };
    document
        .iter()
        .map(|duty| match by_name.get(duty.name.as_str()) {
            Some(owners) => owners.iter().filter_map(translate).collect(),
            None => Vec::new(),
        })
        .collect()
}

impl Proposal {
    /// The ids of all nodes of the question.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|(node, _)| *node).collect()
    }

    /// The live set it was made for.
    pub(crate) fn live(&self) -> impl Iterator<Item = (NodeId, BootId)> {
        self.nodes.iter().filter_map(|(node, boot)| Some((*node, (*boot)?)))
    }

    /// The question it answers, rebuilt from this member's table; `None` where the tables differ in what the
    /// question is about.
    pub(super) fn rebuild_question(&self, ids: &[NodeId], nodes: &Packed<Vec<Node>>) -> Option<Question> {
        if !ids.iter().eq(self.nodes.iter().map(|(node, _)| node)) {
            return None;
        }
        let relived = nodes
            .unpack()
            .into_iter()
            .zip(&self.nodes)
            .map(|(node, (_, boot))| Node { live: boot.is_some(), ..node });
        let question = Question {
            nodes: relived.collect(),
            responsibilities: self.responsibilities.clone(),
            previous: self.previous.clone(),
            seed: self.seed,
            attributes: Vec::new(),
        };
        (question_digest(&question) == self.question).then_some(question)
    }
}
