//! Policies of the cluster document on running nodes: each is put in force once, on all members or on none.

mod common;

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use common::{PATIENCE, config, eventually, free_port};
use overlan_guests::{assignment, sizing};
use overlan_node::config::{PluginSource, PolicyChoice};
use overlan_node::document::{Applied, ApplyFailure, Content, compose};
use overlan_node::policy_host::{BreakerConfig, Limits, ProbationConfig};
use overlan_node::{DocumentId, Kind, Node, NodeHandle, OperatorKey, PolicyStatus, plugins};
use overlan_seal::Identity;

fn status(node: &NodeHandle, kind: Kind) -> PolicyStatus {
    node.policy_list().into_iter().find(|status| status.kind == kind).unwrap()
}

/// What `status` lists of policies.
async fn problems(node: &NodeHandle) -> String {
    let problems = node.status().await.unwrap().core.problems;
    problems.into_iter().filter(|problem| problem.contains("policy.")).collect()
}

/// A section of a document that names a component, which the node has from now on.
async fn section(node: &NodeHandle, kind: Kind, plugin: &str, wasm: Vec<u8>) -> String {
    let offered = node.offer_component(Bytes::from(wasm)).await.unwrap();
    let (sha256, size) = (offered.sha256, offered.size);
    format!("[policy.{kind}]\nplugin = \"{plugin}\"\nsha256 = \"{sha256}\"\nsize = {size}\n")
}

/// Of no responsibility, where the text says nothing of them.
async fn apply(node: &NodeHandle, text: &str) -> Result<Applied, ApplyFailure> {
    let none = if text.contains("responsibility") { "" } else { "responsibility = []\n" };
    node.apply(&Content::parse(&format!("{none}{text}")).unwrap()).await
}

async fn two(first: &NodeHandle, second: &NodeHandle) {
    for node in [first, second] {
        eventually("both members", || async { node.status().await.unwrap().core.alive == 2 }).await;
    }
}

/// It traps as soon as it is asked. That stands while other things change, until a document says otherwise.
#[tokio::test]
async fn what_was_rolled_back_stays_so_until_a_document_names_another() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 85, 1, port)).await.unwrap();
    let traps = sizing(1_472, 0, 65_536).decide("unreachable").component();
    let traps = section(&first, Kind::Sizing, "traps", traps).await;
    assert!(apply(&first, &traps).await.unwrap().agreed);
    eventually("the policy", || async { status(&first, Kind::Sizing).plugin == "traps" }).await;
    assert_eq!(problems(&first).await, "");

    let second = Node::start(config(folder.path(), 85, 2, port)).await.unwrap();
    two(&first, &second).await;
    eventually("the roll-back", || async { status(&first, Kind::Sizing).rollbacks == 1 }).await;
    let rolled_back = "policy.sizing traps of cluster document 1 was rolled back here and builtin:mtu-fit answers (traps \
         gave way: ";
    assert!(problems(&first).await.contains(rolled_back), "{}", problems(&first).await);
    eventually("why it has no such sizing", || async {
        let problems = problems(&second).await;
        problems.contains("policy.sizing") && problems.contains("cluster document 1")
    })
    .await;

    // Another failover, which comes after sizing: nothing for sizing.
    let knet = "[policy.failover]\nplugin = \"builtin:knet-compat\"\n";
    let other_failover = async |node: &NodeHandle| {
        eventually("the failover policy", || async {
            status(node, Kind::Failover).plugin == "builtin:knet-compat"
        })
        .await;
    };
    let applied = apply(&first, &format!("{traps}{knet}")).await.unwrap();
    assert_eq!((applied.version, applied.without), (2, Vec::new()));
    other_failover(&first).await;
    other_failover(&second).await;
    let after = status(&first, Kind::Sizing);
    assert_eq!((&*after.plugin, after.rollbacks), ("builtin:mtu-fit", 1));
    let told = problems(&first).await;
    assert!(told.contains(rolled_back) && !told.contains("trying again"), "{told}");

    // Nor does a restart try it again.
    first.leave().await;
    let first = Node::start(config(folder.path(), 85, 1, port)).await.unwrap();
    two(&first, &second).await;
    other_failover(&first).await;
    eventually("its answers", || async { status(&first, Kind::Sizing).answers > 0 }).await;
    let after = status(&first, Kind::Sizing);
    assert_eq!((&*after.plugin, after.rollbacks, after.totals.faults.len()), ("builtin:mtu-fit", 0, 0));
    assert!(problems(&first).await.contains(rolled_back), "{}", problems(&first).await);
    assert!(folder.path().join("state-1/rolled-back.json").exists());

    // Another sizing; and what a document put in force in part goes, too, with what it named.
    let good = section(&first, Kind::Sizing, "good", sizing(1_400, 0, 65_536).component()).await;
    apply(&first, &good).await.unwrap();
    for node in [&first, &second] {
        eventually("the good one alone", || async {
            status(node, Kind::Sizing).plugin == "good"
                && status(node, Kind::Failover).plugin == "builtin:fast"
                && problems(node).await.is_empty()
        })
        .await;
    }

    eventually("nothing to remember", || async { !folder.path().join("state-1/rolled-back.json").exists() })
        .await;

    // One member's own choice stands, and is told, until a document names another.
    first.policy_rollback(Kind::Sizing).await.unwrap();
    apply(&second, &format!("{good}{knet}")).await.unwrap();
    other_failover(&first).await;
    assert_eq!(status(&first, Kind::Sizing).plugin, "builtin:mtu-fit");
    let told = problems(&first).await;
    assert!(told.contains("policy.sizing: builtin:mtu-fit answers on this member instead of good"), "{told}");
    apply(&second, "responsibility = []").await.unwrap();
    eventually("the own configuration", || async {
        problems(&first).await.is_empty() && status(&second, Kind::Sizing).plugin == "builtin:mtu-fit"
    })
    .await;
    for node in [first, second] {
        node.leave().await;
    }
}

