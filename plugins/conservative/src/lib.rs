//! Sizing policy `conservative`: datagrams of 1,200 bytes, which every path carries.
//!
//! 1,200 bytes is what QUIC requires of a path (RFC 9000 section 14) and the base of path MTU discovery
//! (RFC 8899 section 5.1.2): they pass an IPv6 link of the minimum MTU of 1,280 bytes with room for the
//! headers. Ten of them are a burst.
//!
//! Trade-off: nothing is ever lost for its size, discovery never has to lower it, and filters for ICMP
//! do no harm; but a link of 1,500 bytes needs a fifth more packets than with `mtu-fit`, one of 9,000 more
//! than seven times as many.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `burst_datagrams` | datagrams | 10 | 1 to 800 | larger ones need fewer system calls and deeper queues |

use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, Within, sizing};
use serde::Deserialize;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Conservative {
    burst_datagrams: Within<1, 800>,
}

impl Default for Conservative {
    fn default() -> Self {
        Conservative { burst_datagrams: Within::new(10) }
    }
}

impl Sizing for Conservative {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, _: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
        let datagram = sizing::MIN_DATAGRAM;
        Ok(sizing::Answer { datagram, coalesce: datagram, burst: datagram * self.burst_datagrams.value() })
    }
}

overlan_plugin_sdk::export!(sizing: Conservative);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_sizing, sized_path};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_path_does_not_matter() {
        let expected = sizing::Answer { datagram: 1_200, coalesce: 1_200, burst: 12_000 };
        assert_eq!(ask_sizing::<Conservative>(&Config::default(), &sized_path(9_000, 9_000)), expected);
        assert_eq!(ask_sizing::<Conservative>(&Config::default(), &sized_path(576, 576)), expected);
    }

    #[test]
    fn explains_a_wrong_configuration() {
        let config: Config = [("datagram", "1400")].into_iter().collect();
        assert_eq!(
            Conservative::configure(&config).unwrap_err().to_string(),
            "unknown key `datagram`; allowed keys are burst_datagrams"
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_valid(local: u32, remote: u32, path_mtu: Option<u32>, burst in 1_u32..=800) {
            let config = [("burst_datagrams", burst.to_string())].into_iter().collect();
            let question = sizing::Question { path_mtu, ..sized_path(local, remote) };
            ask_sizing::<Conservative>(&config, &question);
        }
    }
}
