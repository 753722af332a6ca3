//! Assignment policy `weighted`: rendezvous hashing by what each node says it can bear.
//!
//! As in `rendezvous`, each live node draws a number for each duty from a hash of both, and the lowest costs,
//! weighted, own it. The weight has three factors, all in fixed point:
//!
//! - **capacity**: the node attribute of that name, a decimal number of up to three places (`capacity = "2.5"` in
//!   `[node] attributes`). Its owner says it, so it may follow processors, memory or disks. A node of capacity 0 is
//!   *drained*: it owns only what no other eligible node can.
//! - **speed** of its adapters that are up, all together, since traffic may be spread over them;
//! - **class of service** of each of them.
//!
//! A node of capacity 1 with one adapter of 1 Gbit/s without a class weighs 20; weights reach from 1 to 1,024.
//! Sources: Thaler and Ravishankar 1998, and the logarithmic method of Schindelhauer and Schomaker, "Weighted
//! distributed hash tables" (SPAA 2005); see [`overlan_plugin_sdk::score`].
//!
//! Trade-off: shares follow the weights and only a changed node's own share moves, without any memory; but the
//! figures must be right. An adapter that goes down gives up duties: `speed = "equal"` makes capacity alone count.
//! Shares scatter as in `rendezvous`, by about the square root of the number of duties; a bound on loads has
//! `bounded-load`.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `attribute` | | `capacity` | a name | the node attribute that holds the capacity |
//! | `default_capacity_milli` | thousandths | 1,000 | 0 to 1,000,000 | of nodes without the attribute, or with one that is no number |
//! | `speed` | | `sqrt` | `linear`, `sqrt`, `equal` | how the adapters' speed weighs |
//! | `unknown_speed` | Mbit/s | 1,000 | 1 to 1,000,000 | for adapters whose kernel knows none |
//! | `class_percent` | % | none | 1 to 1,000 each | per class of service: `gold=200, bulk=25` |

use std::collections::BTreeMap;

use overlan_plugin_sdk::assignment::{Answer, Node, Question};
use overlan_plugin_sdk::placement::{self, Candidate, Eligible, Speed};
use overlan_plugin_sdk::score::Weight;
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within};
use serde::Deserialize;

/// Largest capacity in thousandths; beyond it no weight grows anyway.
const MAX_CAPACITY_MILLI: u32 = 1_000_000;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Weighted {
    attribute: String,
    default_capacity_milli: Within<0, MAX_CAPACITY_MILLI>,
    speed: Speed,
    unknown_speed: Within<1, 1_000_000>,
    class_percent: BTreeMap<String, Within<1, 1_000>>,
}

impl Default for Weighted {
    fn default() -> Self {
        Weighted {
            attribute: "capacity".into(),
            default_capacity_milli: Within::new(1_000),
            speed: Speed::Sqrt,
            unknown_speed: Within::new(1_000),
            class_percent: BTreeMap::new(),
        }
    }
}

impl Assignment for Weighted {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, log: &dyn Log) -> Result<Answer, String> {
        let capacities: Vec<u32> = question.nodes.iter().map(|node| self.capacity_milli(node, log)).collect();
        let candidates = Eligible::new(question, |index, node| {
            let capacity = capacities[index as usize];
            (capacity == 0, Candidate::new(index, node, self.weight(node, capacity)))
        });
        let (mut serving, mut drained): (Vec<Vec<Candidate>>, Vec<Vec<Candidate>>) = Default::default();
        for group in candidates.groups() {
            let part = |wanted: bool| {
                group.iter().filter(|(drained, _)| *drained == wanted).map(|(_, node)| *node).collect()
            };
            serving.push(part(false));
            drained.push(part(true));
        }
        let owners = question.responsibilities.iter().enumerate().map(|(index, duty)| {
            let (group, wanted) = (candidates.group(index), candidates.wanted(index));
            let mut owners = placement::lowest(&duty.name, &serving[group], wanted);
            owners.extend(placement::lowest(&duty.name, &drained[group], wanted - owners.len()));
            owners
        });
        Ok(Answer { owners: owners.collect() })
    }
}

impl Weighted {
    /// What a node says it can bear, in thousandths.
    fn capacity_milli(&self, node: &Node, log: &dyn Log) -> u32 {
        let said = node.attributes.iter().find(|(key, _)| *key == self.attribute).map(|(_, value)| value);
        let Some(text) = said else { return self.default_capacity_milli.value() };
        milli(text).unwrap_or_else(|| {
            log.warn(&format!(
                "{} of node {} is `{text}`, no decimal number of up to three places; the default counts",
                self.attribute, node.name
            ));
            self.default_capacity_milli.value()
        })
    }

    /// Twentieths of a node of capacity 1 with one adapter of 1 Gbit/s.
    fn weight(&self, node: &Node, capacity_milli: u32) -> Weight {
        let percent = |adapter| u64::from(placement::class_percent(adapter, &self.class_percent));
        let mut up = placement::up(node).peekable();
        let (mbits, percents) = match (self.speed, up.peek()) {
            (_, None) => return Weight::new(1),
            // By class alone: of the adapter that carries the node's traffic.
            (Speed::Equal, Some(first)) => (1_000, 1_000 * percent(*first)),
            (Speed::Linear | Speed::Sqrt, Some(_)) => up.fold((0, 0), |(mbits, percents), adapter| {
                let speed = if adapter.speed == 0 { self.unknown_speed.value() } else { adapter.speed };
                let speed = u64::from(speed);
                (mbits + speed, percents + speed * percent(adapter))
            }),
        };
        // Percent times Mbit/s, to hundredths of 1 Gbit/s without a class; of the square root, if wanted.
        let speed_centi = match self.speed {
            Speed::Linear | Speed::Equal => percents / 1_000,
            Speed::Sqrt => percents / mbits.max(1) * (mbits * 1_000).isqrt() / 1_000,
        };
        let weight = (u64::from(capacity_milli) * speed_centi + 2_500) / 5_000;
        Weight::new(u32::try_from(weight).unwrap_or(u32::MAX))
    }
}

/// A decimal number of up to three places, in thousandths; no more than [`MAX_CAPACITY_MILLI`].
fn milli(text: &str) -> Option<u32> {
    let text = text.trim();
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 3 {
        return None;
    }
    let places = places.parse::<u32>().ok()? * 10_u32.pow(3 - places.len() as u32);
    // Too many digits are merely a large number.
    let whole = whole.parse::<u32>().unwrap_or(u32::MAX);
    Some(whole.saturating_mul(1_000).saturating_add(places).min(MAX_CAPACITY_MILLI))
}

overlan_plugin_sdk::export!(assignment: Weighted);

#[cfg(test)]
mod tests;
