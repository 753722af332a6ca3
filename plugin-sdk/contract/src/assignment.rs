//! Who is responsible for what.
//!
//! ```
//! use overlan_contract::assignment::{Answer, MAX_NODES, MAX_REPLICAS, MAX_RESPONSIBILITIES, Node, Question};
//! use overlan_contract::assignment::{Responsibility, validate};
//!
//! let node = |name: &str| {
//!     Node { id: name.repeat(32), name: name.into(), live: true, adapters: vec![], attributes: vec![] }
//! };
//! let duty = Responsibility { name: "shard-7".into(), replicas: MAX_REPLICAS, weight_milli: 1_000, requires: vec![] };
//! let question = Question { nodes: vec![node("a"), node("b")], responsibilities: vec![duty], ..Question::default() };
//! assert_eq!(validate(&question, &Answer { owners: vec![vec![1, 0]] }), Ok(()), "as many as there are");
//! // What a strategy may count on: a node's index fits 16 bits, the weight of all duties 64.
//! assert!(MAX_NODES <= 1 << 16 && (MAX_RESPONSIBILITIES as u64).checked_mul(u32::MAX.into()).is_some());
//! ```

use alloc::collections::BTreeMap;
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
///
/// ```
/// use overlan_contract::{AdapterStatus, assignment::Node};
///
#[doc = eth0!()]
/// let node = Node { id: "0a".repeat(16), name: "a".into(), live: true, adapters: vec![eth0], attributes: vec![] };
/// let up = node.adapters.iter().filter(|adapter| adapter.status == AdapterStatus::Up);
/// assert_eq!(up.map(|adapter| adapter.speed).sum::<u32>(), 1_000);
/// ```
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
    ///
    /// ```
    /// # use overlan_contract::{Attributes, assignment::Node};
    /// let pairs = |site: &str| Attributes::from([("site".into(), site.into())]);
    /// let attributes = pairs("x");
    /// let node = Node { id: "0a".repeat(16), name: "a".into(), live: true, adapters: vec![], attributes };
    /// assert!(node.meets(&pairs("x")) && node.meets(&vec![]) && !node.meets(&pairs("y")));
    /// ```
    pub fn meets(&self, requires: &Attributes) -> bool {
        requires.iter().all(|pair| self.attributes.contains(pair))
    }
}

/// A named duty.
///
/// ```
/// use overlan_contract::assignment::Responsibility;
///
/// let duty = |name: &str, weight_milli| {
///     Responsibility { name: name.into(), replicas: 2, weight_milli, requires: vec![] }
/// };
/// let mut duties = [duty("shard-1", 1_000), duty("archive", 2_500), duty("shard-0", 1_000)];
/// // The heaviest first; names are unique, so the order is the same on every member.
/// duties.sort_by(|a, b| b.weight_milli.cmp(&a.weight_milli).then_with(|| a.name.cmp(&b.name)));
/// assert_eq!(duties.map(|duty| duty.name), ["archive", "shard-0", "shard-1"]);
/// ```
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
///
/// ```
/// use overlan_contract::assignment::{Node, Question};
///
/// let node = |name: &str, live| {
///     Node { id: name.repeat(32), name: name.into(), live, adapters: vec![], attributes: vec![] }
/// };
/// let nodes = vec![node("a", true), node("b", false), node("c", true)];
/// let question = Question { nodes, previous: vec![vec![1, 2]], ..Question::default() };
/// // Who can keep the first duty.
/// let kept = question.previous[0].iter().filter(|&&owner| question.nodes[owner as usize].live);
/// assert!(kept.eq(&[2]));
/// ```
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
///
/// ```
/// use overlan_contract::assignment::Answer;
///
/// let answer = Answer { owners: vec![vec![2, 0], vec![]] };
/// assert_eq!(answer.owners[0].split_first(), Some((&2, &[0][..])), "node 2 is primary, node 0 stands by");
/// assert_eq!(answer.owners[1].first(), None, "nobody may own the second duty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// One list for each responsibility.
    pub owners: Vec<Vec<u32>>,
}

/// Checks an answer as if it had come from the network.
///
/// ```
/// # use overlan_contract::assignment::{Answer, Node, Question, Responsibility, validate};
/// # let node = Node { id: "0a".repeat(16), name: "a".into(), live: false, adapters: vec![], attributes: vec![] };
/// # let duty = Responsibility { name: "shard-7".into(), replicas: 1, weight_milli: 1_000, requires: vec![] };
/// # let question = Question { nodes: vec![node], responsibilities: vec![duty], ..Question::default() };
/// assert!(!question.nodes[0].live);
/// assert_eq!(validate(&question, &Answer { owners: vec![vec![]] }), Ok(()));
/// let violations = validate(&question, &Answer { owners: vec![vec![0]] }).unwrap_err();
/// assert_eq!(violations[1].to_string(), "owners[0][0] (shard-7) is 0; node a is not live");
/// ```
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
    // Most duties require the same of a node.
    let mut eligible: BTreeMap<&Attributes, usize> = BTreeMap::new();
    for (index, (duty, owners)) in question.responsibilities.iter().zip(&answer.owners).enumerate() {
        let eligible = *eligible.entry(&duty.requires).or_insert_with(|| {
            question.nodes.iter().filter(|node| node.live && node.meets(&duty.requires)).count()
        });
        validate_owners(question, index, duty, eligible, owners, &mut violations);
    }
    violations.finish()
}

fn validate_owners(
    question: &Question,
    index: usize,
    duty: &Responsibility,
    eligible: usize,
    owners: &[u32],
    violations: &mut Violations,
) {
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
            Some(_) if owners[..place].contains(&owner) => {
                violations.add(field(), owner, "an owner is named only once")
            }
            Some(_) => {}
        }
    }
}
