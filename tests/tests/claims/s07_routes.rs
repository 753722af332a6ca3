//! S7: routes are planned, installed under our protocol number, reconciled and removed; nobody
//! else's are touched.

use std::time::Duration;

use overlan_tests::binary::run_in;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::{rows, text};
use overlan_tests::lab::{Family, Lab, Plan, ip};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::assert_delivers;
use overlan_tests::wait::wait_until;
use serde_json::Value;

/// The routing protocol number of Overlan's routes and rules.
const PROTOCOL: &str = "111";
const LIMIT: Duration = Duration::from_secs(10);

fn family_flag(lab: &Lab) -> &'static str {
    if lab.plan.family == Family::V4 { "-4" } else { "-6" }
}

/// Every route of a member: as `ip` prints it, table included.
fn routes(lab: &Lab, member: usize) -> Vec<Value> {
    let flag = family_flag(lab);
    let listed = ip(&["-n", &lab.member(member), "-j", "-N", flag, "route", "show", "table", "all"]);
    serde_json::from_str(&listed).expect("JSON")
}

/// Ours, by protocol number; and those that are not.
fn ours(lab: &Lab, member: usize) -> (Vec<Value>, Vec<Value>) {
    routes(lab, member).into_iter().partition(|route| text(route, "protocol") == PROTOCOL)
}

/// Priorities of the rules that are ours.
fn our_rules(lab: &Lab, member: usize) -> Vec<u64> {
    let flag = family_flag(lab);
    let listed = ip(&["-n", &lab.member(member), "-j", "-N", "-d", flag, "rule", "show"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let ours = rows(&listed).iter().filter(|rule| text(rule, "protocol") == PROTOCOL);
    ours.filter_map(|rule| rule["priority"].as_u64()).collect()
}

fn wait_installed(cluster: &Cluster, member: usize) -> Vec<Value> {
    // Two other members, two addresses each, from either adapter's table.
    let enough = |routes: &Vec<Value>| routes.len() >= 4;
    wait_until("our routes to be installed", LIMIT, || ours(cluster.lab(), member).0, enough)
}

#[test]
fn only_host_routes_come_from_the_table_each_by_its_own_adapter() {
    skip_without_root!();
    for family in [Family::V4, Family::V6] {
        let cluster = Cluster::started_in_lab(Plan { family, ..Plan::default() }, |_, _| {});
        let lab = cluster.lab();
        for route in wait_installed(&cluster, 0) {
            let target = text(&route, "dst");
            let bits = if family == Family::V4 { "/32" } else { "/128" };
            assert!(!target.contains('/') || target.ends_with(bits), "a host route: {route}");
            let adapter = usize::from(text(&route, "dev") == "eth1");
            assert_eq!(text(&route, "gateway"), lab.gateway(0, adapter).to_string(), "{route}");
        }
        assert!(our_rules(lab, 0).len() >= 2, "a rule for each adapter address");
        for member in [1, 2] {
            for adapter in 0..2 {
                let (from, to) =
                    (lab.address(0, adapter).to_string(), lab.address(member, adapter).to_string());
                let taken = ip(&["-n", &lab.member(0), "route", "get", &to, "from", &from]);
                assert!(taken.contains(&format!("dev {}", Lab::adapter_name(adapter))), "{taken}");
            }
        }
    }
}

#[test]
fn a_route_deleted_by_hand_comes_back() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    let before = wait_installed(&cluster, 1);
    let (route, namespace) = (&before[0], cluster.lab().member(1));
    ip(&["-n", &namespace, "route", "del", text(route, "dst"), "table", table(route), "proto", PROTOCOL]);
    let same = |routes: &Vec<Value>| routes.len() == before.len();
    wait_until("the deleted route to be back", LIMIT, || ours(cluster.lab(), 1).0, same);
    let rules = our_rules(cluster.lab(), 1);
    ip(&["-n", &namespace, "rule", "del", "priority", &rules[0].to_string()]);
    wait_until("the deleted rule to be back", LIMIT, || our_rules(cluster.lab(), 1), |seen| *seen == rules);
    assert_delivers(&cluster.nodes[1], &cluster.nodes[0], "reliable");
}

fn table(route: &Value) -> &str {
    route["table"].as_str().unwrap_or("254")
}

#[test]
fn all_of_ours_are_gone_after_a_stop_and_nobody_elses() {
    skip_without_root!();
    let mut cluster = Cluster::in_lab(Plan::default());
    let (namespace, gateway) = (cluster.lab().member(0), cluster.lab().gateway(0, 0).to_string());
    for foreign in [
        &["route", "add", "192.0.2.0/24", "via", &gateway, "proto", "static"][..],
        &["route", "add", "198.51.100.7", "via", &gateway, "proto", "99", "table", "4242"],
        &["rule", "add", "from", "203.0.113.0/24", "table", "4242", "priority", "5000"],
    ] {
        let mut arguments = vec!["-n", &namespace];
        arguments.extend_from_slice(foreign);
        ip(&arguments);
    }
    let foreign = routes(cluster.lab(), 0);
    for member in 0..3 {
        let config = cluster.config(member);
        cluster.start(member, config);
    }
    cluster.wait_settled();
    wait_installed(&cluster, 0);
    assert_eq!(ours(cluster.lab(), 0).1, foreign, "while running");
    assert!(cluster.nodes[0].stop().success());
    assert_eq!(ours(cluster.lab(), 0), (vec![], foreign), "after the stop");
    assert_eq!(our_rules(cluster.lab(), 0), Vec::<u64>::new());
    let rules = ip(&["-n", &namespace, "rule", "show"]);
    assert!(rules.contains("203.0.113.0/24"), "{rules}");
}

#[test]
fn what_a_killed_node_left_is_taken_over_and_can_be_cleared() {
    skip_without_root!();
    let mut cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    let before = wait_installed(&cluster, 0).len();
    cluster.nodes[0].restart();
    cluster.wait_settled();
    let same = |routes: &Vec<Value>| routes.len() == before;
    wait_until("the same routes, not twice", LIMIT, || ours(cluster.lab(), 0).0, same);
    cluster.nodes[0].kill();
    assert!(!ours(cluster.lab(), 0).0.is_empty(), "a killed node removes nothing");
    run_in(&cluster.lab().member(0), ["routes", "clear"]).ok();
    assert_eq!(ours(cluster.lab(), 0).0, Vec::<Value>::new());
    assert_eq!(our_rules(cluster.lab(), 0), Vec::<u64>::new());
}

#[test]
fn a_plan_touches_nothing() {
    skip_without_root!();
    let mut cluster = Cluster::in_lab(Plan { members: 1, ..Plan::default() });
    let gateway = cluster.lab().gateway(0, 0);
    let mut config = cluster.config(0);
    config.routes.push(("10.9.0.0/16".into(), gateway, "eth0".into()));
    let file = cluster.folder().join("plan.toml");
    std::fs::write(&file, config.text()).expect("a configuration");
    let before = routes(cluster.lab(), 0);
    let file = file.to_str().expect("temporary folders have plain names");
    let planned = run_in(&cluster.lab().member(0), ["routes", "plan", "--json", "--config", file]).json();
    assert!(planned.to_string().contains("10.9.0.0/16"), "{planned}");
    assert_eq!(routes(cluster.lab(), 0), before, "planning touches nothing");
    cluster.start(0, config);
    let configured = |routes: &Vec<Value>| routes.iter().any(|route| text(route, "dst") == "10.9.0.0/16");
    wait_until("the configured subnet", LIMIT, || ours(cluster.lab(), 0).0, configured);
}
