//! Plugins come and go on running nodes: bad ones are refused or rolled back, and nothing is lost.

mod common;

use std::time::Duration;

use common::{config, eventually, free_port};
use overlan_guests::{self as guests, assignment, sizing};
use overlan_node::config::{PluginSource, PolicyChoice};
use overlan_node::policy_host::{BreakerConfig, Limits, ProbationConfig};
use overlan_node::{
    Fate, Kind, MessageMode, Node, NodeHandle, PolicyError, PolicyStatus, Responsibility, WatchEvent,
};

fn status(node: &NodeHandle, kind: Kind) -> PolicyStatus {
    node.policy_list().into_iter().find(|status| status.kind == kind).unwrap()
}

async fn set(node: &NodeHandle, name: &str, wasm: Vec<u8>) -> Result<PolicyStatus, PolicyError> {
    node.policy_set_bytes(Kind::Sizing, name.to_owned(), wasm, Vec::new()).await
}

/// It was asked nothing before, so that a bad plugin shows only in its probation; then it was, and the next is refused.
#[tokio::test]
async fn bad_plugins_are_rolled_back_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 81, 1, port)).await.unwrap();
    let traps = sizing(1_472, 0, 65_536).decide("unreachable").component();
    let swapped = set(&first, "traps", traps.clone()).await.unwrap();
    assert_eq!((&*swapped.plugin, swapped.previous.as_deref()), ("traps", Some("builtin:mtu-fit")));
    assert!(swapped.probation.is_some() && swapped.limits["memory_bytes"].used > Some(0));
    let mut watch = first.watch_lines().await.unwrap();
    let second = Node::start(config(folder.path(), 81, 2, port)).await.unwrap();
    eventually("the roll-back", || async { status(&first, Kind::Sizing).rollbacks == 1 }).await;
    let after = status(&first, Kind::Sizing);
    assert_eq!((&*after.plugin, after.previous.as_deref()), ("builtin:mtu-fit", Some("traps")));
    assert_eq!(after.totals.faults["trap"], 1);
    let why = after.last_rollback.unwrap();
    assert!(after.probation.is_none() && why.starts_with("traps gave way"));
    assert_eq!(after.last_rollback_digest.unwrap(), swapped.digest);
    let told = loop {
        if let WatchEvent::Policy { kind, plugin, rolled_back } = watch.next().await.unwrap() {
            break (kind, plugin, rolled_back);
        }
    };
    assert_eq!(told, (Kind::Sizing, "builtin:mtu-fit".to_owned(), Some(why)));
    // The question that it failed on is asked again of the plugin that came back.
    eventually("its answers", || async { status(&first, Kind::Sizing).answers > 0 }).await;

    let refused = set(&first, "traps", traps).await.unwrap_err();
    assert!(matches!(&refused, PolicyError::SelfTest(why) if why.contains("crashed")), "{refused}");
    let small = set(&first, "small", sizing(7, 0, 65_536).component()).await.unwrap_err();
    assert!(small.to_string().contains("datagram is 7"), "{small}");
    assert_eq!(status(&first, Kind::Sizing).plugin, "builtin:mtu-fit");

    let good = set(&first, "good", sizing(1_400, 0, 65_536).component()).await.unwrap();
    assert_eq!((good.plugin, good.rollbacks), ("good".to_owned(), 1));
    for node in [first, second] {
        node.leave().await;
    }
}

/// Of two that follow each other quickly the second gives way to the one before both.
#[tokio::test]
async fn what_has_not_passed_its_probation_is_nothing_to_go_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path(), 84, 1, free_port())).await.unwrap();
    for (name, datagram) in [("first", 1_300), ("second", 1_400)] {
        let set = set(&node, name, sizing(datagram, 0, 65_536).component()).await.unwrap();
        assert_eq!((&*set.plugin, set.previous.as_deref()), (name, Some("builtin:mtu-fit")));
    }
    let back = node.policy_rollback(Kind::Sizing).await.unwrap();
    assert_eq!((&*back.plugin, back.previous.as_deref()), ("builtin:mtu-fit", Some("second")));
    node.leave().await;
}