/// After a restart nothing answers before the document's policy; where that fails, the configured one does.
#[tokio::test]
async fn a_roll_back_after_a_restart_names_what_answers() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 91, 1, port)).await.unwrap();
    let traps = sizing(1_472, 0, 65_536).decide("unreachable").component();
    let traps = section(&first, Kind::Sizing, "traps", traps).await;
    apply(&first, &traps).await.unwrap();
    let answers = async |node: &NodeHandle, plugin: &str| {
        eventually("the policy", || async { status(node, Kind::Sizing).plugin == plugin }).await;
    };
    answers(&first, "traps").await;
    first.leave().await;
    let first = Node::start(config(folder.path(), 91, 1, port)).await.unwrap();
    answers(&first, "traps").await;
    let second = Node::start(config(folder.path(), 91, 2, port)).await.unwrap();
    two(&first, &second).await;
    answers(&first, "builtin:mtu-fit").await;
    let told = problems(&first).await;
    assert!(told.contains("was rolled back here and builtin:mtu-fit answers (traps gave way: "), "{told}");
    let why = status(&first, Kind::Sizing).last_rollback.unwrap();
    assert!(why.starts_with("traps gave way: ") && !why.contains("native"), "{why}");
    eventually("what is kept", || async {
        let kept = std::fs::read_to_string(folder.path().join("state-1/rolled-back.json"));
        kept.is_ok_and(|kept| kept.contains("traps gave way: ") && !kept.contains("native"))
    })
    .await;
    for node in [first, second] {
        node.leave().await;
    }
}

/// It leads as soon as it is there, and is configured with another policy than the document's: it makes no plan with that one.
#[tokio::test]
async fn a_newcomer_that_leads_waits_for_the_policy_of_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut identities = [1, 2].map(|seed| Identity::generate([seed; 64]));
    identities.sort_by_key(|identity| Reverse(identity.node_id()));
    for (member, identity) in (1..).zip(identities) {
        let state_dir = folder.path().join(format!("state-{member}"));
        std::fs::create_dir(&state_dir).unwrap();
        std::fs::write(state_dir.join("identity"), identity.to_text()).unwrap();
    }
    let first = Node::start(config(folder.path(), 94, 1, port)).await.unwrap();
    let duties = "[[responsibility]]\nname = \"shard-{0..15}\"\n";
    apply(&first, &format!("{duties}[policy.assignment]\nplugin = \"builtin:balanced\"\n")).await.unwrap();
    let of_the_document = async |node: &NodeHandle| {
        let plan = node.plan().await.unwrap();
        (plan.plugin == status(&first, Kind::Assignment).digest).then_some(plan)
    };
    eventually("its plan", || async { of_the_document(&first).await.is_some() }).await;

    let second = Node::start(config(folder.path(), 94, 2, port)).await.unwrap();
    eventually("a plan of the newcomer's by the document's policy", || async {
        let plan = first.plan().await.unwrap();
        let others = plan.duties.iter().any(|duty| duty.owners != ["m1"]);
        let by_the_document = of_the_document(&first).await.is_some();
        assert!(by_the_document || !others, "{plan:?}");
        by_the_document && plan.proposer == "m2"
    })
    .await;
    for node in [first, second] {
        node.leave().await;
    }
}

