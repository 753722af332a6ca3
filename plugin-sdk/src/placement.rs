//! Tools for assignment policies: who may own a duty, which of them rendezvous hashing prefers, what a node's
//! adapters are worth, and which nodes fail together.
//!
//! ```
//! use overlan_plugin_sdk::assignment::{Answer, validate};
//! use overlan_plugin_sdk::placement::{Candidate, Eligible, lowest};
//! use overlan_plugin_sdk::{score::Weight, testkit};
//!
//! let question = testkit::random_cluster(7, 12, 20);
//! let eligible = Eligible::new(&question, |index, node| Candidate::new(index, node, Weight::new(1)));
//! let duties = question.responsibilities.iter().enumerate();
//! let owners = duties.map(|(at, duty)| lowest(&duty.name, eligible.nodes(at), eligible.wanted(at)));
//! assert_eq!(validate(&question, &Answer { owners: owners.collect() }), Ok(()));
//! ```

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use overlan_contract::{Adapter, AdapterStatus, Attributes, assignment};
use serde::Deserialize;

use crate::Within;
use crate::score::{self, Weight};

/// Seeds that keep the hashes of nodes and of duties apart. A change moves every responsibility.
const NODE_SEED: u64 = 0x6e6f_6465;
const DUTY_SEED: u64 = 0x6475_7479;
/// DSCP of lower-effort traffic (RFC 8622) and of class selector 1 (RFC 4594 section 4.10).
const LOWER_EFFORT: [u8; 2] = [1, 8];
/// What an adapter of lower effort counts, in percent.
const LOWER_EFFORT_PERCENT: u32 = 25;

/// For each duty the live nodes that meet its requirements, in table order. Duties that require the same share
/// one list.
///
/// ```
/// use overlan_plugin_sdk::{placement::Eligible, testkit};
///
/// let question = testkit::without_node(&testkit::cluster(3, 1), 1);
/// let eligible = Eligible::new(&question, |index, _| index);
/// assert_eq!(eligible.nodes(0), [0, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Eligible<T> {
    group: Vec<usize>,
    groups: Vec<Vec<T>>,
    wanted: Vec<usize>,
    /// All of the question, eligible or not.
    nodes: usize,
}

impl<T: Clone> Eligible<T> {
    /// The lists, of whatever `item` makes of a node and its index in the question.
    ///
    /// ```
    /// # use overlan_plugin_sdk::{placement::Eligible, testkit};
    /// let eligible = Eligible::new(&testkit::cluster(3, 1), |index, node| (index, node.adapters.len()));
    /// assert_eq!(eligible.nodes(0), [(0, 2), (1, 2), (2, 2)]);
    /// ```
    pub fn new(question: &assignment::Question, mut item: impl FnMut(u32, &assignment::Node) -> T) -> Self {
        let live: Vec<(T, &assignment::Node)> = (0..)
            .zip(&question.nodes)
            .filter(|(_, node)| node.live)
            .map(|(index, node)| (item(index, node), node))
            .collect();
        let mut numbers: BTreeMap<&Attributes, usize> = BTreeMap::new();
        let mut groups: Vec<Vec<T>> = Vec::new();
        let mut group = Vec::with_capacity(question.responsibilities.len());
        for duty in &question.responsibilities {
            group.push(*numbers.entry(&duty.requires).or_insert_with(|| {
                let meets = |(_, node): &&(T, &assignment::Node)| node.meets(&duty.requires);
                groups.push(live.iter().filter(meets).map(|(item, _)| item.clone()).collect());
                groups.len() - 1
            }));
        }
        let wanted = question.responsibilities.iter().zip(&group);
        let wanted = wanted.map(|(duty, &group)| groups[group].len().min(duty.replicas as usize)).collect();
        Eligible { group, groups, wanted, nodes: question.nodes.len() }
    }

