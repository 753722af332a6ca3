//! `overlan policy bench`: decisions per second beside the native fallback and the shipped policies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use overlan_node::policy_host::{Assignment, Engine, Failover, Limits, Plugin, Sizing};
use overlan_node::{Kind, plugins};
use serde::Serialize;
use serde_json::json;

use super::trial::{Given, Trial, will_not_do};
use crate::args::PolicyBenchArgs;
use crate::table::{Table, out, print_json};

/// Instances started to take the mean of.
const STARTS: u32 = 20;

pub(super) fn run(args: &PolicyBenchArgs) -> anyhow::Result<()> {
    let given = args.plugins.iter().map(|plugin| Given::read(plugin)).collect::<anyhow::Result<Vec<_>>>()?;
    let engine = Engine::new()?;
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let given: Vec<&Given> = given.iter().filter(|given| given.kind == kind).collect();
        if given.is_empty() {
            continue;
        }
        let shipped: Vec<Given> =
            plugins::BUILTINS.iter().filter(|builtin| builtin.kind == kind).map(Given::builtin).collect();
        let others = shipped.iter().filter(|shipped| given.iter().all(|given| given.name != shipped.name));
        let all: Vec<&Given> = given.iter().copied().chain(others).collect();
        match kind {
            Kind::Assignment => measure::<Assignment>(&engine, &all, args, &mut rows)?,
            Kind::Sizing => measure::<Sizing>(&engine, &all, args, &mut rows)?,
            Kind::Failover => measure::<Failover>(&engine, &all, args, &mut rows)?,
        }
    }
    if args.json.json {
        return print_json(&json!({ "optimised": !cfg!(debug_assertions), "plugins": rows }));
    }
    print(&rows, &args.nodes)
}

/// One policy.
#[derive(Serialize)]
struct Row {
    kind: Kind,
    plugin: String,
    /// To check, compile and start it; none for the native fallback.
    compile_ms: Option<f64>,
    /// Mean time to start and configure one more instance.
    instantiate_us: Option<f64>,
    rates: Vec<Rate>,
}

#[derive(Serialize)]
struct Rate {
    nodes: u16,
    decisions_per_second: f64,
    /// Times as long as the native fallback takes.
    times_native: f64,
}

fn measure<P: Trial>(
    engine: &Engine,
    given: &[&Given],
    args: &PolicyBenchArgs,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let questions: Vec<(u16, Vec<P::Question>)> =
        args.nodes.iter().map(|&nodes| (nodes, P::questions(nodes))).collect();
    let mut native = Vec::new();
    for (_, questions) in &questions {
        let ask = |question: &P::Question| {
            black_box(P::native(black_box(question)));
            Ok::<(), anyhow::Error>(())
        };
        native.push(per_second(questions, args.seconds, ask)?);
    }
    let rates = |measured: &[f64]| {
        let of = |((&(nodes, _), &decisions_per_second), &native)| Rate {
            nodes,
            decisions_per_second,
            times_native: native / decisions_per_second,
        };
        questions.iter().zip(measured).zip(&native).map(of).collect()
    };
    rows.push(Row {
        kind: P::KIND,
        plugin: "native".to_owned(),
        compile_ms: None,
        instantiate_us: None,
        rates: rates(&native),
    });
    for given in given {
        let config = if given.name.starts_with("builtin:") { &[][..] } else { &args.config };
        let begun = Instant::now();
        let mut plugin = Plugin::<P>::load(engine, &given.name, &given.wasm, config, Limits::default())
            .with_context(|| will_not_do(&given.name))?;
        let compiled = begun.elapsed();
        let mut started = Duration::ZERO;
        for _ in 0..STARTS {
            started += plugin.time_start()?;
        }
        let mut measured = Vec::new();
        for (nodes, questions) in &questions {
            let ask = |question: &P::Question| plugin.ask(question).map(|answered| drop(black_box(answered)));
            let rate = per_second(questions, args.seconds, ask)
                .with_context(|| format!("{} at {nodes} nodes", given.name))?;
            measured.push(rate);
        }
        rows.push(Row {
            kind: P::KIND,
            plugin: given.name.clone(),
            compile_ms: Some(compiled.as_secs_f64() * 1e3),
            instantiate_us: Some(started.as_secs_f64() * 1e6 / f64::from(STARTS)),
            rates: rates(&measured),
        });
    }
    Ok(())
}

/// Decisions between two looks at the clock.
const LOOK: u32 = 16;

/// Asks all questions in turn, and at least so many, until the time is over. The first is not counted: it warms up.
fn per_second<Q, E>(
    questions: &[Q],
    time: Duration,
    mut ask: impl FnMut(&Q) -> Result<(), E>,
) -> Result<f64, E> {
    let mut turns = questions.iter().cycle();
    turns.next().map_or(Ok(()), &mut ask)?;
    let begun = Instant::now();
    let mut asked = 0_u32;
    for question in turns {
        ask(question)?;
        asked += 1;
        // Not each time: reading the clock takes a part of what a small decision does.
        if asked.is_multiple_of(LOOK) && begun.elapsed() >= time {
            break;
        }
    }
    Ok(f64::from(asked) / begun.elapsed().as_secs_f64())
}

fn print(rows: &[Row], nodes: &[u16]) -> anyhow::Result<()> {
    let head: Vec<String> = ["kind", "plugin", "compile", "instantiate"]
        .into_iter()
        .map(str::to_owned)
        .chain(nodes.iter().flat_map(|nodes| [format!("/s at {nodes}"), "x native".to_owned()]))
        .collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        let cell = |value: Option<f64>, unit: &str| {
            value.map_or("-".to_owned(), |value| format!("{value:.1} {unit}"))
        };
        let rates = row.rates.iter().flat_map(|rate| {
            [format!("{:.0}", rate.decisions_per_second), format!("{:.2}", rate.times_native)]
        });
        let first = [
            row.kind.to_string(),
            row.plugin.clone(),
            cell(row.compile_ms, "ms"),
            cell(row.instantiate_us, "us"),
        ];
        table.row(first.into_iter().chain(rates));
    }
    table.print()?;
    out!(
        "assignment: one plan for N nodes and N responsibilities; the others: one path, or four paths to a peer, in turn"
    );
    if cfg!(debug_assertions) {
        out!("this build is not optimised: the figures of `cargo build --release` are what counts");
    }
    Ok(())
}
