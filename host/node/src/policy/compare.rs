//! What differs between two answers to one question.

use std::collections::BTreeMap;

use overlan_contract::{assignment, failover, sizing};
use overlan_core::policy::{Answer, Question};
use overlan_policy::{Assignment, Failover, Policy, Sizing};
use serde::{Deserialize, Serialize};

/// Changes kept of one difference of a shadow; the rest are counted.
const MAX_CHANGES: usize = 16;

/// Where two answers to a question differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The number of the question, counted from the start of the shadow.
    pub question: u64,
    /// What it is about: the path, the peer, or the plan.
    pub about: String,
    /// The first fields that differ.
    pub changes: Vec<Change>,
    /// Further ones.
    pub more: u64,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A field of the answer, or the name of a responsibility.
    pub field: String,
    /// What the active policy answered, or the recorded one.
    pub active: String,
    /// What the shadow answered, or the one that a replay asks.
    pub shadow: String,
}

/// Two plans for one question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanComparison {
    /// Responsibilities in the question.
    pub responsibilities: u64,
    /// Those whose primary differs.
    pub moved: u64,
    /// Those whose primary is the same and whose standbys differ.
    pub standbys_moved: u64,
    /// Weight of the primaries of the most loaded live node over the mean of all live nodes, in thousandths; 1000 is
    /// an even load.
    pub imbalance_milli: Pair<u64>,
    /// Primaries that differ from the plan before.
    pub moved_from_previous: Pair<u64>,
}

/// A figure of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair<T> {
    /// Of the active policy.
    pub active: T,
    /// Of the shadow.
    pub shadow: T,
}

/// Where the answers differ; `None` where they are equal, or not of one kind.
pub(super) fn compare(
    number: u64,
    question: &Question,
    active: &Answer,
    shadow: &Answer,
) -> Option<Difference> {
    match (question, active, shadow) {
        (Question::Assignment(question), Answer::Assignment(active), Answer::Assignment(shadow)) => {
            difference::<Assignment>(number, question, [active, shadow])
        }
        (Question::Sizing(question), Answer::Sizing(active), Answer::Sizing(shadow)) => {
            difference::<Sizing>(number, question, [active, shadow])
        }
        (Question::Failover(question), Answer::Failover(active), Answer::Failover(shadow)) => {
            difference::<Failover>(number, question, [active, shadow])
        }
        _ => None,
    }
}

fn difference<P: Compare>(
    number: u64,
    question: &P::Question,
    answers: [&P::Answer; 2],
) -> Option<Difference> {
    let mut changes = Changes::new(MAX_CHANGES);
    P::compare(question, answers, &mut changes);
    let Changes { kept, more, .. } = changes;
    (!kept.is_empty()).then(|| Difference {
        question: number,
        about: P::about(question),
        changes: kept,
        more,
    })
}

/// A kind whose answers are told apart field by field.
pub trait Compare: Policy {
    /// What a question is about: a path, a peer, or the plan.
    fn about(question: &Self::Question) -> String;
    /// Notes where two answers to a question differ; the first is the active policy's.
    fn compare(question: &Self::Question, answers: [&Self::Answer; 2], changes: &mut Changes);
}

/// What differs between two answers.
#[derive(Debug)]
pub struct Changes {
    /// The first fields that differ.
    pub kept: Vec<Change>,
    /// Further ones.
    pub more: u64,
    /// All of them by what they are, in the plural: `responsibilities_moved`, `timings`, ...
    pub counts: BTreeMap<&'static str, u64>,
    limit: usize,
}

impl Changes {
    /// None yet; `limit` is how many are kept.
    pub fn new(limit: usize) -> Self {
        Changes { kept: Vec::new(), more: 0, counts: BTreeMap::new(), limit }
    }

    /// Notes two values if they differ; their text is made only where it is kept.
    pub fn note<T: PartialEq + ?Sized>(
        &mut self,
        count: &'static str,
        field: impl FnOnce() -> String,
        pair: [&T; 2],
        text: impl Fn(&T) -> String,
    ) {
        if pair[0] == pair[1] {
            return;
        }
        *self.counts.entry(count).or_default() += 1;
        if self.kept.len() == self.limit {
            self.more += 1;
            return;
        }
        self.kept.push(Change { field: field(), active: text(pair[0]), shadow: text(pair[1]) });
    }
}

impl Compare for Assignment {
    fn about(_: &assignment::Question) -> String {
        "plan".to_owned()
    }

    fn compare(question: &assignment::Question, answers: [&assignment::Answer; 2], changes: &mut Changes) {
        let name = |owner: &u32| question.nodes.get(*owner as usize).map_or("", |node| &node.name);
        let text = |owners: &Vec<u32>| owners.iter().map(name).collect::<Vec<_>>().join(", ");
        let owners = answers[0].owners.iter().zip(&answers[1].owners);
        for (duty, (active, shadow)) in question.responsibilities.iter().zip(owners) {
            let moved = active.first() != shadow.first();
            let count = if moved { "responsibilities_moved" } else { "standbys_changed" };
            changes.note(count, || duty.name.clone(), [active, shadow], text);
        }
    }
}

impl Compare for Sizing {
    fn about(question: &sizing::Question) -> String {
        format!("{} -> {}", question.local.address, question.remote.address)
    }

    fn compare(_: &sizing::Question, [active, shadow]: [&sizing::Answer; 2], changes: &mut Changes) {
        for (count, field, pair) in [
            ("datagrams", "datagram", [&active.datagram, &shadow.datagram]),
            ("coalescings", "coalesce", [&active.coalesce, &shadow.coalesce]),
            ("bursts", "burst", [&active.burst, &shadow.burst]),
        ] {
            changes.note(count, || field.to_owned(), pair, u32::to_string);
        }
    }
}

