use overlan_plugin_sdk::testkit::{ask_assignment, check_no_memory, cluster, random_cluster, without_node};
use proptest::prelude::*;

use super::*;

fn ask(question: &Question, slack: u32) -> Vec<Vec<u32>> {
    let config = [("slack_percent", slack.to_string())].into_iter().collect();
    ask_assignment::<BoundedLoad>(&config, question).owners
}

/// What each live node bears at a place.
fn loads(question: &Question, owners: &[Vec<u32>], place: usize) -> Vec<u64> {
    let mut load = vec![0; question.nodes.len()];
    for (duty, owners) in owners.iter().enumerate() {
        if let Some(&owner) = owners.get(place) {
            load[owner as usize] += weight(question, duty);
        }
    }
    (0..)
        .zip(&question.nodes)
        .filter(|(_, node)| node.live)
        .map(|(index, _): (usize, _)| load[index])
        .collect()
}

#[test]
fn nobody_bears_more_than_the_capacity() {
    for (nodes, duties) in [(4, 10), (10, 1_000), (40, 1_000)] {
        for slack in [1, 25, 100] {
            let question = cluster(nodes, duties);
            let owners = ask(&question, slack);
            for place in 0..2 {
                let all: Vec<usize> = (0..duties).collect();
                let policy = BoundedLoad { slack_percent: Within::new(slack) };
                // In whole duties of equal weight.
                let capacity = policy.capacity(&question, &all).max(1_000);
                let most = loads(&question, &owners, place).into_iter().max().unwrap_or(0);
                let average = 1_000 * (duties as u64).div_ceil(nodes as u64);
                assert!(most <= capacity.max(average), "{most} of {capacity}, place {place}");
            }
        }
    }
}

#[test]
fn few_duties_move_beside_those_of_a_lost_node() {
    let question = cluster(20, 2_000);
    let before = ask(&question, 25);
    for lost in 0..20 {
        let after = ask(&without_node(&question, lost), 25);
        let held = before.iter().filter(|owners| owners[0] as usize == lost).count();
        let moved = before.iter().zip(&after).filter(|(before, after)| before[0] != after[0]).count();
        assert!(moved <= 3 * held, "{moved} primaries moved, {held} were lost");
    }
}

#[test]
fn heavy_duties_are_spread() {
    let mut question = cluster(4, 8);
    for (index, duty) in question.responsibilities.iter_mut().enumerate() {
        duty.replicas = 1;
        duty.weight_milli = if index < 4 { 10_000 } else { 1_000 };
    }
    let owners = ask(&question, 25);
    let heavy: std::collections::BTreeSet<u32> = owners[..4].iter().map(|owners| owners[0]).collect();
    assert_eq!(heavy.len(), 4);
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("slack_percent", "0")].into_iter().collect();
    assert_eq!(
        BoundedLoad::configure(&config).unwrap_err().to_string(),
        "`slack_percent` is `0`; it must be a whole number from 1 to 1000"
    );
}

proptest! {
    #[test]
    fn every_answer_is_valid(seed: u64, nodes in 0_usize..40, duties in 0_usize..40, slack in 1_u32..=1_000) {
        ask(&random_cluster(seed, nodes, duties), slack);
    }

    #[test]
    fn the_plan_does_not_depend_on_previous_plan_and_seed(seed: u64, nodes in 0_usize..20) {
        check_no_memory::<BoundedLoad>(&Config::default(), &random_cluster(seed, nodes, 20));
    }
}
