//! The adapters of this host, as the kernel has them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use serde::Serialize;

use crate::kernel::Kernel;
use crate::kind::kind;
use crate::{Error, Network, PROTOCOL};

/// One address of one network interface; an interface with two addresses is two adapters, one without is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// Interface name (`IFLA_IFNAME`).
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Adapter type in the words of `ip -d link`: `info_kind` where there is one (bridge, veth, vlan, tun, wireguard),
    /// else `link_type` (ether, loopback, infiniband).
    pub kind: String,
    /// The address (`IFA_LOCAL`, else `IFA_ADDRESS`).
    pub address: IpAddr,
    /// The other end's address on a point-to-point link; the prefix is then the other end's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// The subnet mask as a prefix length in bits.
    pub prefix_length: u8,
    /// Maximum transmission unit in bytes (`IFLA_MTU`).
    pub mtu: u32,
    /// Speed in Mbit/s from `/sys/class/net/NAME/speed`; 0 when unknown, as for most virtual adapters.
    pub speed: u32,
    /// Administratively up (`IFF_UP`): only then does the kernel take routes over it.
    pub enabled: bool,
    /// Able to carry datagrams: enabled, operational state up or unknown, carrier present.
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Routers that the kernel's routes name for this interface and address, default routes first, then by metric.
    /// Routes of ours are not asked.
    pub gateways: Vec<IpAddr>,
    /// May carry cluster traffic: not loopback, not IPv6 link-local, and the address not tentative, failed in duplicate
    /// detection or deprecated.
    pub usable: bool,
}

impl Adapter {
    /// Whether the kernel reaches `address` on this adapter without a router: same family, same subnet.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.network().is_some_and(|network| network.contains(address))
    }

    /// The network on the link; `None` only for a prefix length that the kernel cannot give.
    #[must_use]
    pub fn network(&self) -> Option<Network> {
        Network::containing(self.peer.unwrap_or(self.address), self.prefix_length)
    }
}

/// Lists the adapters: by interface index, then as the kernel lists the addresses (IPv4 before IPv6).
///
/// # Errors
/// [`Error`] when the kernel could not be asked. Never changes anything.
pub async fn snapshot() -> Result<Vec<Adapter>, Error> {
    let kernel = Kernel::open()?;
    let links = kernel.links().await?;
    let addresses = kernel.addresses().await?;
    let routes = kernel.routes(None, None).await?;
    let mut adapters = assemble(&links, &addresses, &routes);
    let unknown = adapters.clone();
    // Drivers may take milliseconds to answer for their speed.
    adapters = tokio::task::spawn_blocking(move || with_speeds(adapters)).await.unwrap_or(unknown);
    Ok(adapters)
}

/// Joins links, addresses and routers.
fn assemble(links: &[LinkMessage], addresses: &[AddressMessage], routes: &[RouteMessage]) -> Vec<Adapter> {
    let mut adapters = Vec::new();
    for link in links {
        let of_link = addresses.iter().filter(|address| address.header.index == link.header.index);
        adapters.extend(of_link.filter_map(|address| adapter(link, address)));
    }
    let hops = hops(routes);
    for position in 0..adapters.len() {
        adapters[position].gateways = gateways(&adapters, position, &hops);
    }
    adapters
}

fn adapter(link: &LinkMessage, message: &AddressMessage) -> Option<Adapter> {
    let (address, peer) = addresses_of(message)?;
    let flags = flags_of(message);
    let loopback = link.header.flags.contains(LinkFlags::Loopback);
    let unfit = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    // An optimistic address (RFC 4429) is tentative too, but may be used.
    let fit = !flags.intersects(unfit)
        || flags.contains(AddressFlags::Optimistic)
            && !flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated);
    Some(Adapter {
        name: name(link)?.to_owned(),
        index: link.header.index,
        kind: kind(link),
        address,
        peer,
        prefix_length: message.header.prefix_len,
        mtu: mtu(link),
        speed: 0,
        enabled: link.header.flags.contains(LinkFlags::Up),
        up: is_up(link),
        loopback,
        gateways: Vec::new(),
        usable: fit && !loopback && !is_link_local(address),
    })
}

