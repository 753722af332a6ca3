//! Facts shared by all questions.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Open key/value pairs: room for facts that a later host adds without changing any type.
pub type Attributes = Vec<(String, String)>;

/// The three kinds of decision a policy can take. One plugin answers exactly one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who owns, and who stands by for, each responsibility.
    Assignment,
    /// How large datagrams, coalesced datagrams and bursts are on a path.
    Sizing,
    /// The order of the paths to a peer, and when a path counts as late or dead.
    Failover,
}

impl Kind {
    /// Every kind, in the order listings show them.
    pub const ALL: [Kind; 3] = [Kind::Assignment, Kind::Sizing, Kind::Failover];

    /// The kind's name on the command line, in configuration files and in the WIT world.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Assignment => "assignment",
            Kind::Sizing => "sizing",
            Kind::Failover => "failover",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or(UnknownKind)
    }
}

/// The text names no policy kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a policy kind; use assignment, sizing or failover")]
pub struct UnknownKind;

/// Whether the owner of an adapter says that it can carry traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterStatus {
    /// Administratively up and with carrier.
    Up,
    /// Administratively down, without carrier, or gone.
    Down,
}

/// One adapter address of a node, as the address table carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Interface name on its owner, for example `eth0`.
    pub name: String,
    /// Adapter type as the owner's kernel names it, for example `ether`, `loopback`, `bridge`.
    pub kind: String,
    /// The address messages are sent to.
    pub address: IpAddr,
    /// Subnet mask as a prefix length: 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix_length: u8,
    /// Maximum transmission unit of the link, in bytes, IP header included.
    pub mtu: u32,
    /// Link speed in Mbit/s; 0 where the kernel does not know it.
    pub speed: u32,
    /// Class of service by name; empty where none is configured.
    #[serde(default)]
    pub class_of_service: String,
    /// Differentiated services code point of datagrams sent from this adapter, 0..=63 (RFC 2474).
    #[serde(default)]
    pub dscp: u8,
    /// The owner's word on the adapter.
    pub status: AdapterStatus,
    /// Facts without a field of their own.
    #[serde(default)]
    pub attributes: Attributes,
}

impl Adapter {
    /// The subnet of the adapter: its address with the host bits cleared.
    pub fn subnet(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_length.min(32))).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_length.min(128))).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        }
    }
}