    /// The list of a duty.
    pub fn nodes(&self, duty: usize) -> &[T] {
        &self.groups[self.group[duty]]
    }

    /// Whether a node, by its index in the question, is in the list of a duty, whose items have these indices.
    ///
    /// ```
    /// # use overlan_plugin_sdk::{placement::Eligible, testkit};
    /// // Who owned the duty and can keep it.
    /// let question = testkit::without_node(&testkit::cluster(3, 1), 1);
    /// let eligible = Eligible::new(&question, |index, _| index);
    /// let kept = [2, 1].into_iter().filter(|&owner| eligible.contains(0, owner, |&index| index));
    /// assert!(kept.eq([2]));
    /// ```
    pub fn contains(&self, duty: usize, node: u32, index: impl Fn(&T) -> u32) -> bool {
        let nodes = self.nodes(duty);
        // Where the list lacks so many nodes, one that is in it stands at most so far before its index.
        let (last, lacking) = (node as usize, self.nodes - nodes.len());
        let place = |place: usize| place.min(nodes.len());
        let near = &nodes[place(last.saturating_sub(lacking))..place(last.saturating_add(1))];
        near.binary_search_by_key(&node, index).is_ok()
    }

    /// Which list a duty has, as an index into [`groups`](Self::groups).
    pub fn group(&self, duty: usize) -> usize {
        self.group[duty]
    }

    /// All lists.
    ///
    /// ```
    /// # use overlan_plugin_sdk::{placement::Eligible, testkit};
    /// let mut question = testkit::cluster(4, 3);
    /// question.responsibilities[1].requires = vec![("site".into(), "x".into())];
    /// let eligible = Eligible::new(&question, |index, _| index);
    /// // What is worked out once for each list serves all the duties that have it.
    /// let sums: Vec<u32> = eligible.groups().iter().map(|nodes| nodes.iter().sum()).collect();
    /// assert_eq!([0, 1, 2].map(|duty| sums[eligible.group(duty)]), [6, 0, 6]);
    /// ```
    pub fn groups(&self) -> &[Vec<T>] {
        &self.groups
    }

    /// How many owners a valid answer names: as many as asked for, or as are eligible.
    ///
    /// ```
    /// # use overlan_plugin_sdk::{placement::Eligible, testkit};
    /// let mut question = testkit::cluster(3, 2);
    /// question.responsibilities[0].replicas = 5;
    /// let eligible = Eligible::new(&question, |index, _| index);
    /// assert_eq!([0, 1].map(|duty| eligible.wanted(duty)), [3, 2]);
    /// ```
    pub fn wanted(&self, duty: usize) -> usize {
        self.wanted[duty]
    }
}

/// The least loaded of a list of nodes, kept while loads do nothing but grow, so that not all of the list need be
/// looked at for each duty.
///
/// ```
/// use overlan_plugin_sdk::placement::Lightest;
///
/// let (mut load, mut lightest) = ([3, 1, 2, 1], Lightest::default());
/// assert_eq!(lightest.find(&[0, 1, 2, 3], |&node| load[node]), (1, &[1, 3][..]));
/// load[1] += 4;
/// load[3] += 4;
/// lightest.note_growth();
/// assert_eq!(lightest.find(&[0, 1, 2, 3], |&node| load[node]), (2, &[2][..]));
/// ```
#[derive(Clone, Debug)]
pub struct Lightest<T> {
    load: u64,
    nodes: Vec<T>,
    /// How many at the start of the list bear more by now.
    passed: usize,
    grown: usize,
}

impl<T> Default for Lightest<T> {
    fn default() -> Self {
        Lightest { load: 0, nodes: Vec::new(), passed: 0, grown: 0 }
    }
}

