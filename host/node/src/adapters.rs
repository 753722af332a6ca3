//! Which of the kernel's adapters the node uses, in which order, completed by configuration. Pure.

use std::net::{IpAddr, SocketAddr};

use overlan_netlink::Adapter as Found;
use overlan_wire::limits::{MAX_ADAPTERS, MAX_GATEWAYS, MAX_TEXT};
use overlan_wire::{Adapter, AdapterStatus};
use serde::{Deserialize, Serialize};

use crate::config::AdapterChoice;

/// What to open sockets on, and what could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// In order of preference.
    pub adapters: Vec<Selected>,
    /// What is waited for or left out, in sentences.
    pub problems: Vec<String>,
}

/// One adapter address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// As the table carries it.
    pub adapter: Adapter,
    /// The interface to bind the socket to; none for loopback addresses.
    pub device: Option<Device>,
    /// The configured router.
    pub gateway: Option<IpAddr>,
}

/// An interface. One that was replaced has the name of the one before, and another index: a socket that was bound to that
/// one carries nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The kernel's index of it.
    pub index: u32,
}

impl Selected {
    /// Where its socket is bound.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.adapter.address, self.adapter.port)
    }
}

/// Picks, orders and completes: each choice in turn, or without choices all usable adapters in the kernel's order. A
/// choice that names nothing there is is waited for, and never replaced by another adapter.
pub fn select(choices: &[AdapterChoice], found: &[Found], port: u16) -> Selection {
    let mut selection = Selection::default();
    if choices.is_empty() {
        for adapter in found.iter().filter(|adapter| adapter.usable) {
            selection.add(selected(&AdapterChoice::default(), adapter, port));
        }
        if selection.adapters.is_empty() {
            selection.problems.push(
                "this host has no usable adapter yet (loopback is only used when configured); waiting for one: \
                 `overlan adapters` shows what there is"
                    .to_owned(),
            );
        }
    }
    for choice in choices {
        match resolve(choice, found) {
            Ok(adapters) => {
                adapters.iter().for_each(|adapter| selection.add(selected(choice, adapter, port)))
            }
            Err(problem) => selection.problems.push(problem),
        }
    }
    selection
}

impl Selection {
    fn add(&mut self, selected: Selected) {
        let address = selected.adapter.address;
        if self.adapters.iter().any(|other| other.adapter.address == address) {
            return;
        }
        if self.adapters.len() == MAX_ADAPTERS {
            self.problems.push(format!(
                "{address} is left out: a node has at most {MAX_ADAPTERS} adapter addresses; choose by [[adapter]]"
            ));
            return;
        }
        self.adapters.push(selected);
    }
}

fn resolve(choice: &AdapterChoice, found: &[Found]) -> Result<Vec<Found>, String> {
    let named = |adapter: &&Found| choice.name.as_ref().is_none_or(|name| *name == adapter.name);
    let Some(address) = choice.address else {
        let name = choice.name.as_deref().unwrap_or_default();
        let of_interface: Vec<Found> = found
            .iter()
            .filter(named)
            .filter(|adapter| adapter.usable || adapter.loopback)
            .cloned()
            .collect();
        if of_interface.is_empty() {
            return Err(format!(
                "adapter {name} does not exist or has no usable address; waiting for it (`overlan adapters` shows \
                 what there is)"
            ));
        }
        return Ok(of_interface);
    };
    if let Some(adapter) = found.iter().filter(named).find(|adapter| adapter.address == address) {
        return Ok(vec![adapter.clone()]);
    }
    // All of 127.0.0.0/8 is the host's own, though the kernel lists one address of it.
    let mut loopback =
        found.iter().filter(named).filter(|adapter| adapter.loopback && adapter.is_on_link(address));
    match loopback.next() {
        Some(adapter) => Ok(vec![Found { address, ..adapter.clone() }]),
        None => {
            let on = choice.name.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            Err(format!(
                "no adapter has the address {address}{on}; waiting for it (`overlan adapters` shows what there is)"
            ))
        }
    }
}

fn selected(choice: &AdapterChoice, found: &Found, port: u16) -> Selected {
    let mut gateways: Vec<IpAddr> =
        choice.gateway.filter(|gateway| gateway.is_ipv4() == found.address.is_ipv4()).into_iter().collect();
    let gateway = gateways.first().copied();
    if gateways.is_empty() {
        gateways = found.gateways.clone();
    }
    gateways.truncate(MAX_GATEWAYS);
    Selected {
        adapter: Adapter {
            name: short(&found.name),
            kind: short(&found.kind),
            address: found.address,
            port,
            prefix_length: found.prefix_length,
            mtu: found.mtu,
            speed: choice.speed.unwrap_or(found.speed),
            class_of_service: choice.class_of_service.clone(),
            dscp: choice.dscp,
            status: if found.up { AdapterStatus::Up } else { AdapterStatus::Down },
            gateways,
        },
        device: (!found.loopback).then(|| Device { name: found.name.clone(), index: found.index }),
        gateway,
    }
}

