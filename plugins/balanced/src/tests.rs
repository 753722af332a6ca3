use overlan_plugin_sdk::testkit::{
    ask_assignment, check_bounded_movement, check_plan_stays, cluster, moved_owners, primaries,
    random_cluster, with_previous, without_node,
};
use proptest::prelude::*;

use super::*;

fn ask(question: &Question) -> Answer {
    ask_assignment::<Balanced>(&Config::default(), question)
}

#[test]
fn a_new_cluster_is_even() {
    let question = cluster(32, 64);
    let counts = primaries(&question, &ask(&question));
    assert!(counts.iter().all(|&count| (1..=3).contains(&count)), "{counts:?}");
}

#[test]
fn standbys_are_on_other_subnets() {
    let question = cluster(32, 64);
    for owners in ask(&question).owners {
        let subnet = |place: usize| question.nodes[owners[place] as usize].adapters[0].subnet();
        assert_ne!(subnet(0), subnet(1));
    }
}

#[test]
fn a_plan_in_force_stays() {
    check_plan_stays::<Balanced>(&Config::default(), &cluster(32, 64));
}

#[test]
fn the_first_standby_takes_over() {
    let question = cluster(32, 64);
    let before = ask(&question);
    let lost = before.owners[0][0];
    let question = without_node(&with_previous(&question, &before), lost as usize);
    // Without balancing, which may hand the duty on.
    let config: Config = [("max_moves", "0")].into_iter().collect();
    assert_eq!(ask_assignment::<Balanced>(&config, &question).owners[0][0], before.owners[0][1]);
}

#[test]
fn little_moves_when_a_node_is_lost() {
    let question = cluster(32, 640);
    let before = ask(&question);
    for lost in 0..32 {
        let held = before.owners.iter().filter(|owners| owners.contains(&lost)).count();
        check_bounded_movement::<Balanced>(&Config::default(), &question, lost as usize, held);
    }
}

#[test]
fn a_new_node_gets_its_share_and_nothing_else_moves() {
    let full = cluster(32, 640);
    let before = ask(&without_node(&full, 7));
    let after = ask(&with_previous(&full, &before));
    let gained = after.owners.iter().filter(|owners| owners.contains(&7)).count();
    assert_eq!(moved_owners(&before, &after), gained);
    let share = primaries(&full, &after)[7];
    assert!((12..=24).contains(&share), "{share} of 20");
}

#[test]
fn one_node_that_holds_all_is_relieved() {
    let mut question = cluster(10, 100);
    question.responsibilities.iter_mut().for_each(|duty| duty.replicas = 1);
    question.previous = vec![vec![3]; 100];
    let counts = primaries(&question, &ask(&question));
    assert!(counts.iter().all(|&count| count <= 12), "{counts:?}");

    let config: Config = [("max_moves", "5")].into_iter().collect();
    let answer = ask_assignment::<Balanced>(&config, &question);
    assert_eq!(primaries(&question, &answer)[3], 95);
}

#[test]
fn heavy_duties_are_spread() {
    let mut question = cluster(4, 8);
    for (index, duty) in question.responsibilities.iter_mut().enumerate() {
        duty.replicas = 1;
        duty.weight_milli = if index < 4 { 10_000 } else { 1_000 };
    }
    let answer = ask(&question);
    let heavy: std::collections::BTreeSet<u32> = answer.owners[..4].iter().map(|owners| owners[0]).collect();
    assert_eq!(heavy.len(), 4);
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("standby_percent", "101")].into_iter().collect();
    assert_eq!(
        Balanced::configure(&config).unwrap_err().to_string(),
        "`standby_percent` is `101`; it must be a whole number from 0 to 100"
    );
}

proptest! {
    #[test]
    fn every_answer_is_valid(
        seed: u64, nodes in 0_usize..40, duties in 0_usize..40, tolerance in 0_u32..100, standby in 0_u32..=100,
    ) {
        let config = [("tolerance_percent", tolerance.to_string()), ("standby_percent", standby.to_string())];
        ask_assignment::<Balanced>(&config.into_iter().collect(), &random_cluster(seed, nodes, duties));
    }

    #[test]
    fn a_wrong_previous_plan_does_no_harm(
        previous in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..5), 0..30)
    ) {
        let mut question = cluster(5, 20);
        question.previous = previous;
        ask(&question);
    }
}
