//! How large datagrams and bursts are on a path.
//!
//! ```
//! use overlan_contract::sizing::{Answer, MAX_BURST, MAX_DATAGRAM, MIN_DATAGRAM};
//!
//! /// Full packets of an MTU, 64 in one go.
//! fn full(mtu: u32, overhead: u32) -> Answer {
//!     let datagram = mtu.saturating_sub(overhead).clamp(MIN_DATAGRAM, MAX_DATAGRAM);
//!     Answer { datagram, coalesce: datagram, burst: (64 * datagram).min(MAX_BURST) }
//! }
//!
//! assert_eq!([576, 1_500, 65_536].map(|mtu| full(mtu, 28).datagram), [1_200, 1_472, 65_507]);
//! assert_eq!(full(65_536, 28).burst, MAX_BURST);
//! ```

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::violation::Violations;
use crate::{Adapter, Attributes, Violation};

/// Smallest datagram (UDP payload, bytes) a policy may choose: RFC 8899 BASE_PLPMTU, and what every
/// IPv6 path carries.
pub const MIN_DATAGRAM: u32 = 1_200;
/// Largest datagram (UDP payload, bytes) there is: 65,535 less the IPv4 and UDP headers.
pub const MAX_DATAGRAM: u32 = 65_507;
/// Largest burst a policy may allow, in bytes.
pub const MAX_BURST: u32 = 1 << 20;

/// The question, for one path.
///
/// ```
/// use overlan_contract::sizing::Question;
///
#[doc = eth0!()]
/// let question = Question {
///     local: eth0.clone(),
///     remote: eth0,
///     path_mtu: Some(1_400),
///     rtt_us: Some(200),
///     loss_ppm: 0,
///     overhead: 28,
///     attributes: vec![],
/// };
/// // What is on its way at full speed, in bytes: Mbit/s times microseconds are bits.
/// let product = u64::from(question.local.speed) * u64::from(question.rtt_us.unwrap_or(0)) / 8;
/// assert_eq!(product, 25_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The adapter the path leaves by.
    pub local: Adapter,
    /// The peer's adapter it arrives at.
    pub remote: Adapter,
    /// Largest IP packet (bytes) that path MTU discovery has seen pass, if it has.
    pub path_mtu: Option<u32>,
    /// Smoothed round-trip time in microseconds, if measured.
    pub rtt_us: Option<u32>,
    /// Loss over the recent past in packets per million, 0..=1_000_000.
    #[serde(default)]
    pub loss_ppm: u32,
    /// Bytes of IP and UDP header in every packet on this path: 28 for IPv4, 48 for IPv6. The
    /// largest datagram that fits is the MTU less this.
    pub overhead: u32,
    /// Facts without a field of their own.
    #[serde(default)]
    pub attributes: Attributes,
}

/// The answer. The transport never exceeds it, and stays below where path MTU discovery says so.
///
/// ```
/// use overlan_contract::sizing::Answer;
///
/// let packed = Answer { datagram: 1_472, coalesce: 1_472, burst: 14_720 };
/// let prompt = Answer { coalesce: 0, ..packed };
/// assert_eq!(prompt.burst / prompt.datagram, 10, "ten datagrams in one go, with a message in each");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Largest datagram (UDP payload) in bytes: [`MIN_DATAGRAM`]..=[`MAX_DATAGRAM`], and no more than the adapter it
    /// leaves by carries ([`Question::largest_datagram`]).
    pub datagram: u32,
    /// Small messages are packed into a datagram until it holds this many bytes; 0 sends each
    /// message in a datagram of its own. At most `datagram`.
    pub coalesce: u32,
    /// Most bytes handed to the kernel in one go: `datagram`..=[`MAX_BURST`].
    pub burst: u32,
}

impl Question {
    /// The largest datagram that the local adapter carries in one packet, never below [`MIN_DATAGRAM`].
    ///
    /// ```
    /// # use overlan_contract::sizing::MIN_DATAGRAM;
    #[doc = sized_path!()]
    /// assert_eq!((question.local.mtu, question.largest_datagram()), (1_500, 1_472));
    /// // Path MTU discovery may have seen less pass.
    /// let path = question.path_mtu.map_or(u32::MAX, |mtu| mtu.saturating_sub(question.overhead));
    /// assert_eq!(question.largest_datagram().min(path).max(MIN_DATAGRAM), 1_372);
    /// ```
    pub fn largest_datagram(&self) -> u32 {
        self.local.mtu.saturating_sub(self.overhead).clamp(MIN_DATAGRAM, MAX_DATAGRAM)
    }
}

/// Checks an answer as if it had come from the network.
///
/// ```
/// # use overlan_contract::sizing::{Answer, validate};
#[doc = sized_path!()]
/// let answer = Answer { datagram: 1_472, coalesce: 1_472, burst: 14_720 };
/// assert_eq!(validate(&question, &answer), Ok(()));
/// let violations = validate(&question, &Answer { burst: 1_000, ..answer }).unwrap_err();
/// assert_eq!(violations[0].to_string(), "burst is 1000; it must be from 1472 to 1048576");
/// ```
///
/// # Errors
/// The fields that lie outside their ranges.
pub fn validate(question: &Question, answer: &Answer) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    violations.check_range("datagram", answer.datagram, MIN_DATAGRAM..=question.largest_datagram());
    violations.check_range("coalesce", answer.coalesce, 0..=answer.datagram);
    violations.check_range("burst", answer.burst, answer.datagram..=MAX_BURST);
    violations.finish()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;
    use crate::AdapterStatus;

    fn question(mtu: u32) -> Question {
        let adapter = Adapter {
            name: "eth0".into(),
            kind: "ether".into(),
            address: core::net::Ipv4Addr::LOCALHOST.into(),
            prefix_length: 8,
            mtu,
            speed: 0,
            class_of_service: "".into(),
            dscp: 0,
            status: AdapterStatus::Up,
            attributes: Vec::new(),
        };
        Question {
            local: adapter.clone(),
            remote: adapter,
            path_mtu: None,
            rtt_us: None,
            loss_ppm: 0,
            overhead: 28,
            attributes: Vec::new(),
        }
    }

    #[test]
    fn a_datagram_fits_the_adapter() {
        for (mtu, largest) in [(1_500, 1_472), (65_536, MAX_DATAGRAM), (576, MIN_DATAGRAM), (0, MIN_DATAGRAM)]
        {
            let answer = |datagram| Answer { datagram, coalesce: 0, burst: MAX_BURST };
            assert_eq!(validate(&question(mtu), &answer(largest)), Ok(()));
            let violations = validate(&question(mtu), &answer(largest + 1)).unwrap_err();
            assert_eq!(violations.len(), 1);
            let said = violations[0].to_string();
            assert!(said.starts_with(&alloc::format!("datagram is {}", largest + 1)), "{said}");
        }
    }
}