impl<T: Clone> Lightest<T> {
    /// The least load in a list, and, in the list's order, all nodes that bear it and some that bear more by now.
    /// The list must be the same each time.
    pub fn find(&mut self, all: &[T], load: impl Fn(&T) -> u64) -> (u64, &[T]) {
        // Seldom enough to cost little, often enough that few are in vain.
        if self.grown * 8 >= self.nodes.len() {
            (self.passed, self.grown) = (0, 0);
            self.nodes.retain(|node| load(node) == self.load);
        }
        let later = &self.nodes[self.passed..];
        // Whoever takes the first that will do leaves the others for the next time.
        self.passed += later.iter().position(|node| load(node) == self.load).unwrap_or(later.len());
        if self.passed == self.nodes.len() {
            self.load = all.iter().map(&load).min().unwrap_or(u64::MAX);
            self.nodes.clear();
            self.nodes.extend(all.iter().filter(|node| load(node) == self.load).cloned());
            self.passed = 0;
        }
        (self.load, &self.nodes[self.passed..])
    }

    /// Says that the load of a node has grown; those that go unsaid cost time alone.
    pub fn note_growth(&mut self) {
        self.grown += 1;
    }
}

/// A node in the race of weighted rendezvous hashing; see [`score`].
///
/// ```
/// use overlan_plugin_sdk::placement::{Candidate, duty_hash};
/// use overlan_plugin_sdk::{score::Weight, testkit};
///
/// let node = testkit::node("a", vec![]);
/// let (light, heavy) = (Candidate::new(0, &node, Weight::new(1)), Candidate::new(0, &node, Weight::new(10)));
/// let duty = duty_hash("shard-7");
/// assert!(heavy.cost(duty) < light.cost(duty) && light.cost_floor(duty) <= light.cost(duty));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its index in the question.
    pub index: u32,
    hash: u64,
    weight: Weight,
}

impl Candidate {
    /// A node with its weight.
    pub fn new(index: u32, node: &assignment::Node, weight: Weight) -> Self {
        Candidate { index, hash: score::hash(NODE_SEED, node.id.as_bytes()), weight }
    }

    /// Its cost for a duty, by [`duty_hash`]; the lowest wins.
    #[inline]
    pub fn cost(&self, duty_hash: u64) -> u64 {
        score::cost(score::mix(self.hash, duty_hash), self.weight)
    }

    /// No more than [`cost`](Self::cost), and quicker.
    #[inline]
    pub fn cost_floor(&self, duty_hash: u64) -> u64 {
        score::cost_floor(score::mix(self.hash, duty_hash), self.weight)
    }
}

/// The hash of a duty for [`Candidate::cost`].
///
/// ```
/// # use overlan_plugin_sdk::placement::{Candidate, duty_hash, lowest};
/// # use overlan_plugin_sdk::{score::Weight, testkit};
/// # let nodes = testkit::cluster(30, 0).nodes;
/// # let candidate = |(index, node)| Candidate::new(index, node, Weight::new(1));
/// # let candidates: Vec<Candidate> = (0..).zip(&nodes).map(candidate).collect();
/// let duty = duty_hash("shard-7");
/// let first = candidates.iter().min_by_key(|node| (node.cost(duty), node.index)).unwrap();
/// assert_eq!(lowest("shard-7", &candidates, 1), [first.index]);
/// ```
pub fn duty_hash(name: &str) -> u64 {
    score::hash(DUTY_SEED, name.as_bytes())
}

