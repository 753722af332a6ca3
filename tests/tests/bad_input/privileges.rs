//! What a member may not do here: it runs without, and says so, or says what it needs.

use std::process::Command;
use std::time::Duration;

use overlan_tests::binary::{finish, overlan};
use overlan_tests::cluster::Cluster;
use overlan_tests::lab::{Plan, Routing};
use overlan_tests::node::Node;
use overlan_tests::skip_without_root;
use overlan_tests::traffic::assert_delivers;
use overlan_tests::wait::wait_until;

#[test]
fn without_cap_net_admin_the_node_runs_and_says_what_it_could_not_do() {
    skip_without_root!();
    let mut cluster = Cluster::in_lab(Plan { members: 2, routing: Routing::Defaults, ..Plan::default() });
    let drop_capabilities =
        ["setpriv", "--bounding-set", "-net_admin,-net_raw", "--inh-caps", "-net_admin,-net_raw"];
    for member in 0..2 {
        let (config, namespace) = (cluster.config(member), cluster.lab().member(member));
        cluster.nodes.push(Node::launch_behind(config, Some(&namespace), &drop_capabilities));
    }
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    cluster.wait_settled();
    assert_delivers(&cluster.nodes[0], &cluster.nodes[1], "reliable");
    let problems = || cluster.nodes[0].problems();
    wait_until("it to say what it lacks", Duration::from_secs(10), problems, |text| {
        text.contains("CAP_NET_ADMIN")
    });
    let namespace = cluster.lab().member(0);
    let routes = overlan_tests::lab::ip(&["-n", &namespace, "route", "show", "table", "all", "proto", "111"]);
    assert_eq!(routes.trim(), "");
}

#[test]
fn too_few_open_files_are_told_with_a_next_step() {
    let cluster = Cluster::on_loopback();
    let file = cluster.folder().join("node.toml");
    std::fs::write(&file, cluster.config(0).text()).expect("a file");
    for limit in [8, 16, 32, 63] {
        let script = format!("ulimit -n {limit} && exec \"$0\" node --config \"$1\"");
        let mut node = Command::new("bash");
        node.args(["-c", &script]).arg(overlan()).arg(&file);
        let error = finish(&mut node).fails(1);
        assert!(error.contains(&format!("may open {limit} files")) && error.contains("ulimit -n"), "{error}");
    }
}
