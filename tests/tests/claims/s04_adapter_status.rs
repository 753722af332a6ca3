//! S4: an adapter's status changes everywhere it should, and only there.

use std::time::Duration;

use overlan_tests::cluster::{Cluster, NAMES};
use overlan_tests::json::{row, rows, text};
use overlan_tests::lab::Plan;
use overlan_tests::node::Node;
use overlan_tests::skip_without_root;
use overlan_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(15);

/// The owners' words as a member's table has them: (member, adapter, status).
fn owners_words(node: &Node) -> Vec<(String, String, String)> {
    let table = node.listing("table");
    let mut words = Vec::new();
    for entry in rows(&table["entries"]) {
        for adapter in rows(&entry["adapters"]) {
            words.push(
                [text(entry, "name"), text(adapter, "name"), text(adapter, "status")]
                    .map(String::from)
                    .into(),
            );
        }
    }
    words
}

/// What a member observes of each remote address: (remote address, reachability), unreachable ones only.
fn unreachable(node: &Node) -> Vec<String> {
    let paths = node.listing("paths");
    let lost = rows(&paths).iter().filter(|path| path["reachability"] == "unreachable");
    let mut lost: Vec<String> = lost.map(|path| text(path, "remote").to_owned()).collect();
    lost.sort();
    lost.dedup();
    lost
}

#[test]
fn pulling_an_adapter_down_shows_everywhere_it_should_and_only_there() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    for node in &cluster.nodes {
        wait_until("all addresses to be reachable", LIMIT, || unreachable(node), Vec::is_empty);
    }
    cluster.lab().link_down(1, 0);
    for node in &cluster.nodes {
        let down = |words: &Vec<(String, String, String)>| {
            words.len() == 6
                && words.iter().all(|(member, adapter, status)| {
                    (status == "down") == (member == "b" && adapter == "eth0")
                })
        };
        wait_until(
            "b's eth0, and nothing else, to be down by its owner's word",
            LIMIT,
            || owners_words(node),
            down,
        );
    }
    let cut = format!("{}:7400", cluster.address(1, 0));
    for member in [0, 2] {
        let node = &cluster.nodes[member];
        let only_that = |seen: &Vec<String>| *seen == [cut.clone()];
        wait_until("b's first address alone to be unreachable", LIMIT, || unreachable(node), only_that);
        let paths = node.listing("paths");
        let path = row(&paths, "remote", &cut);
        assert!(!text(path, "why").is_empty(), "it says why: {path}");
        assert!(path["since_ms"].is_u64(), "it says since when: {path}");
    }
    for node in &cluster.nodes {
        for name in &NAMES[..3] {
            assert_eq!(node.state_of(name), "alive", "no member is down for it");
        }
    }
    cluster.lab().link_up(1, 0);
    for node in &cluster.nodes {
        wait_until("all addresses to be reachable again", LIMIT, || unreachable(node), Vec::is_empty);
    }
    cluster.wait_settled();
}

#[test]
fn a_lost_carrier_shows_as_well() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan { members: 2, ..Plan::default() }, |_, _| {});
    cluster.lab().unplug(1, 1);
    let down = |words: &Vec<(String, String, String)>| {
        words.contains(&("b".into(), "eth1".into(), "down".into()))
            && words.contains(&("b".into(), "eth0".into(), "up".into()))
    };
    wait_until("b's eth1 to be down", LIMIT, || owners_words(&cluster.nodes[0]), down);
}
