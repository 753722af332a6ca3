use overlan_plugin_sdk::testkit::{
    ask_assignment, check_only_lost_duties_move, cluster, random_cluster, without_node,
};
use overlan_plugin_sdk::{AdapterStatus, Recorder};
use proptest::prelude::*;

use super::*;

fn configured(pairs: &[(&str, &str)], question: &Question) -> Vec<Vec<u32>> {
    ask_assignment::<Weighted>(&pairs.iter().copied().collect(), question).owners
}

fn ask(question: &Question) -> Vec<Vec<u32>> {
    configured(&[], question)
}

/// Two equal nodes and 4,000 duties with one owner each; the first node's capacity is as said.
fn pair(capacity: &str) -> Question {
    let mut question = cluster(2, 4_000);
    question.responsibilities.iter_mut().for_each(|duty| duty.replicas = 1);
    question.nodes[0].attributes = vec![("capacity".into(), capacity.into())];
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
fn capacity_weighs() {
    assert_share(&ask(&pair("1")), 50.0);
    assert_share(&ask(&pair("3")), 75.0);
    assert_share(&ask(&pair("0.25")), 20.0);
    assert_share(&ask(&pair("much")), 50.0);
    let named = pair("9");
    assert_share(&configured(&[("attribute", "power")], &named), 50.0);
    assert_share(&configured(&[("default_capacity_milli", "3000")], &named), 75.0);
}

#[test]
fn adapters_weigh_together() {
    let mut question = pair("1");
    question.nodes[0].adapters.iter_mut().for_each(|adapter| adapter.speed = 4_000);
    assert_share(&configured(&[("speed", "linear")], &question), 80.0);
    assert_share(&ask(&question), 200.0 / 3.0);
    assert_share(&configured(&[("speed", "equal")], &question), 50.0);
    question.nodes[0].adapters[0].status = AdapterStatus::Down;
    assert_share(&configured(&[("speed", "linear")], &question), 200.0 / 3.0);
}

#[test]
fn class_weighs() {
    let mut question = pair("1");
    question.nodes[0].adapters.iter_mut().for_each(|adapter| adapter.class_of_service = "gold".into());
    for speed in ["linear", "sqrt", "equal"] {
        assert_share(&configured(&[("class_percent", "gold=300"), ("speed", speed)], &question), 75.0);
    }
}

#[test]
fn a_drained_node_owns_what_nobody_else_can() {
    let mut question = cluster(4, 100);
    question.nodes[2].attributes = vec![("capacity".into(), "0".into()), ("disk".into(), "yes".into())];
    question.responsibilities[7].requires = vec![("disk".into(), "yes".into())];
    let owners = ask(&question);
    for (index, owners) in owners.iter().enumerate() {
        assert_eq!(owners.contains(&2), index == 7, "{owners:?}");
    }
    // With all but one other node gone it stands by.
    let question = without_node(&without_node(&question, 0), 1);
    assert!(ask(&question).iter().enumerate().all(|(index, owners)| index == 7 || *owners == [3, 2]));
}

#[test]
fn a_capacity_that_is_no_number_is_logged() {
    let log = Recorder::default();
    let answer = Weighted::default().decide(&pair("much"), &log);
    assert!(answer.is_ok());
    assert!(log.lines()[0].1.contains("is `much`, no decimal number"), "{:?}", log.lines());
}

#[test]
fn decimal_numbers() {
    let cases = [("1", Some(1_000)), ("2.5", Some(2_500)), (" 0.125 ", Some(125)), ("0", Some(0))];
    for (text, expected) in cases {
        assert_eq!(milli(text), expected, "{text}");
    }
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.1234", "NaN", "inf", "1,5"] {
        assert_eq!(milli(text), None, "{text}");
    }
    assert_eq!(milli("99999999999999999999"), Some(MAX_CAPACITY_MILLI));
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("speed", "cubic")].into_iter().collect();
    assert_eq!(
        Weighted::configure(&config).unwrap_err().to_string(),
        "`speed` is `cubic`; it must be one of linear, sqrt, equal"
    );
}

proptest! {
    #[test]
    fn every_answer_is_valid(seed: u64, nodes in 0_usize..40, duties in 0_usize..40, capacity in "[0-9.x]{0,6}") {
        let mut question = random_cluster(seed, nodes, duties);
        for node in question.nodes.iter_mut().step_by(2) {
            node.attributes.push(("capacity".into(), capacity.clone()));
        }
        ask(&question);
    }

    #[test]
    fn only_the_duties_of_a_lost_node_move(seed: u64, nodes in 1_usize..40, duties in 1_usize..40, lost: usize) {
        check_only_lost_duties_move::<Weighted>(&Config::default(), &random_cluster(seed, nodes, duties), lost % nodes);
    }
}
