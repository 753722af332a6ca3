//! What `policy test` and `policy bench` need to know of each kind.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use overlan_contract::Violation;
use overlan_contract::assignment::{self, MAX_NODES, MAX_REPLICAS, MAX_RESPONSIBILITIES};
use overlan_contract::failover::MAX_PATHS;
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
        check_answer(case, assignment::validate)
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

/// The case, unless the answer that it demands is one that no policy may give.
fn check_answer<Q, A>(
    case: Case<Q, A>,
    validate: impl FnOnce(&Q, &A) -> Result<(), Vec<Violation>>,
) -> serde_json::Result<Case<Q, A>> {
    let Some(Err(violations)) = case.answer.as_ref().map(|answer| validate(&case.question, answer)) else {
        return Ok(case);
    };
    let first = violations.first().map_or_else(String::new, |violation| format!(": {violation}"));
    Err(serde_json::Error::custom(format!("no policy may give its answer{first}")))
}

/// Whether a node could ask this.
fn check(question: &assignment::Question) -> Result<(), String> {
    let assignment::Question { nodes, responsibilities, previous, .. } = question;
    at_most("nodes", nodes.len(), MAX_NODES)?;
    at_most("responsibilities", responsibilities.len(), MAX_RESPONSIBILITIES)?;
    let mut ids = BTreeSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let id = &node.id;
        if id.len() != NODE_ID_DIGITS || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!(
                "nodes[{index}].id is `{id}`; it must be {NODE_ID_DIGITS} hexadecimal digits, in lower case"
            ));
        }
        if !ids.insert(id) {
            return Err(format!("nodes[{index}].id `{id}` is there twice"));
        }
    }
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

/// Digits of a node id.
const NODE_ID_DIGITS: usize = 32;
/// Packets per million that are all.
const ALL_PPM: u32 = 1_000_000;

fn at_most(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most {
        Err(format!("there are {count} {what}; a node asks about {most} at most"))
    } else {
        Ok(())
    }
}

/// Whether a share of packets is one.
fn check_loss(what: &str, ppm: u32) -> Result<(), String> {
    if ppm > ALL_PPM { Err(format!("{what} is {ppm}; it must be from 0 to {ALL_PPM}")) } else { Ok(()) }
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
        let case: Case<sizing::Question, sizing::Answer> = serde_json::from_str(text)?;
        check_loss("loss_ppm", case.question.loss_ppm).map_err(serde_json::Error::custom)?;
        check_answer(case, sizing::validate)
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
        let case: Case<failover::Question, failover::Answer> = serde_json::from_str(text)?;
        let paths = &case.question.paths;
        let lossy = || {
            let mut paths = paths.iter().enumerate();
            paths.try_for_each(|(at, path)| check_loss(&format!("paths[{at}].loss_ppm"), path.loss_ppm))
        };
        at_most("paths", paths.len(), MAX_PATHS).and_then(|()| lossy()).map_err(serde_json::Error::custom)?;
        check_answer(case, failover::validate)
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

    /// The fixture of a cluster, after a change of its question, with an answer.
    fn refused(change: impl FnOnce(&mut assignment::Question), answer: Option<Vec<Vec<u32>>>) -> String {
        let mut question = testkit::cluster(2, 1);
        change(&mut question);
        let mut fixture = serde_json::json!({ "question": question });
        if let Some(owners) = answer {
            fixture["answer"] = serde_json::json!({ "owners": owners });
        }
        Assignment::parse(&fixture.to_string()).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn a_fixture_keeps_the_contracts_bounds() {
        assert_eq!(refused(|_| {}, Some(vec![vec![0, 1]])), "");
        let many = refused(
            |question| question.responsibilities = testkit::cluster(0, 16_385).responsibilities,
            None,
        );
        assert_eq!(many, "there are 16385 responsibilities; a node asks about 16384 at most");
        let id = refused(|question| question.nodes[1].id = "zz".into(), None);
        assert_eq!(id, "nodes[1].id is `zz`; it must be 32 hexadecimal digits, in lower case");
        let twice = refused(|question| question.nodes[1].id = question.nodes[0].id.clone(), None);
        assert!(twice.ends_with("is there twice"), "{twice}");
        let mut lossy = testkit::sized_path(1_500, 1_500);
        lossy.loss_ppm = 1_000_001;
        let lossy = Sizing::parse(&serde_json::json!({ "question": lossy }).to_string());
        assert_eq!(lossy.err().unwrap().to_string(), "loss_ppm is 1000001; it must be from 0 to 1000000");
        let paths = Failover::parse(&serde_json::json!({ "question": testkit::paths(65) }).to_string());
        assert_eq!(paths.err().unwrap().to_string(), "there are 65 paths; a node asks about 64 at most");
    }

    #[test]
    fn an_answer_that_no_policy_may_give_is_the_fixtures_fault() {
        let refused = refused(|_| {}, Some(vec![vec![77]]));
        assert!(
            refused.starts_with("no policy may give its answer: owners[0] (duty-0) is a list of 1;"),
            "{refused}"
        );
        let question = testkit::sized_path(1_500, 9_000);
        let answer = sizing::Answer { datagram: 8_972, coalesce: 0, burst: 65_536 };
        let case = Sizing::parse(&serde_json::json!({ "question": question, "answer": answer }).to_string());
        assert!(case.err().unwrap().to_string().contains("datagram is 8972; it must be from 1200 to 1472"));
    }
}
