//! Single values: text to a type that can't be invalid. Each error says what is allowed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use overlan_core::config::{Congestion, Quorum};
use overlan_wire::codec::is_printable;
use overlan_wire::entry::is_one_host;
use overlan_wire::limits::{MAX_NODE_NAME, MAX_TEXT};
use overlan_wire::{Digest, NodeId};

use super::BusyPoll;
use super::file::Switch;

/// A node's name: 1 to 63 bytes of letters, digits, `-`, `_` and `.`, beginning with a letter or digit.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fine = !text.is_empty()
        && text.len() <= MAX_NODE_NAME
        && text.chars().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fine && text != "all" && text.parse::<NodeId>().is_err() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no name: 1 to {MAX_NODE_NAME} letters, digits, `-`, `_` or `.`, the first a letter or digit, not `all`, \
         and not 32 hexadecimal digits, as node ids have"
    ))
}

/// An Ed25519 public key.
pub(super) fn public_key(text: &str) -> Result<[u8; 32], String> {
    let Digest(key) = text.parse().map_err(|_| {
        format!(
            "operator_key `{text}` must have 64 hexadecimal digits; `overlan keygen --operator` tells them"
        )
    })?;
    Ok(key)
}

/// Short text that the table carries.
pub(super) fn short_text(what: &str, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("{what} must be 1 to {MAX_TEXT} bytes of printable text"));
    }
    printable(what, text)
}

/// Short text that may be empty.
pub(super) fn printable(what: &str, text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT || !text.chars().all(is_printable) {
        return Err(format!("{what} must be at most {MAX_TEXT} bytes of printable text"));
    }
    Ok(text.to_owned())
}

/// An integer in a range.
pub(super) fn integer<T: TryFrom<i64>>(
    what: &str,
    value: i64,
    range: RangeInclusive<i64>,
) -> Result<T, String> {
    let allowed = format!("{what} is {value}; it must be from {} to {}", range.start(), range.end());
    if !range.contains(&value) {
        return Err(allowed);
    }
    T::try_from(value).map_err(|_| allowed)
}

/// An address that a packet can be sent to or from.
pub(super) fn address(what: &str, text: &str) -> Result<IpAddr, String> {
    let address: IpAddr =
        text.parse().map_err(|_| format!("{what} `{text}` is no IP address, such as 10.1.0.2 or fd00::2"))?;
    if !is_one_host(address) {
        return Err(format!("{what} {address} names no single host; give the address of one adapter"));
    }
    Ok(address)
}

/// A seed: `ADDRESS:PORT`, or an address alone for the node's own port.
pub(super) fn seed(text: &str, port: u16) -> Result<SocketAddr, String> {
    let wrong = || format!("seed `{text}` is no ADDRESS:PORT, such as 10.2.0.2:7400 or [fd00::2]:7400");
    let seed = match text.parse::<SocketAddr>() {
        Ok(seed) => seed,
        Err(_) => SocketAddr::new(text.parse::<IpAddr>().map_err(|_| wrong())?, port),
    };
    if seed.port() == 0 || !is_one_host(seed.ip()) {
        return Err(wrong());
    }
    Ok(seed)
}

/// `[cluster] quorum`.
pub(super) fn quorum(text: &str) -> Result<Quorum, String> {
    match text {
        "none" => Ok(Quorum::None),
        "majority" => Ok(Quorum::Majority),
        _ => Err(format!("quorum `{text}` is unknown; it must be \"none\" or \"majority\"")),
    }
}

/// `[node] busy_poll`.
pub(super) fn busy_poll(switch: &Switch) -> Result<BusyPoll, String> {
    match switch {
        Switch::Boolean(true) => Ok(BusyPoll::Always),
        Switch::Boolean(false) => Ok(BusyPoll::Never),
        Switch::Text(text) if text == "adaptive" => Ok(BusyPoll::Adaptive),
        Switch::Text(text) => {
            Err(format!("busy_poll \"{text}\" is unknown; it must be true, false or \"adaptive\""))
        }
    }
}

/// `[node] congestion`.
pub(super) fn congestion(text: &str) -> Result<Congestion, String> {
    match text {
        "cubic" => Ok(Congestion::Cubic),
        "bbr" => Ok(Congestion::Bbr),
        _ => Err(format!("congestion `{text}` is unknown; it must be \"cubic\" or \"bbr\"")),
    }
}

/// A node id of the allow-list.
pub(super) fn node_id(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no node id: 32 hexadecimal digits, as `overlan members --json` shows them")
    })
}

/// The code point that a class-of-service name stands for (RFC 2474, 2597, 3246, 5865); `None` for a name of the
/// cluster's own.
pub(super) fn dscp_of(class: &str) -> Option<u8> {
    let name = class.to_ascii_lowercase();
    let digit = |index: usize| name.as_bytes().get(index).map(|byte| byte.wrapping_sub(b'0'));
    Some(match name.as_str() {
        "best-effort" | "default" => 0,
        "bulk" | "background" => 8,
        "control" => 48,
        "expedited" | "ef" => 46,
        "voice-admit" => 44,
        _ if name.len() == 3 && name.starts_with("cs") => digit(2).filter(|class| *class < 8)? * 8,
        _ if name.len() == 4 && name.starts_with("af") => {
            let class = digit(2).filter(|class| (1..=4).contains(class))?;
            class * 8 + digit(3).filter(|drop| (1..=3).contains(drop))? * 2
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_code_points_of_the_rfcs() {
        let known = [("cs6", 48), ("af11", 10), ("AF43", 38), ("ef", 46), ("control", 48), ("cs0", 0)];
        for (class, dscp) in known {
            assert_eq!(dscp_of(class), Some(dscp), "{class}");
        }
        for class in ["cs8", "af50", "af14", "gold", "cs", "af1"] {
            assert_eq!(dscp_of(class), None, "{class}");
        }
    }

    #[test]
    fn seeds_have_an_address() {
        assert_eq!(seed("10.0.0.1", 7401).unwrap().to_string(), "10.0.0.1:7401");
        assert_eq!(seed("[fd00::2]:7", 1).unwrap().to_string(), "[fd00::2]:7");
        for bad in ["", "host", "10.0.0.1:0", "0.0.0.0:7400", "10.0.0.1:99999", "255.255.255.255"] {
            assert!(seed(bad, 7400).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "node-1.site_x", "7"] {
            assert!(node_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "all", "a/b", "é", &"x".repeat(64), &"0f".repeat(16)] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }
}
