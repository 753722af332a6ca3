//! Assignment policy: rendezvous hashing (Thaler and Ravishankar, 1998).
//!
//! Every live node draws a number for each duty from a hash of both; the lowest own it, the first of them as primary.
//! A node that leaves gives away its own duties only. Trade-off: no memory and least movement, at the price of balance:
//! shares scatter like dice.

use overlan_plugin_sdk::assignment::{Answer, Question, Responsibility};
use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, Within, score};
use serde::Deserialize;

/// The configuration: `config = { salt = "7" }`.
#[derive(Deserialize)]
#[serde(default)]
struct Policy {
    /// Another salt deals the duties out anew.
    salt: Within<0, 1_000_000>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { salt: Within::new(0) }
    }
}

impl Assignment for Policy {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, log: &dyn Log) -> Result<Answer, String> {
        let owners = question.responsibilities.iter().map(|duty| self.owners(question, duty)).collect();
        log.debug(&format!("{} duties assigned", question.responsibilities.len()));
        Ok(Answer { owners })
    }
}

impl Policy {
    fn owners(&self, question: &Question, duty: &Responsibility) -> Vec<u32> {
        let duty_hash = score::hash(self.salt.value().into(), duty.name.as_bytes());
        let mut drawn: Vec<(u64, u32)> = (0..)
            .zip(&question.nodes)
            .filter(|(_, node)| node.live && node.meets(&duty.requires))
            .map(|(index, node)| (score::mix(score::hash(1, node.id.as_bytes()), duty_hash), index))
            .collect();
        drawn.sort_unstable();
        drawn.into_iter().map(|(_, index)| index).take(duty.replicas as usize).collect()
    }
}

overlan_plugin_sdk::export!(assignment: Policy);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_assignment, check_assignment, cluster};

    use super::*;

    #[test]
    fn every_answer_is_valid_and_only_the_duties_of_a_lost_node_move() {
        check_assignment::<Policy>(&Config::default(), 0.0);
    }

    #[test]
    fn another_salt_gives_another_plan() {
        let question = cluster(8, 32);
        let salted = Config::from_iter([("salt", "7")]);
        assert_ne!(
            ask_assignment::<Policy>(&Config::default(), &question),
            ask_assignment::<Policy>(&salted, &question)
        );
    }

    #[test]
    fn a_wrong_configuration_is_explained() {
        let error = Policy::configure(&Config::from_iter([("salt", "x")])).err().expect("an error");
        assert_eq!(error.to_string(), "`salt` is `x`; it must be a whole number from 0 to 1000000");
    }
}
