//! Failover policy: paths that answer first, in the peer's order of preference; a reply is late after twice its usual time.

use overlan_plugin_sdk::failover::{Answer, Mode, Path, PathState, Question, Timing};
use overlan_plugin_sdk::{Config, ConfigError, Failover, Log, Within};
use serde::Deserialize;

/// The configuration: `config = { probe_interval_ms = "500" }`.
#[derive(Deserialize)]
#[serde(default)]
struct Policy {
    probe_interval_ms: Within<10, 60_000>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { probe_interval_ms: Within::new(200) }
    }
}

impl Failover for Policy {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
        let mut order: Vec<u32> = (0..question.paths.len() as u32).collect();
        order.sort_by_key(|&index| match question.paths[index as usize].state {
            PathState::Up => 0,
            PathState::Suspect => 1,
            PathState::Unverified => 2,
            PathState::Down => 3,
        });
        let timings = question.paths.iter().map(|path| self.timing(path)).collect();
        Ok(Answer { order, mode: Mode::Passive, timings })
    }
}

impl Policy {
    fn timing(&self, path: &Path) -> Timing {
        let reply_timeout_us = path.rtt.map_or(100_000, |rtt| {
            let spread = rtt.variance_us.saturating_mul(4);
            rtt.smoothed_us.saturating_mul(2).saturating_add(spread).clamp(20_000, 1_000_000)
        });
        Timing {
            probe_interval_us: 1_000 * self.probe_interval_ms.value(),
            reply_timeout_us,
            misses: 3,
            // A path that keeps failing waits longer before it carries traffic again.
            hold_down_ms: (5_000 << path.flaps.min(6)).min(300_000),
        }
    }
}

overlan_plugin_sdk::export!(failover: Policy);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_failover, check_failover, paths};

    use super::*;

    #[test]
    fn every_answer_is_valid() {
        check_failover::<Policy>(&Config::default());
    }

    #[test]
    fn a_dead_path_comes_last() {
        let mut question = paths(3);
        question.paths[0].state = PathState::Down;
        assert_eq!(ask_failover::<Policy>(&Config::default(), &question).order, [1, 2, 0]);
    }

    #[test]
    fn a_wrong_configuration_is_explained() {
        let config = Config::from_iter([("probe_interval_ms", "5")]);
        let error = Policy::configure(&config).err().expect("an error");
        assert_eq!(error.to_string(), "`probe_interval_ms` is `5`; it must be a whole number from 10 to 60000");
    }
}