/// Visits the candidates whose cost for a duty, by [`duty_hash`], may be no more than a bound: what the last visit
/// gave. Bounds never rise. All that are not visited cost more than the last bound.
///
/// Most are out of the race by [`Candidate::cost_floor`]. How they are passed over quickest differs: natively without
/// a branch between eight of them, in a plugin by a function of its own with a branch after each (measured).
///
/// ```
/// # use overlan_plugin_sdk::placement::{Candidate, contend, duty_hash, lowest};
/// # use overlan_plugin_sdk::{score::Weight, testkit};
/// # let nodes = testkit::cluster(30, 0).nodes;
/// # let candidate = |(index, node)| Candidate::new(index, node, Weight::new(1));
/// # let candidates: Vec<Candidate> = (0..).zip(&nodes).map(candidate).collect();
/// // The lowest cost of those that may own: every other node may.
/// let (duty, mut least) = (duty_hash("shard-7"), (u64::MAX, u32::MAX));
/// contend(&candidates, duty, |node| {
///     if node.index % 2 == 0 {
///         least = least.min((node.cost(duty), node.index));
///     }
///     least.0
/// });
/// let all = lowest("shard-7", &candidates, candidates.len());
/// assert_eq!(all.iter().find(|&index| index % 2 == 0), Some(&least.1));
/// ```
#[inline]
pub fn contend(candidates: &[Candidate], duty_hash: u64, visit: impl FnMut(&Candidate) -> u64) {
    contend_within(candidates, duty_hash, u64::MAX, visit);
}

/// As [`contend`], with a bound from the start.
#[inline]
fn contend_within(
    candidates: &[Candidate],
    duty_hash: u64,
    bound: u64,
    visit: impl FnMut(&Candidate) -> u64,
) {
    let bound = score::floor_of(bound);
    if cfg!(target_arch = "wasm32") {
        contend_in_plugin(candidates, duty_hash, bound, visit);
    } else {
        contend_natively(candidates, duty_hash, bound, visit);
    }
}

#[inline]
fn contend_natively(
    candidates: &[Candidate],
    duty_hash: u64,
    mut bound: u64,
    mut visit: impl FnMut(&Candidate) -> u64,
) {
    let (eights, rest) = candidates.as_chunks::<8>();
    for eight in eights {
        if eight.iter().fold(true, |all, node| all & (node.cost_floor(duty_hash) > bound)) {
            continue;
        }
        for node in eight {
            if node.cost_floor(duty_hash) <= bound {
                bound = score::floor_of(visit(node));
            }
        }
    }
    for node in rest {
        if node.cost_floor(duty_hash) <= bound {
            bound = score::floor_of(visit(node));
        }
    }
}

#[inline]
fn contend_in_plugin(
    candidates: &[Candidate],
    duty_hash: u64,
    mut bound: u64,
    mut visit: impl FnMut(&Candidate) -> u64,
) {
    let mut later = candidates;
    while let Some((node, rest)) = later[first_within(later, duty_hash, bound)..].split_first() {
        bound = score::floor_of(visit(node));
        later = rest;
    }
}

/// The first candidate whose floor is within the bound; their number where there is none. Not inlined, so that all it
/// needs stays in registers; eight in a turn, since a plugin pays fuel and a look at its deadline for each.
#[inline(never)]
fn first_within(candidates: &[Candidate], duty_hash: u64, bound: u64) -> usize {
    let within = |node: &Candidate| node.cost_floor(duty_hash) <= bound;
    let (eights, rest) = candidates.as_chunks::<8>();
    for (turn, eight) in eights.iter().enumerate() {
        if let Some(place) = eight.iter().position(within) {
            return 8 * turn + place;
        }
    }
    8 * eights.len() + rest.iter().position(within).unwrap_or(rest.len())
}

