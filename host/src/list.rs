//! Listings of a running node, and of this host's adapters.

use overlan_node::adapters::{AdapterView, select};
use overlan_node::client::{Control, discover, path_segment};
use overlan_node::config::Overrides;
use overlan_node::status::{MemberStatus, PathStatus, PlanStatus, TableStatus};
use overlan_node::{Config, NodeStatus, netlink};
use serde_json::{Value, json};

use crate::args::{AdaptersArgs, ForgetArgs, Query, Socket, TableArgs};
use crate::table::{Table, ago, out, print_json};

pub(crate) fn control(socket: &Socket) -> anyhow::Result<Control> {
    Ok(Control::new(discover(socket.socket.as_deref())?))
}

/// A name that serde gives a value, such as `alive`.
pub(crate) fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) async fn status(args: &Query) -> anyhow::Result<()> {
    let status: NodeStatus = control(&args.socket)?.get("/v1/status").await?;
    if args.json.json {
        return print_json(&status);
    }
    let core = &status.core;
    out!("node      {} ({}), up {}", core.name, core.id, ago(status.uptime_ms));
    out!(
        "cluster   {}: {} of {} members alive, security {}",
        status.cluster,
        core.alive,
        core.members,
        status.security
    );
    out!("joined    {}", if core.joined { "yes" } else { "no" });
    let agreed = if core.agreed { format!("yes, epoch {}", core.agreed_epoch) } else { "not yet".to_owned() };
    out!("table     {} (all agree: {agreed})", core.table_digest);
    match core.document.version {
        0 => out!("document  none: the members' own configuration stands"),
        version => {
            let agreed = if core.document.agreed { "yes" } else { "not yet" };
            out!("document  version {version}, {} (all hold it: {agreed})", core.document.digest);
        }
    }
    for adapter in &status.adapters {
        let (name, address, status) = (&adapter.name, adapter.address, &adapter.status);
        out!("adapter   {name} {address}/{} {status}", adapter.prefix_length);
    }
    for policy in &status.policies {
        out!(
            "policy    {}: {} ({} answers, {} faults)",
            policy.kind,
            policy.plugin,
            policy.answers,
            policy.faults
        );
    }
    for problem in &core.problems {
        out!("problem   {problem}");
    }
    Ok(())
}

pub(crate) async fn members(args: &Query) -> anyhow::Result<()> {
    let members: Vec<MemberStatus> = control(&args.socket)?.get("/v1/members").await?;
    if args.json.json {
        return print_json(&members);
    }
    let mut table = Table::new(&["name", "state", "since", "id", "boot"]);
    for member in &members {
        let name = if member.this { format!("{} *", member.name) } else { member.name.clone() };
        let boot = member.boot.get(..8).unwrap_or(&member.boot).to_owned();
        table.row([name, word(member.state), ago(member.since_ms), member.id.clone(), boot]);
    }
    table.print()
}

pub(crate) async fn table(args: &TableArgs) -> anyhow::Result<()> {
    let status: TableStatus = control(&args.query.socket)?.get("/v1/table").await?;
    match (args.digest, args.query.json.json) {
        (true, true) => return print_json(&json!({ "digest": status.digest })),
        (true, false) => {
            out!("{}", status.digest);
            return Ok(());
        }
        (false, true) => return print_json(&status),
        (false, false) => {}
    }
    let mut table =
        Table::new(&["node", "rank", "adapter", "kind", "address", "mtu", "speed", "class", "status"]);
    for entry in &status.entries {
        for (rank, adapter) in entry.adapters.iter().enumerate() {
            let rank = if rank == 0 { "primary".to_owned() } else { format!("alternate {rank}") };
            table.row([
                entry.name.clone(),
                rank,
                adapter.name.clone(),
                adapter.kind.clone(),
                format!("{}/{}", adapter.address, adapter.prefix_length),
                adapter.mtu.to_string(),
                adapter.speed.to_string(),
                adapter.class_of_service.clone(),
                word(adapter.status),
            ]);
        }
        if entry.adapters.is_empty() {
            table.row([entry.name.as_str(), "-"]);
        }
    }
    table.print()?;
    out!("digest {}", status.digest);
    Ok(())
}

