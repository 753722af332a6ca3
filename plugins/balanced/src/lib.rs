//! Assignment policy `balanced`: the least loaded node first, moving as little as balance allows, with
//! standbys on other subnets.
//!
//! It starts from the previous plan and changes what it must, in this order:
//!
//! 1. Owners that are gone, dead or no longer meet the requirements are dropped; the first standby left
//!    takes over.
//! 2. A standby on a subnet of another owner gives way where there is a node that is on none.
//! 3. Places left open are filled with the node of least load: primaries before standbys, heaviest duties first;
//!    standbys first with nodes on no subnet of the other owners.
//! 4. While a node bears more than the average and the tolerance, its heaviest duty that helps moves to one of the
//!    least loaded nodes, or swaps places with a standby there; while one bears less, it takes from the most
//!    loaded. The tolerance is one average duty at least.
//!
//! A node's load is the weight of the duties it is primary of, plus a part of that of those it stands by
//! for. That is the greedy rule of Graham's "Bounds on multiprocessing timing anomalies" (SIAM Journal on
//! Applied Mathematics 17(2), 1969), longest processing time first, applied to what has to move.
//!
//! Trade-off: even loads from the first duty on, but the plan depends on the one before: a new cluster
//! that went another way holds another plan, and a node that leaves and returns gets other duties. All nodes
//! count alike; where they differ in speed take `rendezvous`.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `tolerance_percent` | % of the average | 20 | 0 to 1,000 | less balances better and moves more |
//! | `standby_percent` | % of the weight | 25 | 0 to 100 | what standing by for a duty costs |
//! | `max_moves` | duties | 1,000 | 0 to 16,384 | most moves for balance alone in one plan |

mod planner;

use overlan_plugin_sdk::assignment::{Answer, Question};
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within};
use serde::Deserialize;

use planner::Planner;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Balanced {
    tolerance_percent: Within<0, 1_000>,
    standby_percent: Within<0, 100>,
    max_moves: Within<0, 16_384>,
}

impl Default for Balanced {
    fn default() -> Self {
        Balanced {
            tolerance_percent: Within::new(20),
            standby_percent: Within::new(25),
            max_moves: Within::new(1_000),
        }
    }
}

impl Assignment for Balanced {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, log: &dyn Log) -> Result<Answer, String> {
        let mut planner = Planner::new(question, self.standby_percent.value());
        planner.keep_previous();
        planner.part_standbys();
        planner.fill();
        let moves = planner.balance(self.tolerance_percent.value(), self.max_moves.value());
        if moves > 0 && moves == self.max_moves.value() {
            log.warn("max_moves reached: the next plan goes on balancing");
        }
        Ok(planner.into_answer())
    }
}

overlan_plugin_sdk::export!(assignment: Balanced);

#[cfg(test)]
mod tests;
