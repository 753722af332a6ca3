//! Sizing policy `mtu-fit`: datagrams as large as the adapters' and the path's MTU allow.
//!
//! The datagram fills the smallest of the local adapter's MTU, the remote adapter's, and the path MTU where
//! discovery (RFC 8899) has found one, less the IP and UDP headers. Small messages are packed until it
//! is full; a burst is 64 datagrams, as many as the kernel segments in one send.
//!
//! Trade-off: fewest packets, so least work per byte; but on a path whose middle is narrower than both ends
//! (a tunnel, a filter for ICMP) the first large datagrams are lost until discovery has lowered the
//! size. Where that hurts, take `conservative`.
//!
//! | key | unit | default | range | |
//! | --- | --- | --- | --- | --- |
//! | `headroom` | bytes | 0 | 0 to 9,000 | left free in each packet, for a tunnel known to be on the way |
//! | `coalesce` | bytes | 65,507 | 0 to 65,507 | small messages are packed up to this size; 0 sends each by itself |
//! | `burst_datagrams` | datagrams | 64 | 1 to 1,000 | larger ones need fewer system calls and deeper queues |

use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, Within, sizing};
use serde::Deserialize;

/// The policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct MtuFit {
    headroom: Within<0, 9_000>,
    burst_datagrams: Within<1, 1_000>,
    coalesce: Within<0, 65_507>,
}

impl Default for MtuFit {
    fn default() -> Self {
        MtuFit {
            headroom: Within::new(0),
            burst_datagrams: Within::new(64),
            coalesce: Within::new(sizing::MAX_DATAGRAM),
        }
    }
}

impl Sizing for MtuFit {
    fn configure(config: &Config) -> Result<Self, ConfigError> {
        config.parse()
    }

    fn decide(&mut self, question: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
        let ends = question.local.mtu.min(question.remote.mtu);
        let packet = question.path_mtu.map_or(ends, |path_mtu| path_mtu.min(ends));
        let datagram = packet
            .saturating_sub(question.overhead)
            .saturating_sub(self.headroom.value())
            .clamp(sizing::MIN_DATAGRAM, sizing::MAX_DATAGRAM);
        // Never below one datagram: MAX_DATAGRAM is less than MAX_BURST.
        let burst = (datagram * self.burst_datagrams.value()).min(sizing::MAX_BURST);
        Ok(sizing::Answer { datagram, coalesce: self.coalesce.value().min(datagram), burst })
    }
}

overlan_plugin_sdk::export!(sizing: MtuFit);

#[cfg(test)]
mod tests {
    use overlan_plugin_sdk::testkit::{ask_sizing, sized_path};
    use proptest::prelude::*;

    use super::*;

    fn ask(question: &sizing::Question) -> sizing::Answer {
        ask_sizing::<MtuFit>(&Config::default(), question)
    }

    #[test]
    fn fills_the_smallest_mtu() {
        assert_eq!(
            ask(&sized_path(1_500, 9_000)),
            sizing::Answer { datagram: 1_472, coalesce: 1_472, burst: 94_208 }
        );
        assert_eq!(ask(&sized_path(9_000, 9_000)).datagram, 8_972);
        let tunnelled = sizing::Question { path_mtu: Some(1_400), ..sized_path(9_000, 9_000) };
        assert_eq!(ask(&tunnelled).datagram, 1_372);
        let wide = sizing::Question { path_mtu: Some(9_000), ..sized_path(1_500, 9_000) };
        assert_eq!(ask(&wide).datagram, 1_472);
    }

    #[test]
    fn stays_in_the_contract_at_the_ends() {
        assert_eq!(ask(&sized_path(0, 0)).datagram, 1_200);
        let loopback = ask(&sized_path(65_536, 65_536));
        assert_eq!((loopback.datagram, loopback.burst), (65_507, 1 << 20));
    }

    #[test]
    fn headroom_is_left_free() {
        let config: Config = [("headroom", "80"), ("burst_datagrams", "2")].into_iter().collect();
        let answer = ask_sizing::<MtuFit>(&config, &sized_path(1_500, 1_500));
        assert_eq!((answer.datagram, answer.burst), (1_392, 2_784));
    }

    #[test]
    fn messages_may_go_by_themselves() {
        let config: Config = [("coalesce", "0")].into_iter().collect();
        assert_eq!(ask_sizing::<MtuFit>(&config, &sized_path(1_500, 1_500)).coalesce, 0);
    }

    #[test]
    fn explains_a_wrong_configuration() {
        let config: Config = [("headroom", "lots")].into_iter().collect();
        assert_eq!(
            MtuFit::configure(&config).unwrap_err().to_string(),
            "`headroom` is `lots`; it must be a whole number from 0 to 9000"
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_valid(
            local: u32, remote: u32, path_mtu: Option<u32>, overhead: u32,
            headroom in 0_u32..=9_000, burst in 1_u32..=1_000,
        ) {
            let config = [("headroom", headroom.to_string()), ("burst_datagrams", burst.to_string())];
            let question = sizing::Question { path_mtu, overhead, ..sized_path(local, remote) };
            ask_sizing::<MtuFit>(&config.into_iter().collect(), &question);
        }
    }
}