/// The local address, and the peer's where there is one.
fn addresses_of(message: &AddressMessage) -> Option<(IpAddr, Option<IpAddr>)> {
    let mut local = None;
    let mut remote = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    let address = local.or(remote)?;
    Some((address, remote.filter(|remote| *remote != address)))
}

/// The full flags where the kernel gives them, else the eight bits of the header.
fn flags_of(message: &AddressMessage) -> AddressFlags {
    let full = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    full.unwrap_or_else(|| AddressFlags::from_bits_retain(u32::from(message.header.flags.bits())))
}

/// The interface's name.
pub(crate) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn mtu(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(0)
}

fn is_up(link: &LinkMessage) -> bool {
    let mut operational = true;
    let mut carrier = link.header.flags.contains(LinkFlags::LowerUp);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::OperState(state) => operational = matches!(state, State::Up | State::Unknown),
            LinkAttribute::Carrier(present) => carrier = *present != 0,
            _ => {}
        }
    }
    link.header.flags.contains(LinkFlags::Up) && operational && carrier
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A next hop of some route: what orders it, then where it leads.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hop {
    prefix_length: u8,
    metric: u32,
    index: u32,
    gateway: IpAddr,
}

/// All next hops with a router, default routes first (the shortest prefix), then by metric.
fn hops(routes: &[RouteMessage]) -> Vec<Hop> {
    let mut hops = Vec::new();
    for route in routes.iter().filter(|route| route.header.protocol != RouteProtocol::from(PROTOCOL)) {
        let metric = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        let mut push = |index: Option<u32>, gateway: Option<IpAddr>| {
            if let (Some(index), Some(gateway)) = (index, gateway) {
                let prefix_length = route.header.destination_prefix_length;
                hops.push(Hop { prefix_length, metric: metric.unwrap_or(0), index, gateway });
            }
        };
        push(output(&route.attributes), gateway(&route.attributes));
        for attribute in &route.attributes {
            if let RouteAttribute::MultiPath(next_hops) = attribute {
                for hop in next_hops {
                    push(Some(hop.interface_index), gateway(&hop.attributes));
                }
            }
        }
    }
    hops.sort();
    hops
}

/// The output interface of a route.
pub(crate) fn output(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The router of a route or next hop. A router of the other family (`RTA_VIA`) is left out: families never pair.
pub(crate) fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

/// The IP address in a route attribute.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// The routers for one adapter: of its interface and family, and in its own subnet if they lie in that of any address
/// of the interface (two addresses of one interface may have two routers).
fn gateways(adapters: &[Adapter], position: usize, hops: &[Hop]) -> Vec<IpAddr> {
    let this = &adapters[position];
    let mut gateways = Vec::new();
    for hop in
        hops.iter().filter(|hop| hop.index == this.index && hop.gateway.is_ipv4() == this.address.is_ipv4())
    {
        let elsewhere = !is_link_local(hop.gateway)
            && !this.is_on_link(hop.gateway)
            && adapters.iter().any(|other| other.index == this.index && other.is_on_link(hop.gateway));
        if !elsewhere && !gateways.contains(&hop.gateway) {
            gateways.push(hop.gateway);
        }
    }
    gateways
}

/// Fills in the speeds. `/sys` may show another network namespace than the thread is in (it shows the one it was
/// mounted from), so the interface index there must agree.
fn with_speeds(mut adapters: Vec<Adapter>) -> Vec<Adapter> {
    let mut known: BTreeMap<u32, u32> = BTreeMap::new();
    for adapter in &mut adapters {
        adapter.speed = *known.entry(adapter.index).or_insert_with(|| speed(&adapter.name, adapter.index));
    }
    adapters
}

fn speed(name: &str, index: u32) -> u32 {
    let folder = Path::new("/sys/class/net").join(name);
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<i64>().ok();
    if number("ifindex") != Some(i64::from(index)) {
        return 0;
    }
    // -1 means unknown; a link that is down answers EINVAL.
    number("speed").and_then(|speed| u32::try_from(speed).ok()).unwrap_or(0)
}
