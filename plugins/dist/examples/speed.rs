//! Times the assignment policies natively, medians: `cargo run --release -p overlan-plugins-dist --example speed`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use overlan_plugin_sdk::testkit::{cluster, with_previous, without_node};
use overlan_plugin_sdk::{Assignment, Config, Discard, assignment::Question};

/// How long each policy is asked, once at least.
const TIME: Duration = Duration::from_millis(500);

fn time<P: Assignment>(what: &str, question: &Question) {
    let begun = Instant::now();
    let mut taken = Vec::new();
    while taken.is_empty() || begun.elapsed() < TIME {
        let start = Instant::now();
        let mut policy = P::configure(&Config::default()).expect("no configuration is fine");
        black_box(policy.decide(black_box(question), &Discard)).expect("an answer");
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    println!("{what}: {:?}", taken[taken.len() / 2]);
}

fn main() {
    for (nodes, duties) in [(16, 64), (1_000, 1_000), (4_096, 16_384)] {
        let question = cluster(nodes, duties);
        println!("{nodes} nodes, {duties} responsibilities, 2 replicas");
        time::<overlan_plugin_rendezvous::Rendezvous>("  rendezvous", &question);
        time::<overlan_plugin_balanced::Balanced>("  balanced, new", &question);
        time::<overlan_plugin_bounded_load::BoundedLoad>("  bounded-load", &question);
        time::<overlan_plugin_weighted::Weighted>("  weighted", &question);
        time::<overlan_plugin_sticky::Sticky>("  sticky, new", &question);
        time::<overlan_plugin_spread::Spread>("  spread", &question);
        let answer = overlan_plugin_balanced::Balanced::configure(&Config::default())
            .and_then(|mut policy| {
                policy.decide(&question, &Discard).map_err(overlan_plugin_sdk::ConfigError::Other)
            })
            .expect("an answer");
        let lost = without_node(&with_previous(&question, &answer), 0);
        time::<overlan_plugin_balanced::Balanced>("  balanced, one lost", &lost);
        time::<overlan_plugin_sticky::Sticky>("  sticky, one lost", &lost);
    }
}
