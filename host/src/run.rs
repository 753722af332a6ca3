//! `overlan node`.

use overlan_node::{Config, Node};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::NodeArgs;

pub(crate) async fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref(), &args.overrides())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = config.name.clone();
    let control = config.control.clone();
    let node = Node::start(config).await?;
    let control = control.map(|path| path.display().to_string()).unwrap_or_default();
    tracing::info!(name, id = %node.id(), control, "running");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
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
