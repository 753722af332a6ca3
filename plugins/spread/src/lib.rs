//! Assignment policy `spread`: the owner and the standbys of a duty in distinct failure domains.
//!
//! Domains come from node attributes, most important first (`domains`: by default `site`, then `rack`, then
//! `router`; set them in `[node] attributes`), and below them from the subnets of the adapters that are up: nodes on
//! one subnet hang on one switch and one router. Each place of a duty goes to the node that shares the least with
//! the owners before it: the fewest owners at its site, then the fewest in its rack, and so on; among
//! equals, to the lowest draw of weighted rendezvous hashing, all nodes alike. Nodes without an attribute share
//! nothing by it.
//!
//! Sources: the placement rules of Weil, Brandt, Miller and Maltzahn, "CRUSH: controlled, scalable, decentralized
//! placement of replicated data" (SC 2006), flattened: CRUSH descends a tree of domains, which nodes with several
//! subnets do not form; the draw is that of Thaler and Ravishankar 1998 (see [`overlan_plugin_sdk::score`]).
//!
//! Trade-off: no single switch, rack or site takes all owners of a duty, wherever there is a choice; without memory,
//! and the primary is that of plain rendezvous hashing, so that a lost node moves its own duties and those of which
//! the standbys must now part anew. Small domains bear more: with two sites of 2 and 8 nodes each of the 2 bears
//! about four times as many standbys. Loads are as uneven as in `rendezvous`; `balanced` evens them out and
//! parts by subnet alone.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `domains` | | `site,rack,router` | up to 8 names | node attributes, most important first |
//! | `subnets` | | `true` | `true`, `false` | whether sharing a subnet counts, below all of them |

use std::collections::BTreeMap;

use overlan_plugin_sdk::assignment::{Answer, Node, Question};
use overlan_plugin_sdk::placement::{
    Candidate, Eligible, contend, duty_hash, front_runners, number_subnets, overlap,
};
use overlan_plugin_sdk::score::Weight;
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log};
use serde::Deserialize;

/// Most attributes that may name domains: with the subnets, a byte each of a sum fits 128 bits.
const MAX_DOMAINS: usize = 8;

/// About how many nodes of the lowest costs for a duty are tried before all are looked at: of those that share nothing
/// with the owners the one of lowest cost is best, and most often it is among these.
const FIRST: u32 = 8;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Spread {
    domains: Vec<String>,
    subnets: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { domains: ["site", "rack", "router"].map(Into::into).into(), subnets: true }
    }
}

impl Assignment for Spread {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        let policy: Spread = config.parse()?;
        if policy.domains.len() > MAX_DOMAINS {
            return Err(ConfigError::Other(format!(
                "`domains` names {} attributes; name {MAX_DOMAINS} at the most",
                policy.domains.len()
            )));
        }
        Ok(policy)
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let even = Weight::new(1);
        let eligible = Eligible::new(question, |index, node| Candidate::new(index, node, even));
        let domains = Domains::new(self, &question.nodes);
        let owners = question.responsibilities.iter().enumerate().map(|(index, duty)| {
            let (candidates, hash) = (eligible.nodes(index), duty_hash(&duty.name));
            let mut owners = Vec::with_capacity(eligible.wanted(index));
            let first = front_runners(candidates, hash, FIRST);
            for _ in 0..eligible.wanted(index) {
                let apart = |node: &u32| !owners.contains(node) && domains.shared(*node, &owners) == 0;
                let next = first.iter().copied().find(apart);
                owners.extend(next.or_else(|| best(candidates, hash, &owners, &domains)));
            }
            owners
        });
        Ok(Answer { owners: owners.collect() })
    }
}

/// The node that shares least with the owners so far, then has the lowest cost.
fn best(candidates: &[Candidate], hash: u64, owners: &[u32], domains: &Domains) -> Option<u32> {
    let mut best: Option<(u128, u64, u32)> = None;
    contend(candidates, hash, |node| {
        if !owners.contains(&node.index) {
            let entry = (domains.shared(node.index, owners), node.cost(hash), node.index);
            if best.is_none_or(|best| entry < best) {
                best = Some(entry);
            }
        }
        // Their cost puts nodes out of the race once one that shares nothing is found.
        best.filter(|(shared, _, _)| *shared == 0).map_or(u64::MAX, |(_, cost, _)| cost)
    });
    best.map(|(_, _, node)| node)
}

/// Where each node belongs.
struct Domains {
    /// Per node: the number of its value of each attribute, most important first; `None` where it has none.
    values: Vec<Vec<Option<u32>>>,
    /// Per node; all empty where subnets do not count.
    subnets: Vec<Vec<u32>>,
}

impl Domains {
    fn new(policy: &Spread, nodes: &[Node]) -> Self {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            let of_name = |name: &String| {
                let (_, value) = node.attributes.iter().find(|(key, _)| key == name)?;
                let next = numbers.len() as u32;
                Some(*numbers.entry(value).or_insert(next))
            };
            values.push(policy.domains.iter().map(of_name).collect());
        }
        let subnets = if policy.subnets { number_subnets(nodes) } else { vec![Vec::new(); nodes.len()] };
        Domains { values, subnets }
    }

    /// How much a node would share with a duty's owners: for each domain the number of owners in it (32 at the
    /// most, so a byte each), most important first.
    fn shared(&self, node: u32, owners: &[u32]) -> u128 {
        let node = node as usize;
        let mut shared = 0;
        for &owner in owners {
            let owner = owner as usize;
            let mut with = 0;
            for (mine, theirs) in self.values[node].iter().zip(&self.values[owner]) {
                with = with << 8 | u128::from(mine.is_some() && mine == theirs);
            }
            shared += with << 8 | u128::from(overlap(&self.subnets[node], &self.subnets[owner]));
        }
        shared
    }
}

overlan_plugin_sdk::export!(assignment: Spread);

#[cfg(test)]
mod tests;
