//! The `overlan` binary: runs a member, and is a client of running ones.
//!
//! Exit status: 0 fine, 1 failed, 2 bad usage (clap's, and bad configuration), 3 in force but not confirmed by all members
//! yet (`apply` and `policy push`), 130 or 143 stopped by SIGINT or SIGTERM (`listen`).

mod args;
mod bench;
mod demo;
mod document;
mod keygen;
mod keys;
mod list;
mod listen;
mod log;
mod policy;
mod progress;
mod routes;
mod run;
mod send;
mod table;
mod watch;

use std::process::ExitCode;

use args::{Args, Command, Usage};
use clap::Parser as _;
use overlan_node::{ConfigError, StartError};

fn main() -> ExitCode {
    let args = Args::parse();
    // A running node tells what happens; other commands only what goes wrong.
    log::to_stderr(if matches!(args.command, Command::Node(_)) { "info" } else { "error" });
    if matches!(args.command, Command::Node(_) | Command::Demo(_))
        && let Err(error) = run::raise_open_files()
    {
        eprintln!("overlan: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("overlan: the system gives no event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(dispatch(args.command)).unwrap_or_else(|error| {
        if table::is_broken_pipe(&error) {
            // `overlan listen | head`: whoever read has had enough.
            return ExitCode::SUCCESS;
        }
        eprintln!("overlan: {}", explain(&error));
        let start = error.downcast_ref::<StartError>();
        match error.is::<Usage>()
            || error.is::<ConfigError>()
            || start.is_some_and(StartError::is_configuration)
        {
            true => ExitCode::from(2),
            false => ExitCode::FAILURE,
        }
    });
    // A thread that waits for standard input cannot be joined.
    runtime.shutdown_background();
    status
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => return demo::run(&args).await,
        Command::Node(args) => run::run(&args).await?,
        Command::Keygen(args) => keygen::run(&args)?,
        Command::Keys(args) => keys::run(&args).await?,
        Command::Adapters(args) => list::adapters(&args).await?,
        Command::Routes(args) => routes::run(&args).await?,
        Command::Status(args) => list::status(&args).await?,
        Command::Members(args) => list::members(&args).await?,
        Command::Table(args) => list::table(&args).await?,
        Command::Paths(args) => list::paths(&args).await?,
        Command::Plan(args) => list::plan(&args).await?,
        Command::Apply(args) => return document::apply(&args).await,
        Command::Get(args) => document::get(&args).await?,
        Command::Watch(args) => watch::run(&args).await?,
        Command::Forget(args) => list::forget(&args).await?,
        Command::Leave(args) => list::leave(&args).await?,
        Command::Send(args) => return send::run(args).await,
        Command::Listen(args) => return listen::run(&args).await,
        Command::Policy(args) => return policy::run(&args).await,
        Command::Bench(args) => return bench::run(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The error with its causes, leaving out those that it quotes already.
fn explain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
