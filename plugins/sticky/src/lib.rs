//! Assignment policy `sticky`: the plan in force stays, but for what must move and a bounded share for balance.
//!
//! 1. Owners that are gone, dead or no longer meet the requirements are dropped; the first standby left takes over.
//! 2. Places left open are filled with the eligible node that owns least at such a place (as primary, or as
//!    standby); among equals, with the lowest draw of rendezvous hashing, so that duties scatter.
//! 3. While the most loaded primary bears more than the average and the tolerance (an ordinary duty at least),
//!    one of its duties is handed to a lighter node: first to one that stands by for it already, which moves
//!    no state at all (the two change places), else to the least loaded eligible node. At most `max_moves_percent` of the
//!    duties move so in one plan; the next plan goes on.
//!
//! Sources: the goal, fewest moves first and balance second, is that of the sticky assignor of Apache Kafka
//! (KIP-54, 2016); placing by least load is Graham's rule ("Bounds on multiprocessing timing anomalies", 1969).
//!
//! Trade-off: for duties whose owner holds much state. A node that joins is filled slowly, plan by plan, and
//! the plan depends on all plans before it, so that no two clusters have the same. Standbys are never moved for
//! balance. `balanced` restores balance at once and parts standbys by subnet; `bounded-load` needs no memory.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `tolerance_percent` | % of the average | 20 | 0 to 1,000 | imbalance that is left alone |
//! | `max_moves_percent` | % of the duties | 5 | 0 to 100 | most moves for balance alone in one plan, 1 at least unless it is 0 |

use std::cmp::Reverse;

use overlan_plugin_sdk::assignment::{Answer, Question};
use overlan_plugin_sdk::placement::{Candidate, Eligible, Lightest, contend, duty_hash};
use overlan_plugin_sdk::score::Weight;
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within};
use serde::Deserialize;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Sticky {
    tolerance_percent: Within<0, 1_000>,
    max_moves_percent: Within<0, 100>,
}

impl Default for Sticky {
    fn default() -> Self {
        Sticky { tolerance_percent: Within::new(20), max_moves_percent: Within::new(5) }
    }
}

impl Assignment for Sticky {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let mut planner = Planner::new(question);
        planner.keep_previous();
        planner.fill();
        let duties = question.responsibilities.len();
        let moves = (duties * self.max_moves_percent.value() as usize).div_ceil(100);
        planner.balance(self.tolerance_percent.value(), moves);
        Ok(Answer { owners: planner.owners })
    }
}

/// The plan while it is made.
struct Planner<'a> {
    question: &'a Question,
    eligible: Eligible<Candidate>,
    /// Per duty: its owners so far, primary first.
    owners: Vec<Vec<u32>>,
    /// Per node: the weight of the duties it is primary of, and of those it stands by for.
    load: Vec<[u64; 2]>,
}

impl<'a> Planner<'a> {
    fn new(question: &'a Question) -> Self {
        let even = Weight::new(1);
        let eligible = Eligible::new(question, |index, node| Candidate::new(index, node, even));
        let owners =
            (0..question.responsibilities.len()).map(|duty| Vec::with_capacity(eligible.wanted(duty)));
        Planner { question, owners: owners.collect(), eligible, load: vec![[0; 2]; question.nodes.len()] }
    }

    fn keep_previous(&mut self) {
        for (duty, previous) in self.question.previous.iter().enumerate().take(self.owners.len()) {
            for &node in previous {
                let may = self.eligible.contains(duty, node, |node| node.index);
                if may
                    && self.owners[duty].len() < self.eligible.wanted(duty)
                    && !self.owners[duty].contains(&node)
                {
                    self.push(duty, node);
                }
            }
        }
    }

    /// Fills the places left open: primaries first, heaviest duties first.
    fn fill(&mut self) {
        let wanted = |planner: &Self, duty: usize| planner.eligible.wanted(duty);
        let mut open: Vec<usize> =
            (0..self.owners.len()).filter(|&duty| self.owners[duty].len() < wanted(self, duty)).collect();
        open.sort_by_key(|&duty| Reverse(self.weight(duty)));
        let places = open.iter().map(|&duty| wanted(self, duty)).max().unwrap_or(0);
        for place in 0..places {
            let mut lightest = vec![Lightest::default(); self.eligible.groups().len()];
            for &duty in &open {
                let lightest = &mut lightest[self.eligible.group(duty)];
                if self.owners[duty].len() == place
                    && place < wanted(self, duty)
                    && let Some(node) = self.place(duty, usize::from(place > 0), lightest)
                {
                    self.push(duty, node);
                    lightest.note_growth();
                }
            }
        }
    }

