//! S8: no other socket is open between nodes than one UDP socket for each adapter address.

use std::collections::BTreeSet;

use overlan_tests::cluster::Cluster;
use overlan_tests::lab::{Family, Plan, ip};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::assert_delivers;

/// Protocol, local and remote address of every network socket of a namespace.
fn sockets(namespace: &str) -> Vec<(String, String, String)> {
    let listed = ip(&["netns", "exec", namespace, "ss", "-H", "-n", "-t", "-u", "-w", "-0", "-a"]);
    let columns = |line: &str| {
        let column: Vec<&str> = line.split_whitespace().collect();
        (column[0].to_owned(), column[4].to_owned(), column[5].to_owned())
    };
    listed.lines().map(columns).collect()
}

#[test]
fn each_member_has_one_udp_socket_for_each_address_and_nothing_else() {
    skip_without_root!();
    for family in [Family::V4, Family::V6] {
        let cluster = Cluster::started_in_lab(Plan { family, ..Plan::default() }, |_, _| {});
        assert_delivers(&cluster.nodes[2], &cluster.nodes[0], "ordered");
        for member in 0..3 {
            let open = sockets(&cluster.lab().member(member));
            let mut bound = BTreeSet::new();
            for (protocol, local, _) in &open {
                assert_eq!(protocol, "udp", "{open:?}");
                // ss writes 10.1.1.2%eth0:7400 for sockets that are bound to a device.
                let (address, port) = local.rsplit_once(':').expect("address and port");
                let address = address.trim_matches(['[', ']']);
                bound.insert((
                    address.split('%').next().expect("an address").trim_matches(']').to_owned(),
                    port,
                ));
            }
            let own = |adapter| (cluster.address(member, adapter).to_string(), "7400");
            assert_eq!(bound, BTreeSet::from([own(0), own(1)]), "{open:?}");
            assert_eq!(open.len(), 2, "one socket for each adapter address: {open:?}");
        }
    }
}
