//! What `policy test` and `policy bench` need to know of each kind.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use overlan_contract::assignment::{self, MAX_REPLICAS};
use overlan_core::plan::fallback_assignment;
use overlan_core::policy::fallback;
use overlan_node::policy_host::{Assignment, Failover, Policy, Sizing, inspect};
use overlan_node::{Kind, plugins};
use overlan_plugin_sdk::testkit::{self, Fixture};
use overlan_plugin_sdk::{Adapter, failover, sizing};
use serde::Deserialize;
use serde::de::Error as _;

/// A plugin's bytes under the name the user gave them.
pub(super) struct Given {
    pub(super) name: String,
    pub(super) wasm: Vec<u8>,
    pub(super) kind: Kind,
}

impl Given {
    /// Reads a file, or finds `builtin:NAME`.
    pub(super) fn read(plugin: &str) -> anyhow::Result<Given> {
        if let Some(name) = plugin.strip_prefix("builtin:") {
            let builtin = plugins::find(name).with_context(|| {
                format!("no plugin `{name}` is shipped; `overlan policy list` names them")
            })?;
            return Ok(Given::builtin(builtin));
        }
        let wasm = super::read_component(Path::new(plugin))?;
        let report = inspect(&wasm);
        let kind = match (report.problem, report.kind) {
            (None, Some(kind)) => kind,
            (Some(problem), _) => return Err(anyhow::anyhow!(problem).context(will_not_do(plugin))),
            (None, None) => anyhow::bail!(will_not_do(plugin)),
        };
        let name = Path::new(plugin).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Given { name, wasm, kind })
    }

    pub(super) fn builtin(builtin: &plugins::Builtin) -> Given {
        let name = format!("builtin:{}", builtin.name);
        Given { name, wasm: builtin.wasm.to_vec(), kind: builtin.kind }
    }
}

pub(super) fn will_not_do(plugin: &str) -> String {
    format!("{plugin} will not do")
}

/// One question to judge by, as a file of an author's own has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case<Q, A> {
    /// The file's.
    #[serde(skip)]
    pub(super) name: String,
    pub(super) question: Q,
    /// The only answer to pass, where the author says so.
    pub(super) answer: Option<A>,
}

/// A kind of policy that can be tried out without a node.
pub(super) trait Trial: Policy {
    fn fixtures() -> Vec<Fixture<Self::Question>>;
    fn parse(text: &str) -> serde_json::Result<Case<Self::Question, Self::Answer>>;
    /// The questions that a node of a cluster of so many asks.
    fn questions(nodes: u16) -> Vec<Self::Question>;
    /// What the node answers itself when no plugin does.
    fn native(question: &Self::Question) -> Self::Answer;
    /// The question after the death of a node that owns something, and which it is.
    fn after_loss(_: &Self::Question, _: &Self::Answer) -> Option<(Self::Question, usize)> {
        None
    }
    /// The share of owners that moved, of those that could have stayed, 0 to 1.
    fn moved_share(_: &Self::Question, _lost: usize, _before: &Self::Answer, _after: &Self::Answer) -> f64 {
        0.0
    }
}

impl Trial for Assignment {
    fn fixtures() -> Vec<Fixture<assignment::Question>> {
        testkit::assignment_fixtures()
    }

    fn parse(text: &str) -> serde_json::Result<Case<assignment::Question, assignment::Answer>> {
        let mut case: Case<assignment::Question, _> = serde_json::from_str(text)?;
        check(&case.question).map_err(serde_json::Error::custom)?;
        // Left out where there is no plan yet.
        case.question.previous.resize(case.question.responsibilities.len(), Vec::new());
        Ok(case)
    }

    fn questions(nodes: u16) -> Vec<assignment::Question> {
        vec![testkit::cluster(nodes.into(), nodes.into())]
    }

    fn native(question: &assignment::Question) -> assignment::Answer {
        fallback_assignment(question)
    }

    fn after_loss(
        question: &assignment::Question,
        answer: &assignment::Answer,
    ) -> Option<(assignment::Question, usize)> {
        let lost = testkit::first_owner(answer)?;
        Some((testkit::without_node(&testkit::with_previous(question, answer), lost), lost))
    }

    fn moved_share(
        question: &assignment::Question,
        lost: usize,
        before: &assignment::Answer,
        after: &assignment::Answer,
    ) -> f64 {
        testkit::moved_share(question, lost, before, after)
    }
}

