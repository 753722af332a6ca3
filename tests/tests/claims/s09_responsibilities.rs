//! S9: responsibilities follow the facts of adapters, as the plugin says.

use std::collections::BTreeMap;
use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::config::{Config, Responsibility};
use overlan_tests::json::{rows, text};
use overlan_tests::lab::Plan;
use overlan_tests::skip_without_root;
use overlan_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const SHARDS: usize = 64;

fn with_shards(config: &mut Config, replicas: u32) {
    config.responsibilities = vec![Responsibility { name: "shard-{0..63}".into(), replicas }];
}

/// How many responsibilities each member owns as their primary.
fn shares(plan: &Value) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for duty in rows(&plan["duties"]) {
        if let Some(owner) = rows(&duty["owners"]).first().and_then(Value::as_str) {
            *shares.entry(owner.to_owned()).or_default() += 1;
        }
    }
    shares
}

/// Waits until all of these members hold one plan that `wanted` accepts.
fn wait_plan(cluster: &Cluster, what: &str, wanted: impl Fn(&BTreeMap<String, usize>) -> bool) -> Value {
    let plans = || cluster.nodes.iter().map(|node| node.listing("plan")).collect::<Vec<_>>();
    let same = |plans: &Vec<Value>| {
        plans
            .windows(2)
            .all(|pair| pair[0]["digest"] == pair[1]["digest"] && pair[0]["epoch"] == pair[1]["epoch"])
            && rows(&plans[0]["duties"]).len() == SHARDS
            && wanted(&shares(&plans[0]))
    };
    wait_until(what, LIMIT, plans, same).remove(0)
}

fn share(shares: &BTreeMap<String, usize>, member: &str) -> usize {
    shares.get(member).copied().unwrap_or_default()
}

#[test]
fn a_fast_adapter_that_goes_down_takes_its_share_with_it_and_brings_it_back() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |member, config| {
        with_shards(config, 1);
        // b's first adapter is a hundred times faster than anything else.
        config.adapters[0].speed = if member == 1 { 100_000 } else { 1_000 };
        config.adapters[1].speed = 1_000;
    });
    let fast = wait_plan(&cluster, "b to own nearly everything", |shares| share(shares, "b") > 50);
    cluster.lab().link_down(1, 0);
    let slow = wait_plan(&cluster, "b to own its third", |shares| (5..45).contains(&share(shares, "b")));
    assert!(slow["epoch"].as_u64() > fast["epoch"].as_u64(), "{slow}");
    cluster.lab().link_up(1, 0);
    let again = wait_plan(&cluster, "b to own nearly everything again", |shares| share(shares, "b") > 50);
    assert_eq!(again["duties"], fast["duties"], "the same facts give the same plan");
}

#[test]
fn a_class_of_service_weighs_as_the_plugin_is_told() {
    let told = "[policy.assignment]\nplugin = \"builtin:rendezvous\"\n\
                config = { speed = \"equal\", class_percent = \"gold=1000, bulk=10\" }\n";
    let mut cluster = Cluster::started_on_loopback(3, |member, config| {
        with_shards(config, 1);
        config.extra = told.into();
        config.adapters[0].class_of_service = if member == 1 { "gold" } else { "bulk" }.into();
    });
    wait_plan(&cluster, "b to own nearly everything", |shares| share(shares, "b") > 50);
    cluster.nodes[1].config.adapters[0].class_of_service = "bulk".into();
    cluster.nodes[1].restart();
    wait_plan(&cluster, "b to own its third", |shares| (5..45).contains(&share(shares, "b")));
}

#[test]
fn a_member_that_is_gone_owns_nothing_and_its_standbys_take_over() {
    let mut cluster = Cluster::started_on_loopback(3, |_, config| with_shards(config, 2));
    let before = wait_plan(&cluster, "everybody to own something", |shares| shares.len() == 3);
    cluster.nodes.pop().expect("c").kill();
    let after = wait_plan(&cluster, "c to own nothing", |shares| !shares.contains_key("c"));
    for (old, new) in rows(&before["duties"]).iter().zip(rows(&after["duties"])) {
        if old["owners"][0] == "c" {
            assert_eq!(new["owners"][0], old["owners"][1], "its standby takes over {}", text(old, "name"));
        } else {
            assert_eq!(new["owners"][0], old["owners"][0], "nothing else moves: {}", text(old, "name"));
        }
    }
}

#[test]
fn a_swapped_plugin_decides_from_then_on_and_everybody_agrees() {
    let cluster = Cluster::started_on_loopback(3, |member, config| {
        with_shards(config, 1);
        config.adapters[0].speed = if member == 1 { 100_000 } else { 1_000 };
    });
    let before =
        wait_plan(&cluster, "the fast member to own nearly everything", |shares| share(shares, "b") > 50);
    for node in &cluster.nodes {
        node.run(&["policy", "set", "assignment", "builtin:balanced"]).ok();
    }
    // A third, and the tolerance of a fifth of it.
    let even = |shares: &BTreeMap<String, usize>| {
        shares.len() == 3 && shares.values().all(|share| (17..=26).contains(share))
    };
    let after = wait_plan(&cluster, "64 responsibilities to be spread evenly", even);
    assert_ne!(after["plugin"], before["plugin"]);
    for node in &cluster.nodes {
        let votes = |plan: &Value| rows(&plan["votes"]).iter().all(|vote| vote["verdict"] == "same");
        wait_until("all answers to be the same", LIMIT, || node.listing("plan"), votes);
    }
}
