//! S6, S13: every member ends with the identical table, whatever happens to its entries.

use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::json::{row, rows, text};
use overlan_tests::lab::Plan;
use overlan_tests::skip_without_root;
use overlan_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn members_that_join_at_once_hold_the_identical_table() {
    let cluster = Cluster::started_on_loopback(5, |_, _| {});
    let digest = cluster.wait_settled();
    assert_eq!(digest.len(), 64, "{digest}");
    let alone = cluster.nodes[0].run(&["table", "--digest", "--json"]).json();
    assert_eq!(alone, serde_json::json!({ "digest": digest }));
    let tables: Vec<Value> = cluster.nodes.iter().map(|node| node.listing("table")).collect();
    assert!(tables.windows(2).all(|pair| pair[0] == pair[1]), "{tables:#?}");
    assert_eq!(tables[0]["digest"], digest.as_str());
    assert_eq!(rows(&tables[0]["entries"]).len(), 5);
    for node in &cluster.nodes {
        let agreed = |status: &Value| status["agreed"] == true && status["table_digest"] == digest.as_str();
        let status = wait_until("the agreement", LIMIT, || node.listing("status"), agreed);
        assert!(status["agreement_us"].is_u64(), "time to agreement is a metric: {status}");
    }
}

#[test]
fn a_member_that_restarts_is_the_same_node_in_a_new_life() {
    let mut cluster = Cluster::started_on_loopback(3, |_, _| {});
    let before = cluster.nodes[0].listing("members");
    cluster.nodes[1].restart();
    let renewed = |members: &Value| {
        let (old, new) = (row(&before, "name", "b"), row(members, "name", "b"));
        old["boot"] != new["boot"] && old["id"] == new["id"] && new["state"] == "alive"
    };
    for node in &cluster.nodes {
        wait_until("b in its new life", LIMIT, || node.listing("members"), renewed);
    }
    cluster.wait_settled();
    assert_eq!(rows(&cluster.nodes[0].listing("table")["entries"]).len(), 3);
}

#[test]
fn the_seed_may_restart() {
    let mut cluster = Cluster::started_on_loopback(3, |_, _| {});
    cluster.nodes[0].restart();
    cluster.wait_settled();
}

#[test]
fn a_member_that_leaves_is_listed_so_and_nobody_suspects_it() {
    let mut cluster = Cluster::started_on_loopback(3, |_, _| {});
    assert!(cluster.nodes[2].stop().success());
    for member in [0, 1] {
        cluster.nodes[member].wait_state("c", "left", Duration::from_secs(5));
    }
    let digest = cluster.wait_settled_among(&[0, 1]);
    let table = cluster.nodes[1].listing("table");
    assert_eq!(table["digest"], digest.as_str());
    assert_eq!(row(&table["entries"], "name", "c")["left"], true);
}

#[test]
fn a_member_that_vanishes_is_kept_as_down_until_it_is_forgotten() {
    let mut cluster = Cluster::started_on_loopback(3, |_, _| {});
    let refused = cluster.nodes[0].run(&["forget", "b"]).fails(1);
    assert!(refused.contains('b'), "a live member is not forgotten: {refused}");
    cluster.nodes[2].kill();
    for member in [0, 1] {
        cluster.nodes[member].wait_state("c", "down", LIMIT);
        assert_eq!(rows(&cluster.nodes[member].listing("table")["entries"]).len(), 3, "it is kept");
    }
    for nobody in ["c?x", "c/x", "c%20", "a b"] {
        let refused = cluster.nodes[0].run(&["forget", nobody]).fails(1);
        assert!(refused.contains("no member is called"), "{nobody}: {refused}");
    }
    cluster.nodes[0].run(&["forget", "c"]).ok();
    for member in [0, 1] {
        let node = &cluster.nodes[member];
        let gone = |table: &Value| rows(&table["entries"]).len() == 2;
        let table = wait_until("c's entry to be gone", LIMIT, || node.listing("table"), gone);
        assert_eq!(rows(&table["forgotten"]).len(), 1, "{table}");
        assert_eq!(node.state_of("c"), "");
    }
    cluster.wait_settled_among(&[0, 1]);
    cluster.nodes[0].run(&["forget", "c"]).fails(1);
}

#[test]
fn an_address_that_changes_changes_in_every_table() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    let version = |table: &Value| row(&table["entries"], "name", "b")["version"].as_u64();
    let before = version(&cluster.nodes[2].listing("table"));
    let moved = format!("{}:7400", cluster.lab().address_move(1, 0, 77));
    for node in &cluster.nodes {
        let holds = |table: &Value| {
            let adapters = rows(&row(&table["entries"], "name", "b")["adapters"]);
            adapters.iter().any(|adapter| text(adapter, "address") == moved && adapter["status"] == "up")
        };
        wait_until("b's new address", LIMIT, || node.listing("table"), holds);
    }
    cluster.wait_settled();
    assert!(version(&cluster.nodes[2].listing("table")) > before, "each change bumps the version");
    let reached = || {
        rows(&cluster.nodes[0].listing("paths"))
            .iter()
            .any(|path| text(path, "remote") == moved && path["state"] == "up")
    };
    wait_until("the new address to be reached", LIMIT, reached, |&reached| reached);
}
