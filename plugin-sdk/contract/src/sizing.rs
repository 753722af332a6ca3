//! How large datagrams and bursts are on a path.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Largest datagram (UDP payload) in bytes: [`MIN_DATAGRAM`]..=[`MAX_DATAGRAM`].
    pub datagram: u32,
    /// Small messages are packed into a datagram until it holds this many bytes; 0 sends each
    /// message in a datagram of its own. At most `datagram`.
    pub coalesce: u32,
    /// Most bytes handed to the kernel in one go: `datagram`..=[`MAX_BURST`].
    pub burst: u32,
}

/// Checks an answer as if it had come from the network.
///
/// # Errors
/// The fields that lie outside their ranges.
pub fn validate(_question: &Question, answer: &Answer) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    violations.check_range("datagram".into(), answer.datagram, MIN_DATAGRAM..=MAX_DATAGRAM);
    violations.check_range("coalesce".into(), answer.coalesce, 0..=answer.datagram);
    violations.check_range("burst".into(), answer.burst, answer.datagram..=MAX_BURST);
    violations.finish()
}
