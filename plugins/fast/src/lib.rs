//! Failover policy `fast`: a dead path is left within a second, mostly sooner.
//!
//! Each path is probed every 200 ms. A reply is late after `2 * srtt + 4 * max(rttvar, 1 ms) + 10 ms`, at
//! least 15 ms and at most 1 s; 100 ms until a round-trip time is known. That is the probe timeout of
//! RFC 9002 section 6.2.1 (`srtt + max(4 * rttvar, 1 ms) + max_ack_delay`) with another round trip for
//! queues and 10 ms for the peer's scheduler. Three late replies in a row end the path: at most
//! 3 * 200 ms and one timeout. TIPC needs 1.5 s by default, corosync 1.5 s and more as the cluster grows.
//!
//! A path that came back carries traffic again after 5 s without trouble; the time doubles with each time it
//! went down in the last ten minutes, up to 5 minutes, so that a flapping link is left alone.
//!
//! Paths keep the table's order; those that are down, or have an adapter down at one end, go last.
//!
//! Trade-off: five probes a second and path (about 500 bytes/s) and a suspicion for every hiccup of tens of
//! milliseconds; suspicion re-sends single messages elsewhere and moves nothing. On links that often
//! stall for half a second raise `misses`.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `probe_interval_ms` | ms | 200 | 10 to 60,000 | detection takes `misses` of them |
//! | `reply_timeout_ms` | ms | from the RTT | 1 to 60,000 | a fixed timeout instead of the measured one |
//! | `misses` | replies | 3 | 1 to 100 | fewer find a dead path sooner, and doubt a lossy one |
//! | `hold_down_ms` | ms | 5,000 | 0 to 3,600,000 | the first hold-down; 0 returns at once, always |
//! | `mode` | | `passive` | `passive`, `active` | `active` sends everything on every usable path |

use overlan_plugin_sdk::failover::{self, Mode, Path, PathState, Rtt, Timing};
use overlan_plugin_sdk::{AdapterStatus, Config, ConfigError, Failover, Log, Within};
use serde::Deserialize;

/// Hold-down does not double beyond this, in milliseconds.
const MAX_HOLD_DOWN_MS: u32 = 300_000;
/// Reply timeout of a path whose round-trip time is unknown, in microseconds.
const UNKNOWN_RTT_TIMEOUT_US: u32 = 100_000;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Fast {
    probe_interval_ms: Within<10, 60_000>,
    reply_timeout_ms: Option<Within<1, 60_000>>,
    misses: Within<1, 100>,
    hold_down_ms: Within<0, 3_600_000>,
    mode: Use,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Use {
    Passive,
    Active,
}

impl Default for Fast {
    fn default() -> Self {
        Fast {
            probe_interval_ms: Within::new(200),
            reply_timeout_ms: None,
            misses: Within::new(3),
            hold_down_ms: Within::new(5_000),
            mode: Use::Passive,
        }
    }
}

impl Failover for Fast {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &failover::Question, _: &dyn Log) -> Result<failover::Answer, String> {
        let mut order: Vec<u32> = (0..).take(question.paths.len()).collect();
        order.sort_by_key(|&index| is_down(&question.paths[index as usize]));
        let mode = match self.mode {
            Use::Passive => Mode::Passive,
            Use::Active => Mode::Active,
        };
        let timings = question.paths.iter().map(|path| self.timing(path)).collect();
        Ok(failover::Answer { order, mode, timings })
    }
}

impl Fast {
    fn timing(&self, path: &Path) -> Timing {
        let reply_timeout_us = match (self.reply_timeout_ms, path.rtt) {
            (Some(fixed), _) => fixed.value() * 1_000,
            (None, Some(rtt)) => reply_timeout_us(rtt),
            (None, None) => UNKNOWN_RTT_TIMEOUT_US,
        };
        Timing {
            probe_interval_us: self.probe_interval_ms.value() * 1_000,
            reply_timeout_us,
            misses: self.misses.value(),
            hold_down_ms: hold_down_ms(self.hold_down_ms.value(), path.flaps),
        }
    }
}

fn is_down(path: &Path) -> bool {
    path.state == PathState::Down
        || path.local.status == AdapterStatus::Down
        || path.remote.status == AdapterStatus::Down
}

