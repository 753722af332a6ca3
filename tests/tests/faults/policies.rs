//! Policies change on a running cluster behind two routers: no message is lost, and a bad one is taken back.

use std::time::Duration;

use overlan_guests::{assignment, failover};
use overlan_tests::cluster::Cluster;
use overlan_tests::config::Responsibility;
use overlan_tests::json::{number, rows, text};
use overlan_tests::lab::Plan;
use overlan_tests::node::Node;
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, measure};
use overlan_tests::wait::wait_until;
use serde_json::Value;

const STREAM: Stream = Stream { mode: "ordered", count: 900, interval_ms: 5, size: 64 };
const LIMIT: Duration = Duration::from_secs(30);

/// Three members with nine duties.
fn cluster() -> Cluster {
    Cluster::started_in_lab(Plan::default(), |_, config| {
        config.responsibilities = vec![Responsibility { name: "shard-{0..8}".into(), replicas: 1 }];
    })
}

fn file(cluster: &Cluster, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = cluster.folder().join(name);
    std::fs::write(&path, contents).expect("a file");
    path.to_str().expect("temporary folders have plain names").to_owned()
}

fn policy(node: &Node, kind: &str) -> Value {
    node.run(&["policy", "show", kind, "--json"]).json()
}

/// Waits until each member answers with a plugin.
fn wait_everywhere(cluster: &Cluster, kind: &str, plugin: &str) {
    let shown = || cluster.nodes.iter().map(|node| policy(node, kind)).collect::<Vec<_>>();
    wait_until("the plugin to answer on every member", LIMIT, shown, |shown| {
        shown.iter().all(|status| text(status, "plugin") == plugin)
    });
}

/// Waits for one plan of this many duties, each with an owner, on every member.
fn wait_one_plan(cluster: &Cluster, duties: usize) {
    let plans = || cluster.nodes.iter().map(|node| node.listing("plan")).collect::<Vec<_>>();
    wait_until("one plan", LIMIT, plans, |plans| {
        plans.iter().all(|plan| {
            plan["digest"] == plans[0]["digest"]
                && rows(&plan["duties"]).len() == duties
                && rows(&plan["duties"]).iter().all(|duty| rows(&duty["owners"]).len() == 1)
        })
    });
}

#[test]
fn a_push_reaches_all_members_under_traffic() {
    skip_without_root!();
    let cluster = cluster();
    let pushed = file(&cluster, "pushed.wasm", failover().component());
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {
        cluster.nodes[2].run(&["policy", "push", "failover", &pushed]).ok();
        wait_everywhere(&cluster, "failover", "pushed.wasm");
    });
    println!("policy push: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0), "{outcome:?}");
    for node in &cluster.nodes {
        assert_eq!(number(&policy(node, "failover"), "faults"), 0);
    }
}

/// It answers for nine duties, and traps once there are ten.
#[test]
fn a_plugin_that_starts_to_trap_is_rolled_back_and_one_plan_stands() {
    skip_without_root!();
    let cluster = cluster();
    let mut guest = assignment();
    guest.decide = guest.decide.replacen(
        "(i32.store",
        "(if (i32.gt_u (local.get 3) (i32.const 9)) (then unreachable)) (i32.store",
        1,
    );
    let bad = file(&cluster, "bad.wasm", guest.component());
    let ten = file(&cluster, "ten.toml", "[[responsibility]]\nname = \"shard-{0..9}\"\n");
    cluster.nodes.iter().for_each(|node| drop(node.run(&["policy", "set", "assignment", &bad]).ok()));
    wait_one_plan(&cluster, 9);
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {
        cluster.nodes[0].run(&["apply", &ten]).ok();
        wait_everywhere(&cluster, "assignment", "builtin:rendezvous");
        wait_one_plan(&cluster, 10);
    });
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0), "{outcome:?}");
    for node in &cluster.nodes {
        let status = policy(node, "assignment");
        assert_eq!(number(&status, "rollbacks"), 1, "{status}");
        assert!(text(&status, "last_rollback").starts_with("bad.wasm gave way"), "{status}");
    }
    // The members know better by now.
    let refused = cluster.nodes[1].run(&["policy", "push", "assignment", &bad]).fails(1);
    assert!(refused.contains("nothing changed on any member"), "{refused}");
}
