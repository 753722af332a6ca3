//! S2: a packet capture shows only UDP on the configured ports.

use std::collections::BTreeSet;

use overlan_tests::cluster::Cluster;
use overlan_tests::lab::capture::Capture;
use overlan_tests::lab::{Family, Plan, Router};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::assert_delivers;

fn only_udp_on_the_configured_port(family: Family) {
    let mut cluster = Cluster::in_lab(Plan { family, ..Plan::default() });
    let captures = Router::BOTH.map(|router| Capture::start(&cluster.lab().router(router)));
    for member in 0..3 {
        let mut config = cluster.config(member);
        config.port = 7411;
        config.seeds.iter_mut().for_each(|seed| seed.set_port(7411));
        cluster.start(member, config);
    }
    cluster.wait_settled();
    assert_delivers(&cluster.nodes[0], &cluster.nodes[2], "reliable");
    for (router, capture) in captures.iter().enumerate() {
        let (ports, others) = capture.take_kinds();
        assert_eq!(ports, BTreeSet::from([7411]), "router {router}");
        assert_eq!(others, BTreeSet::new(), "router {router}: neither UDP nor the network's own upkeep");
    }
    let stopped = cluster.nodes[1].stop();
    assert!(stopped.success(), "{stopped}");
    let (ports, others) = captures[0].take_kinds();
    assert_eq!((ports, others), (BTreeSet::from([7411]), BTreeSet::new()), "while leaving");
}

#[test]
fn over_ipv4() {
    skip_without_root!();
    only_udp_on_the_configured_port(Family::V4);
}

#[test]
fn over_ipv6() {
    skip_without_root!();
    only_udp_on_the_configured_port(Family::V6);
}