impl Compare for Failover {
    fn about(question: &failover::Question) -> String {
        let peer = question.paths.first().map(|path| path.remote.address.to_string());
        format!("paths to {}", peer.unwrap_or_default())
    }

    fn compare(
        question: &failover::Question,
        [active, shadow]: [&failover::Answer; 2],
        changes: &mut Changes,
    ) {
        let orders = [&active.order, &shadow.order];
        changes.note("orders", || "order".to_owned(), orders, |order| format!("{order:?}"));
        changes.note("modes", || "mode".to_owned(), [&active.mode, &shadow.mode], |mode| format!("{mode:?}"));
        let timings = active.timings.iter().zip(&shadow.timings);
        for (path, (active, shadow)) in question.paths.iter().zip(timings) {
            let way = || format!("{} -> {}", path.local.address, path.remote.address);
            for (field, pair) in [
                ("probe_interval_us", [&active.probe_interval_us, &shadow.probe_interval_us]),
                ("reply_timeout_us", [&active.reply_timeout_us, &shadow.reply_timeout_us]),
                ("misses", [&active.misses, &shadow.misses]),
                ("hold_down_ms", [&active.hold_down_ms, &shadow.hold_down_ms]),
            ] {
                changes.note("timings", || format!("{} {field}", way()), pair, u32::to_string);
            }
        }
    }
}

/// What a plan is judged by; `None` for other kinds.
pub(super) fn compare_plans(question: &Question, active: &Answer, shadow: &Answer) -> Option<PlanComparison> {
    let (Question::Assignment(question), Answer::Assignment(active), Answer::Assignment(shadow)) =
        (question, active, shadow)
    else {
        return None;
    };
    let pairs = || active.owners.iter().zip(&shadow.owners);
    let moved = pairs().filter(|(active, shadow)| active.first() != shadow.first()).count() as u64;
    let differ = pairs().filter(|(active, shadow)| active != shadow).count() as u64;
    let since = |plan: &assignment::Answer| {
        let pairs = question.previous.iter().zip(&plan.owners);
        pairs.filter(|(before, now)| before.first().is_some_and(|owner| Some(owner) != now.first())).count()
            as u64
    };
    Some(PlanComparison {
        responsibilities: question.responsibilities.len() as u64,
        moved,
        standbys_moved: differ - moved,
        imbalance_milli: Pair { active: imbalance(question, active), shadow: imbalance(question, shadow) },
        moved_from_previous: Pair { active: since(active), shadow: since(shadow) },
    })
}

fn imbalance(question: &assignment::Question, plan: &assignment::Answer) -> u64 {
    let mut loads = vec![0_u64; question.nodes.len()];
    for (duty, owners) in question.responsibilities.iter().zip(&plan.owners) {
        if let Some(load) = owners.first().and_then(|owner| loads.get_mut(*owner as usize)) {
            *load += u64::from(duty.weight_milli);
        }
    }
    let live = question.nodes.iter().filter(|node| node.live).count() as u128;
    let (sum, most) = (loads.iter().sum::<u64>(), loads.iter().max().copied().unwrap_or(0));
    match u128::from(sum) {
        0 => 1_000,
        sum => u64::try_from(u128::from(most) * live * 1_000 / sum).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use overlan_contract::assignment::{Node, Responsibility};

    use super::*;

    fn question() -> assignment::Question {
        let node = |name: &str| Node {
            id: name.into(),
            name: name.into(),
            live: true,
            adapters: Vec::new(),
            attributes: Vec::new(),
        };
        let duty = |name: &str, weight_milli| Responsibility {
            name: name.into(),
            replicas: 2,
            weight_milli,
            requires: Vec::new(),
        };
        assignment::Question {
            nodes: vec![node("a"), node("b")],
            responsibilities: vec![duty("x", 3_000), duty("y", 1_000)],
            previous: vec![vec![0, 1], vec![0, 1]],
            ..assignment::Question::default()
        }
    }

    fn plan(owners: &[[u32; 2]]) -> Answer {
        Answer::Assignment(assignment::Answer { owners: owners.iter().map(|pair| pair.to_vec()).collect() })
    }

    #[test]
    fn plans_are_compared_by_moves_and_load() {
        let question = Question::Assignment(question());
        let (active, shadow) = (plan(&[[0, 1], [0, 1]]), plan(&[[0, 1], [1, 0]]));
        let compared = compare_plans(&question, &active, &shadow).unwrap();
        assert_eq!((compared.responsibilities, compared.moved, compared.standbys_moved), (2, 1, 0));
        assert_eq!(compared.imbalance_milli, Pair { active: 2_000, shadow: 1_500 });
        assert_eq!(compared.moved_from_previous, Pair { active: 0, shadow: 1 });
        let difference = compare(7, &question, &active, &shadow).unwrap();
        let change = Change { field: "y".into(), active: "a, b".into(), shadow: "b, a".into() };
        assert_eq!((difference.question, difference.changes, difference.more), (7, vec![change], 0));
        assert_eq!(compare(7, &question, &active, &active), None);
    }

    #[test]
    fn a_difference_is_bounded() {
        let mut question = question();
        question.responsibilities = vec![question.responsibilities[0].clone(); 40];
        let (active, shadow) = (plan(&[[0, 1]; 40]), plan(&[[1, 0]; 40]));
        let difference = compare(0, &Question::Assignment(question), &active, &shadow).unwrap();
        assert_eq!((difference.changes.len(), difference.more), (MAX_CHANGES, 24));
    }
}
