//! Our routes and rules as netlink messages, and back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::adapter::{gateway, ip, output};
use crate::{Network, PROTOCOL, Route, Rule};

/// The protocol number as the codec has it.
pub(crate) fn protocol() -> RouteProtocol {
    RouteProtocol::from(PROTOCOL)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The message that adds this route. It names every attribute, protocol and metric included, so that the same message
/// deletes this route and no other.
pub(crate) fn emit_route(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination;
    message.header.address_family = family(destination.address());
    message.header.destination_prefix_length = destination.prefix_length();
    message.header.protocol = protocol();
    message.header.kind = RouteType::Unicast;
    // IPv4 wants to be told what is on the link; IPv6 does not know scopes.
    let direct = route.via.is_none() && destination.address().is_ipv4();
    message.header.scope = if direct { RouteScope::Link } else { RouteScope::Universe };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    message.attributes.extend([
        RouteAttribute::Destination(destination.address().into()),
        RouteAttribute::Table(route.table),
        RouteAttribute::Oif(route.index),
        RouteAttribute::Priority(route.metric),
    ]);
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// The unicast routes in a message, one per next hop; `names` maps interface indices to names.
pub(crate) fn parse_routes(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Vec<Route> {
    let Some(destination) = destination(message) else { return Vec::new() };
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    let route = |index: u32, via: Option<IpAddr>, onlink: bool| Route {
        table: table(message),
        destination,
        via,
        adapter: names.get(&index).cloned().unwrap_or_default(),
        index,
        source,
        metric: metric(message),
        onlink,
    };
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    let single = output(&message.attributes).map(|index| route(index, gateway(&message.attributes), onlink));
    let several = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let hops = several.flatten().map(|hop| {
        route(hop.interface_index, gateway(&hop.attributes), hop.flags.contains(RouteNextHopFlags::Onlink))
    });
    single.into_iter().chain(hops).collect()
}

/// Where a route leads; a default route has no attribute for it.
pub(crate) fn destination(message: &RouteMessage) -> Option<Network> {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    Network::containing(attribute.unwrap_or(any), message.header.destination_prefix_length)
}

/// The table: an attribute, since the header holds only eight bits of it.
fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}

/// The metric; 0 where none is given.
pub(crate) fn metric(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    attribute.unwrap_or(0)
}

/// The message that adds this rule, and deletes it and no other.
pub(crate) fn emit_rule(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.from);
    message.header.src_len = Network::host(rule.from).prefix_length();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.from),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(protocol()),
    ];
    message
}

/// The rule in a message, if it carries our protocol number and has the form we install.
pub(crate) fn parse_rule(message: &RuleMessage) -> Option<Rule> {
    let mut from = None;
    let mut table = u32::from(message.header.table);
    let mut priority = 0;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => from = Some(*address),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Protocol(number) => ours = *number == protocol(),
            _ => {}
        }
    }
    let from = from.filter(|_| ours && message.header.action == RuleAction::ToTable)?;
    (message.header.src_len == Network::host(from).prefix_length()).then_some(Rule { from, table, priority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_come_back_as_they_went() {
        let names = BTreeMap::from([(3, "eth0".to_owned())]);
        let direct = Route {
            table: 1_007_400_001,
            destination: "10.1.0.9/32".parse().unwrap(),
            via: None,
            adapter: "eth0".into(),
            index: 3,
            source: Some("10.1.0.2".parse().unwrap()),
            metric: 7400,
            onlink: false,
        };
        let routed = Route {
            table: crate::TABLE_MAIN,
            destination: "fd09::/48".parse().unwrap(),
            via: Some("fe80::1".parse().unwrap()),
            source: None,
            onlink: true,
            ..direct.clone()
        };
        for route in [direct, routed] {
            assert_eq!(parse_routes(&emit_route(&route), &names), [route]);
        }
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        for from in ["10.1.0.2", "fd00::2"] {
            let rule = Rule { from: from.parse().unwrap(), table: 1_007_400_001, priority: 7401 };
            let mut message = emit_rule(&rule);
            assert_eq!(parse_rule(&message), Some(rule));
            message.header.src_len -= 8;
            assert_eq!(parse_rule(&message), None);
            message.header.src_len += 8;
            message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
            assert_eq!(parse_rule(&message), None);
        }
    }
}
