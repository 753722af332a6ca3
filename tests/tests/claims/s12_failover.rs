//! S12: when the primary gives no timely response, messages go to an alternate: nothing is lost,
//! nothing doubled, and the gap is measured.

use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::json::{rows, text};
use overlan_tests::lab::faults::Hit;
use overlan_tests::lab::{Lab, Plan, Router};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Outcome, Stream, measure};
use overlan_tests::wait::{wait_for, wait_until};

/// Long enough for the slower plugin to notice and for the stream to go on after it.
const STREAM: Stream = Stream { mode: "reliable", count: 900, interval_ms: 5, size: 64 };

fn cluster(plugin: &str) -> Cluster {
    let cluster = Cluster::started_in_lab(Plan::default(), |_, config| config.set_policy("failover", plugin));
    wait_for("both paths to be up", Duration::from_secs(15), || {
        let paths = cluster.nodes[0].listing("paths");
        let up = rows(&paths).iter().filter(|path| path["node"] == "b" && path["state"] == "up").count();
        (up >= 2).then_some(())
    });
    cluster
}

/// Cuts mid-stream, from a to b, and checks that nothing is lost or doubled. The bounds leave room for
/// a debug build on a busy machine; the figures are printed.
fn cut(plugin: &str, fault: &str, limit_ms: f64, bring_about: impl FnOnce(&Lab)) -> (Cluster, Outcome) {
    let cluster = cluster(plugin);
    let alternate = || cluster.lab().forwarded(Router::Second, 0, 1).packets;
    let before = alternate();
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || bring_about(cluster.lab()));
    let carried = alternate() - before;
    assert!(
        carried >= STREAM.count as u64 / 3,
        "the alternate carried {carried} datagrams: the fault had no effect"
    );
    println!("{plugin}, {fault}: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0), "{plugin}, {fault}");
    assert!(outcome.gap_ms <= limit_ms, "{plugin}, {fault}: gap of {} ms", outcome.gap_ms);
    (cluster, outcome)
}

const FAST: &str = "builtin:fast";
const KNET: &str = "builtin:knet-compat";

fn silent_drop(lab: &Lab) {
    lab.drop_silently(Router::First, Hit::ALL);
}

#[test]
fn fast_local_link_down() {
    skip_without_root!();
    let (cluster, _) = cut(FAST, "local link down", 500.0, |lab| lab.link_down(0, 0));
    assert!(cluster.nodes[0].counter("failovers") >= 1);
}

#[test]
fn fast_silent_drop_in_the_router() {
    skip_without_root!();
    cut(FAST, "silent drop", 1_500.0, silent_drop);
}

#[test]
fn fast_one_way_loss_of_data() {
    skip_without_root!();
    cut(FAST, "one-way loss", 1_500.0, |lab| lab.drop_silently(Router::First, Hit::one_way(0, 1)));
}

#[test]
fn fast_one_way_loss_of_replies() {
    skip_without_root!();
    cut(FAST, "one-way loss of replies", 1_500.0, |lab| lab.drop_silently(Router::First, Hit::one_way(1, 0)));
}

#[test]
fn fast_remote_address_deleted() {
    skip_without_root!();
    cut(FAST, "remote primary address deleted", 1_500.0, |lab| lab.address_delete(1, 0));
}

#[test]
fn fast_remote_link_down() {
    skip_without_root!();
    cut(FAST, "remote link down", 1_500.0, |lab| lab.link_down(1, 0));
}

#[test]
fn knet_compat_local_link_down() {
    skip_without_root!();
    cut(KNET, "local link down", 500.0, |lab| lab.link_down(0, 0));
}

#[test]
fn knet_compat_silent_drop_in_the_router() {
    skip_without_root!();
    cut(KNET, "silent drop", 5_000.0, silent_drop);
}

#[test]
fn knet_compat_one_way_loss() {
    skip_without_root!();
    cut(KNET, "one-way loss", 5_000.0, |lab| lab.drop_silently(Router::First, Hit::one_way(0, 1)));
}

#[test]
fn an_ordered_stream_stays_in_order_across_a_failover() {
    skip_without_root!();
    let cluster = cluster(FAST);
    let stream = Stream { mode: "ordered", ..STREAM };
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], stream, || silent_drop(cluster.lab()));
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
}

#[test]
fn random_loss_costs_time_and_no_message() {
    skip_without_root!();
    let cluster = cluster(FAST);
    let stream = Stream { count: 1_000, ..STREAM };
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], stream, || {
        Router::BOTH.into_iter().for_each(|router| cluster.lab().lose(router, Hit::ALL, 15));
    });
    println!("15% random loss on both: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    for node in &cluster.nodes {
        for member in ["a", "b", "c"] {
            assert_eq!(node.state_of(member), "alive", "loss is no death");
        }
    }
}

#[test]
fn traffic_returns_to_the_primary_after_the_hold_down() {
    skip_without_root!();
    let (cluster, _) = cut(FAST, "silent drop", 1_500.0, silent_drop);
    let active = || {
        let paths = cluster.nodes[0].listing("paths");
        let to_b = rows(&paths).iter().find(|path| path["node"] == "b" && path["active"] == true);
        to_b.map(|path| text(path, "adapter").to_owned()).unwrap_or_default()
    };
    assert_eq!(active(), "eth1");
    cluster.lab().heal(Router::First);
    // `fast` holds the path down for 5 s: it must not return at once.
    overlan_tests::wait::stays("on the alternate", Duration::from_secs(2), || active() == "eth1");
    wait_until("traffic to return", Duration::from_secs(30), active, |adapter| adapter == "eth0");
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], Stream { count: 200, ..STREAM }, || {});
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
}

#[test]
fn a_plugin_swapped_on_the_running_node_decides_the_next_failover() {
    skip_without_root!();
    let cluster = cluster(KNET);
    for node in &cluster.nodes {
        node.run(&["policy", "set", "failover", FAST]).ok();
    }
    let timing = || rows(&cluster.nodes[0].listing("paths"))[0]["probe_interval_us"].as_u64();
    wait_until("the new timing", Duration::from_secs(10), timing, |&interval| interval == Some(200_000));
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || silent_drop(cluster.lab()));
    println!("swapped from knet-compat to fast, silent drop: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    assert!(outcome.gap_ms <= 1_500.0, "{outcome:?}");
}

#[test]
fn two_members_cut_from_each_other_stay_alive_through_the_third() {
    skip_without_root!();
    let cluster = cluster(FAST);
    for router in Router::BOTH {
        cluster.lab().drop_silently(router, Hit::one_way(0, 1));
        cluster.lab().drop_silently(router, Hit::one_way(1, 0));
    }
    let lost = || {
        let paths = cluster.nodes[0].listing("paths");
        rows(&paths).iter().filter(|path| path["node"] == "b").all(|path| path["state"] == "down")
    };
    wait_until("a to find no path to b", Duration::from_secs(20), lost, |&lost| lost);
    overlan_tests::wait::stays("alive by the third's word", Duration::from_secs(5), || {
        cluster.nodes[0].state_of("b") != "down" && cluster.nodes[2].state_of("b") == "alive"
    });
    Router::BOTH.into_iter().for_each(|router| cluster.lab().heal(router));
    cluster.wait_settled();
}
