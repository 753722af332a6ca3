//! S14: create, store, employ: what the README's first page does by hand, and the demo.

use overlan_tests::binary::run;
use overlan_tests::cluster::Cluster;
use overlan_tests::json::number;
use overlan_tests::traffic::Listener;
use serde_json::Value;

#[test]
fn a_key_two_nodes_and_a_message() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let listener = Listener::start(&cluster.nodes[1]);
    let file = cluster.folder().join("hello");
    std::fs::write(&file, "hello").expect("a file");
    cluster.nodes[0].run(&["send", "--to", "b", file.to_str().expect("a plain name")]).ok();
    let arrived = listener.wait_count(1, std::time::Duration::from_secs(10));
    assert_eq!(arrived[0].line["text"], "hello");
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("cluster.key");
    let key_name = key.to_str().expect("a plain name");
    run(["keygen", "--out", key_name]).ok();
    let mode = std::fs::metadata(&key).expect("the key").permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads it: {mode:o}");
    let first = std::fs::read(&key).expect("the key");
    let refused = run(["keygen", "--out", key_name]).fails(1);
    assert!(refused.contains("cluster.key"), "{refused}");
    assert_eq!(std::fs::read(&key).expect("the key"), first);
}

#[test]
fn the_demo_shows_it_all() {
    let printed = run(["demo", "--json"]).ok();
    let last = printed.lines().rfind(|line| !line.trim().is_empty()).expect("a summary");
    let summary: Value =
        serde_json::from_str(last).or_else(|_| serde_json::from_str(&printed)).expect("JSON");
    assert_eq!(number(&summary, "members"), 3);
    assert_eq!(summary["digests_equal"], true, "{summary}");
    assert!(number(&summary, "sent") > 0, "{summary}");
    assert_eq!(summary["sent"], summary["delivered"], "{summary}");
    assert_eq!((number(&summary, "lost"), number(&summary, "doubled")), (0, 0), "{summary}");
    assert!(summary["failover_gap_ms"].as_f64().is_some_and(|gap| gap < 2_000.0), "{summary}");
    assert_ne!(summary["policy_before"], summary["policy_after"], "{summary}");
    assert!(number(&summary, "responsibilities_moved") > 0, "{summary}");
}

#[test]
fn bad_usage_is_status_2() {
    run(["no-such-command"]).fails(2);
    run(["send", "--mode", "telepathic", "--to", "b"]).fails(2);
}
