//! Failover policy `knet-compat`: the timing of kronosnet (libknet, under corosync), for comparison and for
//! those who migrate and want no surprise.
//!
//! knet's constants: ping interval 1,000 ms, pong timeout 2,000 ms, pong count 5, link mode passive. A link is
//! down when no pong came for `timeout * backoff + 2 * latency`; after a down `backoff` is 10 and falls by 1 a
//! second; a link is up again after `pong_count` pongs. knet's heartbeat thread wakes every 200 ms. They map so:
//!
//! - `probe_interval` is the ping interval.
//! - `misses` is `timeout * backoff / interval`, rounded down: the pings that fit into a timeout. With the
//!   defaults 2, so that one lost packet does not end a path, as in knet.
//! - `reply_timeout` is the remainder of that division, plus `2 * latency`, plus 200 ms for the thread: the
//!   last pong came just before the first unanswered ping, so knet's clock runs out that long after the
//!   last of the `misses` pings.
//! - `hold_down` is `pong_count * interval`, and never doubles.
//! - `backoff` is reckoned from the time since the last change of state of a path that went down in the last
//!   ten minutes. It falls only as often as the host asks; set it to 1 to have none.
//! - The order is the table's; links that are not connected go last: unverified ones (no five pongs yet), then
//!   those that are down.
//!
//! Deviations: the latency is RFC 9002's smoothed RTT, not knet's running mean of at most 2,048 samples; priorities are
//! the table's order. Trade-off: known behaviour, and detection in 1.2 to 2.2 s, up to ten times that
//! right after a recovery; see `fast`.
//!
//! Source: the constants and manual pages of kronosnet 1.25 (`libknet.h`, `knet_link_set_ping_timers(3)`,
//! `knet_link_set_pong_count(3)`).
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `interval_ms` | ms | 1,000 | 10 to 60,000 | `ping_interval` |
//! | `timeout_ms` | ms | 2,000 | 10 to 60,000 | `pong_timeout`; not below the interval |
//! | `pong_count` | pongs | 5 | 1 to 60 | pongs before a link is up |
//! | `backoff` | | 10 | 1 to 10 | factor on the timeout right after a recovery |
//! | `link_mode` | | `passive` | `passive`, `active`, `rr` | `rr` spreads over the connected links |

use overlan_plugin_sdk::failover::{self, Mode, Path, PathState, Timing};
use overlan_plugin_sdk::{AdapterStatus, Config, ConfigError, Failover, Log, Within};
use serde::Deserialize;

/// Period of knet's heartbeat thread (`KNET_THREADS_TIMERES`), in milliseconds.
const THREAD_PERIOD_MS: u32 = 200;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct KnetCompat {
    interval_ms: Within<10, 60_000>,
    timeout_ms: Within<10, 60_000>,
    pong_count: Within<1, 60>,
    backoff: Within<1, 10>,
    link_mode: LinkMode,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LinkMode {
    Passive,
    Active,
    Rr,
}

impl Default for KnetCompat {
    fn default() -> Self {
        KnetCompat {
            interval_ms: Within::new(1_000),
            timeout_ms: Within::new(2_000),
            pong_count: Within::new(5),
            backoff: Within::new(10),
            link_mode: LinkMode::Passive,
        }
    }
}

/// Ascending: preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Connected,
    Unverified,
    Down,
}

impl Failover for KnetCompat {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        let policy: KnetCompat = config.parse()?;
        let (interval, timeout) = (policy.interval_ms.value(), policy.timeout_ms.value());
        if timeout < interval {
            let allowed = format!("at least interval_ms, which is {interval}");
            return Err(ConfigError::value("timeout_ms", &timeout.to_string(), &allowed));
        }
        Ok(policy)
    }

    fn decide(&mut self, question: &failover::Question, _: &dyn Log) -> Result<failover::Answer, String> {
        let links: Vec<Link> = question.paths.iter().map(link).collect();
        let mut order: Vec<u32> = (0..).take(links.len()).collect();
        order.sort_by_key(|&index| links[index as usize]);
        let timings = question.paths.iter().map(|path| self.timing(path)).collect();
        Ok(failover::Answer { order, mode: self.mode(&links), timings })
    }
}

impl KnetCompat {
    fn mode(&self, links: &[Link]) -> Mode {
        match self.link_mode {
            LinkMode::Passive => Mode::Passive,
            LinkMode::Active => Mode::Active,
            LinkMode::Rr => {
                let any = links.contains(&Link::Connected);
                let weight = |&link| u32::from(!any || link == Link::Connected);
                Mode::Spread(links.iter().map(weight).collect())
            }
        }
    }

