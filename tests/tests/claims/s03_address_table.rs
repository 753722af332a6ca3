//! S3: a message is sent by looking its address up in the table.

use overlan_tests::cluster::Cluster;
use overlan_tests::json::{row, rows, text};
use overlan_tests::traffic::{assert_delivers, send_text};

#[test]
fn a_send_to_an_unknown_node_is_a_clear_error() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let error = send_text(&cluster.nodes[0], "nobody-here", "reliable", "hello").fails(1);
    assert!(error.contains("nobody-here"), "it names the node: {error}");
    assert!(error.contains("overlan members"), "it says what to do: {error}");
}

#[test]
fn a_send_to_an_unknown_role_is_a_clear_error() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let error = send_text(&cluster.nodes[0], "role:nothing", "reliable", "hello").fails(1);
    assert!(error.contains("nothing"), "it names the role: {error}");
}

#[test]
fn the_table_lists_every_address_in_order_of_preference() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let table = cluster.nodes[0].listing("table");
    for (member, name) in [(0, "a"), (1, "b")] {
        let adapters = row(&table["entries"], "name", name)["adapters"].as_array().expect("adapters").clone();
        let listed: Vec<&str> = adapters.iter().map(|adapter| text(adapter, "address")).collect();
        let configured: Vec<String> =
            (0..2).map(|adapter| format!("{}:7400", cluster.address(member, adapter))).collect();
        assert_eq!(listed, configured, "{name}");
    }
}

#[test]
fn members_are_found_by_name_and_by_id() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let members = cluster.nodes[0].listing("members");
    assert_eq!(rows(&members).len(), 2);
    let id = text(row(&members, "name", "b"), "id").to_owned();
    assert_eq!(id.len(), 32);
    assert_delivers(&cluster.nodes[0], &cluster.nodes[1], "ordered");
    send_text(&cluster.nodes[0], &id, "unreliable", "by id").ok();
}