pub(crate) async fn paths(args: &Query) -> anyhow::Result<()> {
    let paths: Vec<PathStatus> = control(&args.socket)?.get("/v1/paths").await?;
    if args.json.json {
        return print_json(&paths);
    }
    let mut table =
        Table::new(&["node", "", "local", "remote", "state", "since", "rtt", "loss", "datagram", "why"]);
    for path in &paths {
        table.row([
            path.node.clone(),
            if path.active { "*".to_owned() } else { String::new() },
            path.local.to_string(),
            path.remote.to_string(),
            word(path.state),
            ago(path.since_ms),
            path.rtt_us.map(|us| format!("{us} us")).unwrap_or_default(),
            format!("{:.2}%", f64::from(path.loss_ppm) / 10_000.0),
            path.datagram.to_string(),
            path.why.clone(),
        ]);
    }
    table.print()
}

pub(crate) async fn plan(args: &Query) -> anyhow::Result<()> {
    let plan: PlanStatus = control(&args.socket)?.get("/v1/plan").await?;
    if args.json.json {
        return print_json(&plan);
    }
    if plan.epoch == 0 {
        out!(
            "there is no plan yet, and this member owns nothing: `overlan members` shows who could make one"
        );
        return Ok(());
    }
    out!("epoch {} by {}, digest {}", plan.epoch, plan.proposer, plan.digest);
    if !plan.quorate {
        out!("this member sees no majority and owns nothing");
    }
    let mut table = Table::new(&["responsibility", "primary", "standbys"]);
    for duty in &plan.duties {
        let (primary, standbys) =
            duty.owners.split_first().map_or(("-", &[][..]), |(first, rest)| (first, rest));
        table.row([duty.name.clone(), primary.to_owned(), standbys.join(", ")]);
    }
    table.print()?;
    for vote in plan.votes.iter().filter(|vote| vote.verdict != "same") {
        out!("{}: {} {}", vote.node, vote.verdict, vote.why);
    }
    Ok(())
}

pub(crate) async fn forget(args: &ForgetArgs) -> anyhow::Result<()> {
    let path = format!("/v1/forget/{}", path_segment(&args.node));
    let _: Value = control(&args.socket)?.post(&path, "text/plain", "").await?;
    out!("{} is forgotten", args.node);
    Ok(())
}

pub(crate) async fn leave(args: &Query) -> anyhow::Result<()> {
    let answer: Value = control(&args.socket)?.post("/v1/leave", "text/plain", "").await?;
    if args.json.json {
        return print_json(&answer);
    }
    out!("{} leaves", answer["leaving"].as_str().unwrap_or("the node"));
    Ok(())
}

pub(crate) async fn adapters(args: &AdaptersArgs) -> anyhow::Result<()> {
    let found = netlink::snapshot().await?;
    let views: Vec<AdapterView> = match &args.config {
        Some(path) => {
            let config = Config::load(Some(path), &Overrides::default())?;
            let selection = select(&config.adapters, &found, config.port);
            for problem in &selection.problems {
                eprintln!("overlan: {problem}");
            }
            selection.adapters.iter().map(|selected| (&selected.adapter).into()).collect()
        }
        None => found.iter().map(view).collect(),
    };
    if args.json.json {
        return print_json(&views);
    }
    let mut table = Table::new(&["name", "kind", "address", "mtu", "speed", "class", "status", "gateways"]);
    for adapter in &views {
        let gateways: Vec<String> = adapter.gateways.iter().map(ToString::to_string).collect();
        table.row([
            adapter.name.clone(),
            adapter.kind.clone(),
            format!("{}/{}", adapter.address, adapter.prefix_length),
            adapter.mtu.to_string(),
            adapter.speed.to_string(),
            adapter.class_of_service.clone(),
            adapter.status.clone(),
            gateways.join(", "),
        ]);
    }
    table.print()
}

fn view(found: &netlink::Adapter) -> AdapterView {
    AdapterView {
        name: found.name.clone(),
        kind: found.kind.clone(),
        address: found.address,
        prefix_length: found.prefix_length,
        mtu: found.mtu,
        speed: found.speed,
        class_of_service: String::new(),
        dscp: 0,
        status: if found.up { "up" } else { "down" }.to_owned(),
        gateways: found.gateways.clone(),
    }
}