    fn timing(&self, path: &Path) -> Timing {
        let interval_ms = self.interval_ms.value();
        let timeout_ms = self.timeout_ms.value() * self.backoff(path);
        let misses = (timeout_ms / interval_ms).clamp(1, 100);
        let rest_ms = timeout_ms.saturating_sub(misses * interval_ms);
        let latency_us = path.rtt.map_or(0, |rtt| rtt.smoothed_us);
        let reply_timeout_us =
            ((rest_ms + THREAD_PERIOD_MS) * 1_000).saturating_add(latency_us.saturating_mul(2));
        Timing {
            probe_interval_us: interval_ms * 1_000,
            reply_timeout_us: reply_timeout_us.min(*failover::REPLY_TIMEOUT_US.end()),
            misses,
            hold_down_ms: self.pong_count.value() * interval_ms,
        }
    }

    /// knet's factor on the timeout: the configured one right after a path came up, 1 less each second.
    fn backoff(&self, path: &Path) -> u32 {
        if path.flaps == 0 {
            return 1;
        }
        let fallen = u32::try_from(path.since_ms / 1_000).unwrap_or(u32::MAX);
        self.backoff.value().saturating_sub(fallen).max(1)
    }
}

fn link(path: &Path) -> Link {
    if path.local.status == AdapterStatus::Down || path.remote.status == AdapterStatus::Down {
        return Link::Down;
    }
    match path.state {
        PathState::Up | PathState::Suspect => Link::Connected,
        PathState::Unverified => Link::Unverified,
        PathState::Down => Link::Down,
    }
}

overlan_plugin_sdk::export!(failover: KnetCompat);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::failover::Rtt;
    use overlan_plugin_sdk::testkit::{ask_failover, paths};
    use proptest::prelude::*;

    use super::*;

    fn ask(question: &failover::Question) -> failover::Answer {
        ask_failover::<KnetCompat>(&Config::default(), question)
    }

    fn configured(pairs: &[(&str, &str)], question: &failover::Question) -> failover::Answer {
        ask_failover::<KnetCompat>(&pairs.iter().copied().collect(), question)
    }

    #[test]
    fn the_constants_are_knets() {
        let mut question = paths(1);
        question.paths[0].rtt = Some(Rtt { smoothed_us: 3_000, variance_us: 100, min_us: 2_900 });
        let expected = Timing {
            probe_interval_us: 1_000_000,
            reply_timeout_us: 206_000,
            misses: 2,
            hold_down_ms: 5_000,
        };
        assert_eq!(ask(&question).timings, [expected]);
    }

    #[test]
    fn the_second_failure_is_seen_later() {
        let mut question = paths(1);
        question.paths[0].flaps = 1;
        let misses = |since_ms| {
            let mut question = question.clone();
            question.paths[0].since_ms = since_ms;
            ask(&question).timings[0].misses
        };
        assert_eq!([0, 1_999, 5_000, 9_000, 60_000, u64::MAX].map(misses), [20, 18, 10, 2, 2, 2]);
        assert_eq!(configured(&[("backoff", "1")], &question).timings[0].misses, 2);
    }

    #[test]
    fn links_that_are_not_connected_go_last() {
        let mut question = paths(4);
        question.paths[0].state = PathState::Down;
        question.paths[1].state = PathState::Unverified;
        question.paths[2].state = PathState::Suspect;
        assert_eq!(ask(&question).order, [2, 3, 1, 0]);
        assert_eq!(configured(&[("link_mode", "rr")], &question).mode, Mode::Spread(vec![0, 0, 1, 1]));
        assert_eq!(configured(&[("link_mode", "active")], &question).mode, Mode::Active);
    }

    #[test]
    fn round_robin_without_a_link_spreads_over_all() {
        let mut question = paths(2);
        question.paths.iter_mut().for_each(|path| path.state = PathState::Down);
        assert_eq!(configured(&[("link_mode", "rr")], &question).mode, Mode::Spread(vec![1, 1]));
    }

    #[test]
    fn explains_a_timeout_below_the_interval() {
        let config: Config = [("timeout_ms", "500")].into_iter().collect();
        assert_eq!(
            KnetCompat::configure(&config).unwrap_err().to_string(),
            "`timeout_ms` is `500`; it must be at least interval_ms, which is 1000"
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_valid(
            states in prop::collection::vec((0_u8..4, any::<Option<u32>>(), 0_u32..3, any::<u64>()), 0..64),
            interval in 10_u32..=60_000, factor in 0_u32..60_000, pong_count in 1_u32..=60, mode in 0_usize..3,
        ) {
            let timeout = (interval + factor).min(60_000);
            let pairs = [
                ("interval_ms", interval.to_string()),
                ("timeout_ms", timeout.to_string()),
                ("pong_count", pong_count.to_string()),
                ("link_mode", ["passive", "active", "rr"][mode].to_owned()),
            ];
            let mut question = paths(states.len() as u8);
            for (path, (state, rtt, flaps, since_ms)) in question.paths.iter_mut().zip(states) {
                path.state = [PathState::Unverified, PathState::Up, PathState::Suspect, PathState::Down][usize::from(state)];
                path.rtt = rtt.map(|smoothed_us| Rtt { smoothed_us, variance_us: 0, min_us: 0 });
                (path.flaps, path.since_ms) = (flaps, since_ms);
            }
            ask_failover::<KnetCompat>(&pairs.into_iter().collect(), &question);
        }
    }
}
