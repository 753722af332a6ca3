//! The type of an adapter, in the words of `ip -d link`.

use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

/// `info_kind` where the link has one (bridge, veth, vlan, tun, wireguard...), else `link_type` (ether, loopback...).
pub(crate) fn kind(link: &LinkMessage) -> String {
    info_kind(link).unwrap_or_else(|| link_type(link.header.link_layer_type))
}

fn info_kind(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    })
}

/// iproute2's name of the hardware type (its `lib/ll_types.c`), for those that carry IP.
fn link_type(hardware: LinkLayerType) -> String {
    match hardware {
        LinkLayerType::Ether => "ether",
        LinkLayerType::Loopback => "loopback",
        LinkLayerType::None => "none",
        LinkLayerType::Void => "void",
        LinkLayerType::Ppp => "ppp",
        LinkLayerType::Infiniband => "infiniband",
        LinkLayerType::Tunnel => "ipip",
        LinkLayerType::Tunnel6 => "tunnel6",
        LinkLayerType::Sit => "sit",
        LinkLayerType::Ipgre => "gre",
        LinkLayerType::Ip6gre => "gre6",
        LinkLayerType::Rawip => "rawip",
        LinkLayerType::Slip => "slip",
        LinkLayerType::Hdlc => "cisco/hdlc",
        LinkLayerType::Ieee1394 => "ieee1394",
        LinkLayerType::Ieee80211 => "ieee802.11",
        LinkLayerType::Can => "can",
        other => return format!("{other:?}").to_lowercase(),
    }
    .to_owned()
}