/// The nodes with the lowest costs for a duty, by [`duty_hash`], lowest first and the table's order breaking ties: about
/// so many where all weigh alike, fewer or more as chance has it. All others cost more than the last, so that the first
/// that will do is the best of all.
///
/// ```
/// use overlan_plugin_sdk::placement::{Candidate, duty_hash, front_runners, lowest};
/// use overlan_plugin_sdk::{score::Weight, testkit};
///
/// let nodes = testkit::cluster(1_000, 0).nodes;
/// let candidate = |(index, node)| Candidate::new(index, node, Weight::new(1));
/// let candidates: Vec<Candidate> = (0..).zip(&nodes).map(candidate).collect();
/// let first = front_runners(&candidates, duty_hash("shard-7"), 16);
/// assert_eq!(first, lowest("shard-7", &candidates, first.len()));
/// assert!((4..36).contains(&first.len()));
/// ```
pub fn front_runners(candidates: &[Candidate], duty_hash: u64, about: u32) -> Vec<u32> {
    let Some(Candidate { weight, .. }) = candidates.first() else { return Vec::new() };
    let share = u64::MAX / (candidates.len() as u64);
    let bound = match candidates.len() > about as usize {
        true => score::cost(u64::MAX - share * u64::from(about), *weight),
        false => u64::MAX,
    };
    let mut found: Vec<(u64, u32)> = Vec::with_capacity(candidates.len().min(2 * about as usize));
    contend_within(candidates, duty_hash, bound, |candidate| {
        let cost = candidate.cost(duty_hash);
        if cost <= bound {
            found.push((cost, candidate.index));
        }
        bound
    });
    found.sort_unstable();
    found.into_iter().map(|(_, index)| index).collect()
}

/// The nodes with the lowest costs for a duty, lowest first; the table's order, which is by node id, breaks ties.
///
/// ```
/// # use overlan_plugin_sdk::placement::{Candidate, lowest};
/// # use overlan_plugin_sdk::{score::Weight, testkit};
/// # let nodes = testkit::cluster(30, 0).nodes;
/// # let candidate = |(index, node)| Candidate::new(index, node, Weight::new(1));
/// # let candidates: Vec<Candidate> = (0..).zip(&nodes).map(candidate).collect();
/// let owners = lowest("shard-7", &candidates, 3);
/// // When the first is gone the others move up.
/// let left: Vec<Candidate> = candidates.into_iter().filter(|node| node.index != owners[0]).collect();
/// assert_eq!(lowest("shard-7", &left, 2), owners[1..]);
/// ```
pub fn lowest(duty: &str, candidates: &[Candidate], wanted: usize) -> Vec<u32> {
    if wanted == 0 {
        return Vec::new();
    }
    let duty_hash = duty_hash(duty);
    let mut best: Vec<(u64, u32)> = Vec::with_capacity(wanted);
    contend(candidates, duty_hash, |candidate| {
        let entry = (candidate.cost(duty_hash), candidate.index);
        if best.len() < wanted {
            best.push(entry);
        } else if let Some(last) = best.last_mut().filter(|last| entry < **last) {
            *last = entry;
        }
        // They are few, and but for the last in order.
        let mut place = best.len() - 1;
        while place > 0 && best[place] < best[place - 1] {
            best.swap(place, place - 1);
            place -= 1;
        }
        best.get(wanted - 1).map_or(u64::MAX, |worst| worst.0)
    });
    best.into_iter().map(|(_, index)| index).collect()
}

/// How speed counts, as a policy's configuration has it.
///
/// ```
/// use overlan_plugin_sdk::{Config, placement::Speed};
///
/// #[derive(serde::Deserialize)]
/// struct Options {
///     speed: Speed,
/// }
///
/// let options: Options = Config::from_iter([("speed", "sqrt")]).parse()?;
/// let counts = match options.speed {
///     Speed::Linear => 10_000,
///     Speed::Sqrt => 10_000_u32.isqrt(),
///     Speed::Equal => 1,
/// };
/// assert_eq!(counts, 100);
/// # Ok::<(), overlan_plugin_sdk::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speed {
    /// In proportion.
    Linear,
    /// By its square root: a tenfold speed counts about threefold.
    Sqrt,
    /// Not at all.
    Equal,
}