/// Whether a node could ask this.
fn check(question: &assignment::Question) -> Result<(), String> {
    let assignment::Question { nodes, responsibilities, previous, .. } = question;
    let mut names = BTreeSet::new();
    for (index, duty) in responsibilities.iter().enumerate() {
        if !(1..=MAX_REPLICAS).contains(&duty.replicas) {
            let replicas = duty.replicas;
            return Err(format!(
                "responsibilities[{index}].replicas is {replicas}; it must be from 1 to {MAX_REPLICAS}"
            ));
        }
        if !names.insert(&duty.name) {
            return Err(format!("responsibilities[{index}].name `{}` is there twice", duty.name));
        }
    }
    if previous.len() > responsibilities.len() {
        let (lists, duties) = (previous.len(), responsibilities.len());
        return Err(format!("previous has {lists} lists; there are {duties} responsibilities"));
    }
    let mut indices =
        previous.iter().enumerate().flat_map(|(at, owners)| owners.iter().map(move |owner| (at, *owner)));
    match indices.find(|(_, owner)| *owner as usize >= nodes.len()) {
        Some((at, owner)) => {
            Err(format!("previous[{at}] has {owner}; node indices are below {}", nodes.len()))
        }
        None => Ok(()),
    }
}

/// For each peer of the first node, the pairs of their adapters.
fn peers(nodes: u16) -> Vec<Vec<(Adapter, Adapter)>> {
    let cluster = testkit::cluster(nodes.into(), 0);
    let (own, peers) = cluster.nodes.split_first().expect("a cluster to measure has two nodes or more");
    let pairs = |remote: &Adapter| own.adapters.iter().map(|local| (local.clone(), remote.clone())).collect();
    peers
        .iter()
        .map(|peer| peer.adapters.iter().flat_map(|remote| -> Vec<_> { pairs(remote) }).collect())
        .collect()
}

impl Trial for Sizing {
    fn fixtures() -> Vec<Fixture<sizing::Question>> {
        testkit::sizing_fixtures()
    }

    fn parse(text: &str) -> serde_json::Result<Case<sizing::Question, sizing::Answer>> {
        serde_json::from_str(text)
    }

    fn questions(nodes: u16) -> Vec<sizing::Question> {
        let paths = peers(nodes).into_iter().flatten();
        paths
            .map(|(local, remote)| sizing::Question { local, remote, ..testkit::sized_path(1_500, 1_500) })
            .collect()
    }

    fn native(question: &sizing::Question) -> sizing::Answer {
        fallback::sizing(question.local.mtu.min(question.remote.mtu), question.overhead)
    }
}

impl Trial for Failover {
    fn fixtures() -> Vec<Fixture<failover::Question>> {
        testkit::failover_fixtures()
    }

    fn parse(text: &str) -> serde_json::Result<Case<failover::Question, failover::Answer>> {
        serde_json::from_str(text)
    }

    fn questions(nodes: u16) -> Vec<failover::Question> {
        let question = |paths: Vec<(Adapter, Adapter)>| failover::Question {
            paths: paths.into_iter().map(|(local, remote)| testkit::path(local, remote)).collect(),
            ..testkit::paths(0)
        };
        peers(nodes).into_iter().map(question).collect()
    }

    fn native(question: &failover::Question) -> failover::Answer {
        fallback::failover(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_policy_is_told() {
        let error = |plugin| Given::read(plugin).err().unwrap().to_string();
        assert!(error("builtin:none").contains("`overlan policy list`"));
        assert!(error("/no/such.wasm").contains("/no/such.wasm"));
    }

    #[test]
    fn a_fixture_that_no_node_would_ask_is_refused() {
        let fixture = |replicas: u64, second: &str, previous: &str| {
            let duty =
                |name: &str| format!(r#"{{"name": "{name}", "replicas": {replicas}, "weight_milli": 1}}"#);
            let duties = [duty("a"), duty(second)].join(", ");
            let question = format!(r#""nodes": [], "responsibilities": [{duties}], "previous": {previous}"#);
            Assignment::parse(&format!(r#"{{"question": {{{question}}}}}"#))
                .map_err(|error| error.to_string())
        };
        assert_eq!(fixture(1, "b", "[[]]").unwrap().question.previous.len(), 2);
        for (refused, why) in [
            (fixture(0, "b", "[]"), "replicas is 0"),
            (fixture(33, "b", "[]"), "replicas is 33"),
            (fixture(1, "a", "[]"), "`a` is there twice"),
            (fixture(1, "b", "[[], [], []]"), "previous has 3 lists"),
            (fixture(1, "b", "[[], [0]]"), "previous[1] has 0"),
        ] {
            let refused = refused.err().unwrap();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
