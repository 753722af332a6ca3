//! Who is responsible for what.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::violation::Violations;
use crate::{Adapter, Attributes, Violation};

/// Most nodes one question may carry.
pub const MAX_NODES: usize = 4_096;
/// Most responsibilities one question may carry.
pub const MAX_RESPONSIBILITIES: usize = 16_384;
/// Most owners (primary and standbys) one responsibility may ask for.
pub const MAX_REPLICAS: u32 = 32;

/// One member of the cluster, in table order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The node id as 32 hexadecimal digits: stable over restarts, unique, good to hash.
    pub id: String,
    /// The name its owner gave it.
    pub name: String,
    /// Whether it belongs to the live set this question is about. Only live nodes may own.
    pub live: bool,
    /// Its adapter addresses in its own order of preference: primary, then alternates.
    pub adapters: Vec<Adapter>,
    /// What its owner says of it, for example `site = x`; responsibilities may require these.
    #[serde(default)]
    pub attributes: Attributes,
}

impl Node {
    /// Whether every required pair stands among the node's attributes.
    pub fn meets(&self, requires: &Attributes) -> bool {
        requires.iter().all(|pair| self.attributes.contains(pair))
    }
}

/// A named duty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Responsibility {
    /// Unique in the question.
    pub name: String,
    /// Owners wanted: 1 primary and `replicas - 1` standbys. 1..=[`MAX_REPLICAS`].
    pub replicas: u32,
    /// How heavy the duty is, in thousandths: 1000 is an ordinary one.
    pub weight_milli: u32,
    /// Attributes that each owner must have.
    #[serde(default)]
    pub requires: Attributes,
}

/// The question: everything the answer may depend on. Equal questions must get equal answers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// All members, live or not, in table order.
    pub nodes: Vec<Node>,
    /// The duties to assign.
    pub responsibilities: Vec<Responsibility>,
    /// The plan in force, one list of indices into `nodes` for each responsibility (primary first);
    /// owners that left the table are omitted. Empty lists where there is no plan yet.
    #[serde(default)]
    pub previous: Vec<Vec<u32>>,
    /// The same on every member; for strategies that want to break ties at random.
    #[serde(default)]
    pub seed: u64,
    /// Facts without a field of their own.
    #[serde(default)]
    pub attributes: Attributes,
}

/// The answer: for each responsibility, in the question's order, indices into `nodes`: the primary
/// first, then the standbys.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// One list for each responsibility.
    pub owners: Vec<Vec<u32>>,
}

/// Checks an answer as if it had come from the network.
///
/// # Errors
/// The rules it breaks: one list a responsibility; every owner a known and live node that meets the
/// requirements, named once; as many owners as asked for, or as there are eligible nodes.
pub fn validate(question: &Question, answer: &Answer) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    if answer.owners.len() != question.responsibilities.len() {
        violations.add(
            "owners",
            format!("a list of {}", answer.owners.len()),
            format!(
                "it must have one entry for each of the {} responsibilities",
                question.responsibilities.len()
            ),
        );
        return violations.finish();
    }
    // Duties that require the same are met by the same nodes.
    let mut eligible: BTreeMap<&Attributes, usize> = BTreeMap::new();
    for (index, (duty, owners)) in question.responsibilities.iter().zip(&answer.owners).enumerate() {
        let eligible = *eligible.entry(&duty.requires).or_insert_with(|| {
            question.nodes.iter().filter(|node| node.live && node.meets(&duty.requires)).count()
        });
        validate_owners(question, index, eligible, owners, &mut violations);
    }
    violations.finish()
}

fn validate_owners(
    question: &Question,
    index: usize,
    eligible: usize,
    owners: &[u32],
    violations: &mut Violations,
) {
    let duty = &question.responsibilities[index];
    let wanted = eligible.min(duty.replicas as usize);
    if owners.len() != wanted {
        violations.add(
            format!("owners[{index}] ({})", duty.name),
            format!("a list of {}", owners.len()),
            format!(
                "it must name {wanted} owners: replicas = {}, limited by the eligible nodes",
                duty.replicas
            ),
        );
    }
    let mut seen = BTreeSet::new();
    for (place, &owner) in owners.iter().enumerate().take(MAX_REPLICAS as usize) {
        let field = || format!("owners[{index}][{place}] ({})", duty.name);
        match question.nodes.get(owner as usize) {
            None => {
                violations.add(field(), owner, format!("node indices are below {}", question.nodes.len()))
            }
            Some(node) if !node.live => {
                violations.add(field(), owner, format!("node {} is not live", node.name))
            }
            Some(node) if !node.meets(&duty.requires) => {
                violations.add(field(), owner, format!("node {} lacks a required attribute", node.name));
            }
            Some(_) if !seen.insert(owner) => violations.add(field(), owner, "an owner is named only once"),
            Some(_) => {}
        }
    }
}
