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

use overlan_plugin_sdk::assignment::{Answer, Node, Question};
use overlan_plugin_sdk::placement::{self, Candidate, Eligible, Speed};
use overlan_plugin_sdk::score::Weight;
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within};
use serde::Deserialize;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Rendezvous {
    speed: Speed,
    unknown_speed: Within<1, 1_000_000>,
    class_percent: BTreeMap<String, Within<1, 1_000>>,
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
        let eligible = Eligible::new(question, |index, node| Candidate::new(index, node, self.weight(node)));
        let owners = question.responsibilities.iter().enumerate().map(|(index, duty)| {
            placement::lowest(&duty.name, eligible.nodes(index), eligible.wanted(index))
        });
        Ok(Answer { owners: owners.collect() })
    }
}

impl Rendezvous {
    /// What a node counts: units of 100 Mbit/s, or the square root of its Mbit/s, times the class.
    fn weight(&self, node: &Node) -> Weight {
        let Some(adapter) = placement::up(node).next() else { return Weight::new(1) };
        let speed = u64::from(if adapter.speed == 0 { self.unknown_speed.value() } else { adapter.speed });
        let percent = u64::from(placement::class_percent(adapter, &self.class_percent));
        let weight = match self.speed {
            Speed::Linear => speed * percent / 10_000,
            Speed::Sqrt => speed.isqrt() * percent / 100,
            Speed::Equal => 10 * percent / 100,
        };
        Weight::new(u32::try_from(weight).unwrap_or(u32::MAX))
    }
}

overlan_plugin_sdk::export!(assignment: Rendezvous);

#[cfg(test)]
mod tests;
