//! `overlan policy`.

mod bench;
mod build;
mod check;
mod new;
pub(crate) mod push;
mod replay;
mod shadow;
mod test;
mod toolchain;
mod trial;
mod usage;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use overlan_node::policy_host::Limits;
use overlan_node::{PolicyStatus, plugins, read_bounded};
use serde_json::json;

use crate::args::{PolicyArgs, PolicyCommand, Query};
use crate::list::control;
use crate::progress::waiting;
use crate::table::{Table, out, print_json};

/// What a plugin that is sent to a member waits for.
const TRIAL: &str = "the member compiles the policy and tries it";
/// Bytes of a request's path and query that HTTP clients and servers agree to take.
const MAX_QUERY: usize = 60_000;

pub(crate) async fn run(args: &PolicyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        PolicyCommand::Push(args) => return push::run(args).await,
        PolicyCommand::List(query) => list(query).await?,
        PolicyCommand::Show { kind, query } => {
            show(query, control(&query.socket)?.get(&format!("/v1/policy/{kind}")).await?)?
        }
        PolicyCommand::Set { kind, plugin, config, limits, query } => {
            show(query, upload(&format!("/v1/policy/{kind}"), plugin, config, limits, query).await?)?
        }
        PolicyCommand::Shadow(args) => shadow::run(args).await?,
        PolicyCommand::Unset { kind, query } => {
            show(query, control(&query.socket)?.delete(&format!("/v1/policy/{kind}")).await?)?
        }
        PolicyCommand::Rollback { kind, query } => {
            let path = format!("/v1/policy/{kind}/rollback");
            show(query, control(&query.socket)?.post(&path, "text/plain", "").await?)?
        }
        PolicyCommand::Replay(args) => replay::run(args)?,
        PolicyCommand::New(args) => new::run(args)?,
        PolicyCommand::Build { dir, out } => build::run(dir, out.as_deref())?,
        PolicyCommand::Test(args) => test::run(args)?,
        PolicyCommand::Bench(args) => bench::run(args)?,
        PolicyCommand::Check { file, config, json } => check::run(file, config, json.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(query: &Query) -> anyhow::Result<()> {
    let active: Vec<PolicyStatus> = control(&query.socket)?.get("/v1/policy").await?;
    if query.json.json {
        let shipped: Vec<_> = plugins::BUILTINS
            .iter()
            .map(|builtin| {
                json!({
                    "plugin": format!("builtin:{}", builtin.name),
                    "kind": builtin.kind,
                    "sha256": builtin.sha256,
                    "summary": builtin.summary,
                })
            })
            .collect();
        // Without what changes from question to question; `policy show` has it.
        let active: Vec<_> = active
            .iter()
            .map(|status| {
                json!({
                    "kind": status.kind,
                    "plugin": status.plugin,
                    "sha256": status.sha256,
                    "config": status.config,
                    "previous": status.previous,
                })
            })
            .collect();
        return print_json(&json!({ "active": active, "shipped": shipped }));
    }
    let mut table = Table::new(&["kind", "plugin", "", "what it does"]);
    for builtin in plugins::BUILTINS {
        let name = format!("builtin:{}", builtin.name);
        let mark = if active.iter().any(|status| status.plugin == name) { "active" } else { "" };
        table.row([builtin.kind.to_string(), name, mark.to_owned(), builtin.summary.to_owned()]);
    }
    for status in active.iter().filter(|status| !status.plugin.starts_with("builtin:")) {
        table.row([status.kind.to_string(), status.plugin.clone(), "active".to_owned()]);
    }
    table.print()
}

fn show(query: &Query, status: PolicyStatus) -> anyhow::Result<()> {
    if query.json.json {
        return print_json(&status);
    }
    out!("{}: {}", status.kind, status.plugin);
    if !status.sha256.is_empty() {
        out!("  sha256    {}", status.sha256);
    }
    for (key, value) in &status.config {
        out!("  config    {key} = {value}");
    }
    out!("  questions {}, answers {}, faults {}", status.questions, status.answers, status.faults);
    out!("  answer    last {} us, longest {} us", status.last_us, status.max_us);
    out!("  breaker   {}", status.breaker);
    if let Some(previous) = &status.previous {
        out!("  previous  {previous} (`overlan policy rollback {}` brings it back)", status.kind);
    }
    if let Some(fault) = &status.last_fault {
        out!("  last fault: {fault}");
    }
    usage::print(&status)
}

/// Pairs of a repeatable option by their keys.
///
/// # Errors
/// A key is given twice.
pub(crate) fn by_key<T: Clone>(option: &str, pairs: &[(String, T)]) -> anyhow::Result<BTreeMap<String, T>> {
    let mut by_key = BTreeMap::new();
    for (key, value) in pairs {
        let earlier = by_key.insert(key.clone(), value.clone());
        ensure!(earlier.is_none(), "--{option} {key} is given twice; give it once");
    }
    Ok(by_key)
}

/// A component's file. No more is read than a node would take.
pub(crate) fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let (shown, most) = (path.display(), Limits::default().file_bytes);
    let hint = "name a component, such as `overlan policy build` makes";
    let wasm = read_bounded(path, most).map_err(|error| anyhow!("{shown}: {error}; {hint}"))?;
    ensure!(!wasm.is_empty(), "{shown} is empty; {hint}");
    ensure!(wasm.len() <= most, "{shown} has more than {most} bytes, the most of a component; {hint}");
    Ok(wasm)
}

/// Sends a plugin to a path of the control API.
pub(crate) async fn upload<T: serde::de::DeserializeOwned>(
    path: &str,
    plugin: &str,
    config: &[(String, String)],
    limits: &[(String, u64)],
    query: &Query,
) -> anyhow::Result<T> {
    let control = control(&query.socket)?;
    let (config, limits) = (by_key("config", config)?, by_key("limit", limits)?);
    if let Some(name) = plugin.strip_prefix("builtin:") {
        let body = serde_json::to_vec(&json!({ "builtin": name, "config": config, "limits": limits }))?;
        return Ok(waiting(TRIAL, control.post(path, "application/json", body)).await?);
    }
    let wasm = read_component(Path::new(plugin))?;
    let name = Path::new(plugin).file_name().unwrap_or_default().to_string_lossy();
    let mut path = format!("{path}?name={}", escape(&name));
    for (key, value) in config {
        path.push_str(&format!("&config.{}={}", escape(&key), escape(&value)));
    }
    for (name, value) in limits {
        path.push_str(&format!("&limit.{}={value}", escape(&name)));
    }
    ensure!(
        path.len() <= MAX_QUERY,
        "the configuration takes {} bytes in a request, of at most {MAX_QUERY}; shorten it",
        path.len()
    );
    Ok(waiting(TRIAL, control.post(&path, "application/wasm", wasm)).await?)
}

/// For a query (RFC 3986).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