#[tokio::test]
async fn limits_are_set_by_name_and_hold() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path(), 82, 1, free_port())).await.unwrap();
    let with = async |name: &str, value: u64| {
        let wasm = sizing(1_400, 0, 65_536).component();
        let limits = vec![(name.to_owned(), value)];
        node.policy_set_limited(Kind::Sizing, "x".into(), wasm, Vec::new(), limits).await
    };
    assert!(matches!(with("fuel", 1).await, Err(PolicyError::Limit(_))));
    assert!(matches!(with("memory_bytes", 1).await, Err(PolicyError::Limit(_))));
    let large = with("file_bytes", 10).await.unwrap_err();
    assert!(large.to_string().contains("more than the 10"), "{large}");
    let set = with("memory_bytes", 65_536).await.unwrap();
    assert_eq!((set.limits["memory_bytes"].used, set.limits["memory_bytes"].limit), (Some(65_536), 65_536));
    assert_eq!(set.limits["stack_bytes"].used, None);
    let builtin = PluginSource::Builtin("mtu-fit".into());
    let back = node.policy_set(Kind::Sizing, &builtin, Vec::new()).await.unwrap();
    assert!(back.limits["memory_bytes"].limit > 65_536, "limits of a `set` are for that plugin alone");
    node.leave().await;
}

/// No member waits longer for a plan, whatever the plugin may use otherwise.
#[tokio::test]
async fn a_plan_that_comes_too_late_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 87, 1, free_port());
    config.responsibilities =
        vec![Responsibility { name: "duty".into(), replicas: 1, weight_milli: 1_000, requires: Vec::new() }];
    let node = Node::start(config).await.unwrap();
    eventually("a plan", || async { status(&node, Kind::Assignment).answers > 0 }).await;
    let fuel = 100_000_000_000_000;
    let limits = [("fuel_base", fuel), ("fuel_max", fuel), ("answer_ms", 60_000)];
    let limits = limits.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let loops = guests::assignment().decide(guests::LOOP).component();
    let set = node.policy_set_limited(Kind::Assignment, "loops".into(), loops, Vec::new(), limits).await;
    let refused = set.unwrap_err().to_string();
    assert!(refused.contains("no answer within 2000 ms"), "{refused}");
    assert_eq!(status(&node, Kind::Assignment).limits["answer_ms"].limit, 2_000);
    node.leave().await;
}

/// One shadow answers otherwise, one never answers; neither changes what is in force.
#[tokio::test]
async fn shadows_are_compared_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut config_of_first = config(folder.path(), 84, 1, port);
    config_of_first.responsibilities = (0..40)
        .map(|number| Responsibility {
            name: format!("duty-{number}"),
            replicas: 1,
            weight_milli: 1_000,
            requires: Vec::new(),
        })
        .collect();
    let first = Node::start(config_of_first).await.unwrap();
    let balanced = overlan_node::plugins::find("balanced").unwrap().wasm.to_vec();
    let shadow = async |kind, name: &str, wasm| {
        first.policy_shadow(kind, name.to_owned(), wasm, Vec::new(), Vec::new()).await
    };
    assert_eq!(shadow(Kind::Assignment, "balanced", balanced).await.unwrap().compared, 0);
    let endless = sizing(1_400, 0, 65_536).decide(guests::LOOP).component();
    shadow(Kind::Sizing, "endless", endless).await.unwrap();
    assert!(shadow(Kind::Sizing, "broken", b"no wasm".to_vec()).await.is_err());
    let second = Node::start(config(folder.path(), 84, 2, port)).await.unwrap();
    let shown = |kind| first.policy_shadow_show(kind).unwrap();
    eventually("plans to compare", || async {
        let shadow = shown(Kind::Assignment);
        shadow.different > 0 && shadow.plan.is_some_and(|plan| plan.moved > 0)
    })
    .await;
    let compared = first.policy_shadow_stop(Kind::Assignment).unwrap();
    let plan = compared.plan.unwrap();
    assert_eq!(plan.responsibilities, 40);
    assert!(compared.moved >= plan.moved && compared.fuel.is_some_and(|fuel| fuel.shadow > 0));
    let last = compared.differences.back().unwrap();
    assert!(last.changes[0].field.starts_with("duty-") && last.changes[0].active != last.changes[0].shadow);
    assert_eq!(first.policy_shadow_stop(Kind::Assignment), Err(PolicyError::NoShadow(Kind::Assignment)));
    assert_eq!(status(&first, Kind::Assignment).plugin, "builtin:rendezvous");

    eventually("the shadow's deadline", || async { shown(Kind::Sizing).faults.contains_key("deadline") })
        .await;
    let active = status(&first, Kind::Sizing);
    assert!(active.answers > 0 && active.faults == 0, "{active:?}");
    for node in [first, second] {
        node.leave().await;
    }
}

