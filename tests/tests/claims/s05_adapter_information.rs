//! S5: `overlan adapters` equals what the kernel says.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use overlan_tests::binary::run_in;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::{number, row, rows, text};
use overlan_tests::lab::{Family, Lab, Plan, ip};
use overlan_tests::skip_without_root;
use serde_json::Value;

/// Name, kind, address, prefix length, MTU, status.
type Facts = (String, String, IpAddr, u64, u64, String);

/// The usable addresses of a namespace as `ip -j` has them.
fn kernel_facts(namespace: &str) -> BTreeSet<Facts> {
    let listed: Value =
        serde_json::from_str(&ip(&["-n", namespace, "-j", "-d", "address", "show"])).expect("JSON");
    let mut facts = BTreeSet::new();
    for link in rows(&listed).iter().filter(|link| text(link, "link_type") != "loopback") {
        let status = if link["operstate"] == "UP" { "up" } else { "down" };
        for address in rows(&link["addr_info"]).iter().filter(|address| text(address, "scope") == "global") {
            facts.insert((
                text(link, "ifname").into(),
                kind(link).into(),
                text(address, "local").parse().expect("an address"),
                number(address, "prefixlen"),
                number(link, "mtu"),
                status.into(),
            ));
        }
    }
    facts
}

/// What kind of virtual link it is, or else the kind of its hardware.
fn kind(link: &Value) -> &str {
    link["linkinfo"]["info_kind"].as_str().unwrap_or_else(|| text(link, "link_type"))
}

fn facts(adapter: &Value) -> Facts {
    let address = text(adapter, "address");
    let bare = address.parse::<IpAddr>().ok();
    let address = bare.or_else(|| address.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    (
        text(adapter, "name").into(),
        text(adapter, "kind").into(),
        address.expect("an address"),
        number(adapter, "prefix_length"),
        number(adapter, "mtu"),
        text(adapter, "status").into(),
    )
}

#[test]
fn the_listing_equals_the_kernels() {
    skip_without_root!();
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(Plan { members: 1, family, ..Plan::default() });
        let namespace = lab.member(0);
        ip(&["-n", &namespace, "link", "set", "eth1", "mtu", "1400"]);
        for change in ["nothing", "eth1 down"] {
            if change == "eth1 down" {
                lab.link_down(0, 1);
            }
            let listed = run_in(&namespace, ["adapters", "--json"]).json();
            let listed: BTreeSet<Facts> = rows(&listed).iter().map(facts).collect();
            let global = |fact: &Facts| !fact.2.is_loopback() && !is_link_local(fact.2);
            let listed = listed.into_iter().filter(global).collect::<BTreeSet<_>>();
            assert_eq!(listed, kernel_facts(&namespace), "{family:?}, {change}");
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[test]
fn the_table_carries_it_completed_by_the_configuration() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan { members: 2, ..Plan::default() }, |_, config| {
        config.adapters[1].class_of_service = "bulk".into();
    });
    let table = cluster.nodes[0].listing("table");
    let kernel = kernel_facts(&cluster.lab().member(1));
    let listed = row(&table["entries"], "name", "b")["adapters"].as_array().expect("adapters").clone();
    assert_eq!(listed.iter().map(facts).collect::<BTreeSet<_>>(), kernel);
    assert_eq!(text(&listed[1], "class_of_service"), "bulk");
    assert_eq!(listed[1]["gateways"][0], cluster.lab().gateway(1, 1).to_string().as_str());
    assert!(listed.iter().all(|adapter| number(adapter, "dscp") < 64));
}
