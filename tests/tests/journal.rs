//! The journal of policy questions: it survives a power cut, and other policies are asked what it holds.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use overlan_tests::binary::run;
use overlan_tests::cluster::{Cluster, SETTLED};
use overlan_tests::config::Responsibility;
use overlan_tests::json::number;
use overlan_tests::node::Node;
use overlan_tests::wait::wait_until;
use serde_json::Value;

/// What answers each kind where nothing else is configured.
const DEFAULTS: [(&str, &str); 3] =
    [("assignment", "builtin:rendezvous"), ("sizing", "builtin:mtu-fit"), ("failover", "builtin:fast")];

fn journal(node: &Node) -> PathBuf {
    node.config.folder.join("state/journal")
}

/// Three members with duties, settled, whose first has written something of each kind.
fn cluster() -> Cluster {
    let cluster = Cluster::started_on_loopback(3, |_, config| {
        config.responsibilities = vec![Responsibility { name: "shard-{0..15}".into(), replicas: 2 }];
    });
    let asked = |kind: &str, plugin: &str| number(&replay(&cluster.nodes[0], plugin)["outcome"], kind);
    for (_, plugin) in DEFAULTS {
        wait_until(
            "an answer of each kind in the journal",
            SETTLED,
            || asked("asked", plugin),
            |&asked| asked > 0,
        );
    }
    cluster
}

fn replay(node: &Node, policy: &str) -> Value {
    let journal = journal(node);
    run(["policy", "replay", "--json", "--policy", policy, journal.to_str().expect("a plain name")]).json()
}

#[test]
fn a_replay_with_the_same_policy_is_identical_and_another_differs() {
    let mut cluster = cluster();
    cluster.nodes[0].kill();
    let node = &cluster.nodes[0];
    for (kind, plugin) in DEFAULTS {
        let replayed = replay(node, plugin);
        let outcome = &replayed["outcome"];
        assert_eq!(replayed["kind"], kind);
        assert_eq!(number(outcome, "identical"), number(outcome, "asked"), "{replayed}");
        assert_eq!((number(outcome, "different"), number(outcome, "fuel_differs")), (0, 0));
        assert_eq!(outcome["differences"], serde_json::json!([]));
    }
    for (other, counter) in [
        ("builtin:sticky", "responsibilities_moved"),
        ("builtin:conservative", "datagrams"),
        ("builtin:knet-compat", "timings"),
    ] {
        let replayed = replay(node, other);
        assert!(number(&replayed["outcome"], "different") > 0, "{replayed}");
        assert!(number(&replayed["outcome"]["changes"], counter) > 0, "{replayed}");
    }
    let journal = journal(node);
    let journal = journal.to_str().expect("a plain name");
    let text = run(["policy", "replay", "--policy", "builtin:sticky", journal]).ok();
    assert!(text.contains("shard-") && text.contains("responsibilities moved"), "{text}");
}

#[test]
fn the_configuration_of_then_is_used_for_the_same_component() {
    let cluster = cluster();
    let node = &cluster.nodes[0];
    node.run(&["policy", "set", "failover", "builtin:fast", "--config", "misses=7"]).ok();
    let others = || {
        let found = run([
            "policy",
            "replay",
            "--json",
            "--policy",
            "builtin:fast",
            "--config",
            "misses=7",
            journal(node).to_str().expect("a plain name"),
        ]);
        number(&found.json()["outcome"], "identical")
    };
    wait_until("answers under the other configuration", SETTLED, others, |&identical| identical > 0);
    let replayed = replay(node, "builtin:fast");
    assert_eq!(number(&replayed["outcome"], "different"), 0, "{replayed}");
}

#[test]
fn a_damaged_journal_is_read_up_to_the_damage_and_goes_on() {
    let mut cluster = cluster();
    cluster.nodes[0].kill();
    let folder = journal(&cluster.nodes[0]);
    let before = replay(&cluster.nodes[0], "builtin:fast");
    let file = folder.join("current.journal");
    // The beginning of a record of 100 bytes.
    let mut unfinished = [9; 30];
    unfinished[..4].copy_from_slice(&100_u32.to_le_bytes());
    OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(&unfinished))
        .expect("a tail");
    let ran =
        run(["policy", "replay", "--json", "--policy", "builtin:fast", folder.to_str().expect("plain")]);
    assert!(
        ran.stderr.contains("current.journal") && ran.stderr.contains("30 bytes were skipped"),
        "{}",
        ran.stderr
    );
    let damaged = ran.json();
    assert_eq!(number(&damaged, "records"), number(&before, "records"));
    assert_eq!(number(&damaged["damage"][0], "lost_bytes"), 30);
    // The node cuts it off and goes on behind the last whole one.
    cluster.nodes[0].restart();
    let node = &cluster.nodes[0];
    let records = || number(&replay(node, "builtin:fast"), "records");
    wait_until("the journal to go on", SETTLED, records, |&records| records > number(&before, "records"));
    assert_eq!(replay(node, "builtin:fast")["damage"], serde_json::json!([]));
}

#[test]
fn a_journal_is_bounded_or_off_and_counted() {
    let cluster = Cluster::started_on_loopback(2, |member, config| {
        config.extra = format!("[policy]\njournal = {member}\n");
    });
    let written = || cluster.nodes[1].listing("status")["journal"]["written"].as_u64().unwrap_or(0);
    wait_until("records", Duration::from_secs(30), written, |&written| written > 0);
    let [off, on] = &cluster.nodes[..] else { panic!("two members") };
    assert!(!journal(off).exists());
    assert_eq!(off.listing("status")["journal"], Value::Null);
    assert_eq!(number(&on.listing("status")["journal"], "failed"), 0);
    let size: u64 = fs::read_dir(journal(on))
        .expect("a journal")
        .map(|file| file.expect("a file").metadata().expect("its size").len())
        .sum();
    assert!(size <= 1 << 20);
    let said = run(["policy", "replay", "--policy", "builtin:fast", journal(off).to_str().expect("plain")]);
    assert!(said.fails(1).contains("journal"));
}
