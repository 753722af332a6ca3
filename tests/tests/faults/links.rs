//! Links and addresses that come and go.

use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::json::{number, rows};
use overlan_tests::lab::faults::Hit;
use overlan_tests::lab::{Plan, Router};
use overlan_tests::node::Node;
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, measure};
use overlan_tests::wait::{stays, wait_until};

const STREAM: Stream = Stream { mode: "ordered", count: 900, interval_ms: 5, size: 64 };

fn two() -> Cluster {
    let plan = Plan { members: 2, ..Plan::default() };
    let cluster = Cluster::started_in_lab(plan, |_, config| config.set_policy("failover", "builtin:fast"));
    wait_up(&cluster.nodes[0], 2);
    cluster
}

fn wait_up(node: &Node, count: usize) {
    let up = || rows(&node.listing("paths")).iter().filter(|path| path["state"] == "up").count();
    wait_until("paths to be up", Duration::from_secs(30), up, |&up| up >= count);
}

/// Smallest datagram size of the paths that are up.
fn smallest(node: &Node) -> u64 {
    let paths = node.listing("paths");
    let up = rows(&paths).iter().filter(|path| path["state"] == "up");
    up.map(|path| number(path, "datagram")).min().unwrap_or_default()
}

#[test]
fn a_second_failure_soon_after_recovery_loses_nothing() {
    skip_without_root!();
    let cluster = two();
    let (lab, node) = (cluster.lab(), &cluster.nodes[0]);
    let outcome = measure(node, &cluster.nodes[1], STREAM, || {
        lab.drop_silently(Router::First, Hit::ALL);
        stays("alive on the alternate", Duration::from_secs(1), || node.state_of("b") == "alive");
        lab.heal(Router::First);
        stays("alive after recovery", Duration::from_secs(2), || node.state_of("b") == "alive");
        lab.drop_silently(Router::Second, Hit::ALL);
    });
    println!("second failure 2 s after recovery: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
    assert_eq!(node.state_of("b"), "alive");
}

#[test]
fn a_deleted_address_comes_back_into_use() {
    skip_without_root!();
    let cluster = two();
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {
        cluster.lab().address_delete(1, 0);
        let used =
            || rows(&cluster.nodes[1].listing("paths")).iter().filter(|path| path["state"] == "up").count();
        wait_until("the path to go", Duration::from_secs(10), used, |&used| used < 2);
        cluster.lab().address_add(1, 0);
    });
    println!("address deleted and added: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
    cluster.nodes.iter().for_each(|node| wait_up(node, 2));
    cluster.wait_settled();
}

#[test]
fn random_loss_does_not_shrink_datagrams() {
    skip_without_root!();
    let cluster = two();
    let size = || smallest(&cluster.nodes[0]);
    let found = wait_until("the path MTU", Duration::from_secs(30), size, |&size| size > 1_400);
    let stream = Stream { count: 300, size: 20_000, ..STREAM };
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], stream, || {
        Router::BOTH.into_iter().for_each(|router| cluster.lab().lose(router, Hit::ALL, 15));
        stays("the datagram size", Duration::from_secs(8), || [0, found].contains(&size()));
    });
    println!("15% loss, large messages: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
}
