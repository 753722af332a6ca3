//! Facts shared by all questions.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Open key/value pairs: room for facts that a later host adds without changing any type.
///
/// ```
/// use overlan_contract::Attributes;
///
/// let attributes: Attributes = vec![("rack".into(), "7".into()), ("site".into(), "x".into())];
/// let site = attributes.iter().find(|(key, _)| key == "site");
/// assert_eq!(site.map(|(_, value)| value.as_str()), Some("x"));
/// ```
pub type Attributes = Vec<(String, String)>;

/// The three kinds of decision a policy can take. One plugin answers exactly one kind.
///
/// ```
/// use overlan_contract::Kind;
///
/// assert_eq!("sizing".parse(), Ok(Kind::Sizing));
/// assert_eq!(format!("{} policy", Kind::Failover), "failover policy");
/// ```
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
    ///
    /// ```
    /// # use overlan_contract::Kind;
    /// assert_eq!(Kind::ALL.map(Kind::name), ["assignment", "sizing", "failover"]);
    /// ```
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
///
/// ```
/// use overlan_contract::{Kind, UnknownKind};
///
/// assert_eq!("routing".parse::<Kind>(), Err(UnknownKind));
/// assert_eq!(UnknownKind.to_string(), "not a policy kind; use assignment, sizing or failover");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a policy kind; use assignment, sizing or failover")]
pub struct UnknownKind;

/// Whether the owner of an adapter says that it can carry traffic.
///
/// ```
/// use overlan_contract::AdapterStatus::{Down, Up};
///
/// let mut adapters = [("eth0", Down), ("eth1", Up), ("eth2", Up)];
/// // Those that are up first, else as their owner prefers them: the sort is stable.
/// adapters.sort_by_key(|&(_, status)| status);
/// assert_eq!(adapters.map(|(name, _)| name), ["eth1", "eth2", "eth0"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterStatus {
    /// Administratively up and with carrier.
    Up,
    /// Administratively down, without carrier, or gone.
    Down,
}

/// One adapter address of a node, as the address table carries it.
///
/// ```
/// use overlan_contract::{Adapter, AdapterStatus};
///
/// let eth0 = Adapter {
///     name: "eth0".into(),
///     kind: "ether".into(),
///     address: "10.1.0.2".parse().unwrap(),
///     prefix_length: 24,
///     mtu: 1_500,
///     speed: 1_000,
///     class_of_service: "".into(),
///     dscp: 0,
///     status: AdapterStatus::Up,
///     attributes: vec![],
/// };
/// let eth1 = Adapter { name: "eth1".into(), speed: 0, ..eth0.clone() };
/// // An unknown speed counts as the least.
/// assert_eq!([&eth0, &eth1].into_iter().max_by_key(|adapter| adapter.speed).unwrap().name, "eth0");
/// ```
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
    ///
    /// ```
    /// # use overlan_contract::Adapter;
    #[doc = eth0!()]
    /// let neighbour = Adapter { address: "10.1.0.9".parse().unwrap(), ..eth0.clone() };
    /// assert_eq!(eth0.subnet(), neighbour.subnet());
    /// assert_eq!(eth0.subnet().to_string(), "10.1.0.0");
    /// ```
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
