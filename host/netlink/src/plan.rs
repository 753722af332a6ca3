//! From what the node wants and what the host has to the routes to install. Pure; nothing is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Adapter, Network, Owner, PRIORITY_BASE, Refusal, Route, Rule, SLOTS, TABLE_MAIN};

/// How many adapter addresses a plan serves; the rest are refused.
pub const MAX_ADDRESSES: usize = 64;

/// How many host routes a plan holds, shared evenly among the adapter addresses so that none starves another; the rest
/// are refused. What other members publish must not fill the kernel.
pub const MAX_HOST_ROUTES: usize = 16_384;

/// What the node wants of the host's routing, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Whose routes these are: the node's UDP port unless configured otherwise.
    pub owner: Owner,
    /// From the local configuration alone, never from the table: whole subnets behind a router.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// The adapter addresses this node uses.
    #[serde(default)]
    pub local: Vec<LocalAddress>,
    /// The adapter addresses of all other members, from the address table. Only ever host routes.
    #[serde(default)]
    pub remote: Vec<IpAddr>,
}

/// A configured subnet: `subnet via router on adapter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Where to.
    pub subnet: Network,
    /// The router, which must be on the adapter's link.
    pub via: IpAddr,
    /// The adapter: its interface name, or one of its addresses.
    pub adapter: String,
}

/// An adapter address that this node uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The configured router; `None` takes the first that the kernel's routes name ([`Adapter::gateways`]).
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// The routes and rules to install.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Configured subnets in the main table, host routes in tables of our own.
    pub routes: Vec<Route>,
    /// One per adapter address that has host routes.
    pub rules: Vec<Rule>,
    /// What was wanted and cannot be planned now. An adapter that is missing or down may come back; plan again.
    pub refused: Vec<Refusal>,
}

/// Works out the plan.
///
/// For each local address and each remote address of the same family: on the same subnet, a host route over the link;
/// elsewhere, a host route through the adapter's router if it has one. They go into a table of the local address's own,
/// which a rule `from` that address selects, so that path i leaves by adapter i whatever the main table says. Remote
/// addresses without such a route fall through to the main table. Configured subnets go into the main table.
///
/// Routes stay planned when an adapter loses its carrier: without them its packets would leave by another adapter, and
/// a dead path would look alive.
#[must_use]
pub fn plan(desired: &Desired, adapters: &[Adapter]) -> Plan {
    let mut plan = Plan::default();
    for subnet in &desired.subnets {
        match subnet_route(desired.owner, subnet, adapters) {
            Ok(route) if plan.routes.iter().any(|other| other.key() == route.key()) => {
                plan.refused.push(Refusal::new(route, "the same subnet is configured twice; keep one"));
            }
            Ok(route) => plan.routes.push(route),
            Err(refusal) => plan.refused.push(refusal),
        }
    }
    let remote = routable(desired, adapters, &mut plan.refused);
    let slots = slots(&desired.local, &mut plan.refused);
    let room = MAX_HOST_ROUTES / slots.len().max(1);
    let mut dropped = 0;
    for local in &desired.local {
        let Some(slot) = slots.get(&local.address) else { continue };
        let table = desired.owner.table(*slot);
        let rule = Rule { from: local.address, table, priority: PRIORITY_BASE + slot };
        if plan.rules.contains(&rule) {
            continue;
        }
        let mut routes = match host_routes(desired.owner, table, local, &remote, adapters, &mut plan.refused)
        {
            Ok(routes) => routes,
            Err(refusal) => {
                plan.refused.push(refusal);
                continue;
            }
        };
        dropped += routes.len().saturating_sub(room);
        routes.truncate(room);
        if !routes.is_empty() {
            plan.rules.push(rule);
            plan.routes.extend(routes);
        }
    }
    if dropped > 0 {
        let why = format!(
            "a plan holds at most {MAX_HOST_ROUTES} host routes, here {room} for each adapter address"
        );
        plan.refused.push(Refusal::new(format!("{dropped} host routes"), why));
    }
    plan
}

/// The table slot of each local address: a hash of the address, so that it stays the same when other adapters come and
/// go, and the next free one where two meet.
fn slots(local: &[LocalAddress], refused: &mut Vec<Refusal>) -> BTreeMap<IpAddr, u32> {
    let addresses: BTreeSet<IpAddr> = local.iter().map(|local| local.address).collect();
    let mut taken = BTreeSet::new();
    let mut slots = BTreeMap::new();
    for address in addresses {
        if slots.len() == MAX_ADDRESSES {
            refused
                .push(Refusal::new(address, format!("a node has at most {MAX_ADDRESSES} adapter addresses")));
            continue;
        }
        let mut slot = hash(address) % SLOTS;
        while !taken.insert(slot) {
            slot = (slot + 1) % SLOTS;
        }
        slots.insert(address, slot);
    }
    slots
}

/// FNV-1a: fixed for all times, as the kernel remembers its result.
fn hash(address: IpAddr) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    match address {
        IpAddr::V4(v4) => v4.octets().iter().fold(0x811c_9dc5, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(0x811c_9dc5, step),
    }
}

/// The remote addresses that may have a host route: each once, none of our own, none that is no host's.
fn routable(desired: &Desired, adapters: &[Adapter], refused: &mut Vec<Refusal>) -> BTreeSet<IpAddr> {
    let mut remote: BTreeSet<IpAddr> = desired.remote.iter().copied().collect();
    remote.retain(|address| {
        if adapters.iter().any(|adapter| adapter.address == *address) {
            return false;
        }
        let fault = fault(*address);
        refused
            .extend(fault.map(|fault| Refusal::new(address, format!("{fault}; no member is reached there"))));
        fault.is_none()
    });
    remote
}

