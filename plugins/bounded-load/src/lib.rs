//! Assignment policy `bounded-load`: consistent hashing with bounded loads.
//!
//! Each node draws a cost for each duty from a hash of both, as in rendezvous hashing, and the duty goes to the
//! lowest cost whose node has room left. A node has room up to the average load and a slack: its *capacity* is
//! `(100 + slack_percent) %` of the average, rounded up. Places are bounded one by one: what nodes bear as
//! primaries, as first standbys, and so on, each has a capacity of its own, so that the sum is bounded, too.
//! Heavy duties are placed first, then by name. A duty that fits nowhere (it outweighs a capacity, or few nodes meet
//! its requirements) goes to the least loaded eligible node.
//!
//! Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads" (SODA 2018): with a slack
//! of `e`, one that comes or goes moves `O(1/e^2)` duties besides its own in expectation. They walk a ring to the
//! next bin with room; here the order of costs takes the ring's place (no virtual points, and what overflows
//! scatters over all nodes instead of piling up on the ring's next).
//!
//! Trade-off: no memory, so that every cluster with these facts has this plan, and a load that is bounded from the
//! first duty on, at the price of some moves beyond those of the node that came or went: the smaller the slack,
//! the more. `rendezvous` moves less and balances worse; `balanced` and `sticky` move less and depend on
//! the plan before. All nodes count alike; where they differ take `weighted`.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `slack_percent` | % of the average | 25 | 1 to 1,000 | less balances better and moves more |

use std::cmp::Reverse;

use overlan_plugin_sdk::assignment::{Answer, Question};
use overlan_plugin_sdk::placement::{Candidate, Eligible, contend, duty_hash, front_runners};
use overlan_plugin_sdk::score::Weight;
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within};
use serde::Deserialize;

/// About how many nodes of the lowest costs for a duty are tried before all are looked at.
const FIRST: u32 = 8;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BoundedLoad {
    slack_percent: Within<1, 1_000>,
}

impl Default for BoundedLoad {
    fn default() -> Self {
        BoundedLoad { slack_percent: Within::new(25) }
    }
}

impl Assignment for BoundedLoad {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let even = Weight::new(1);
        let eligible = Eligible::new(question, |index, node| Candidate::new(index, node, even));
        let mut order: Vec<usize> = (0..question.responsibilities.len()).collect();
        order.sort_by_key(|&duty| {
            let responsibility = &question.responsibilities[duty];
            (Reverse(weight(question, duty)), &responsibility.name)
        });
        let mut owners: Vec<Vec<u32>> =
            (0..order.len()).map(|duty| Vec::with_capacity(eligible.wanted(duty))).collect();
        let first: Vec<Vec<u32>> = (question.responsibilities.iter().enumerate())
            .map(|(index, duty)| front_runners(eligible.nodes(index), duty_hash(&duty.name), FIRST))
            .collect();
        let places = order.iter().map(|&duty| eligible.wanted(duty)).max().unwrap_or(0);
        for place in 0..places {
            let duties: Vec<usize> =
                order.iter().copied().filter(|&duty| eligible.wanted(duty) > place).collect();
            let capacity = self.capacity(question, &duties);
            let mut load = vec![0; question.nodes.len()];
            for duty in duties {
                let hash = duty_hash(&question.responsibilities[duty].name);
                let weight = weight(question, duty);
                let room = capacity.saturating_sub(weight);
                let fits = |node: &u32| load[*node as usize] <= room && !owners[duty].contains(node);
                let node = first[duty].iter().copied().find(fits);
                let all = || place_duty(eligible.nodes(duty), &owners[duty], hash, &load, room);
                if let Some(node) = node.or_else(all) {
                    load[node as usize] += weight;
                    owners[duty].push(node);
                }
            }
        }
        Ok(Answer { owners })
    }
}

impl BoundedLoad {
    /// What a node may bear of these duties: the average and the slack, rounded up.
    fn capacity(&self, question: &Question, duties: &[usize]) -> u64 {
        let live = question.nodes.iter().filter(|node| node.live).count().max(1) as u64;
        let total: u64 = duties.iter().map(|&duty| weight(question, duty)).sum();
        (total * (100 + u64::from(self.slack_percent.value()))).div_ceil(100 * live)
    }
}

/// A duty of no weight is still bounded: it counts as a thousandth of an ordinary one.
fn weight(question: &Question, duty: usize) -> u64 {
    question.responsibilities[duty].weight_milli.max(1).into()
}

/// The lowest cost among the nodes that bear at most `room` and are no owners yet; the least loaded where none does.
fn place_duty(nodes: &[Candidate], owners: &[u32], hash: u64, load: &[u64], room: u64) -> Option<u32> {
    let mut best: Option<(u64, u32)> = None;
    contend(nodes, hash, |node| {
        if load[node.index as usize] <= room && !owners.contains(&node.index) {
            let entry = (node.cost(hash), node.index);
            if best.is_none_or(|best| entry < best) {
                best = Some(entry);
            }
        }
        best.map_or(u64::MAX, |(lowest, _)| lowest)
    });
    let free = || nodes.iter().map(|node| node.index).filter(|node| !owners.contains(node));
    best.map(|(_, node)| node).or_else(|| free().min_by_key(|&node| (load[node as usize], node)))
}

overlan_plugin_sdk::export!(assignment: BoundedLoad);

#[cfg(test)]
mod tests;