const SWAPS: u32 = 1_000;
/// Swaps before memory is first looked at: caches and queues have their size then.
const WARM_UP: u32 = 200;

#[tokio::test]
async fn a_thousand_swaps_under_load_lose_no_message_and_keep_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 83, 1, port)).await.unwrap();
    let second = Node::start(config(folder.path(), 83, 2, port)).await.unwrap();
    let both = || async { first.status().await.unwrap().core.alive == 2 };
    eventually("both members", both).await;
    let mut listener = second.listen().await.unwrap();
    let receiving = tokio::spawn(async move {
        let mut expected = 0_u32;
        while let Some(message) = listener.recv().await {
            let number = u32::from_be_bytes(message.payload[..4].try_into().unwrap());
            if number == u32::MAX {
                break;
            }
            assert_eq!(number, expected, "in order, none lost, none twice");
            expected += 1;
        }
        expected
    });
    let (mut sent, mut receipts) = (0_u32, Vec::new());
    let mut warm = 0;
    // Two that differ in nothing but their answers, so that every swap changes what is sent.
    let plugins = [1_300, 1_400].map(|datagram| sizing(datagram, 0, 65_536).component());
    for swap in 0..SWAPS {
        let plugin = plugins[swap as usize % 2].clone();
        let (swapped, receipt) = tokio::join!(
            set(&first, "swapped", plugin),
            first.send("m2", MessageMode::Ordered, [&sent.to_be_bytes()[..], &[7; 3_000]].concat()),
        );
        assert_eq!(swapped.unwrap().plugin, "swapped");
        receipts.push(receipt.unwrap());
        sent += 1;
        if swap == WARM_UP {
            warm = resident_kib();
        }
    }
    let end = first.send("m2", MessageMode::Ordered, u32::MAX.to_be_bytes().to_vec()).await.unwrap();
    assert_eq!(end.fate().await, Fate::Delivered);
    assert_eq!(receiving.await.unwrap(), sent);
    for receipt in receipts {
        assert_eq!(receipt.fate().await, Fate::Delivered);
    }
    let grown = resident_kib().saturating_sub(warm);
    assert!(grown < 32 << 10, "resident memory grew by {grown} KiB over {} swaps", SWAPS - WARM_UP);
    println!("{SWAPS} swaps, {sent} messages, resident memory grew by {grown} KiB after {WARM_UP}");
    assert_eq!((status(&first, Kind::Sizing).rollbacks, status(&first, Kind::Sizing).faults), (0, 0));
    for node in [first, second] {
        node.leave().await;
    }
}

/// Resident memory of this process (`VmRSS`, proc(5)).
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Nothing else changes: what it did not answer is put to it again, after longer and longer pauses.
#[tokio::test]
async fn a_policy_that_failed_is_asked_again_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let traps = [
        (Kind::Assignment, assignment().decide("unreachable").component()),
        (Kind::Sizing, sizing(1_472, 0, 65_536).decide("unreachable").component()),
    ];
    let mut failing = config(folder.path(), 95, 1, port);
    failing.policies = traps
        .map(|(kind, wasm)| {
            let path = folder.path().join(format!("{kind}.wasm"));
            std::fs::write(&path, wasm).unwrap();
            let first_backoff = Duration::from_millis(10);
            PolicyChoice {
                kind,
                source: PluginSource::File(path),
                config: Vec::new(),
                limits: Limits::default(),
                probation: ProbationConfig::default(),
                breaker: BreakerConfig { faults_to_open: 1, first_backoff, ..BreakerConfig::default() },
            }
        })
        .into();
    let first = Node::start(failing).await.unwrap();
    let second = Node::start(config(folder.path(), 95, 2, port)).await.unwrap();
    for kind in [Kind::Assignment, Kind::Sizing] {
        eventually("one failure after another", || async {
            status(&first, kind).totals.faults.values().sum::<u64>() >= 8
        })
        .await;
    }
    for node in [first, second] {
        node.leave().await;
    }
}