/// What an adapter's class of service is worth, in percent: what `listed` says of the class, else 25% for adapters
/// marked for lower-effort traffic (DSCP 1, RFC 8622, and 8, RFC 4594) and 100% for the others.
///
/// ```
/// use overlan_plugin_sdk::{Adapter, Within, placement::class_percent, testkit};
///
/// let listed = [("gold".to_owned(), Within::new(300))].into();
/// let gold = Adapter { class_of_service: "gold".into(), ..testkit::adapter("eth0", "10.1.0.2/24") };
/// let bulk = Adapter { dscp: 8, ..testkit::adapter("eth0", "10.1.0.2/24") };
/// assert_eq!((class_percent(&gold, &listed), class_percent(&bulk, &listed)), (300, 25));
/// ```
pub fn class_percent(adapter: &Adapter, listed: &BTreeMap<String, Within<1, 1_000>>) -> u32 {
    match listed.get(&adapter.class_of_service) {
        Some(percent) => percent.value(),
        None if LOWER_EFFORT.contains(&adapter.dscp) => LOWER_EFFORT_PERCENT,
        None => 100,
    }
}

/// A node's adapters that are up, in its owner's order of preference.
///
/// ```
/// use overlan_plugin_sdk::{Adapter, AdapterStatus, placement::up, testkit};
///
/// let dead = Adapter { status: AdapterStatus::Down, ..testkit::adapter("eth0", "10.1.0.2/24") };
/// let node = testkit::node("a", vec![dead, testkit::adapter("eth1", "10.2.0.2/24")]);
/// assert_eq!(up(&node).next().unwrap().name, "eth1");
/// ```
pub fn up(node: &assignment::Node) -> impl Iterator<Item = &Adapter> {
    node.adapters.iter().filter(|adapter| adapter.status == AdapterStatus::Up)
}

/// For each node the subnets of its adapters that are up, numbered, ascending. Nodes that share a number share
/// a subnet, and so a switch and a router.
///
/// ```
/// use overlan_plugin_sdk::{placement::number_subnets, testkit};
///
/// let node = |name, cidr| testkit::node(name, vec![testkit::adapter("eth0", cidr)]);
/// let nodes = [node("a", "10.1.0.1/24"), node("b", "10.2.0.1/24"), node("c", "10.1.0.2/24")];
/// assert_eq!(number_subnets(&nodes), [[0], [1], [0]]);
/// ```
pub fn number_subnets(nodes: &[assignment::Node]) -> Vec<Vec<u32>> {
    // By number, not by `IpAddr`, whose comparison is a call for some bytes; those of IPv4 by one of 64 bits.
    let mut four: Numbers<u64> = Numbers::default();
    let mut six: Numbers<(u128, u8)> = Numbers::default();
    let mut next = 0;
    let mut number = |adapter: &Adapter| {
        let number = match adapter.subnet() {
            IpAddr::V4(subnet) => four
                .entry(u64::from(u32::from(subnet)) << 8 | u64::from(adapter.prefix_length))
                .or_insert(next),
            IpAddr::V6(subnet) => six.entry((subnet.into(), adapter.prefix_length)).or_insert(next),
        };
        next += u32::from(*number == next);
        *number
    };
    let of_node = |node: &assignment::Node| {
        let mut subnets = Vec::with_capacity(node.adapters.len());
        subnets.extend(up(node).map(&mut number));
        subnets.sort_unstable();
        subnets.dedup();
        subnets
    };
    nodes.iter().map(of_node).collect()
}

/// Numbers by what has them. Nobody goes through them in turn: that order would be another in a plugin.
type Numbers<T> = HashMap<T, u32, BuildHasherDefault<Mixer>>;

/// [`score::mix`] and [`score::hash`] as hashes of a table, without a random key.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = score::hash(self.0, bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = score::mix(self.0, number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whether two ascending lists, as [`number_subnets`] gives them, have a number in common.
///
/// ```
/// use overlan_plugin_sdk::placement::overlap;
///
/// assert!(overlap(&[0, 3], &[3, 4]) && !overlap(&[0, 3], &[1, 2]));
/// ```
pub fn overlap(one: &[u32], other: &[u32]) -> bool {
    one.iter().any(|subnet| other.binary_search(subnet).is_ok())
}

#[cfg(test)]
mod tests;
