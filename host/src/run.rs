//! `overlan node`.

use overlan_node::{Config, Node};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::NodeArgs;

/// What a node opens by itself: threads, sockets of some adapters, its state. Each adapter takes one more, each client two.
const OPEN_FILES: u64 = 64;

/// Raises the limit of open files as far as this process may: the usual one, 1,024, is meant for programs that use
/// `select(2)`.
///
/// # Errors
/// A node could not run within it.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let Some(maximum) = getrlimit(Resource::Nofile).maximum else { return Ok(()) };
    anyhow::ensure!(
        maximum >= OPEN_FILES,
        "this process may open {maximum} files, and a node needs at least {OPEN_FILES}: raise the limit (`ulimit -n`, or \
         `LimitNOFILE=` in a systemd unit)"
    );
    // Where that is refused, the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) });
    Ok(())
}

pub(crate) async fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref(), &args.overrides())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
    let name = config.name.clone();
    let control = config.control.clone();
    let node = Node::start(config).await?;
    let control = control.map(|path| path.display().to_string()).unwrap_or_default();
    tracing::info!(name, id = %node.id(), control, "running");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Its terminal closed.
        Some(_) = async { hangup.as_mut()?.recv().await } => {}
        // By `overlan leave`, or because it must not stay.
        end = node.wait_stopped() => return Ok(end?),
    }
    tracing::info!("leaving");
    tokio::select! {
        () = node.leave() => Ok(()),
        _ = terminate.recv() => anyhow::bail!("stopped before the farewell was done"),
        _ = interrupt.recv() => anyhow::bail!("stopped before the farewell was done"),
    }
}

/// Whether whoever started this wants it to outlive the terminal, as `nohup` does (`proc_pid_status(5)`).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
