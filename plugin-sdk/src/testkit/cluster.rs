//! Clusters to assign responsibilities in.

use super::adapter;
use crate::assignment::{Answer, Node, Question, Responsibility};
use crate::{Adapter, AdapterStatus, score};

/// A live node; its id is derived from its name.
///
/// ```
/// use overlan_plugin_sdk::testkit;
///
/// let node = testkit::node("a", vec![testkit::adapter("eth0", "10.1.0.2/24")]);
/// assert!(node.live && node.id.len() == 32);
/// ```
pub fn node(name: &str, adapters: Vec<Adapter>) -> Node {
    let half = |seed| score::hash(seed, name.as_bytes());
    Node {
        id: format!("{:016x}{:016x}", half(1), half(2)),
        name: name.into(),
        live: true,
        adapters,
        attributes: Vec::new(),
    }
}

/// A duty of ordinary weight without requirements.
///
/// ```
/// assert_eq!(overlan_plugin_sdk::testkit::responsibility("shard-1", 3).replicas, 3);
/// ```
pub fn responsibility(name: &str, replicas: u32) -> Responsibility {
    Responsibility { name: name.into(), replicas, weight_milli: 1_000, requires: Vec::new() }
}

/// A uniform cluster without a plan: live nodes `n0`, `n1`, … with two adapters each, 16 nodes to a pair
/// of subnets; duties `duty-0`, … with one primary and one standby.
///
/// ```
/// let question = overlan_plugin_sdk::testkit::cluster(3, 8);
/// assert_eq!((question.nodes.len(), question.responsibilities.len()), (3, 8));
/// ```
pub fn cluster(nodes: usize, duties: usize) -> Question {
    let adapters = |i: usize| {
        let (subnet, host) = (i / 16, i % 16 + 1);
        let (high, low) = (subnet / 256, subnet % 256);
        vec![
            adapter("eth0", &format!("10.{high}.{low}.{host}/24")),
            adapter("eth1", &format!("10.{}.{low}.{host}/24", 128 + high)),
        ]
    };
    let mut question = Question {
        nodes: (0..nodes).map(|i| node(&format!("n{i}"), adapters(i))).collect(),
        responsibilities: (0..duties).map(|i| responsibility(&format!("duty-{i}"), 2)).collect(),
        previous: vec![Vec::new(); duties],
        seed: 1,
        attributes: Vec::new(),
    };
    question.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    question
}

/// A cluster in which all that may vary does: dead nodes, speeds, classes, adapters that are down or
/// missing, IPv6, requirements, weights, replicas, and a previous plan that may be out of date. Equal
/// arguments give equal clusters.
///
/// ```
/// use overlan_plugin_sdk::testkit::random_cluster;
///
/// assert_eq!(random_cluster(7, 5, 9), random_cluster(7, 5, 9));
/// assert_ne!(random_cluster(7, 5, 9), random_cluster(8, 5, 9));
/// ```
pub fn random_cluster(seed: u64, nodes: usize, duties: usize) -> Question {
    let mut random = Random(seed);
    let mut question = cluster(nodes, duties);
    question.seed = random.next();
    for node in &mut question.nodes {
        node.live = random.below(5) > 0;
        node.attributes = vec![("site".into(), random.pick(&["x", "y"]).into())];
        for adapter in &mut node.adapters {
            adapter.speed = random.pick(&[0, 10, 1_000, 10_000, 100_000]);
            adapter.class_of_service = random.pick(&["", "bulk", "control"]).into();
            adapter.dscp = random.pick(&[0, 8, 46]);
            if random.below(6) == 0 {
                adapter.status = AdapterStatus::Down;
            }
            if random.below(4) == 0 {
                adapter.address = std::net::Ipv6Addr::from(u128::from(random.below(64)) | 0xfd << 120).into();
                adapter.prefix_length = 64;
            }
        }
        node.adapters.truncate(random.below(3) as usize);
    }
    for (duty, previous) in question.responsibilities.iter_mut().zip(&mut question.previous) {
        duty.replicas = 1 + random.below(5) as u32;
        duty.weight_milli = random.pick(&[0, 1, 1_000, 25_000]);
        if random.below(3) == 0 {
            duty.requires = vec![("site".into(), random.pick(&["x", "y", "nowhere"]).into())];
        }
        for _ in 0..random.below(6) {
            let owner = random.below(nodes.max(1) as u64) as u32;
            if nodes > 0 && !previous.contains(&owner) {
                previous.push(owner);
            }
        }
    }
    question
}

/// The question after this answer has become the plan in force.
///
/// ```
/// use overlan_plugin_sdk::{assignment::Answer, testkit};
///
/// let plan = Answer { owners: vec![vec![0, 1]] };
/// assert_eq!(testkit::with_previous(&testkit::cluster(2, 1), &plan).previous, plan.owners);
/// ```
pub fn with_previous(question: &Question, answer: &Answer) -> Question {
    Question { previous: answer.owners.clone(), ..question.clone() }
}

/// The question after a node has died: it stays in the table but is not live.
///
/// ```
/// use overlan_plugin_sdk::testkit;
///
/// assert!(!testkit::without_node(&testkit::cluster(2, 1), 1).nodes[1].live);
/// ```
///
/// # Panics
/// When there is no such node.
pub fn without_node(question: &Question, index: usize) -> Question {
    let mut question = question.clone();
    question.nodes[index].live = false;
    question
}

/// A generator of test data.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        score::mix(self.0, 0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