/// The kernel's names are shorter than this.
fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT / 4).collect()
}

/// An adapter in `overlan adapters --json` and the node's status: the table's names, and how this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterView {
    /// Interface name.
    pub name: String,
    /// Adapter type.
    pub kind: String,
    /// Address.
    pub address: IpAddr,
    /// Subnet mask as a prefix length.
    pub prefix_length: u8,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Mbit/s, 0 unknown.
    pub speed: u32,
    /// Class of service by name.
    pub class_of_service: String,
    /// Differentiated services code point.
    pub dscp: u8,
    /// `up` or `down`.
    pub status: String,
    /// Routers on its link.
    pub gateways: Vec<IpAddr>,
}

impl From<&Adapter> for AdapterView {
    fn from(adapter: &Adapter) -> Self {
        let adapter = adapter.clone();
        AdapterView {
            name: adapter.name,
            kind: adapter.kind,
            address: adapter.address,
            prefix_length: adapter.prefix_length,
            mtu: adapter.mtu,
            speed: adapter.speed,
            class_of_service: adapter.class_of_service,
            dscp: adapter.dscp,
            status: if adapter.status == AdapterStatus::Up { "up" } else { "down" }.to_owned(),
            gateways: adapter.gateways,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, address: &str, prefix_length: u8) -> Found {
        let loopback = name == "lo";
        Found {
            name: name.into(),
            index: 1,
            kind: if loopback { "loopback" } else { "ether" }.into(),
            address: address.parse().unwrap(),
            peer: None,
            prefix_length,
            mtu: 1500,
            speed: 1000,
            enabled: true,
            up: true,
            loopback,
            gateways: vec!["10.1.0.254".parse().unwrap()],
            usable: !loopback,
        }
    }

    fn host() -> Vec<Found> {
        vec![found("lo", "127.0.0.1", 8), found("eth0", "10.1.0.2", 24), found("eth1", "10.2.0.2", 24)]
    }

    fn names(selection: &Selection) -> Vec<String> {
        selection.adapters.iter().map(|selected| selected.adapter.address.to_string()).collect()
    }

    #[test]
    fn without_choices_all_but_loopback() {
        assert_eq!(names(&select(&[], &host(), 7400)), ["10.1.0.2", "10.2.0.2"]);
        let nothing = select(&[], &host()[..1], 7400);
        assert!(nothing.adapters.is_empty() && nothing.problems.len() == 1);
    }

    #[test]
    fn choices_order_and_complete() {
        let router: IpAddr = "10.2.0.1".parse().unwrap();
        let choices = [
            AdapterChoice {
                name: Some("eth1".into()),
                gateway: Some(router),
                dscp: 46,
                ..AdapterChoice::default()
            },
            AdapterChoice { address: Some("10.1.0.2".parse().unwrap()), ..AdapterChoice::default() },
            AdapterChoice { name: Some("eth0".into()), ..AdapterChoice::default() },
        ];
        let selection = select(&choices, &host(), 7400);
        assert_eq!(names(&selection), ["10.2.0.2", "10.1.0.2"]);
        assert_eq!(selection.adapters[0].adapter.dscp, 46);
        assert_eq!(selection.adapters[0].adapter.gateways, [router]);
        assert_eq!(selection.adapters[0].device.as_ref().map(|device| &*device.name), Some("eth1"));
        assert!(selection.problems.is_empty());
    }

    #[test]
    fn what_is_missing_is_waited_for_and_never_replaced() {
        let choices = [
            AdapterChoice { name: Some("eth7".into()), ..AdapterChoice::default() },
            AdapterChoice { address: Some("10.9.0.1".parse().unwrap()), ..AdapterChoice::default() },
        ];
        let selection = select(&choices, &host(), 7400);
        assert!(selection.adapters.is_empty());
        assert!(selection.problems[0].contains("eth7") && selection.problems[1].contains("10.9.0.1"));
    }

    #[test]
    fn an_interface_that_was_replaced_is_another_selection() {
        let before = select(&[], &host(), 7400);
        let replaced: Vec<Found> =
            host().into_iter().map(|found| Found { index: found.index + 1, ..found }).collect();
        let after = select(&[], &replaced, 7400);
        assert_eq!(names(&before), names(&after));
        assert_ne!(before, after);
    }

    #[test]
    fn every_address_of_the_loopback_prefix_is_there() {
        let choices =
            [AdapterChoice { address: Some("127.0.1.1".parse().unwrap()), ..AdapterChoice::default() }];
        let selection = select(&choices, &host(), 7400);
        assert_eq!(names(&selection), ["127.0.1.1"]);
        assert_eq!(selection.adapters[0].device, None);
    }
}