    /// As [`lightest`](Self::lightest), which looks at all nodes: here at the least loaded alone, if one will do.
    fn place(&self, duty: usize, place: usize, lightest: &mut Lightest<Candidate>) -> Option<u32> {
        let hash = duty_hash(&self.question.responsibilities[duty].name);
        let load = |node: &Candidate| self.load[node.index as usize][place];
        let (least, nodes) = lightest.find(self.eligible.nodes(duty), load);
        let mut best: Option<(u64, u32)> = None;
        contend(nodes, hash, |node| {
            if load(node) == least && !self.owners[duty].contains(&node.index) {
                let entry = (node.cost(hash), node.index);
                best = Some(best.map_or(entry, |best| best.min(entry)));
            }
            best.map_or(u64::MAX, |(lowest, _)| lowest)
        });
        best.map(|(_, node)| node).or_else(|| self.lightest(duty, place))
    }

    /// Hands primaries from the most loaded on, as long as that helps. Each move makes the sum of the squared
    /// loads smaller, so that it ends, whatever `max_moves` is.
    fn balance(&mut self, tolerance_percent: u32, max_moves: usize) {
        let live = self.question.nodes.iter().filter(|node| node.live).count().max(1) as u64;
        let average = self.load.iter().map(|load| load[0]).sum::<u64>() / live;
        let one = average * live / (self.owners.len().max(1) as u64);
        let high = average + (average * u64::from(tolerance_percent) / 100).max(one);
        let mut stuck = vec![false; self.load.len()];
        let mut moves = 0;
        while moves < max_moves {
            let over = (0..self.load.len()).filter(|&node| !stuck[node] && self.load[node][0] > high);
            let Some(from) = over.max_by_key(|&node| self.load[node][0]) else { break };
            let Some((duty, to)) = self.best_move(from as u32) else {
                stuck[from] = true;
                continue;
            };
            self.hand_over(duty, to);
            stuck.fill(false);
            moves += 1;
        }
    }

    /// The heaviest duty that a node may be relieved of without making another as loaded: onto a standby
    /// wherever there is one for any duty, else onto the lightest node.
    fn best_move(&self, from: u32) -> Option<(usize, u32)> {
        let mut best: Option<((bool, u64), usize, u32)> = None;
        let primary_of = (0..self.owners.len()).filter(|&duty| self.owners[duty].first() == Some(&from));
        for duty in primary_of {
            let weight = self.weight(duty);
            let helps = |to: u32| self.load[to as usize][0] + weight < self.load[from as usize][0];
            let standbys = self.owners[duty][1..].iter().copied();
            let standby = standbys.min_by_key(|&node| self.load[node as usize][0]).filter(|&to| helps(to));
            let key = (standby.is_some(), weight);
            if best.as_ref().is_some_and(|(found, _, _)| *found >= key) {
                continue;
            }
            let to = standby.or_else(|| self.lightest(duty, 0).filter(|&to| helps(to)));
            if let Some(to) = to {
                best = Some((key, duty, to));
            }
        }
        best.map(|(_, duty, to)| (duty, to))
    }

    /// Makes a node the primary; a standby changes places with the one that was.
    fn hand_over(&mut self, duty: usize, to: u32) {
        let weight = self.weight(duty);
        let from = self.owners[duty][0];
        self.load[from as usize][0] -= weight;
        self.load[to as usize][0] += weight;
        if let Some(place) = self.owners[duty].iter().position(|&owner| owner == to) {
            self.owners[duty][place] = from;
            self.load[from as usize][1] += weight;
            self.load[to as usize][1] -= weight;
        }
        self.owners[duty][0] = to;
    }

    /// The eligible node that does not own the duty yet and bears least as primary (0) or as standby (1).
    fn lightest(&self, duty: usize, place: usize) -> Option<u32> {
        let hash = duty_hash(&self.question.responsibilities[duty].name);
        let mut best: Option<(u64, u64, u32)> = None;
        for node in self.eligible.nodes(duty) {
            let load = self.load[node.index as usize][place];
            // Most are out of the race by their load or a bound of their cost.
            let behind = best.is_some_and(|(least, lowest, _)| {
                load > least || (load == least && node.cost_floor(hash) > lowest)
            });
            if behind || self.owners[duty].contains(&node.index) {
                continue;
            }
            let entry = (load, node.cost(hash), node.index);
            if best.is_none_or(|best| entry < best) {
                best = Some(entry);
            }
        }
        best.map(|(_, _, node)| node)
    }

    fn push(&mut self, duty: usize, node: u32) {
        let place = usize::from(!self.owners[duty].is_empty());
        self.load[node as usize][place] += self.weight(duty);
        self.owners[duty].push(node);
    }

    /// A duty of no weight is still spread: it counts as a thousandth of an ordinary one.
    fn weight(&self, duty: usize) -> u64 {
        self.question.responsibilities[duty].weight_milli.max(1).into()
    }
}

overlan_plugin_sdk::export!(assignment: Sticky);

#[cfg(test)]
mod tests;