/// Why an address cannot be that of another host.
fn fault(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if link_local => Some("a broadcast, link-local or IPv4-mapped address"),
        _ => None,
    }
}

/// The host routes of one local address.
fn host_routes(
    owner: Owner,
    table: u32,
    local: &LocalAddress,
    remote: &BTreeSet<IpAddr>,
    adapters: &[Adapter],
    refused: &mut Vec<Refusal>,
) -> Result<Vec<Route>, Refusal> {
    let adapter = adapters
        .iter()
        .find(|adapter| adapter.address == local.address)
        .ok_or_else(|| Refusal::new(local.address, "no adapter of this host has this address"))?;
    ready(adapter)?;
    if !adapter.usable {
        return Err(Refusal::new(
            local.address,
            "the address is tentative, deprecated, link-local or loopback",
        ));
    }
    let gateway = local.gateway.or_else(|| adapter.gateways.first().copied());
    let router = gateway.and_then(|via| match reach(adapter, via) {
        Ok(onlink) => Some((via, onlink)),
        Err(why) => {
            refused.push(Refusal::new(format!("gateway {via} of {}", local.address), why));
            None
        }
    });
    let route = |destination: IpAddr| {
        let (via, onlink) = if adapter.is_on_link(destination) || gateway == Some(destination) {
            let reachable =
                !is_edge(adapter, destination) && (gateway != Some(destination) || router.is_some());
            (None, reachable.then_some(false)?)
        } else {
            router.map(|(via, onlink)| (Some(via), onlink))?
        };
        Some(Route {
            table,
            destination: Network::host(destination),
            via,
            adapter: adapter.name.clone(),
            index: adapter.index,
            source: Some(local.address),
            metric: owner.metric(),
            onlink,
        })
    };
    let same_family = remote.iter().filter(|remote| remote.is_ipv4() == local.address.is_ipv4());
    Ok(same_family.filter_map(|remote| route(*remote)).collect())
}

/// The network's own and its broadcast address, which are no hosts (IPv4, except on /31 and /32, RFC 3021).
fn is_edge(adapter: &Adapter, address: IpAddr) -> bool {
    let (IpAddr::V4(v4), true) = (address, adapter.prefix_length < 31) else { return false };
    let host_bits = u32::MAX >> adapter.prefix_length;
    v4.to_bits() & host_bits == 0 || v4.to_bits() & host_bits == host_bits
}

/// The route of a configured subnet.
fn subnet_route(owner: Owner, subnet: &Subnet, adapters: &[Adapter]) -> Result<Route, Refusal> {
    let what = format!("{} via {} on {}", subnet.subnet, subnet.via, subnet.adapter);
    if subnet.subnet.address().is_ipv4() != subnet.via.is_ipv4() {
        return Err(Refusal::new(what, "subnet and router are of different address families"));
    }
    if subnet.subnet.address().is_multicast() || subnet.subnet.address().is_loopback() {
        return Err(Refusal::new(what, "a multicast or loopback network has no router"));
    }
    let named = |adapter: &&Adapter| {
        adapter.name == subnet.adapter
            || subnet.adapter.parse().is_ok_and(|address: IpAddr| adapter.address == address)
    };
    let mut why = "no adapter of this host has this name or address".to_owned();
    // What is wrong with an address of the router's family says more, and comes last.
    let (same, other): (Vec<_>, Vec<_>) =
        adapters.iter().filter(named).partition(|adapter| adapter.address.is_ipv4() == subnet.via.is_ipv4());
    for adapter in other.into_iter().chain(same) {
        match ready(adapter).map_err(|refusal| refusal.why).and_then(|()| reach(adapter, subnet.via)) {
            Ok(onlink) => {
                return Ok(Route {
                    table: TABLE_MAIN,
                    destination: subnet.subnet,
                    via: Some(subnet.via),
                    adapter: adapter.name.clone(),
                    index: adapter.index,
                    source: None,
                    metric: owner.metric(),
                    onlink,
                });
            }
            Err(reason) => why = reason,
        }
    }
    Err(Refusal::new(what, why))
}

/// The kernel takes routes only over adapters that are up.
fn ready(adapter: &Adapter) -> Result<(), Refusal> {
    if adapter.loopback {
        return Err(Refusal::new(adapter.address, "the loopback adapter leads nowhere"));
    }
    if !adapter.enabled {
        return Err(Refusal::new(adapter.address, format!("adapter {} is down", adapter.name)));
    }
    Ok(())
}

/// Whether a router is reached from an adapter, and if so whether the kernel must be told to look no further
/// (`onlink`).
fn reach(adapter: &Adapter, via: IpAddr) -> Result<bool, String> {
    let link_local = matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if via.is_ipv4() != adapter.address.is_ipv4() {
        return Err(format!("router {via} is of another address family than {}", adapter.address));
    }
    if via == adapter.address {
        return Err(format!("{via} is this host's own address"));
    }
    if adapter.is_on_link(via) || link_local {
        return Ok(false);
    }
    if adapter.gateways.contains(&via) {
        return Ok(true);
    }
    let Adapter { name, address, prefix_length, .. } = adapter;
    Err(format!("router {via} is not on the link of {name} ({address}/{prefix_length})"))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
