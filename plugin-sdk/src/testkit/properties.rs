//! What holds of every sound policy, checked on the fixtures and on random clusters.

use super::{
    Fixture, ask, ask_assignment, assignment_fixtures, failover_fixtures, random_cluster, sizing_fixtures,
    with_previous, without_node,
};
use crate::assignment::{Answer, Question};
use crate::{Assignment, Config, Failover, Sizing};

/// How many random clusters [`check_assignment`] asks about.
const RANDOM_CLUSTERS: u64 = 64;

/// What share of the owners that could have stayed did not, when node `lost` died: 0 where only its own duties
/// moved, 1 where everything did.
///
/// `before` answered `question`, `after` the question without the node. A standby that stands
/// at another place of the same duty has not moved, a primary has. 0 where nobody could have stayed.
///
/// ```
/// use overlan_plugin_sdk::{assignment::Answer, testkit};
///
/// let question = testkit::cluster(3, 2);
/// let before = Answer { owners: vec![vec![0, 1], vec![1, 2]] };
/// let after = Answer { owners: vec![vec![1, 2], vec![1, 2]] };
/// assert_eq!(testkit::moved_share(&question, 0, &before, &after), 0.0);
/// let swapped = Answer { owners: vec![vec![1, 2], vec![2, 1]] };
/// assert_eq!(testkit::moved_share(&question, 0, &before, &swapped), 1.0 / 3.0);
/// ```
pub fn moved_share(question: &Question, lost: usize, before: &Answer, after: &Answer) -> f64 {
    let (mut could_stay, mut moved) = (0_u32, 0_u32);
    for (before, after) in before.owners.iter().zip(&after.owners) {
        let stays = |owner: &&u32| **owner as usize != lost && question.nodes[**owner as usize].live;
        for (place, owner) in before.iter().enumerate().filter(|(_, owner)| stays(owner)) {
            could_stay += 1;
            let has_moved = if place == 0 { after.first() != Some(owner) } else { !after.contains(owner) };
            moved += u32::from(has_moved);
        }
    }
    if could_stay == 0 { 0.0 } else { f64::from(moved) / f64::from(could_stay) }
}

/// The node whose death is asked about: the first live one that owns anything.
///
/// ```
/// use overlan_plugin_sdk::{assignment::Answer, testkit};
///
/// let plan = Answer { owners: vec![vec![2, 1]] };
/// assert_eq!(testkit::first_owner(&plan), Some(2));
/// ```
pub fn first_owner(plan: &Answer) -> Option<usize> {
    plan.owners.iter().flatten().next().map(|&owner| owner as usize)
}

/// How many owners own a duty that they did not own before, whether as primary or as standby.
///
/// ```
/// use overlan_plugin_sdk::{assignment::Answer, testkit};
///
/// let before = Answer { owners: vec![vec![0, 1], vec![1, 2]] };
/// let after = Answer { owners: vec![vec![1, 0], vec![1, 3]] };
/// assert_eq!(testkit::moved_owners(&before, &after), 1);
/// ```
pub fn moved_owners(before: &Answer, after: &Answer) -> usize {
    let duties = before.owners.iter().zip(&after.owners);
    duties.map(|(before, after)| after.iter().filter(|owner| !before.contains(owner)).count()).sum()
}

/// How many duties each node is primary of, by its index.
///
/// ```
/// use overlan_plugin_sdk::{assignment::Answer, testkit};
///
/// let answer = Answer { owners: vec![vec![0, 1], vec![0], vec![]] };
/// assert_eq!(testkit::primaries(&testkit::cluster(2, 3), &answer), [2, 0]);
/// ```
pub fn primaries(question: &Question, answer: &Answer) -> Vec<usize> {
    let mut counts = vec![0; question.nodes.len()];
    for primary in answer.owners.iter().filter_map(|owners| owners.first()) {
        counts[*primary as usize] += 1;
    }
    counts
}