/// From its first answer on a member answers as the document says; what it was configured with is not even loaded.
#[tokio::test]
async fn a_restarted_member_answers_as_the_document_says_or_else_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 89, 1, port)).await.unwrap();
    let second = Node::start(config(folder.path(), 89, 2, port)).await.unwrap();
    two(&first, &second).await;
    let weighted = plugins::find("weighted").unwrap().wasm;
    // With a section that says nothing: a component that no release ships.
    let weighted = [weighted, &[0, 4, 3, b'a', b'b', b'c']].concat();
    let weighted = section(&first, Kind::Assignment, "pushed", weighted).await;
    let small = section(&first, Kind::Sizing, "small", sizing(1_400, 0, 65_536).component()).await;
    let duties = "[[responsibility]]\nname = \"duty-{0..7}\"\n";
    assert!(apply(&first, &format!("{duties}{weighted}{small}")).await.unwrap().agreed);
    let one_plan = || async {
        let (plan, other) = (first.plan().await.unwrap(), second.plan().await.unwrap());
        let votes = plan.votes.iter().chain(&other.votes).all(|vote| vote.verdict == "same");
        plan.document_version == 1 && plan.digest == other.digest && plan.votes.len() == 2 && votes
    };
    eventually("one plan", one_plan).await;
    let digest = first.plan().await.unwrap().digest;
    second.leave().await;

    let second = Node::start(config(folder.path(), 89, 2, port)).await.unwrap();
    let answers = || async { status(&second, Kind::Sizing).answers > 0 };
    eventually("its answers", answers).await;
    for (kind, plugin) in [(Kind::Assignment, "pushed"), (Kind::Sizing, "small")] {
        eventually("the document's policy", || async { status(&second, kind).plugin == plugin }).await;
        let status = status(&second, kind);
        assert_eq!((status.previous, status.faults), (None, 0), "{kind}: nothing answered before it");
    }
    assert_eq!(status(&second, Kind::Failover).plugin, "builtin:fast");
    let one_plan = || async {
        let (plan, other) = (first.plan().await.unwrap(), second.plan().await.unwrap());
        let differs = plan.votes.iter().chain(&other.votes).find(|vote| vote.verdict == "differs");
        assert_eq!(differs, None, "it does not answer as configured meanwhile");
        plan.digest == digest
            && other.digest == digest
            && plan.votes.iter().all(|vote| vote.verdict == "same")
    };
    eventually("one plan again", one_plan).await;
    second.leave().await;

    // A component that is lost: the others have it.
    let components = folder.path().join("state-2/components");
    std::fs::remove_dir_all(&components).unwrap();
    let second = Node::start(config(folder.path(), 89, 2, port)).await.unwrap();
    for (kind, plugin) in [(Kind::Assignment, "pushed"), (Kind::Sizing, "small")] {
        eventually("the document's policy", || async { status(&second, kind).plugin == plugin }).await;
        assert_eq!(status(&second, kind).previous, None, "{kind}: nothing answered before it");
    }
    second.leave().await;

    // One that is damaged, and nobody there who has it.
    first.leave().await;
    for component in std::fs::read_dir(&components).unwrap() {
        std::fs::write(component.unwrap().path(), "damaged").unwrap();
    }
    let second = Node::start(config(folder.path(), 89, 2, port)).await.unwrap();
    eventually("what it is configured with", || async {
        status(&second, Kind::Assignment).plugin == "builtin:rendezvous"
            && status(&second, Kind::Sizing).plugin == "builtin:mtu-fit"
    })
    .await;
    let told = problems(&second).await;
    assert!(told.contains("policy.assignment of cluster document 1 is not in force here"), "{told}");
    second.leave().await;
}

#[tokio::test]
async fn members_whose_limits_differ_are_named_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 86, 1, port)).await.unwrap();
    let mut other = config(folder.path(), 86, 2, port);
    let mut limits = Limits::default();
    limits.set("fuel_base", 77_000_000).unwrap();
    other.policies = vec![PolicyChoice {
        kind: Kind::Assignment,
        source: PluginSource::Builtin("rendezvous".into()),
        config: Vec::new(),
        limits,
        probation: ProbationConfig::default(),
        breaker: BreakerConfig::default(),
    }];
    let second = Node::start(other).await.unwrap();
    two(&first, &second).await;
    let section = section(&first, Kind::Assignment, "all-to-one", assignment().component()).await;
    let refused = apply(&first, &section).await.unwrap_err().to_string();
    assert!(refused.starts_with("m2: ") && refused.contains("[policy.assignment] limits"), "{refused}");
    assert_eq!(first.document().await.unwrap().version, 0);
    // The limits of the others do not count in answers.
    apply(&first, "[policy.failover]\nplugin = \"builtin:knet-compat\"\n").await.unwrap();
    for node in [&first, &second] {
        assert_eq!(status(node, Kind::Assignment).plugin, "builtin:rendezvous");
        eventually("the failover policy", || async {
            status(node, Kind::Failover).plugin == "builtin:knet-compat"
        })
        .await;
    }
    for node in [first, second] {
        node.leave().await;
    }
}

