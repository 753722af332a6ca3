//! What each shipped assignment strategy takes natively and as a plugin with all determinism switches on:
//! `cargo run --release -p overlan-guests --example strategies`.

use std::time::{Duration, Instant};

use overlan_plugin_sdk::testkit::{cluster, with_previous, without_node};
use overlan_plugin_sdk::{Config, Discard, assignment};
use overlan_policy::{Engine, Limits, Plugin};

/// The best of so many runs counts: the others were interrupted.
const RUNS: usize = 15;

fn native<P: overlan_plugin_sdk::Assignment>(question: &assignment::Question) -> assignment::Answer {
    let mut policy = P::configure(&Config::default()).expect("no configuration is fine");
    policy.decide(question, &Discard).expect("an answer")
}

type Native = fn(&assignment::Question) -> assignment::Answer;

const STRATEGIES: [(&str, Native); 6] = [
    ("rendezvous", native::<overlan_plugin_rendezvous::Rendezvous>),
    ("bounded-load", native::<overlan_plugin_bounded_load::BoundedLoad>),
    ("weighted", native::<overlan_plugin_weighted::Weighted>),
    ("spread", native::<overlan_plugin_spread::Spread>),
    ("balanced", native::<overlan_plugin_balanced::Balanced>),
    ("sticky", native::<overlan_plugin_sticky::Sticky>),
];

fn best<A: PartialEq + std::fmt::Debug>(run: &mut dyn FnMut() -> A) -> (Duration, A) {
    let timed = |run: &mut dyn FnMut() -> A| {
        let begun = Instant::now();
        let answer = run();
        (begun.elapsed(), answer)
    };
    let mut best = timed(run);
    for _ in 1..RUNS {
        let next = timed(run);
        assert_eq!(next.1, best.1, "equal questions get equal answers");
        best.0 = best.0.min(next.0);
    }
    best
}

fn main() {
    let engine = Engine::new().expect("the engine runs here");
    println!(
        "{:14} {:>12} {:>10} {:>10} {:>6} {:>12}",
        "strategy", "question", "native", "plugin", "ratio", "fuel"
    );
    for (nodes, duties) in [(16, 64), (1_000, 1_000)] {
        let fresh = cluster(nodes, duties);
        for (name, native) in STRATEGIES {
            let builtin = overlan_plugins_dist::find(name).expect("it is shipped");
            let mut plugin = Plugin::<overlan_policy::Assignment>::load(
                &engine,
                name,
                builtin.wasm,
                &[],
                Limits::default(),
            )
            .expect("it loads");
            let lost = without_node(&with_previous(&fresh, &native(&fresh)), 0);
            for (what, question) in [("new", &fresh), ("one lost", &lost)] {
                let (native_time, expected) = best(&mut || native(question));
                let mut fuel = None;
                let (plugin_time, answer) = best(&mut || {
                    let answered = plugin.ask(question).expect("it answers");
                    fuel = answered.fuel;
                    answered.answer
                });
                assert_eq!(answer, expected, "{name}: the plugin decides as its native build");
                println!(
                    "{name:14} {:>12} {:>7} us {:>7} us {:>6.2} {:>12}",
                    format!("{nodes} {what}"),
                    native_time.as_micros(),
                    plugin_time.as_micros(),
                    plugin_time.as_secs_f64() / native_time.as_secs_f64(),
                    fuel.unwrap_or(0)
                );
            }
        }
    }
}
