//! What holds of every sound policy, checked on the fixtures and on random clusters.

use super::{
    Fixture, ask_assignment, ask_failover, ask_sizing, assignment_fixtures, failover_fixtures,
    random_cluster, sizing_fixtures, with_previous, without_node,
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

/// An example with a policy that gives each duty to the first nodes that can have it.
macro_rules! example {
    ($call:literal) => {
        concat!(
            "```\n",
            "# use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, assignment};\n",
            "# struct First;\n",
            "# impl Assignment for First {\n",
            "#     fn configure(_: &Config) -> Result<Self, ConfigError> { Ok(First) }\n",
            "#     fn decide(&mut self, question: &assignment::Question, _: &dyn Log) -> Result<assignment::Answer, String> {\n",
            "#         let owners = question.responsibilities.iter().map(|duty| {\n",
            "#             let eligible = (0u32..).zip(&question.nodes).filter(|(_, node)| node.live && node.meets(&duty.requires));\n",
            "#             eligible.map(|(index, _)| index).take(duty.replicas as usize).collect()\n",
            "#         });\n",
            "#         Ok(assignment::Answer { owners: owners.collect() })\n",
            "#     }\n",
            "# }\n",
            "use overlan_plugin_sdk::testkit;\n\n",
            $call,
            "\n```"
        )
    };
}

/// Checks that only the duties of a lost node move: when it dies, the owners that could stay do, in their order and
/// before any new one. Holds of strategies that draw nodes for each duty alone, such as rendezvous hashing.
///
#[doc = example!("testkit::check_only_lost_duties_move::<First>(&Config::default(), &testkit::cluster(4, 8), 1);")]
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
#[doc = example!("testkit::check_bounded_movement::<First>(&Config::default(), &testkit::cluster(4, 8), 1, 0);")]
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
#[doc = example!("testkit::check_plan_stays::<First>(&Config::default(), &testkit::cluster(4, 8));")]
///
/// # Panics
/// When it does not, or as [`ask_assignment`].
pub fn check_plan_stays<P: Assignment>(config: &Config, question: &Question) {
    let answer = ask_assignment::<P>(config, question);
    assert_eq!(ask_assignment::<P>(config, &with_previous(question, &answer)), answer, "the plan in force");
}

/// Checks that the answer depends neither on the plan in force nor on the seed.
///
#[doc = example!("testkit::check_no_memory::<First>(&Config::default(), &testkit::cluster(4, 8));")]
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
#[doc = example!("testkit::check_assignment::<First>(&Config::default(), 0.5);")]
///
/// # Panics
/// With the fixture's name and the rule that was broken.
pub fn check_assignment<P: Assignment>(config: &Config, most_moved: f64) {
    for Fixture { name, question } in assignment_fixtures() {
        let before = ask_assignment::<P>(config, &question);
        let Some(lost) = first_owner(&before) else { continue };
        let after = ask_assignment::<P>(config, &without_node(&with_previous(&question, &before), lost));
        let moved = moved_share(&question, lost, &before, &after);
        assert!(
            moved <= most_moved,
            "{name}: when {} died, {:.1}% of the owners that could stay moved",
            question.nodes[lost].name,
            100.0 * moved
        );
    }
    for seed in 0..RANDOM_CLUSTERS {
        ask_assignment::<P>(config, &random_cluster(seed, seed as usize, 20));
    }
}

/// Asks a policy all sizing fixtures, each in two instances: every answer valid and equal.
///
/// ```
/// # use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, sizing};
/// # struct Smallest;
/// # impl Sizing for Smallest {
/// #     fn configure(_: &Config) -> Result<Self, ConfigError> { Ok(Smallest) }
/// #     fn decide(&mut self, _: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
/// #         Ok(sizing::Answer { datagram: 1_200, coalesce: 1_200, burst: 12_000 })
/// #     }
/// # }
/// overlan_plugin_sdk::testkit::check_sizing::<Smallest>(&Config::default());
/// ```
///
/// # Panics
/// When the policy refuses a question, contradicts itself, or breaks a rule.
pub fn check_sizing<P: Sizing>(config: &Config) {
    for fixture in sizing_fixtures() {
        ask_sizing::<P>(config, &fixture.question);
    }
}

/// Asks a policy all failover fixtures, each in two instances: every answer valid and equal.
///
/// ```
/// # use overlan_plugin_sdk::{Config, ConfigError, Failover, Log, failover};
/// # struct InOrder;
/// # impl Failover for InOrder {
/// #     fn configure(_: &Config) -> Result<Self, ConfigError> { Ok(InOrder) }
/// #     fn decide(&mut self, question: &failover::Question, _: &dyn Log) -> Result<failover::Answer, String> {
/// #         let timing = failover::Timing {
/// #             probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000,
/// #         };
/// #         Ok(failover::Answer {
/// #             order: (0..question.paths.len() as u32).collect(),
/// #             mode: failover::Mode::Passive,
/// #             timings: vec![timing; question.paths.len()],
/// #         })
/// #     }
/// # }
/// overlan_plugin_sdk::testkit::check_failover::<InOrder>(&Config::default());
/// ```
///
/// # Panics
/// When the policy refuses a question, contradicts itself, or breaks a rule.
pub fn check_failover<P: Failover>(config: &Config) {
    for fixture in failover_fixtures() {
        ask_failover::<P>(config, &fixture.question);
    }
}
