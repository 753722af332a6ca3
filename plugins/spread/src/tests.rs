use std::collections::BTreeSet;

use overlan_plugin_sdk::testkit::{ask_assignment, check_no_memory, cluster, random_cluster, without_node};
use proptest::prelude::*;

use super::*;

fn configured(pairs: &[(&str, &str)], question: &Question) -> Vec<Vec<u32>> {
    ask_assignment::<Spread>(&pairs.iter().copied().collect(), question).owners
}

fn ask(question: &Question) -> Vec<Vec<u32>> {
    configured(&[], question)
}

/// A node's value of an attribute.
fn value<'a>(question: &'a Question, node: u32, name: &str) -> &'a str {
    let mut pairs = question.nodes[node as usize].attributes.iter();
    pairs.find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Nodes at three sites with four racks each.
fn sites(nodes: usize, duties: usize, replicas: u32) -> Question {
    let mut question = cluster(nodes, duties);
    for (index, node) in question.nodes.iter_mut().enumerate() {
        let (site, rack) = (index % 3, index / 3 % 4);
        node.attributes =
            vec![("site".into(), format!("s{site}")), ("rack".into(), format!("s{site}-r{rack}"))];
    }
    question.responsibilities.iter_mut().for_each(|duty| duty.replicas = replicas);
    question
}

#[test]
fn owners_are_at_distinct_sites_then_racks() {
    let question = sites(48, 200, 6);
    for owners in ask(&question) {
        let sites = |owners: &[u32]| {
            owners.iter().map(|&node| value(&question, node, "site")).collect::<BTreeSet<_>>().len()
        };
        assert_eq!((sites(&owners[..3]), sites(&owners[3..])), (3, 3), "each site again before a third time");
        let racks: BTreeSet<&str> = owners.iter().map(|&node| value(&question, node, "rack")).collect();
        assert_eq!(racks.len(), 6);
    }
}

#[test]
fn standbys_are_on_other_subnets() {
    let question = cluster(32, 64);
    let subnet = |node: u32| question.nodes[node as usize].adapters[0].subnet();
    assert!(ask(&question).iter().all(|owners| subnet(owners[0]) != subnet(owners[1])));
    let blind = configured(&[("subnets", "false")], &question);
    assert!(blind.iter().any(|owners| subnet(owners[0]) == subnet(owners[1])));
}

#[test]
fn the_attributes_are_configurable() {
    let mut question = cluster(16, 50);
    for (index, node) in question.nodes.iter_mut().enumerate() {
        node.attributes = vec![("feed".into(), ["a", "b"][index % 2].into())];
    }
    for owners in configured(&[("domains", "feed")], &question) {
        assert_ne!(owners[0] % 2, owners[1] % 2);
    }
}

#[test]
fn one_domain_alone_still_gets_all_owners() {
    let mut question = sites(6, 20, 3);
    question.nodes.iter_mut().for_each(|node| node.attributes = vec![("site".into(), "only".into())]);
    assert!(ask(&question).iter().all(|owners| owners.len() == 3));
}

#[test]
fn explains_a_wrong_configuration() {
    let config: Config = [("domains", "a,b,c,d,e,f,g,h,i")].into_iter().collect();
    assert_eq!(
        Spread::configure(&config).unwrap_err().to_string(),
        "`domains` names 9 attributes; name 8 at the most"
    );
}

proptest! {
    #[test]
    fn every_answer_is_valid(seed: u64, nodes in 0_usize..40, duties in 0_usize..40, subnets: bool) {
        configured(&[("subnets", &subnets.to_string())], &random_cluster(seed, nodes, duties));
    }

    #[test]
    fn only_the_primaries_of_a_lost_node_move(seed: u64, nodes in 1_usize..40, duties in 1_usize..40, lost: usize) {
        let question = random_cluster(seed, nodes, duties);
        let lost = lost % nodes;
        let before = ask(&question);
        let after = ask(&without_node(&question, lost));
        for (before, after) in before.iter().zip(&after) {
            if let Some(&primary) = before.first().filter(|&&primary| primary as usize != lost) {
                prop_assert_eq!(primary, after[0]);
            }
        }
    }

    #[test]
    fn the_plan_does_not_depend_on_previous_plan_and_seed(seed: u64, nodes in 0_usize..20) {
        check_no_memory::<Spread>(&Config::default(), &random_cluster(seed, nodes, 20));
    }
}