#[tokio::test]
async fn a_component_has_the_size_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path(), 96, 1, free_port())).await.unwrap();
    let section = section(&node, Kind::Sizing, "good", sizing(1_400, 0, 65_536).component()).await;
    let (before, size) = section.trim().rsplit_once(' ').unwrap();
    let other = size.parse::<u32>().unwrap() - 1;
    let refused = apply(&node, &format!("{before} {other}")).await.unwrap_err().to_string();
    assert_eq!(refused, format!("policy.sizing.size is {other}; the component has {size} bytes"));
    assert_eq!(apply(&node, &section).await.unwrap().version, 1);
    node.leave().await;
}

/// However far it got, the members are free for the next.
#[tokio::test]
async fn a_change_that_is_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 87, 1, port)).await.unwrap();
    let second = Node::start(config(folder.path(), 87, 2, port)).await.unwrap();
    two(&first, &second).await;
    for (datagram, patience) in (1_300..).zip([0, 1, 2, 4, 8, 16, 32, 64, 128]) {
        let wasm = sizing(datagram, 0, 65_536).component();
        let text = section(&first, Kind::Sizing, &format!("datagram-{datagram}"), wasm).await;
        let _ = tokio::time::timeout(Duration::from_millis(patience), apply(&first, &text)).await;
    }
    let last = section(&second, Kind::Sizing, "last", sizing(1_400, 0, 65_536).component()).await;
    eventually("room for the next change", || async { apply(&second, &last).await.is_ok() }).await;
    for node in [&first, &second] {
        eventually("the last one", || async { status(node, Kind::Sizing).plugin == "last" }).await;
    }
    // What nothing names went: of ten components those few that a client may still name, and the document's.
    let stored = std::fs::read_dir(folder.path().join("state-1/components")).unwrap().count();
    assert!(stored <= 6, "{stored} components are stored");
    for node in [first, second] {
        node.leave().await;
    }
}

/// A member that does not ask for signatures offers to those that do.
#[tokio::test]
async fn what_the_operator_did_not_sign_is_not_even_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let first = Node::start(config(folder.path(), 88, 1, port)).await.unwrap();
    let mut strict = config(folder.path(), 88, 2, port);
    strict.operator_key = Some(OperatorKey::generate([7; 32]).public());
    let second = Node::start(strict).await.unwrap();
    two(&first, &second).await;
    let section = section(&first, Kind::Sizing, "unsigned", sizing(1_400, 0, 65_536).component()).await;
    let refused = apply(&first, &section).await.unwrap_err().to_string();
    assert!(refused.contains("operator_key differs") && refused.contains("at m2"), "{refused}");
    assert!(!folder.path().join("state-2/components").exists());
    for node in [&first, &second] {
        assert_eq!(status(node, Kind::Sizing).plugin, "builtin:mtu-fit");
        assert_eq!(node.document().await.unwrap().version, 0);
    }
    for node in [first, second] {
        node.leave().await;
    }
}

/// A document that says what the one in force says makes no version, signed or after a restart as well. One that the disk
/// does not take is in force, and that it is not stored is told.
#[tokio::test]
async fn what_is_in_force_stays_and_what_is_not_stored_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let operator = OperatorKey::generate([7; 32]);
    let start = async || {
        let mut config = config(folder.path(), 92, 1, port);
        config.operator_key = Some(operator.public());
        Node::start(config).await.unwrap()
    };
    let apply = async |node: &NodeHandle, name: &str| {
        let view = node.document().await.unwrap();
        let from = DocumentId { version: view.version, digest: view.digest.parse().unwrap() };
        let content = Content::parse(&format!("[[responsibility]]\nname = \"{name}\"\n")).unwrap();
        let document = compose(&content, &view.cluster, from, Some(&operator)).unwrap();
        let applied = node.apply_document(document);
        tokio::time::timeout(PATIENCE, applied).await.expect("an answer").unwrap()
    };
    let node = start().await;
    assert_eq!(apply(&node, "duty").await.version, 1);
    assert_eq!(apply(&node, "duty").await.version, 1);
    node.leave().await;
    let node = start().await;
    let applied = apply(&node, "duty").await;
    assert_eq!((applied.version, applied.agreed, applied.unstored), (1, true, None));

    let document = folder.path().join("state-1/document");
    std::fs::remove_file(&document).unwrap();
    std::fs::create_dir_all(document.join("in the way")).unwrap();
    let applied = apply(&node, "other").await;
    assert_eq!((applied.version, applied.agreed), (2, true));
    assert!(applied.unstored.unwrap().contains("version 2 of the cluster document cannot be stored"));
    std::fs::remove_dir_all(&document).unwrap();
    eventually("it to be stored", || async { document.is_file() }).await;
    node.leave().await;
}
