use overlan_plugin_sdk::testkit::{
    ask_assignment, check_bounded_movement, check_only_lost_duties_move, check_plan_stays, cluster,
    moved_owners, primaries, random_cluster, with_previous,
};
use proptest::prelude::*;

use super::*;

fn configured(pairs: &[(&str, &str)], question: &Question) -> Answer {
    ask_assignment::<Sticky>(&pairs.iter().copied().collect(), question)
}

fn ask(question: &Question) -> Answer {
    configured(&[], question)
}

#[test]
fn a_new_cluster_is_even() {
    let question = cluster(32, 64);
    assert_eq!(primaries(&question, &ask(&question)), [2; 32]);
}

#[test]
fn a_plan_in_force_stays() {
    check_plan_stays::<Sticky>(&Config::default(), &cluster(32, 640));
}

#[test]
fn the_first_standby_takes_over_and_nothing_else_moves() {
    let question = cluster(32, 640);
    let question = with_previous(&question, &ask(&question));
    let config: Config = [("max_moves_percent", "0")].into_iter().collect();
    check_only_lost_duties_move::<Sticky>(&config, &question, question.previous[0][0] as usize);
}

#[test]
fn balance_comes_in_bounded_steps() {
    let mut question = cluster(10, 100);
    question.responsibilities.iter_mut().for_each(|duty| duty.replicas = 1);
    question.previous = vec![vec![3]; 100];
    let first = ask(&question);
    assert_eq!(primaries(&question, &first)[3], 95, "5% of 100 duties moved");
    let mut answer = first;
    for _ in 0..20 {
        let next = ask(&with_previous(&question, &answer));
        assert!(moved_owners(&answer, &next) <= 5);
        answer = next;
    }
    assert!(primaries(&question, &answer).iter().all(|&count| count <= 12));
}

#[test]
fn standbys_relieve_without_moving_state() {
    let mut question = cluster(4, 40);
    question.previous = vec![vec![0, 1]; 40];
    let before = Answer { owners: question.previous.clone() };
    let after = configured(&[("max_moves_percent", "25")], &question);
    assert_eq!(moved_owners(&before, &after), 0, "they changed places");
    assert_eq!(primaries(&question, &after)[..2], [30, 10]);
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("max_moves_percent", "x")].into_iter().collect();
    assert_eq!(
        Sticky::configure(&config).unwrap_err().to_string(),
        "`max_moves_percent` is `x`; it must be a whole number from 0 to 100"
    );
}

proptest! {
    #[test]
    fn every_answer_is_valid(
        seed: u64, nodes in 0_usize..40, duties in 0_usize..40, tolerance in 0_u32..100, moves in 0_u32..=100,
    ) {
        let config = [("tolerance_percent", tolerance.to_string()), ("max_moves_percent", moves.to_string())];
        ask_assignment::<Sticky>(&config.into_iter().collect(), &random_cluster(seed, nodes, duties));
    }

    #[test]
    fn movement_is_bounded(seed: u64, nodes in 2_usize..30, duties in 1_usize..60, lost: usize) {
        let step = (duties * 5).div_ceil(100);
        check_bounded_movement::<Sticky>(&Config::default(), &random_cluster(seed, nodes, duties), lost % nodes, step);
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
