//! Prints the figures of a release: for each fault and failover plugin the medians of five runs.
//!
//!     cargo build --release && cargo run --release -p overlan-tests --example measure [-- RUNS]
//!
//! Needs root. A stream of 64-byte reliable messages, one each 5 ms, from the first member to the second
//! of three behind two routers; the fault comes in the middle of it. `gap` is the longest silence at the
//! receiver from then on.

use std::time::{Duration, Instant};

use overlan_tests::cluster::Cluster;
use overlan_tests::json::rows;
use overlan_tests::lab::faults::Hit;
use overlan_tests::lab::{Lab, Plan, Router};
use overlan_tests::skip;
use overlan_tests::traffic::{Outcome, Stream, measure};
use overlan_tests::wait::wait_for;

const STREAM: Stream = Stream { mode: "reliable", count: 1_200, interval_ms: 5, size: 64 };

type Fault = (&'static str, fn(&Lab));

const FAULTS: [Fault; 6] = [
    ("local link down", |lab| lab.link_down(0, 0)),
    ("silent drop in the primary's router", |lab| lab.drop_silently(Router::First, Hit::ALL)),
    ("one-way loss, of data", |lab| lab.drop_silently(Router::First, Hit::one_way(0, 1))),
    ("one-way loss, of replies", |lab| lab.drop_silently(Router::First, Hit::one_way(1, 0))),
    ("remote primary address deleted", |lab| lab.address_delete(1, 0)),
    ("15% random loss", |lab| Router::BOTH.into_iter().for_each(|router| lab.lose(router, Hit::ALL, 15))),
];

fn main() {
    if let Some(missing) = skip::missing_for_the_lab() {
        eprintln!("measuring needs {missing}");
        std::process::exit(1);
    }
    let runs = std::env::args().nth(1).map_or(5, |runs| runs.parse().expect("a number of runs"));
    println!("program: {}; medians of {runs}", overlan_tests::binary::overlan().display());
    measure_start(runs);
    println!("| fault | plugin | gap ms | worst gap ms | lost | doubled |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, fault) in FAULTS {
        for plugin in ["builtin:fast", "builtin:knet-compat"] {
            let outcomes: Vec<Outcome> = (0..runs).map(|_| once(plugin, fault)).collect();
            let of = |field: fn(&Outcome) -> f64| outcomes.iter().map(field).collect::<Vec<f64>>();
            let worst = of(|outcome| outcome.gap_ms).into_iter().fold(0.0, f64::max);
            let gap = median(of(|outcome| outcome.gap_ms));
            let lost: usize = outcomes.iter().map(|outcome| outcome.lost).sum();
            let doubled: usize = outcomes.iter().map(|outcome| outcome.doubled).sum();
            println!("| {name} | {plugin} | {gap:.0} | {worst:.0} | {lost} | {doubled} |");
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn once(plugin: &str, fault: fn(&Lab)) -> Outcome {
    let cluster = Cluster::started_in_lab(Plan::default(), |_, config| config.set_policy("failover", plugin));
    wait_for("both paths to be up", Duration::from_secs(15), || {
        let paths = cluster.nodes[0].listing("paths");
        let up = rows(&paths).iter().filter(|path| path["node"] == "b" && path["state"] == "up").count();
        (up >= 2).then_some(())
    });
    measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || fault(cluster.lab()))
}

/// Time from the start of a third member's process until it has joined, by its own word, to the 20 ms
/// between two looks; and what it holds in memory when it is idle.
fn measure_start(runs: usize) {
    let (mut joined, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
        cluster.nodes[2].kill();
        let began = Instant::now();
        let (config, namespace) = (cluster.config(2), cluster.lab().member(2));
        cluster.nodes[2] = overlan_tests::node::Node::launch(config, Some(&namespace));
        wait_for("the third member to join", Duration::from_secs(60), || {
            let status = cluster.nodes[2].run(&["status", "--json"]);
            (status.status == Some(0) && status.json()["joined"] == true).then_some(())
        });
        joined.push(began.elapsed().as_secs_f64() * 1e3);
        cluster.wait_settled();
        resident.push(resident_mib(&cluster.nodes[2]));
    }
    println!(
        "process start to joined: {:.0} ms; idle member: {:.1} MiB resident",
        median(joined),
        median(resident)
    );
}

fn resident_mib(node: &overlan_tests::node::Node) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its resident memory");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024.0
}
