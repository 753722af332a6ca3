//! S11: traffic is on the primary while it is healthy.

use overlan_tests::cluster::Cluster;
use overlan_tests::json::{rows, text};
use overlan_tests::lab::{Plan, Router};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, measure};

const STREAM: Stream = Stream { mode: "reliable", count: 200, interval_ms: 5, size: 1_000 };

/// Bytes that both routers carried from a to b for a stream.
fn carried(cluster: &Cluster) -> [u64; 2] {
    let bytes = || Router::BOTH.map(|router| cluster.lab().forwarded(router, 0, 1).bytes);
    let before = bytes();
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {});
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    let after = bytes();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn traffic_is_on_the_first_adapter() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    let [first, second] = carried(&cluster);
    let stream = (STREAM.count * STREAM.size) as u64;
    assert!(first >= stream, "{first} bytes by the first router");
    assert!(second < stream / 5, "{second} bytes by the second router, probes included");
    let paths = cluster.nodes[0].listing("paths");
    for path in rows(&paths).iter().filter(|path| path["active"] == true) {
        assert_eq!(text(path, "adapter"), "eth0", "{path}");
        assert_eq!(path["rank"], 0, "{path}");
    }
}

#[test]
fn the_order_is_the_configurations() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, config| config.adapters.reverse());
    let [first, second] = carried(&cluster);
    assert!(second > first * 5, "{first} bytes by the first router, {second} by the second");
}
