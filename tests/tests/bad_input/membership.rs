//! Members that should not be let in, or cannot get in.

use std::net::UdpSocket;
use std::time::Duration;

use overlan_tests::binary::run;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::rows;
use overlan_tests::node::Node;
use overlan_tests::wait::{stays, wait_until, within};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_wrong_cluster_key_is_refused_counted_and_named() {
    let mut cluster = Cluster::started_on_loopback(2, |_, _| {});
    let other = cluster.folder().join("other.key");
    run(["keygen", "--out", other.to_str().expect("a plain name")]).ok();
    let mut config = cluster.config(2);
    config.key_file = other;
    cluster.start(2, config);
    let seed = &cluster.nodes[0];
    let counted = || seed.counter("dropped_unknown_key") + seed.counter("dropped_forged");
    wait_until("the seed to count it", LIMIT, counted, |&count| count > 0);
    wait_until("the seed to name it", LIMIT, || seed.problems(), |problems| problems.contains("key"));
    let stranger = &cluster.nodes[2];
    wait_until("the stranger to know what is wrong", LIMIT, || stranger.problems(), |text| !text.is_empty());
    stays("outside", Duration::from_secs(3), || {
        seed.state_of("c").is_empty() && stranger.state_of("a").is_empty()
    });
    assert_eq!(stranger.listing("status")["joined"], false);
    cluster.wait_settled_among(&[0, 1]);
}

#[test]
fn a_name_that_is_taken_is_refused_with_a_word() {
    let mut cluster = Cluster::started_on_loopback(2, |_, _| {});
    let mut config = cluster.config(2);
    config.name = "b".into();
    cluster.launch(2, config);
    let late = &mut cluster.nodes[2];
    // It may end, or stay and say so.
    let said = within(LIMIT, || {
        let status = late.run(&["status", "--json"]);
        let text = format!("{}\n{}", status.stdout, late.log());
        text.contains("name is taken").then_some(())
    });
    assert!(said.is_some(), "nobody said that the name is taken: {}", late.log());
    let members = cluster.nodes[0].listing("members");
    assert_eq!(rows(&members).len(), 2, "{members}");
    cluster.wait_settled_among(&[0, 1]);
}

#[test]
fn an_unreachable_seed_is_named_and_tried_until_it_is_there() {
    let mut cluster = Cluster::on_loopback();
    let mut early = cluster.config(0);
    let seed = cluster.seed(1);
    early.seeds = vec![seed];
    cluster.start(0, early);
    let named = |problems: &String| problems.contains(&seed.to_string());
    wait_until("the seed to be named", LIMIT, || cluster.nodes[0].problems(), named);
    assert_eq!(cluster.nodes[0].listing("status")["joined"], false);
    let mut late = cluster.config(1);
    late.seeds.clear();
    cluster.start(1, late);
    cluster.wait_settled();
    wait_until("the word of it to go", LIMIT, || cluster.nodes[0].problems(), |problems| !named(problems));
}

#[test]
fn an_address_in_use_is_named() {
    let cluster = Cluster::on_loopback();
    let address = cluster.seed(0);
    let _taken = UdpSocket::bind(address).expect("a free address");
    let mut node = Node::launch(cluster.config(0), None);
    let said = within(LIMIT, || {
        let status = node.run(&["status", "--json"]);
        let text = format!("{}\n{}", status.stdout, node.log());
        (text.contains(&address.to_string()) && text.contains("in use")).then_some(())
    });
    assert!(said.is_some(), "nobody said that {address} is in use: {}", node.log());
    node.kill();
}

#[test]
fn a_second_node_on_the_same_state_directory_is_refused() {
    let mut cluster = Cluster::started_on_loopback(1, |_, _| {});
    // The same folder, and so the same state directory and control socket, with other addresses.
    let mut config = cluster.config(1);
    config.folder = cluster.nodes[0].config.folder.clone();
    config.name = "a".into();
    let mut second = Node::launch(config, None);
    let ended = second.wait_end(LIMIT);
    assert!(!ended.success());
    assert!(second.log().contains("state"), "it names the directory: {}", second.log());
    assert_eq!(cluster.nodes[0].state_of("a"), "alive", "the first runs on");
    assert!(cluster.nodes[0].stop().success());
}

#[test]
fn an_adapter_that_does_not_exist_yet_is_reported_and_waited_for() {
    overlan_tests::skip_without_root!();
    let mut cluster = Cluster::in_lab(overlan_tests::lab::Plan { members: 1, ..Default::default() });
    let mut config = cluster.config(0);
    config.adapters[0].name = "eth7".into();
    config.adapters[0].gateway = None;
    let node = cluster.start(0, config);
    wait_until("the adapter to be named", LIMIT, || node.problems(), |problems| problems.contains("eth7"));
    let namespace = cluster.lab().member(0);
    let ip = |arguments: &[&str]| overlan_tests::lab::ip(&[&["-n", &namespace], arguments].concat());
    ip(&["link", "add", "eth7", "type", "veth", "peer", "name", "far7"]);
    ip(&["address", "add", "10.77.0.2/24", "dev", "eth7"]);
    ip(&["link", "set", "far7", "up"]);
    ip(&["link", "set", "eth7", "up"]);
    let listed = || cluster.nodes[0].listing("table").to_string();
    let table =
        wait_until("the adapter in the table", LIMIT, listed, |table| table.contains("10.77.0.2:7400"));
    assert!(!table.contains("127.0.0.1"), "loopback never stands in: {table}");
}
