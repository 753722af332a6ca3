use overlan_plugin_sdk::AdapterStatus;
use overlan_plugin_sdk::testkit::{
    ask_assignment, check_no_memory, check_only_lost_duties_move, cluster, random_cluster,
};
use proptest::prelude::*;

use super::*;

fn ask(question: &Question) -> Vec<Vec<u32>> {
    configured(&[], question)
}

fn configured(pairs: &[(&str, &str)], question: &Question) -> Vec<Vec<u32>> {
    ask_assignment::<Rendezvous>(&pairs.iter().copied().collect(), question).owners
}

/// Two equal nodes and 4,000 duties with one owner each.
fn pair() -> Question {
    let mut question = cluster(2, 4_000);
    question.responsibilities.iter_mut().for_each(|duty| duty.replicas = 1);
    question
}

/// The share of the first node, which must lie within four standard deviations of the expected percentage.
#[track_caller]
fn assert_share(owners: &[Vec<u32>], percent: f64) {
    let (p, n) = (percent / 100.0, owners.len() as f64);
    let share = owners.iter().filter(|owners| owners[0] == 0).count() as f64;
    assert!((share - p * n).abs() < 4.0 * (n * p * (1.0 - p)).sqrt() + 0.005 * p * n, "{share} of {n}");
}

#[test]
fn equal_nodes_share_equally() {
    let question = pair();
    assert_share(&ask(&question), 50.0);
}

#[test]
fn speed_weighs() {
    let mut question = pair();
    question.nodes[0].adapters[0].speed = 10_000;
    assert_share(&ask(&question), 1_000.0 / 11.0);
    assert_share(&configured(&[("speed", "sqrt")], &question), 10_000.0 / 131.0);
    assert_share(&configured(&[("speed", "equal")], &question), 50.0);

    question.nodes[0].adapters[0].status = AdapterStatus::Down;
    assert_share(&ask(&question), 50.0);
}

#[test]
fn an_unknown_speed_is_configurable() {
    let mut question = pair();
    question.nodes[0].adapters[0].speed = 0;
    assert_share(&ask(&question), 50.0);
    assert_share(&configured(&[("unknown_speed", "3000")], &question), 75.0);
}

#[test]
fn class_weighs() {
    let mut question = pair();
    question.nodes[0].adapters[0].class_of_service = "gold".into();
    assert_share(&ask(&question), 50.0);
    assert_share(&configured(&[("class_percent", "gold=300")], &question), 75.0);
    question.nodes[0].adapters[0].dscp = 8;
    assert_share(&configured(&[("speed", "sqrt")], &question), 700.0 / 38.0);
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("class_percent", "gold=0")].into_iter().collect();
    assert_eq!(
        Rendezvous::configure(&config).unwrap_err().to_string(),
        "`class_percent` is `gold=0`; it must be a whole number from 1 to 1000 for `gold`"
    );
}

#[test]
fn a_few_answers_stay_what_they_were() {
    // A change here moves responsibilities when a cluster is upgraded member by member.
    assert_eq!(ask(&cluster(8, 4)), [[1, 5], [1, 4], [7, 4], [0, 4]]);
}

proptest! {
    #[test]
    fn every_answer_is_valid(seed: u64, nodes in 0_usize..40, duties in 0_usize..40) {
        ask(&random_cluster(seed, nodes, duties));
    }

    #[test]
    fn only_the_duties_of_a_lost_node_move(seed: u64, nodes in 1_usize..40, duties in 1_usize..40, lost: usize) {
        check_only_lost_duties_move::<Rendezvous>(&Config::default(), &random_cluster(seed, nodes, duties), lost % nodes);
    }

    #[test]
    fn the_plan_does_not_depend_on_previous_plan_and_seed(seed: u64, nodes in 0_usize..20) {
        check_no_memory::<Rendezvous>(&Config::default(), &random_cluster(seed, nodes, 20));
    }
}