fn reply_timeout_us(rtt: Rtt) -> u32 {
    let spread = rtt.variance_us.max(1_000).saturating_mul(4);
    let timeout = rtt.smoothed_us.saturating_mul(2).saturating_add(spread).saturating_add(10_000);
    timeout.clamp(15_000, 1_000_000)
}

/// The first hold-down after the first time down, twice as long after each further one; a first one
/// beyond the limit stays as it is.
fn hold_down_ms(first_ms: u32, flaps: u32) -> u32 {
    let doublings = flaps.saturating_sub(1).min(31);
    let doubled = u64::from(first_ms) << doublings;
    u32::try_from(doubled).unwrap_or(u32::MAX).min(MAX_HOLD_DOWN_MS.max(first_ms))
}

overlan_plugin_sdk::export!(failover: Fast);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_failover, paths};
    use proptest::prelude::*;

    use super::*;

    fn ask(question: &failover::Question) -> failover::Answer {
        ask_failover::<Fast>(&Config::default(), question)
    }

    #[test]
    fn an_unmeasured_path_gets_the_defaults() {
        let answer = ask(&paths(1));
        let expected =
            Timing { probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000 };
        assert_eq!(answer.timings, [expected]);
        assert_eq!(answer.mode, Mode::Passive);
    }

    #[test]
    fn the_timeout_follows_the_round_trip_time() {
        let timeout = |smoothed_us, variance_us| {
            reply_timeout_us(Rtt { smoothed_us, variance_us, min_us: smoothed_us })
        };
        assert_eq!(timeout(200, 50), 15_000, "2 * 0.2 + 4 * 1 + 10 ms, raised to the least");
        assert_eq!(timeout(20_000, 5_000), 70_000);
        assert_eq!(timeout(400_000, 100_000), 1_000_000);
        assert_eq!(timeout(u32::MAX, u32::MAX), 1_000_000);
    }

    #[test]
    fn hold_down_doubles_to_five_minutes() {
        let after = |flaps| hold_down_ms(5_000, flaps);
        assert_eq!(
            [0, 1, 2, 3, 7, 8, u32::MAX].map(after),
            [5_000, 5_000, 10_000, 20_000, 300_000, 300_000, 300_000]
        );
        assert_eq!(hold_down_ms(0, 9), 0);
        assert_eq!(hold_down_ms(3_600_000, 9), 3_600_000);
    }

    #[test]
    fn paths_that_are_down_go_last_in_table_order() {
        let mut question = paths(5);
        question.paths[0].state = PathState::Down;
        question.paths[1].state = PathState::Unverified;
        question.paths[2].remote.status = AdapterStatus::Down;
        question.paths[3].state = PathState::Suspect;
        assert_eq!(ask(&question).order, [1, 3, 4, 0, 2]);
    }

    #[test]
    fn every_key_overrides_its_part() {
        let config: Config = [
            ("probe_interval_ms", "50"),
            ("reply_timeout_ms", "40"),
            ("misses", "5"),
            ("hold_down_ms", "1000"),
            ("mode", "active"),
        ]
        .into_iter()
        .collect();
        let answer = ask_failover::<Fast>(&config, &paths(1));
        let expected =
            Timing { probe_interval_us: 50_000, reply_timeout_us: 40_000, misses: 5, hold_down_ms: 1_000 };
        assert_eq!((answer.mode, answer.timings), (Mode::Active, vec![expected]));
    }

    #[test]
    fn explains_a_wrong_configuration() {
        let config: Config = [("mode", "both")].into_iter().collect();
        assert_eq!(
            Fast::configure(&config).unwrap_err().to_string(),
            "`mode` is `both`; it must be one of passive, active"
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_valid(
            states in prop::collection::vec((0_u8..4, any::<Option<(u32, u32)>>(), any::<u32>(), any::<bool>()), 0..64)
        ) {
            let mut question = paths(states.len() as u8);
            for (path, (state, rtt, flaps, up)) in question.paths.iter_mut().zip(states) {
                path.state = [PathState::Unverified, PathState::Up, PathState::Suspect, PathState::Down][usize::from(state)];
                path.rtt = rtt.map(|(smoothed_us, variance_us)| Rtt { smoothed_us, variance_us, min_us: 0 });
                path.flaps = flaps;
                path.local.status = if up { AdapterStatus::Up } else { AdapterStatus::Down };
            }
            ask(&question);
        }
    }
}
