//! A router whose next link is narrower than the adapters say, and that keeps this to itself.

use std::time::{Duration, Instant};

use overlan_tests::cluster::Cluster;
use overlan_tests::lab::{Plan, Router, ip};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, measure};

#[test]
fn large_messages_pass_a_narrow_router_that_filters_icmp() {
    skip_without_root!();
    let mut cluster = Cluster::in_lab(Plan { members: 2, ..Plan::default() });
    narrow(&cluster);
    for member in 0..2 {
        let config = cluster.config(member);
        cluster.launch(member, config);
    }
    cluster.nodes.iter_mut().for_each(overlan_tests::node::Node::wait_ready);
    cluster.wait_settled();
    let stream = Stream { mode: "ordered", count: 12, interval_ms: 50, size: 1 << 20 };
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], stream, || {});
    println!("1 MiB messages through 1280 bytes: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
    // Nor is any size that works given up for a path that looks dead.
    cluster.nodes[0].wait_state("b", "alive", Duration::from_secs(1));
}

/// A path that carried full datagrams and does not any more, while nothing is sent: the first message does not wait
/// until it is sure that its size is the reason.
#[test]
fn a_path_that_narrows_unseen_holds_no_message_up() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan { members: 2, ..Plan::default() }, |_, _| {});
    let stream = Stream { mode: "ordered", count: 12, interval_ms: 50, size: 100_000 };
    let timed = || {
        let started = Instant::now();
        (measure(&cluster.nodes[0], &cluster.nodes[1], stream, || {}), started.elapsed())
    };
    let (_, wide) = timed();
    narrow(&cluster);
    let (outcome, narrowed) = timed();
    println!(
        "12 messages of 100 kB in 0.55 s took {wide:?}, and {narrowed:?} after the path narrowed: {outcome:?}"
    );
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
}

/// Makes the routers' links narrower than the adapters say, and the routers mute.
fn narrow(cluster: &Cluster) {
    for router in Router::BOTH {
        let namespace = cluster.lab().router(router);
        for port in ["m1", "m2"] {
            ip(&["-n", &namespace, "link", "set", port, "mtu", "1280"]);
        }
        let filter = "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; \
                      add rule inet mute out meta l4proto icmp drop";
        ip(&["netns", "exec", &namespace, "nft", filter]);
    }
}
