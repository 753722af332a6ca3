//! All shipped policies link into one native binary, and answer shared questions validly: the same
//! sources that run as components.

use overlan_plugin_balanced::Balanced;
use overlan_plugin_bounded_load::BoundedLoad;
use overlan_plugin_conservative::Conservative;
use overlan_plugin_fast::Fast;
use overlan_plugin_knet_compat::KnetCompat;
use overlan_plugin_mtu_fit::MtuFit;
use overlan_plugin_rendezvous::Rendezvous;
use overlan_plugin_sdk::testkit::{self, ask_assignment, ask_failover, ask_sizing};
use overlan_plugin_sdk::{Assignment, Config, assignment};
use overlan_plugin_spread::Spread;
use overlan_plugin_sticky::Sticky;
use overlan_plugin_weighted::Weighted;

type Ask = fn(&assignment::Question) -> Vec<Vec<u32>>;

fn ask<P: Assignment>(question: &assignment::Question) -> Vec<Vec<u32>> {
    ask_assignment::<P>(&Config::default(), question).owners
}

const ASSIGNMENT: [Ask; 6] =
    [ask::<Rendezvous>, ask::<Balanced>, ask::<BoundedLoad>, ask::<Weighted>, ask::<Sticky>, ask::<Spread>];

#[test]
fn assignment_policies_answer() {
    for seed in 0..100 {
        let question = testkit::random_cluster(seed, 20, 40);
        for ask in ASSIGNMENT {
            ask(&question);
        }
    }
}

#[test]
fn assignment_policies_differ_so_that_swapping_shows() {
    let mut question = testkit::cluster(5, 20);
    question.nodes[0].attributes = vec![("capacity".into(), "5".into())];
    for node in &mut question.nodes[1..3] {
        node.attributes = vec![("site".into(), "x".into())];
    }
    let plans: std::collections::BTreeSet<_> = ASSIGNMENT.iter().map(|ask| ask(&question)).collect();
    assert_eq!(plans.len(), ASSIGNMENT.len());
}

#[test]
fn sizing_policies_answer_and_differ() {
    let question = testkit::sized_path(1_500, 9_000);
    let fitted = ask_sizing::<MtuFit>(&Config::default(), &question);
    let conservative = ask_sizing::<Conservative>(&Config::default(), &question);
    assert_eq!((fitted.datagram, conservative.datagram), (1_472, 1_200));
}

#[test]
fn failover_policies_answer_and_differ() {
    let question = testkit::paths(4);
    let fast = ask_failover::<Fast>(&Config::default(), &question);
    let knet = ask_failover::<KnetCompat>(&Config::default(), &question);
    assert!(fast.timings[0].probe_interval_us < knet.timings[0].probe_interval_us);
}
