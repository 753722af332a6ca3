//! Overlan beside its peers in one run on one machine; `tests/bench/run` builds and starts it. Needs root.
//!
//! Two network namespaces joined by a veth, sender and receiver pinned to a core each, candidates one after the
//! other again and again, medians and ratios at the end. See `README.md` beside this crate for what the figures mean.
//!
//! Reading order: `case` (what is compared), `net` (the namespaces), `process` and `worker` (the two ends of a measured
//! process), the systems (`raw` and `udp`, `ceiling`, `quic`, `tcp`, `pingpong`, `overlan`, and `knet.c`), `table`.

mod case;
mod ceiling;
mod net;
#[cfg(feature = "overlan")]
mod overlan;
mod pingpong;
mod process;
mod quic;
mod raw;
mod table;
mod tcp;
mod udp;
mod worker;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::Value;

use case::{Case, Metric, Program, System};
use net::Pair;
use process::Process;
use table::{Measured, Rows};
use worker::Options;

/// What the runner may be told.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/run", about = "Overlan beside its peers in one run on one machine")]
struct Arguments {
    /// Also write rows of case, system, metric, unit, min, median, max, runs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each system is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of a measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One run of half a second each: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Only this case; may be given again
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Only systems whose name contains this
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// List the cases and what they compare
    #[arg(long)]
    cases: bool,
    /// The kronosnet program, where it could be built
    #[arg(long, hide = true)]
    knet: Option<PathBuf>,
    /// First part of the names of the namespaces
    #[arg(long, hide = true, default_value = "ovl-bench")]
    namespaces: String,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, worker, kind, role, options @ ..] = &words[..]
        && worker == "worker"
    {
        return work(kind, role, &Options::parse(options)?);
    }
    let arguments = Arguments::parse();
    let mut cases = case::all();
    if let Some(unknown) = arguments.only.iter().find(|only| cases.iter().all(|case| case.name != **only)) {
        bail!("there is no case {unknown:?}; --cases lists them");
    }
    cases.retain(|case| arguments.only.is_empty() || arguments.only.iter().any(|only| only == case.name));
    for case in &mut cases {
        let wanted =
            |system: &System| arguments.system.as_ref().is_none_or(|text| system.name.contains(text));
        case.systems.retain(wanted);
    }
    if arguments.cases {
        for case in &cases {
            println!("{}: {} ({})", case.name, case.title, case.network);
            case.systems.iter().for_each(|system| println!("  {}", system.name));
        }
        return Ok(());
    }
    let mut measured = Vec::new();
    for case in cases {
        let rows = measure(&arguments, &case)?;
        let case = Measured { case, rows };
        case.print();
        measured.push(case);
    }
    match &arguments.json {
        Some(path) => table::write_json(path, &measured).with_context(|| path.display().to_string()),
        None => Ok(()),
    }
}

/// A measured process.
fn work(kind: &str, role: &str, options: &Options) -> anyhow::Result<()> {
    match (kind, role) {
        ("raw", "receive") => raw::receive(options),
        ("raw", "send") => raw::send(options),
        ("ceiling", "receive") => ceiling::receive(options),
        ("ceiling", "send") => ceiling::send(options),
        ("quinn", "receive") => quic::receive(options),
        ("quinn", "send") => quic::send(options),
        ("tcp", "receive") => tcp::receive(options),
        ("tcp", "send") => tcp::send(options),
        ("pingpong", "receive") => pingpong::receive(options),
        ("pingpong", "send") => pingpong::send(options),
        #[cfg(feature = "overlan")]
        ("overlan", "receive") => overlan::node::receive(options),
        #[cfg(feature = "overlan")]
        ("overlan", "send") => overlan::node::send(options),
        #[cfg(feature = "overlan")]
        ("overlan", "idle") => overlan::node::idle(options),
        #[cfg(feature = "overlan")]
        ("overlan-app", "receive") => overlan::app::receive(options),
        #[cfg(feature = "overlan")]
        ("overlan-app", "send") => overlan::app::send(options),
        _ => bail!("there is no worker {kind} {role}"),
    }
}

/// The runtime of a worker: it has one core.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// All runs of a case, the systems taking turns.
fn measure(arguments: &Arguments, case: &Case) -> anyhow::Result<Vec<Rows>> {
    let pair = Pair::new(&arguments.namespaces, case.network)?;
    let mut rows: Vec<Rows> = case.systems.iter().map(|_| Rows::default()).collect();
    let runs = if arguments.quick { 1 } else { arguments.runs };
    for run in 1..=runs {
        for (system, rows) in case.systems.iter().zip(&mut rows) {
            if arguments.knet.is_none() && system.workers.iter().any(|worker| worker.program == Program::Knet)
            {
                eprintln!("!!! {}: {} SKIPPED: libknet-dev or cc is missing", case.name, system.name);
                continue;
            }
            eprintln!("{} {run}/{runs}: {}", case.name, system.name);
            match measure_once(arguments, &pair, system) {
                Ok(metrics) => rows.add(metrics),
                // The others still count.
                Err(error) => eprintln!("!!! {}: {} FAILED: {error:#}", case.name, system.name),
            }
        }
    }
    Ok(rows)
}

fn measure_once(arguments: &Arguments, pair: &Pair, system: &System) -> anyhow::Result<Vec<Metric>> {
    let own = std::env::current_exe()?;
    let folder = tempfile::tempdir()?;
    let mut processes = Vec::new();
    for worker in &system.workers {
        let mut command = pair.command(worker.end);
        match (worker.program, &arguments.knet) {
            (Program::Knet, Some(knet)) => command.arg(knet).args(&worker.arguments),
            _ => with_folder(command.arg(&own), worker, &folder),
        };
        processes.push(Process::start(&mut command)?);
    }
    let (warm_up, seconds) = if arguments.quick { (0.3, 0.5) } else { (1.0, arguments.seconds) };
    let seconds = system.seconds.map_or(seconds, |own| if arguments.quick { seconds } else { own });
    std::thread::sleep(Duration::from_secs_f64(warm_up));
    for process in &mut processes {
        process.mark()?;
    }
    std::thread::sleep(Duration::from_secs_f64(seconds));
    // The last first: clients before their nodes, senders before receivers.
    let mut results: Vec<Value> = processes.iter_mut().rev().map(Process::stop).collect::<Result<_, _>>()?;
    results.reverse();
    Ok((system.digest)(&results))
}

fn with_folder<'a>(
    command: &'a mut Command,
    worker: &case::Worker,
    folder: &tempfile::TempDir,
) -> &'a mut Command {
    command.args(&worker.arguments).arg(format!("folder={}", folder.path().display()))
}
