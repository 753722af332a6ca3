use super::*;
use crate::testkit::{cluster, random_cluster};

#[test]
fn only_live_nodes_that_meet_the_requirements_are_eligible() {
    for seed in 0..50 {
        let question = random_cluster(seed, 12, 20);
        let eligible = Eligible::new(&question, |index, _| index);
        for (duty, responsibility) in question.responsibilities.iter().enumerate() {
            let expected: Vec<u32> = (0..)
                .zip(&question.nodes)
                .filter(|(_, node)| node.live && node.meets(&responsibility.requires))
                .map(|(index, _)| index)
                .collect();
            assert_eq!(eligible.nodes(duty), expected);
            assert_eq!(eligible.groups()[eligible.group(duty)], expected);
            for node in [0..15, u32::MAX - 1..u32::MAX].into_iter().flatten() {
                let contained = eligible.contains(duty, node, |&node| node);
                assert_eq!(contained, expected.contains(&node));
            }
            assert_eq!(eligible.wanted(duty), expected.len().min(responsibility.replicas as usize));
        }
    }
}

#[test]
fn the_lightest_is_the_first_of_the_least_loaded() {
    for (seed, said) in (0_u64..200).zip([true, false].into_iter().cycle()) {
        let all: Vec<usize> = (0..1 + seed as usize).collect();
        let mut load: Vec<u64> = (0..).map(|node| score::mix(seed, node) % 3).take(all.len()).collect();
        let mut lightest = Lightest::default();
        for round in 0..600 {
            let least = *load.iter().min().unwrap();
            let expected: Vec<usize> = all.iter().copied().filter(|&node| load[node] == least).collect();
            let (found, nodes) = lightest.find(&all, |&node| load[node]);
            let lightest_now: Vec<usize> =
                nodes.iter().copied().filter(|&node| load[node] == least).collect();
            assert_eq!((found, nodes[0], &lightest_now), (least, expected[0], &expected));
            // Mostly the first, as a strategy would.
            let choice = if round % 4 == 0 { score::mix(round, seed) as usize % expected.len() } else { 0 };
            load[expected[choice]] += 1 + round % 2;
            if said {
                lightest.note_growth();
            }
        }
    }
}

#[test]
fn the_lowest_costs_come_first() {
    let question = cluster(30, 1);
    let candidates: Vec<Candidate> = (0..)
        .zip(&question.nodes)
        .map(|(index, node)| Candidate::new(index, node, Weight::new(1 + index)))
        .collect();
    let hash = duty_hash("duty-0");
    let mut sorted: Vec<u32> = (0..30).collect();
    sorted.sort_by_key(|&index| (candidates[index as usize].cost(hash), index));
    assert_eq!(lowest("duty-0", &candidates, 7), sorted[..7]);
    assert_eq!(lowest("duty-0", &candidates, 0), []);
}

#[test]
fn whoever_is_no_front_runner_costs_more_than_all_of_them() {
    for (seed, nodes) in (0..60).zip([0, 1, 7, 8, 9, 200, 1_000].into_iter().cycle()) {
        // Alike, or not.
        let weight = |index| Weight::new(1 + index % (1 + (seed as u32 % 3) * 50));
        let candidates: Vec<Candidate> = (0..)
            .zip(&cluster(nodes, 0).nodes)
            .map(|(index, node)| Candidate::new(index, node, weight(index)))
            .collect();
        let (name, about) = (format!("duty-{seed}"), 1 + seed as u32 % 40);
        let first = front_runners(&candidates, duty_hash(&name), about);
        assert_eq!(first, lowest(&name, &candidates, first.len()));
        assert!(nodes > about as usize || first.len() == nodes, "few are all in it");
    }
}

#[test]
fn both_ways_to_contend_visit_whoever_may_win() {
    for (seed, nodes) in (0..40).zip([0, 1, 7, 8, 9, 30, 200].into_iter().cycle()) {
        let candidates: Vec<Candidate> = (0..)
            .zip(&cluster(nodes, 0).nodes)
            .map(|(index, node)| Candidate::new(index, node, Weight::new(1 + index % 9)))
            .collect();
        let hash = score::hash(seed, b"duty");
        // A third of them may not own, so that they leave the bound as it is.
        let least = |visited: &mut Option<u64>, node: &Candidate| {
            if !node.index.is_multiple_of(3) {
                *visited = Some(visited.map_or(node.cost(hash), |least| least.min(node.cost(hash))));
            }
            visited.unwrap_or(u64::MAX)
        };
        let (mut natively, mut in_plugin, mut all) = (None, None, None);
        contend_natively(&candidates, hash, u64::MAX, |node| least(&mut natively, node));
        contend_in_plugin(&candidates, hash, u64::MAX, |node| least(&mut in_plugin, node));
        candidates.iter().for_each(|node| _ = least(&mut all, node));
        assert_eq!((natively, in_plugin), (all, all));
    }
}

#[test]
fn subnets_of_adapters_that_are_up_are_numbered() {
    let mut nodes = cluster(40, 0).nodes;
    nodes[3].adapters[1].status = AdapterStatus::Down;
    let numbers = number_subnets(&nodes);
    assert_eq!((numbers[3].len(), numbers[4].len()), (1, 2));
    for (one, subnets) in nodes.iter().zip(&numbers) {
        for (other, others) in nodes.iter().zip(&numbers) {
            let shared = up(one).any(|a| up(other).any(|b| a.subnet() == b.subnet()));
            assert_eq!(overlap(subnets, others), shared);
        }
    }
}
