//! Reads what a netlink notification is about, from its fixed header alone.
//!
//! A [`Watch`](crate::Watch) only needs to know that something changed, and at once which links and addresses went
//! away; decoding every attribute of every driver could only fail there.

use std::net::IpAddr;

use crate::{Change, PROTOCOL};

/// `struct nlmsghdr`: length u32, type u16, flags u16, sequence u32, port u32.
const HEADER_LENGTH: usize = 16;
/// `NLMSG_ALIGNTO` and `RTA_ALIGNTO`.
const ALIGNMENT: usize = 4;
/// `struct ifaddrmsg`: family, prefix length, flags, scope (u8 each), index u32.
const ADDRESS_HEADER_LENGTH: usize = 8;

const NLMSG_OVERRUN: u16 = 4;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

const IFF_UP: u32 = 1;
/// Operational state up or unknown.
const IFF_RUNNING: u32 = 1 << 6;
/// Carrier.
const IFF_LOWER_UP: u32 = 1 << 16;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// The kernel's route cache speaking (`RTM_F_CLONED`), no change of a table.
const RTM_F_CLONED: u32 = 0x200;

/// Adds what one datagram of notifications says to `change`. Anything malformed counts as an overrun: better to look
/// at everything anew than to miss a link going down.
pub(crate) fn read(mut datagram: &[u8], change: &mut Change) {
    while !datagram.is_empty() {
        let Some(length) = u32_at(datagram, 0).map(|length| length as usize) else {
            return change.resync();
        };
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER_LENGTH) else {
            return change.resync();
        };
        let kind = u16_at(message, 4).unwrap_or(0);
        if read_message(kind, &message[HEADER_LENGTH..], change).is_none() {
            change.resync();
        }
        datagram = datagram.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    }
}

/// `None` when the body is too short.
fn read_message(kind: u16, body: &[u8], change: &mut Change) -> Option<()> {
    let family = body.first().copied();
    match kind {
        RTM_NEWLINK | RTM_DELLINK => {
            // A bridge port reports itself with its own family; "deleted" then means that it left the bridge.
            if family? == AF_BRIDGE {
                return Some(());
            }
            let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
            let wanted = IFF_UP | IFF_RUNNING | IFF_LOWER_UP;
            change.link(index, kind == RTM_NEWLINK && flags & wanted == wanted);
        }
        RTM_NEWADDR => change.address_added(u32_at(body, 4)?, address(body)?),
        RTM_DELADDR => change.address_removed(u32_at(body, 4)?, address(body)?),
        RTM_NEWROUTE | RTM_DELROUTE => {
            let (protocol, flags) = (*body.get(5)?, u32_at(body, 8)?);
            let ip = matches!(family?, AF_INET | AF_INET6);
            // What we add ourselves is no news; what of ours is deleted is.
            let own_addition = kind == RTM_NEWROUTE && protocol == PROTOCOL;
            change.routes |= ip && flags & RTM_F_CLONED == 0 && !own_addition;
        }
        RTM_NEWRULE | RTM_DELRULE => change.routes |= matches!(family?, AF_INET | AF_INET6),
        NLMSG_OVERRUN => change.resync(),
        _ => {}
    }
    Some(())
}

/// The local address in an address message.
fn address(body: &[u8]) -> Option<IpAddr> {
    let mut rest = body.get(ADDRESS_HEADER_LENGTH..)?;
    let mut found = None;
    // struct rtattr: length u16, type u16, then the value.
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        match kind {
            IFA_LOCAL => return ip(value),
            IFA_ADDRESS => found = ip(value),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    }
    found
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER_LENGTH + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn link(kind: u16, family: u8, index: u32, flags: u32) -> Vec<u8> {
        let body = [&[family, 0, 0, 0][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        message(kind, &body)
    }

    fn attribute(kind: u16, value: [u8; 4]) -> Vec<u8> {
        [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value].concat()
    }

    fn change(bytes: &[u8]) -> Change {
        let mut change = Change::default();
        read(bytes, &mut change);
        change
    }

    #[test]
    fn the_last_word_on_a_link_counts() {
        let up = IFF_UP | IFF_RUNNING | IFF_LOWER_UP;
        let down = link(RTM_NEWLINK, 0, 7, IFF_UP);
        assert_eq!(change(&down).links_down, [7]);
        assert!(change(&[down.clone(), link(RTM_NEWLINK, 0, 7, up)].concat()).links_down.is_empty());
        assert_eq!(change(&link(RTM_DELLINK, 0, 7, up)).links_down, [7]);
        assert!(change(&[down, link(RTM_NEWLINK, 0, 8, up)].concat()).adapters);
    }

    #[test]
    fn leaving_a_bridge_is_not_leaving() {
        assert_eq!(change(&link(RTM_DELLINK, AF_BRIDGE, 7, 0)), Change::default());
    }

    #[test]
    fn addresses_by_their_local_part() {
        let body = [
            &[AF_INET, 32, 0, 0][..],
            &3_u32.to_ne_bytes(),
            &attribute(IFA_ADDRESS, [10, 0, 0, 9]),
            &attribute(IFA_LOCAL, [10, 0, 0, 1]),
        ]
        .concat();
        let gone = change(&message(RTM_DELADDR, &body));
        assert_eq!(gone.addresses_removed, [(3, "10.0.0.1".parse().unwrap())]);
        let back = change(&[message(RTM_DELADDR, &body), message(RTM_NEWADDR, &body)].concat());
        assert!(back.addresses_removed.is_empty() && back.adapters);
    }

    #[test]
    fn own_additions_are_no_news() {
        let route = |kind, family, protocol, flags: u32| {
            message(kind, &[&[family, 32, 0, 0, 0, protocol, 0, 1][..], &flags.to_ne_bytes()].concat())
        };
        assert!(!change(&route(RTM_NEWROUTE, AF_INET, PROTOCOL, 0)).routes);
        assert!(change(&route(RTM_DELROUTE, AF_INET, PROTOCOL, 0)).routes);
        assert!(change(&route(RTM_NEWROUTE, AF_INET6, 3, 0)).routes);
        assert!(!change(&route(RTM_NEWROUTE, AF_INET, 3, RTM_F_CLONED)).routes);
        assert!(!change(&route(RTM_NEWROUTE, 128, 3, 0)).routes);
    }

    #[test]
    fn malformed_input_asks_for_a_resync() {
        for bytes in [&[1, 2, 3][..], &[0; 16], &[200; 16], &link(RTM_NEWLINK, 0, 1, 0)[..20]] {
            let change = change(bytes);
            assert!(change.overrun && change.adapters && change.routes, "{bytes:?}");
        }
        assert!(change(&message(RTM_NEWLINK, &[0, 0])).overrun);
    }
}
