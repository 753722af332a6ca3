//! The kernel's side: adapters are watched, routes are kept. Both run on the service thread, never on the driver's.

use std::net::IpAddr;
use std::time::Duration;

use overlan_netlink::{
    Adapter, Desired, LocalAddress, Owner, Plan, Reconciler, Refusal, Report, Subnet, Watch, can_admin, plan,
    snapshot,
};
use tokio::sync::{mpsc, watch};

use crate::adapters::{Selection, select};
use crate::config::Config;
use crate::driver::Command;

/// The kernel is looked at anew this often even if it reports nothing.
const RESYNC: Duration = Duration::from_secs(30);
/// After an error.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel has, for the tasks that need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) adapters: Vec<Adapter>,
    /// Counts changes of routes and rules.
    pub(crate) routes_changed: u64,
}

/// Selects adapters at the start and after each change, until the node is gone.
pub(crate) async fn watch_adapters(
    config: Config,
    commands: mpsc::WeakSender<Command>,
    kernel: watch::Sender<Kernel>,
) {
    loop {
        if let Err(error) = watch_once(&config, &commands, &kernel).await {
            let problem = format!("the kernel's adapters can't be read: {error}; trying again");
            tracing::warn!(problem);
            let selection = Selection { adapters: Vec::new(), problems: vec![problem] };
            // Adapters that are in use stay in use: only a first failure is worth telling the driver.
            if kernel.borrow().adapters.is_empty() && !give(&commands, selection).await {
                return;
            }
        } else {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn watch_once(
    config: &Config,
    commands: &mpsc::WeakSender<Command>,
    kernel: &watch::Sender<Kernel>,
) -> Result<(), overlan_netlink::Error> {
    let mut watch = Watch::new()?;
    let mut last = Selection::default();
    let mut first = true;
    loop {
        let adapters = snapshot().await?;
        let selection = select(&config.adapters, &adapters, config.port);
        kernel.send_modify(|kernel| {
            kernel.adapters = adapters;
            kernel.routes_changed += 1;
        });
        if (first || selection != last) && !give(commands, selection.clone()).await {
            return Ok(());
        }
        (last, first) = (selection, false);
        loop {
            let Ok(change) = tokio::time::timeout(RESYNC, watch.changed()).await else { break };
            let change = change?;
            // What names a link or an address is acted on before the kernel is asked again.
            let gone = |adapter: &Adapter| {
                change.links_down.contains(&adapter.index)
                    || change.addresses_removed.contains(&(adapter.index, adapter.address))
            };
            if kernel.borrow().adapters.iter().any(|adapter| adapter.up && gone(adapter)) {
                let mut adapters = kernel.borrow().adapters.clone();
                adapters.iter_mut().filter(|adapter| gone(adapter)).for_each(|adapter| adapter.up = false);
                last = select(&config.adapters, &adapters, config.port);
                if !give(commands, last.clone()).await {
                    return Ok(());
                }
            }
            if change.adapters || change.overrun {
                break;
            }
            if change.routes {
                // Gateways may have changed with the routes.
                break;
            }
        }
        if commands.upgrade().is_none() {
            return Ok(());
        }
    }
}

/// Tells the driver; `false` once it is gone.
async fn give(commands: &mpsc::WeakSender<Command>, selection: Selection) -> bool {
    match commands.upgrade() {
        Some(commands) => commands.send(Command::Adapters(selection)).await.is_ok(),
        None => false,
    }
}

/// What the node wants of the host's routing.
fn desired(config: &Config, adapters: &[Adapter], remote: Vec<IpAddr>) -> Option<Desired> {
    let selection = select(&config.adapters, adapters, config.port);
    let local = selection.adapters.iter().filter(|selected| selected.device.is_some());
    let subnets = config.routes.iter().map(|route| Subnet {
        subnet: route.subnet,
        via: route.via,
        adapter: route.adapter.clone(),
    });
    Some(Desired {
        owner: Owner::from_port(config.port).ok()?,
        subnets: subnets.collect(),
        local: local
            .map(|selected| LocalAddress { address: selected.adapter.address, gateway: selected.gateway })
            .collect(),
        remote: remote.into_iter().filter(|address| !address.is_loopback()).collect(),
    })
}

/// The plan for what the node wants now.
pub fn plan_for(config: &Config, adapters: &[Adapter], remote: Vec<IpAddr>) -> Plan {
    match desired(config, adapters, remote) {
        Some(desired) if !desired.local.is_empty() || !desired.subnets.is_empty() => plan(&desired, adapters),
        _ => Plan::default(),
    }
}

/// Keeps the kernel's routes as wanted until `stop`, then removes them.
pub(crate) async fn keep_routes(
    config: Config,
    mut remotes: watch::Receiver<Vec<IpAddr>>,
    mut kernel: watch::Receiver<Kernel>,
    report: watch::Sender<Report>,
    mut stop: watch::Receiver<bool>,
) {
    let Ok(owner) = Owner::from_port(config.port) else { return };
    let reconciler = Reconciler::new(owner);
    let mut touched = false;
    // The first look at the kernel comes before the first plan: an empty one would remove what a restart finds.
    let _ = kernel.wait_for(|kernel| kernel.routes_changed > 0).await;
    loop {
        let adapters = kernel.borrow_and_update().adapters.clone();
        let remote = remotes.borrow_and_update().clone();
        let plan = plan_for(&config, &adapters, remote);
        let done = if can_admin() {
            touched = true;
            apply(&reconciler, &plan).await
        } else {
            without_privilege(&plan)
        };
        report.send_if_modified(|known| {
            let changed = *known != done;
            *known = done;
            changed
        });
        let changed = tokio::select! {
            changed = remotes.changed() => changed.is_ok(),
            changed = kernel.changed() => changed.is_ok(),
            () = tokio::time::sleep(RESYNC) => true,
            _ = stop.wait_for(|stop| *stop) => false,
        };
        if !changed {
            break;
        }
    }
    if touched && let Err(error) = reconciler.clear().await {
        tracing::warn!(%error, "routes could not be removed; `overlan routes clear` does");
    }
}

async fn apply(reconciler: &Reconciler, plan: &Plan) -> Report {
    match reconciler.apply(plan).await {
        Ok(report) => {
            if report.is_change() {
                tracing::info!(added = report.added.len(), removed = report.removed.len(), "routes");
            }
            report
        }
        Err(error) => {
            let refused = Refusal { what: "routes".to_owned(), why: error.to_string() };
            Report { refused: vec![refused], ..Report::default() }
        }
    }
}

fn without_privilege(plan: &Plan) -> Report {
    let mut report = Report { refused: plan.refused.clone(), ..Report::default() };
    let count = plan.routes.len() + plan.rules.len();
    if count > 0 {
        report.refused.push(Refusal {
            what: format!("{count} routes and rules"),
            why: "needs CAP_NET_ADMIN (run as root, or grant it with `setcap cap_net_admin+ep` or systemd's \
                  AmbientCapabilities); the node runs on without them"
                .to_owned(),
        });
    }
    report
}
