//! The cluster key of a running cluster changes: no message is lost, and the old key opens nothing any more.

use std::time::Duration;

use overlan_tests::binary;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::{rows, text};
use overlan_tests::node::Node;
use overlan_tests::traffic::{Stream, assert_delivers, measure};
use overlan_tests::wait::wait_until;

const STREAM: Stream = Stream { mode: "ordered", count: 900, interval_ms: 5, size: 64 };

/// Members whose key files are their own.
fn members(count: usize) -> Cluster {
    let cluster = Cluster::on_loopback();
    let shared = cluster.key_file();
    let own = move |member: usize| shared.with_file_name(format!("{member}.key"));
    for member in 0..count {
        std::fs::copy(cluster.key_file(), own(member)).expect("a copy");
    }
    cluster.started(count, move |member, config| config.key_file = own(member))
}

fn ids(node: &Node) -> Vec<(String, bool)> {
    let keys = node.run(&["keys", "list", "--json"]).json();
    rows(&keys).iter().map(|key| (text(key, "id").to_owned(), key["active"] == true)).collect()
}

#[test]
fn the_key_changes_while_messages_flow() {
    let mut cluster = members(3);
    let old = ids(&cluster.nodes[0])[0].0.clone();
    let new_file = cluster.folder().join("new.key");
    let new_file = new_file.to_str().expect("temporary folders have plain names");
    binary::run(["keygen", "--out", new_file]).ok();
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {
        let everywhere = |words: &[&str]| cluster.nodes.iter().for_each(|node| drop(node.run(words).ok()));
        everywhere(&["keys", "add", new_file]);
        let new = ids(&cluster.nodes[2])[1].0.clone();
        everywhere(&["keys", "promote", &new]);
        everywhere(&["keys", "retire", &old]);
        for node in &cluster.nodes {
            assert_eq!(ids(node), [(new.clone(), true)]);
        }
    });
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0), "{outcome:?}");
    cluster.wait_settled();
    // Whoever comes back with the old key alone stays outside.
    let shared = cluster.key_file();
    let (others, last) = cluster.nodes.split_at_mut(2);
    std::fs::copy(shared, &last[0].config.key_file).expect("a copy");
    refused(&others[0], &mut last[0]);
}

/// Restarts a member, which another must not let in any more.
fn refused(by: &Node, whom: &mut Node) {
    let before = by.counter("dropped_unknown_key");
    whom.restart();
    let refused = || by.counter("dropped_unknown_key");
    wait_until("the old key to be refused", Duration::from_secs(20), refused, |&now| now > before);
    assert_eq!(whom.listing("status")["joined"], false);
}

/// A change that is in the file already takes effect all the same.
#[test]
fn members_may_share_a_key_file() {
    let mut cluster = Cluster::on_loopback().started(2, |_, _| {});
    let old = ids(&cluster.nodes[0])[0].0.clone();
    let new_file = cluster.folder().join("new.key");
    let new_file = new_file.to_str().expect("temporary folders have plain names");
    binary::run(["keygen", "--out", new_file]).ok();
    cluster.nodes.iter().for_each(|node| drop(node.run(&["keys", "add", new_file]).ok()));
    let new = ids(&cluster.nodes[1])[1].0.clone();
    cluster.nodes.iter().for_each(|node| drop(node.run(&["keys", "promote", &new]).ok()));
    cluster.nodes.iter().for_each(|node| drop(node.run(&["keys", "retire", &old]).ok()));
    for node in &cluster.nodes {
        assert_eq!(ids(node), [(new.clone(), true)]);
    }
    assert_delivers(&cluster.nodes[0], &cluster.nodes[1], "ordered");
    cluster.nodes[1].restart();
    cluster.wait_settled();
}

#[test]
fn a_restart_finds_the_key_in_force_and_the_old_one_is_good_for_nothing() {
    let mut cluster = members(2);
    let new_file = cluster.folder().join("new.key");
    binary::run([std::ffi::OsStr::new("keygen"), "--out".as_ref(), new_file.as_os_str()]).ok();
    // What an operator writes into the file by hand takes effect at a word.
    for node in &cluster.nodes {
        std::fs::copy(&new_file, &node.config.key_file).expect("a copy");
        node.run(&["keys", "reload"]).ok();
    }
    cluster.wait_settled();
    cluster.nodes[1].restart();
    cluster.wait_settled();
    assert_delivers(&cluster.nodes[1], &cluster.nodes[0], "ordered");
    cluster.nodes[1].kill();
    std::fs::copy(cluster.key_file(), &cluster.nodes[1].config.key_file).expect("a copy");
    let (others, last) = cluster.nodes.split_at_mut(1);
    refused(&others[0], &mut last[0]);
}

#[test]
fn wrong_changes_are_refused_in_words_and_change_nothing() {
    let cluster = members(1);
    let node = &cluster.nodes[0];
    let before = (ids(node), std::fs::read(&node.config.key_file).expect("the key file"));
    let garbage = cluster.folder().join("garbage");
    std::fs::write(&garbage, b"active 1234\xff\n").expect("a file");
    let garbage = garbage.to_str().expect("temporary folders have plain names");
    for (words, said) in [
        (&["keys", "promote", "01234567"][..], "add it first"),
        (&["keys", "retire", &before.0[0].0], "promote another key first"),
        (&["keys", "add", garbage], "the keys to add"),
        (&["keys", "add", "/nonexistent"], "/nonexistent"),
    ] {
        let error = node.run(words).fails(1);
        assert!(error.contains(said), "{words:?}: {error}");
    }
    std::fs::write(&node.config.key_file, "nonsense\n").expect("a file");
    let error = node.run(&["keys", "reload"]).fails(1);
    assert!(error.contains("line 1") && error.contains(".key"), "{error}");
    assert_eq!(ids(node), before.0);
}
