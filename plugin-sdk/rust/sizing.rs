//! Sizing policy: the largest datagram that both adapters and the path carry, in bursts of a fixed number of datagrams.

use overlan_plugin_sdk::sizing::{Answer, MAX_BURST, MAX_DATAGRAM, MIN_DATAGRAM, Question};
use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, Within};
use serde::Deserialize;

/// The configuration: `config = { datagrams = "16" }`.
#[derive(Deserialize)]
#[serde(default)]
struct Policy {
    /// Datagrams in a burst.
    datagrams: Within<1, 64>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { datagrams: Within::new(32) }
    }
}

impl Sizing for Policy {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let links = question.local.mtu.min(question.remote.mtu);
        let mtu = question.path_mtu.map_or(links, |path| path.min(links));
        let datagram = mtu.saturating_sub(question.overhead).clamp(MIN_DATAGRAM, MAX_DATAGRAM);
        let burst = (self.datagrams.value() * datagram).min(MAX_BURST);
        Ok(Answer { datagram, coalesce: datagram, burst })
    }
}

overlan_plugin_sdk::export!(sizing: Policy);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_sizing, check_sizing, sized_path};

    use super::*;

    #[test]
    fn every_answer_is_valid() {
        check_sizing::<Policy>(&Config::default());
    }

    #[test]
    fn the_smaller_adapter_counts() {
        let answer = ask_sizing::<Policy>(&Config::default(), &sized_path(9_000, 1_500));
        assert_eq!(answer.datagram, 1_472);
    }

    #[test]
    fn a_wrong_configuration_is_explained() {
        let error = Policy::configure(&Config::from_iter([("datagrams", "0")])).err().expect("an error");
        assert_eq!(error.to_string(), "`datagrams` is `0`; it must be a whole number from 1 to 64");
    }
}
