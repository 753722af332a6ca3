//! Network prefixes: `10.9.0.0/16`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network: an address whose host bits are zero, and a prefix length in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_length: u8,
}

/// Why something is not a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not of the form `address/length`.
    #[error("`{0}` is not a network like 10.9.0.0/16")]
    Form(String),
    /// The prefix is longer than the address.
    #[error("the prefix length {0} is too long for this address family")]
    Length(u8),
    /// Bits after the prefix are set; the network that was probably meant is given.
    #[error("{0} has host bits set; did you mean {1}?")]
    HostBits(String, Network),
}

impl Network {
    /// A network; its host bits must be zero.
    ///
    /// # Errors
    /// [`InvalidNetwork`] when the length does not fit the family or host bits are set.
    pub fn new(address: IpAddr, prefix_length: u8) -> Result<Self, InvalidNetwork> {
        let network =
            Self::containing(address, prefix_length).ok_or(InvalidNetwork::Length(prefix_length))?;
        if network.address == address {
            Ok(network)
        } else {
            Err(InvalidNetwork::HostBits(format!("{address}/{prefix_length}"), network))
        }
    }

    /// The network that `address` with this prefix length lies in; `None` when the length does not fit the family.
    #[must_use]
    pub fn containing(address: IpAddr, prefix_length: u8) -> Option<Self> {
        if prefix_length > bits(address) {
            return None;
        }
        Some(Self { address: mask(address, prefix_length), prefix_length })
    }

    /// The network that holds one host alone: /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix_length: bits(address) }
    }

    /// The first address of the network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// Whether `address` lies in the network. Never true across address families.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix_length) == self.address
    }
}

/// The length of an address of this family in bits.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits after the prefix cleared.
fn mask(address: IpAddr, prefix_length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let form = || InvalidNetwork::Form(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        Self::new(address.parse().map_err(|_| form())?, length.parse().map_err(|_| form())?)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_prints_and_contains() {
        for (text, inside, outside) in [
            ("10.9.0.0/16", "10.9.255.255", "10.10.0.0"),
            ("10.9.0.1/32", "10.9.0.1", "10.9.0.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("fd00:1::/32", "fd00:1:2::3", "fd00:2::"),
            ("::/0", "fe80::1", "1.2.3.4"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), text);
            assert!(network.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn rejects_host_bits_and_bad_forms() {
        let error = "10.9.1.0/16".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "10.9.1.0/16 has host bits set; did you mean 10.9.0.0/16?");
        for text in ["10.9.0.0", "10.9.0.0/33", "fd00::/129", "x/8", "10.9.0.0/x", ""] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
