//! `overlan routes`.

use anyhow::Context as _;
use overlan_node::config::Overrides;
use overlan_node::netlink::{self, Entry, Owner, Plan, Reconciler, Report};
use overlan_node::status::TableStatus;
use overlan_node::{Config, NodeStatus, plan_for};
use serde_json::{Value, json};

use crate::args::{Json, RoutesArgs, RoutesCommand, RoutesFrom, Usage};
use crate::list::control;
use crate::table::{out, print_json};

pub(crate) async fn run(args: &RoutesArgs) -> anyhow::Result<()> {
    match &args.command {
        RoutesCommand::Plan(from) => plan(from).await,
        RoutesCommand::Show(json) => show(json).await,
        RoutesCommand::Apply(from) => {
            let (config, plan) = planned(from).await?;
            let done = reconciler(&config)?.apply(&plan).await?;
            report(&done, from.json.json)?;
            all_done(&done)
        }
        RoutesCommand::Clear(from) => {
            let done = match &from.config {
                Some(path) => reconciler(&Config::load(Some(path), &Overrides::default())?)?.clear().await?,
                None => netlink::clear_all().await?,
            };
            report(&done, from.json.json)?;
            all_done(&done)
        }
    }
}

fn all_done(report: &Report) -> anyhow::Result<()> {
    let refused = report.refused.len();
    anyhow::ensure!(
        refused == 0,
        "{refused} changes of the kernel's routes were refused; the listing says why"
    );
    Ok(())
}

fn reconciler(config: &Config) -> anyhow::Result<Reconciler> {
    Ok(Reconciler::new(Owner::from_port(config.port)?))
}

/// The plan of a configuration; with a running node of that configuration, also the host routes of its table.
async fn planned(from: &RoutesFrom) -> anyhow::Result<(Config, Plan)> {
    let Some(path) = &from.config else {
        return Err(Usage("name the node's configuration with --config".to_owned()).into());
    };
    let config = Config::load(Some(path), &Overrides::default())?;
    let adapters = netlink::snapshot().await?;
    let remote = match &config.control {
        Some(socket) => remote(socket).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let plan = plan_for(&config, &adapters, remote);
    Ok((config, plan))
}

async fn remote(socket: &std::path::Path) -> anyhow::Result<Vec<std::net::IpAddr>> {
    let control = overlan_node::client::Control::new(socket);
    let status: NodeStatus = control.get("/v1/status").await?;
    let table: TableStatus = control.get("/v1/table").await?;
    let others = table.entries.iter().filter(|entry| entry.id != status.core.id);
    Ok(others.flat_map(|entry| entry.adapters.iter().map(|adapter| adapter.address.ip())).collect())
}

async fn plan(from: &RoutesFrom) -> anyhow::Result<()> {
    if from.config.is_none() {
        let answer: Value = control(&from.socket)?.get("/v1/routes").await?;
        if from.json.json {
            return print_json(&answer["plan"]);
        }
        anyhow::bail!(Usage("name the node's configuration with --config, or ask for --json".to_owned()));
    }
    let (config, plan) = planned(from).await?;
    let check = reconciler(&config)?.check(&plan).await.context("the kernel's routes could not be read")?;
    if from.json.json {
        return print_json(&json!({ "routes": plan.routes, "rules": plan.rules, "check": check }));
    }
    report(&check, false)
}

async fn show(json: &Json) -> anyhow::Result<()> {
    let installed = netlink::installed().await?;
    if json.json {
        return print_json(&installed);
    }
    for route in &installed.routes {
        out!("{route}");
    }
    for rule in &installed.rules {
        out!("{rule}");
    }
    Ok(())
}

fn report(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(report);
    }
    let entries: [(&str, &[Entry]); 3] =
        [("+", &report.added), ("-", &report.removed), ("=", &report.unchanged)];
    for (sign, entry) in
        entries.iter().flat_map(|(sign, entries)| entries.iter().map(move |entry| (sign, entry)))
    {
        out!("{sign} {entry}");
    }
    for refusal in &report.refused {
        out!("! {refusal}");
    }
    if *report == Report::default() {
        out!("no routes are wanted, and none of ours are there");
    }
    Ok(())
}