/// Checks that only the duties of a lost node move: when it dies, the owners that could stay do, in their order and
/// before any new one. Holds of strategies that draw nodes for each duty alone, such as rendezvous hashing.
///
#[doc = example!("Assignment" => "testkit::check_only_lost_duties_move::<First>(&Config::default(), &testkit::cluster(4, 8), 1);")]
///
/// # Panics
/// When others move, or as [`ask_assignment`].
pub fn check_only_lost_duties_move<P: Assignment>(config: &Config, question: &Question, lost: usize) {
    let before = ask_assignment::<P>(config, question);
    let after = ask_assignment::<P>(config, &without_node(question, lost));
    for (index, (before, after)) in before.owners.iter().zip(&after.owners).enumerate() {
        let kept: Vec<u32> = before.iter().copied().filter(|&owner| owner as usize != lost).collect();
        assert!(
            after.starts_with(&kept),
            "responsibilities[{index}]: {kept:?} could stay; it went to {after:?}"
        );
    }
}

/// Checks that movement is bounded: when a node dies under the plan in force, at most as many owners are new as it leaves
/// places, and `more`.
///
#[doc = example!("Assignment" => "testkit::check_bounded_movement::<First>(&Config::default(), &testkit::cluster(4, 8), 1, 0);")]
///
/// # Panics
/// When more move, or as [`ask_assignment`].
pub fn check_bounded_movement<P: Assignment>(config: &Config, question: &Question, lost: usize, more: usize) {
    let before = ask_assignment::<P>(config, question);
    let after = ask_assignment::<P>(config, &without_node(&with_previous(question, &before), lost));
    let left = before.owners.iter().flatten().filter(|&&owner| owner as usize == lost).count();
    let moved = moved_owners(&before, &after);
    assert!(
        moved <= left + more,
        "{moved} owners are new; the lost node had {left} places, and {more} more may move"
    );
}

/// Checks that a plan in force stays where no fact has changed.
///
#[doc = example!("Assignment" => "testkit::check_plan_stays::<First>(&Config::default(), &testkit::cluster(4, 8));")]
///
/// # Panics
/// When it does not, or as [`ask_assignment`].
pub fn check_plan_stays<P: Assignment>(config: &Config, question: &Question) {
    let answer = ask_assignment::<P>(config, question);
    assert_eq!(ask_assignment::<P>(config, &with_previous(question, &answer)), answer, "the plan in force");
}

/// Checks that the answer depends neither on the plan in force nor on the seed.
///
#[doc = example!("Assignment" => "testkit::check_no_memory::<First>(&Config::default(), &testkit::cluster(4, 8));")]
///
/// # Panics
/// When it does, or as [`ask_assignment`].
pub fn check_no_memory<P: Assignment>(config: &Config, question: &Question) {
    let previous = vec![Vec::new(); question.responsibilities.len()];
    let other = Question { seed: !question.seed, previous, ..question.clone() };
    assert_eq!(ask_assignment::<P>(config, question), ask_assignment::<P>(config, &other), "without memory");
}

/// Asks a policy all assignment fixtures and random clusters, each in two instances, before and after the death
/// of a node: every answer valid (no dead owner), equal questions answered equally, and of the owners that could
/// stay at most the share `most_moved` (0 to 1) moved. Random clusters are held to all of it but the last.
///
#[doc = example!("Assignment" => "testkit::check_assignment::<First>(&Config::default(), 0.5);")]
///
/// # Panics
/// With the fixture's name and the rule that was broken.
#[track_caller]
pub fn check_assignment<P: Assignment>(config: &Config, most_moved: f64) {
    for Fixture { name, question } in assignment_fixtures() {
        let before = named(name, ask::assignment::<P>(config, &question));
        let Some(lost) = first_owner(&before) else { continue };
        let node = &question.nodes[lost].name;
        let after = ask::assignment::<P>(config, &without_node(&with_previous(&question, &before), lost));
        let after = named(&format!("{name}, when {node} died"), after);
        let moved = moved_share(&question, lost, &before, &after);
        assert!(
            moved <= most_moved,
            "{name}: when {node} died, {:.1}% of the owners that could stay moved",
            100.0 * moved
        );
    }
    for seed in 0..RANDOM_CLUSTERS {
        let (nodes, duties) = (seed as usize, 20);
        let answer = ask::assignment::<P>(config, &random_cluster(seed, nodes, duties));
        named(&format!("random_cluster({seed}, {nodes}, {duties})"), answer);
    }
}

