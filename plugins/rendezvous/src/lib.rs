//! Assignment policy `rendezvous`: weighted rendezvous hashing by adapter speed and class.
//!
//! Each live node draws a number for each duty from a hash of both; the lowest costs, weighted, own it: the
//! lowest is the primary, the next are the standbys. A node wins in proportion to its weight, and when it
//! leaves, only its own duties move, and where it was primary its first standby takes over. Nothing else
//! enters: not the previous plan, not the seed (which may change with every plan), not the duties' weights.
//! Sources: see [`overlan_plugin_sdk::score`].
//!
//! A node's weight comes from its first adapter that is up, in its owner's order of preference: the one that
//! carries its traffic. Classes of service are the deployer's names, so `class_percent` says what they are
//! worth; of adapters without a listed class, those marked for lower-effort traffic (DSCP 1, RFC 8622, and 8,
//! RFC 4594) count 25%.
//!
//! Trade-off: no memory and least movement, at the price of balance: n duties of a node scatter by
//! about the square root of n, and heavy duties are not spread apart. With few duties take `balanced`. When a
//! node falls back to a slower adapter it gives up a part of its duties; `speed = "equal"` avoids that.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `speed` | | `linear` | `linear`, `sqrt`, `equal` | how the adapter's speed weighs; from 100 Mbit/s to 102 Gbit/s |
//! | `unknown_speed` | Mbit/s | 1,000 | 1 to 1,000,000 | for adapters whose kernel knows none |
//! | `class_percent` | % | none | 1 to 1,000 each | per class of service: `gold=200, bulk=25` |

use std::collections::BTreeMap;

use overlan_plugin_sdk::assignment::{Answer, Node, Question, Responsibility};
use overlan_plugin_sdk::score::{self, Weight};
use overlan_plugin_sdk::{Adapter, AdapterStatus, Assignment, Attributes, Config, ConfigError, Log, Within};
use serde::Deserialize;

/// Seeds that keep the hashes of nodes and of duties apart. A change moves every responsibility.
const NODE_SEED: u64 = 0x6e6f_6465;
const DUTY_SEED: u64 = 0x6475_7479;
/// DSCP of lower-effort traffic (RFC 8622) and of class selector 1 (RFC 4594 section 4.10).
const LOWER_EFFORT: [u8; 2] = [1, 8];
/// What an adapter of lower effort counts, in percent.
const LOWER_EFFORT_PERCENT: u32 = 25;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Rendezvous {
    speed: Speed,
    unknown_speed: Within<1, 1_000_000>,
    class_percent: BTreeMap<String, Within<1, 1_000>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speed {
    Linear,
    Sqrt,
    Equal,
}

impl Default for Rendezvous {
    fn default() -> Self {
        Rendezvous { speed: Speed::Linear, unknown_speed: Within::new(1_000), class_percent: BTreeMap::new() }
    }
}

impl Assignment for Rendezvous {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let live: Vec<Candidate> = (0..)
            .zip(&question.nodes)
            .filter(|(_, node)| node.live)
            .map(|(index, node)| Candidate {
                index,
                hash: score::hash(NODE_SEED, node.id.as_bytes()),
                weight: self.weight(node),
            })
            .collect();
        let mut eligible: BTreeMap<&Attributes, Vec<Candidate>> = BTreeMap::new();
        let owners = question.responsibilities.iter().map(|duty| {
            let candidates = eligible.entry(&duty.requires).or_insert_with(|| {
                let meets = |c: &&Candidate| question.nodes[c.index as usize].meets(&duty.requires);
                live.iter().filter(meets).copied().collect()
            });
            owners(duty, candidates)
        });
        Ok(Answer { owners: owners.collect() })
    }
}

/// A live node in the race.
#[derive(Clone, Copy)]
struct Candidate {
    index: u32,
    hash: u64,
    weight: Weight,
}

/// The nodes with the lowest costs, lowest first; the table's order, which is by node id, breaks ties.
fn owners(duty: &Responsibility, candidates: &[Candidate]) -> Vec<u32> {
    let wanted = candidates.len().min(duty.replicas as usize);
    if wanted == 0 {
        return Vec::new();
    }
    let duty_hash = score::hash(DUTY_SEED, duty.name.as_bytes());
    let mut best: Vec<(u64, u32)> = Vec::with_capacity(wanted + 1);
    let mut worst = u64::MAX;
    for candidate in candidates {
        let pair = score::mix(candidate.hash, duty_hash);
        if score::cost_floor(pair, candidate.weight) > worst {
            continue;
        }
        let entry = (score::cost(pair, candidate.weight), candidate.index);
        let place = best.partition_point(|other| *other < entry);
        if place < wanted {
            best.insert(place, entry);
            best.truncate(wanted);
            if best.len() == wanted {
                worst = best[wanted - 1].0;
            }
        }
    }
    best.into_iter().map(|(_, index)| index).collect()
}

impl Rendezvous {
    /// What a node counts: units of 100 Mbit/s, or the square root of its Mbit/s, times the class.
    fn weight(&self, node: &Node) -> Weight {
        let Some(adapter) = node.adapters.iter().find(|adapter| adapter.status == AdapterStatus::Up) else {
            return Weight::new(1);
        };
        let speed = u64::from(if adapter.speed == 0 { self.unknown_speed.value() } else { adapter.speed });
        let percent = u64::from(self.percent(adapter));
        let weight = match self.speed {
            Speed::Linear => speed * percent / 10_000,
            Speed::Sqrt => speed.isqrt() * percent / 100,
            Speed::Equal => 10 * percent / 100,
        };
        Weight::new(u32::try_from(weight).unwrap_or(u32::MAX))
    }

    fn percent(&self, adapter: &Adapter) -> u32 {
        match self.class_percent.get(&adapter.class_of_service) {
            Some(percent) => percent.value(),
            None if LOWER_EFFORT.contains(&adapter.dscp) => LOWER_EFFORT_PERCENT,
            None => 100,
        }
    }
}

overlan_plugin_sdk::export!(assignment: Rendezvous);

#[cfg(test)]
mod tests;
