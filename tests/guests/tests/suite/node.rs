//! Hostile guests swapped in on running members: decisions, messages and memory stay.

use std::time::Duration;

use crate::report::Report;
use overlan_contract::Kind;
use overlan_guests::matrix::{Case, Expect, MATRIX};
use overlan_tests::cluster::{Cluster, SETTLED};
use overlan_tests::config::Responsibility;
use overlan_tests::json::{number, text};
use overlan_tests::node::Node;
use overlan_tests::traffic::Listener;
use overlan_tests::wait::{wait_for, wait_until};
use serde_json::Value;

/// Guests that tell most, so that a run stays short; the policy host meets all of them.
const TELLING: &[&str] = &[
    "loops while it is configured",
    "traps while it is instantiated",
    "wants a large memory from the start",
    "traps",
    "recurses without end",
    "takes all memory, then traps",
    "gives a list of 12 MiB",
    "gives the largest numbers",
    "answers with nothing",
    "imports WASI",
    "is a core module with no component type",
    "speaks contract 9.0.0",
    "is precompiled (.cwasm)",
    "is cut off",
];
/// Memory that a member may gain over all of it: a compiled plugin or two, and what the allocator keeps.
const GROWTH_KIB: u64 = 96 << 10;

fn telling() -> impl Iterator<Item = &'static Case> {
    TELLING.iter().map(|name| {
        MATRIX.iter().find(|case| case.name == *name).unwrap_or_else(|| panic!("no guest {name}"))
    })
}

fn shown(node: &Node, kind: Kind) -> Value {
    node.run(&["policy", "show", kind.name(), "--json"]).json()
}

/// Tries to swap a guest in; the sentence that tells what became of it.
fn try_guest(node: &Node, folder: &std::path::Path, case: &Case, kind: Kind) -> String {
    let before = shown(node, kind);
    let file = folder.join(format!("{}.wasm", case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
    std::fs::write(&file, (case.file)(kind)).expect("a file");
    let ran = node.run(&["policy", "set", kind.name(), file.to_str().expect("a plain name")]);
    if ran.status != Some(0) {
        let said = ran.fails(1);
        if let Expect::Refused(says) = case.expect {
            assert!(said.contains(says), "{} as {kind}: {said}", case.name);
        }
        assert_eq!(shown(node, kind)["sha256"], before["sha256"], "the old one stays");
        return format!("refused: {}", said.trim().replace('\n', " "));
    }
    assert!(!matches!(case.expect, Expect::Refused(_)), "{} as {kind} was taken", case.name);
    // It is asked at once, since another plugin is a new fact; it is told from the one before by its faults.
    let after = wait_until(
        "a fault",
        SETTLED,
        || shown(node, kind),
        |shown| number(shown, "faults") > 0 || shown["sha256"] == before["sha256"],
    );
    node.run(&["policy", "set", kind.name(), &format!("builtin:{}", default(kind))]).ok();
    format!("faulted: {}", after["last_fault"].as_str().unwrap_or("rolled back"))
}

fn default(kind: Kind) -> &'static str {
    match kind {
        Kind::Assignment => "rendezvous",
        Kind::Sizing => "mtu-fit",
        Kind::Failover => "fast",
    }
}

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Owners of every duty.
fn owners(node: &Node) -> Vec<(String, Value)> {
    let plan = node.listing("plan");
    let duties = plan["duties"].as_array().expect("a list of duties");
    duties.iter().map(|duty| (text(duty, "name").to_owned(), duty["owners"].clone())).collect()
}

#[test]
fn a_running_member_keeps_its_decisions_messages_and_memory() {
    let cluster = Cluster::started_on_loopback(2, |_, config| {
        config.responsibilities = vec![Responsibility { name: "shard-{0..7}".into(), replicas: 2 }];
    });
    let [first, second] = &cluster.nodes[..] else { panic!("two members") };
    let owned = |plan: &Vec<(String, Value)>| {
        plan.len() == 8
            && plan.iter().all(|(_, owners)| owners.as_array().is_some_and(|list| list.len() == 2))
    };
    let before = wait_until("all duties to be owned", SETTLED, || owners(first), owned);
    let memory = resident_kib(first);
    let listener = Listener::connected(second, first);
    let mut report = Report::default();
    let mut sent = listener.arrivals().len();
    for case in telling() {
        for kind in Kind::ALL {
            let outcome = try_guest(first, cluster.folder(), case, kind);
            report.row(case.name, kind, outcome);
        }
        let ran = first.run(&["send", "--to", "b", "--mode", "ordered", "--count", "5", "--size", "64"]);
        ran.ok();
        sent += 5;
        listener.wait_count(sent, SETTLED);
        assert_eq!(first.state_of("b"), "alive", "after {}", case.name);
        assert!(owned(&owners(first)), "{} left a duty without its owners", case.name);
    }
    report.publish("hostile-guests-on-a-node");
    wait_until("the plan to be as before", SETTLED, || owners(first), |plan| *plan == before);
    let grown = resident_kib(first).saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "the member grew by {grown} KiB");
}

#[test]
fn a_plugin_is_swapped_out_in_the_middle_of_a_call_that_never_ends() {
    let cluster = Cluster::started_on_loopback(2, |_, config| {
        config.responsibilities = vec![Responsibility { name: "shard-{0..3}".into(), replicas: 1 }];
    });
    let node = &cluster.nodes[0];
    let case = MATRIX.iter().find(|case| case.name == "loops").expect("there is one");
    for kind in [Kind::Sizing, Kind::Failover] {
        let file = cluster.folder().join(format!("loops-{kind}.wasm"));
        std::fs::write(&file, (case.file)(kind)).expect("a file");
        // It loops from its first question on; the swap waits for the call to be interrupted, no longer.
        let _ = node.run(&["policy", "set", kind.name(), file.to_str().expect("a plain name")]);
        for builtin in Kind::ALL.iter().filter(|other| **other == kind).map(|kind| default(*kind)) {
            node.run(&["policy", "set", kind.name(), &format!("builtin:{builtin}")]).ok();
            assert_eq!(text(&shown(node, kind), "plugin"), format!("builtin:{builtin}"));
        }
        let answers = || number(&shown(node, kind), "answers");
        wait_for("the good one to answer", Duration::from_secs(30), || (answers() > 0).then_some(()));
    }
    assert_eq!(node.state_of("b"), "alive");
}
