//! S1: members on different subnets, with nothing shared but routers, exchange messages.

use overlan_tests::cluster::Cluster;
use overlan_tests::lab::{Family, Plan, Routing};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::assert_delivers;

fn every_pair_delivers_both_ways(plan: Plan) {
    let cluster = Cluster::started_in_lab(plan, |_, _| {});
    for from in &cluster.nodes {
        for to in cluster.nodes.iter().filter(|to| to.config.name != from.config.name) {
            for mode in ["unreliable", "reliable", "ordered"] {
                assert_delivers(from, to, mode);
            }
        }
    }
}

#[test]
fn with_the_routes_that_overlan_sets_up() {
    skip_without_root!();
    every_pair_delivers_both_ways(Plan::default());
}

#[test]
fn with_the_routes_that_overlan_sets_up_over_ipv6() {
    skip_without_root!();
    every_pair_delivers_both_ways(Plan { family: Family::V6, ..Plan::default() });
}

#[test]
fn with_kernel_default_routes_and_strict_reverse_path_filters() {
    skip_without_root!();
    every_pair_delivers_both_ways(Plan { routing: Routing::Defaults, rp_filter: 1, ..Plan::default() });
}

#[test]
fn with_kernel_default_routes_over_ipv6() {
    skip_without_root!();
    let plan = Plan { family: Family::V6, routing: Routing::Defaults, ..Plan::default() };
    every_pair_delivers_both_ways(plan);
}

#[test]
fn with_subnets_from_the_configuration() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |member, config| {
        for adapter in &mut config.adapters {
            let gateway = adapter.gateway.take().expect("lab adapters have one");
            let link = if adapter.name == "eth0" { 1 } else { 2 };
            let others = (1..=3).filter(|other| *other != member + 1);
            config.routes.extend(
                others.map(|other| (format!("10.{other}.{link}.0/24"), gateway, adapter.name.clone())),
            );
        }
    });
    assert_delivers(&cluster.nodes[1], &cluster.nodes[2], "reliable");
    assert_delivers(&cluster.nodes[2], &cluster.nodes[1], "reliable");
}