/// Asks a policy all sizing fixtures, each in two instances: every answer valid and equal.
///
#[doc = example!("Sizing" => "testkit::check_sizing::<Smallest>(&Config::default());")]
///
/// # Panics
/// With the fixture's name and the rule that was broken.
#[track_caller]
pub fn check_sizing<P: Sizing>(config: &Config) {
    for Fixture { name, question } in sizing_fixtures() {
        named(name, ask::sizing::<P>(config, &question));
    }
}

/// Asks a policy all failover fixtures, each in two instances: every answer valid and equal.
///
#[doc = example!("Failover" => "testkit::check_failover::<InOrder>(&Config::default());")]
///
/// # Panics
/// With the fixture's name and the rule that was broken.
#[track_caller]
pub fn check_failover<P: Failover>(config: &Config) {
    for Fixture { name, question } in failover_fixtures() {
        named(name, ask::failover::<P>(config, &question));
    }
}

/// The answer to the question of this name.
#[track_caller]
fn named<A>(name: &str, answer: Result<A, String>) -> A {
    answer.unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{ConfigError, Log, sizing};

    /// What a check panics with.
    fn panics(check: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(check)).expect_err("it should have failed");
        panic.downcast_ref::<String>().expect("a sentence").clone()
    }

    /// Fills the far adapter's MTU, or the path's where that is known, and never looks at the adapter it leaves by.
    struct Fills<const PATH: bool>;

    impl<const PATH: bool> Sizing for Fills<PATH> {
        fn configure(_: &Config) -> Result<Self, ConfigError> {
            Ok(Fills)
        }

        fn decide(&mut self, question: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
            let link = question.local.mtu.min(question.remote.mtu);
            let packet = if PATH { question.path_mtu.unwrap_or(link) } else { question.remote.mtu };
            let most = sizing::MAX_DATAGRAM;
            let datagram = packet.saturating_sub(question.overhead).clamp(sizing::MIN_DATAGRAM, most);
            Ok(sizing::Answer { datagram, coalesce: datagram, burst: sizing::MAX_BURST })
        }
    }

    #[test]
    fn a_datagram_that_the_near_adapter_does_not_carry_is_found() {
        let why = panics(|| check_sizing::<Fills<false>>(&Config::default()));
        assert!(why.starts_with("ethernet-to-jumbo: ") && why.contains("datagram is 8972"), "{why}");
        let why = panics(|| check_sizing::<Fills<true>>(&Config::default()));
        assert!(why.starts_with("path-mtu-above-the-link: ") && why.contains("datagram is 8972"), "{why}");
    }

    thread_local! {
        static ASKED: Cell<u32> = const { Cell::new(0) };
    }

    /// Gives each duty to the first node, which may be dead, or to a node that differs from question to question.
    struct Careless<const FICKLE: bool>;

    impl<const FICKLE: bool> Assignment for Careless<FICKLE> {
        fn configure(_: &Config) -> Result<Self, ConfigError> {
            Ok(Careless)
        }

        fn decide(&mut self, question: &Question, _: &dyn Log) -> Result<Answer, String> {
            let turn = if FICKLE { ASKED.replace(ASKED.get() + 1) } else { 0 };
            let live = question.nodes.iter().filter(|node| node.live).count() as u32;
            let owners = |wanted: u32| (0..wanted.min(live)).map(|at| (at + turn) % live).collect();
            Ok(Answer {
                owners: question.responsibilities.iter().map(|duty| owners(duty.replicas)).collect(),
            })
        }
    }

    #[test]
    fn the_fixture_that_fails_is_named() {
        let why = panics(|| check_assignment::<Careless<false>>(&Config::default(), 1.0));
        assert!(
            why.starts_with("two-nodes, when n") && why.contains(" died: the host would refuse"),
            "{why}"
        );
        let why = panics(|| check_assignment::<Careless<true>>(&Config::default(), 1.0));
        assert!(why.starts_with("two-nodes: equal questions must get equal answers"), "{why}");
    }
}
