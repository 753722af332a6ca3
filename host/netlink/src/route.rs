//! The vocabulary of routes: our marks, routes, rules, and what could not be done.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::Network;

/// Our routing protocol number (`rtm_protocol`, `FRA_PROTOCOL`): every route and rule of ours carries it, and nothing
/// without it is ever changed.
///
/// 111 is free in `/etc/iproute2/rt_protos` of iproute2 6.x (numbers of others near it: 99 openr, 186 bgp).
pub const PROTOCOL: u8 = 0x6f;

/// The number that the tables of all owners count from: table = `TABLE_BASE` + owner * [`SLOTS`] + slot. Far above the
/// numbers that people and VRF tools pick by hand.
pub const TABLE_BASE: u32 = 1_000_000_000;

/// How many tables an owner has, one per adapter address. Wide, so that hashed slots rarely meet.
pub const SLOTS: u32 = 1000;

/// The kernel's main table (`RT_TABLE_MAIN`), where configured subnets go, so that `ip route show` lists them.
pub const TABLE_MAIN: u32 = 254;

/// Rule priorities: `PRIORITY_BASE` + slot, thus 7400 to 8399: after the local table (0), before main (32766). A
/// smaller number of somebody else wins over ours.
pub const PRIORITY_BASE: u32 = 7400;

/// Which node on this host owns a route: by default its UDP port, which two nodes in one network namespace seldom
/// share (if they listen on the same port of different addresses, configure an owner for one of them).
///
/// It is the metric of each of our routes. In the main table a metric this high (DHCP clients use 100 to 1024) loses
/// to anyone else's route to the same network, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Owner(NonZeroU16);

/// Zero is no owner: a port must be chosen before routes can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0 is no owner of routes; use the node's UDP port")]
pub struct InvalidOwner;

impl Owner {
    /// The owner for a node that listens on this UDP port.
    ///
    /// # Errors
    /// [`InvalidOwner`] for port 0.
    pub fn from_port(port: u16) -> Result<Self, InvalidOwner> {
        NonZeroU16::new(port).map(Self).ok_or(InvalidOwner)
    }

    /// The metric of this owner's routes.
    #[must_use]
    pub fn metric(self) -> u32 {
        u32::from(self.0.get())
    }

    /// The table of one slot (below [`SLOTS`]).
    pub(crate) fn table(self, slot: u32) -> u32 {
        debug_assert!(slot < SLOTS, "slots are taken modulo SLOTS");
        TABLE_BASE + self.metric() * SLOTS + slot
    }

    /// Whether a table is one of this owner's own (main is nobody's).
    #[must_use]
    pub fn owns_table(self, table: u32) -> bool {
        (self.table(0)..self.table(0) + SLOTS).contains(&table)
    }

    /// Whether a route that carries [`PROTOCOL`] is this owner's.
    pub(crate) fn owns_route(self, route: &Route) -> bool {
        route.metric == self.metric() && (route.table == TABLE_MAIN || self.owns_table(route.table))
    }
}

impl TryFrom<u16> for Owner {
    type Error = InvalidOwner;
    fn try_from(port: u16) -> Result<Self, InvalidOwner> {
        Self::from_port(port)
    }
}

impl From<Owner> for u16 {
    fn from(owner: Owner) -> u16 {
        owner.0.get()
    }
}

/// A kernel route of ours, wanted or installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// [`TABLE_MAIN`] or a table of ours.
    pub table: u32,
    /// Where to: one host, or a configured subnet.
    pub destination: Network,
    /// The router; `None` when the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The adapter's name (empty if the adapter vanished while we looked).
    pub adapter: String,
    /// The adapter's interface index, which counts; names can change.
    pub index: u32,
    /// The preferred source address. The kernel drops an IPv4 route by itself when its source is deleted.
    pub source: Option<IpAddr>,
    /// The owner's number.
    pub metric: u32,
    /// The router is outside of the adapter's prefix but reached directly (as with /32 addresses in clouds).
    pub onlink: bool,
}

/// What makes two routes rivals for one place in the kernel: table, destination, metric.
pub(crate) type RouteKey = (u32, Network, u32);

impl Route {
    pub(crate) fn key(&self) -> RouteKey {
        (self.table, self.destination, self.metric)
    }

    /// Equal in everything the kernel decides by; the name of the adapter is only for people.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.key() == other.key()
            && (self.via, self.index, self.source, self.onlink)
                == (other.via, other.index, other.source, other.onlink)
    }
}

impl fmt::Display for Route {
    /// As `ip route` would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.adapter)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " metric {}", self.metric)?;
        if self.onlink {
            write!(f, " onlink")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

/// A routing rule of ours: what leaves with this source address looks in that table first. A destination the table
/// lacks falls through to the host's own rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    /// The adapter address.
    pub from: IpAddr,
    /// The table of that adapter address.
    pub table: u32,
    /// Smaller is looked at earlier.
    pub priority: u32,
}

impl fmt::Display for Rule {
    /// As `ip rule` would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} from {} lookup {}", self.priority, self.from, self.table)
    }
}

/// A route or a rule, in lists of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Entry {
    /// A route.
    Route(Route),
    /// A rule.
    Rule(Rule),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(route) => route.fmt(f),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

/// Routes and rules that carry [`PROTOCOL`], as the kernel has them now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// Sorted by table and destination.
    pub routes: Vec<Route>,
    /// Sorted by source address.
    pub rules: Vec<Rule>,
}

/// Something wanted that could not be had, in words for the person who runs the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The route, rule or address in question.
    pub what: String,
    /// Why, and where possible what to do.
    pub why: String,
}

impl Refusal {
    pub(crate) fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { what: what.to_string(), why: why.to_string() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_do_not_overlap_and_fit() {
        let (a, b) = (Owner::from_port(7400).unwrap(), Owner::from_port(7401).unwrap());
        assert_eq!(a.table(0), 1_007_400_000);
        assert!(a.owns_table(a.table(SLOTS - 1)) && !b.owns_table(a.table(SLOTS - 1)));
        assert!(!a.owns_table(b.table(0)) && !a.owns_table(TABLE_MAIN));
        let last = Owner::from_port(u16::MAX).unwrap();
        assert!(last.owns_table(last.table(SLOTS - 1)));
        assert_eq!(Owner::from_port(0), Err(InvalidOwner));
    }

    #[test]
    fn listings_have_stable_names() {
        let rule = Rule { from: "10.1.0.2".parse().unwrap(), table: 1_007_400_007, priority: 7407 };
        let route = Route {
            table: TABLE_MAIN,
            destination: "10.9.0.0/16".parse().unwrap(),
            via: Some("10.1.0.1".parse().unwrap()),
            adapter: "eth0".into(),
            index: 2,
            source: None,
            metric: 7400,
            onlink: false,
        };
        assert_eq!(
            serde_json::to_string(&[Entry::Rule(rule), Entry::Route(route)]).unwrap(),
            concat!(
                r#"[{"type":"rule","from":"10.1.0.2","table":1007400007,"priority":7407},"#,
                r#"{"type":"route","table":254,"destination":"10.9.0.0/16","via":"10.1.0.1","adapter":"eth0","#,
                r#""index":2,"source":null,"metric":7400,"onlink":false}]"#
            )
        );
    }
}
