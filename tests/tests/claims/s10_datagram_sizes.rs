//! S10: datagrams on the wire are as large as the sizing plugin says.

use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::lab::capture::{Capture, Packet, What};
use overlan_tests::lab::{Plan, Router};
use overlan_tests::node::Node;
use overlan_tests::skip_without_root;
use overlan_tests::wait::wait_until;

/// Largest UDP payload that fits the lab's MTU of 1500 over IPv4.
const FITS: usize = 1_472;
const MESSAGE: usize = 200_000;

fn largest(packets: &[Packet]) -> usize {
    let payload = |packet: &Packet| if let What::Udp { payload, .. } = packet.what { payload } else { 0 };
    packets.iter().map(payload).max().unwrap_or_default()
}

/// Sends a large message and gives the largest datagram it needed.
fn send_large(from: &Node, capture: &Capture) -> usize {
    let file = from.config.folder.join("large");
    std::fs::write(&file, vec![b'x'; MESSAGE]).expect("a file");
    let file = file.to_str().expect("temporary folders have plain names");
    capture.clear();
    from.run(&["send", "--to", "b", "--mode", "reliable", file]).ok();
    largest(&capture.take())
}

#[test]
fn a_swapped_sizing_plugin_changes_the_datagrams_on_the_wire() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan { members: 2, ..Plan::default() }, |_, config| {
        config.set_policy("sizing", "builtin:mtu-fit");
    });
    let _listener = overlan_tests::traffic::Listener::connected(&cluster.nodes[1], &cluster.nodes[0]);
    let capture = Capture::start(&cluster.lab().router(Router::First));
    let limit = Duration::from_secs(30);
    let sent = || send_large(&cluster.nodes[0], &capture);
    let found =
        wait_until("datagrams to fit the MTU, once it is discovered", limit, sent, |&size| size > 1_400);
    assert!(found <= FITS, "{found} bytes would be fragmented");
    for node in &cluster.nodes {
        node.run(&["policy", "set", "sizing", "builtin:conservative"]).ok();
    }
    let small = wait_until("datagrams to shrink", limit, sent, |&size| size <= 1_200);
    assert!(small > 1_000, "they are filled: {small}");
    cluster.nodes[0].run(&["policy", "rollback", "sizing"]).ok();
    wait_until("datagrams to grow again", limit, sent, |&size| size > 1_400 && size <= FITS);
}

#[test]
fn an_adapter_of_small_mtu_gets_small_datagrams() {
    skip_without_root!();
    let mut cluster = Cluster::in_lab(Plan { members: 2, ..Plan::default() });
    for member in 0..2 {
        let namespace = cluster.lab().member(member);
        overlan_tests::lab::ip(&["-n", &namespace, "link", "set", "eth0", "mtu", "1300"]);
        let config = cluster.config(member);
        cluster.start(member, config);
    }
    cluster.wait_settled();
    let _listener = overlan_tests::traffic::Listener::connected(&cluster.nodes[1], &cluster.nodes[0]);
    let capture = Capture::start(&cluster.lab().router(Router::First));
    for _ in 0..5 {
        let sent = send_large(&cluster.nodes[0], &capture);
        assert!((1_000..=1_272).contains(&sent), "{sent} bytes at an MTU of 1300");
    }
}
