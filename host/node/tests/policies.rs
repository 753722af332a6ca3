//! Plugins come and go on running nodes: bad ones are refused or rolled back, and nothing is lost.

mod common;
#[path = "../../policy/tests/suite/guests/mod.rs"]
#[expect(dead_code, reason = "the policy host's own suite uses the rest")]
mod guests;

use common::{config, eventually, free_port};
use guests::sizing;
use overlan_node::config::PluginSource;
use overlan_node::{Kind, Node, NodeHandle, PolicyError, PolicyStatus};

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
    let second = Node::start(config(folder.path(), 81, 2, port)).await.unwrap();
    eventually("the roll-back", || async { status(&first, Kind::Sizing).rollbacks == 1 }).await;
    let after = status(&first, Kind::Sizing);
    assert_eq!((&*after.plugin, after.previous.as_deref()), ("builtin:mtu-fit", Some("traps")));
    assert_eq!(after.totals.faults["trap"], 1);
    assert!(after.probation.is_none() && after.last_rollback.unwrap().starts_with("traps gave way"));
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
