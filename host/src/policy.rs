//! `overlan policy`.

use std::path::Path;

use anyhow::Context as _;
use overlan_node::policy_host::{Engine, Limits, check};
use overlan_node::{Kind, PolicyStatus, plugins};
use serde_json::json;

use crate::args::{PolicyArgs, PolicyCommand, Query};
use crate::list::control;
use crate::table::{Table, out, print_json};

pub(crate) async fn run(args: &PolicyArgs) -> anyhow::Result<()> {
    match &args.command {
        PolicyCommand::List(query) => list(query).await,
        PolicyCommand::Show { kind, query } => {
            show(query, control(&query.socket)?.get(&format!("/v1/policy/{kind}")).await?)
        }
        PolicyCommand::Set { kind, plugin, config, query } => set(*kind, plugin, config, query).await,
        PolicyCommand::Push(args) => crate::push::run(args).await,
        PolicyCommand::Unset { kind, query } => {
            show(query, control(&query.socket)?.delete(&format!("/v1/policy/{kind}")).await?)
        }
        PolicyCommand::Rollback { kind, query } => {
            let path = format!("/v1/policy/{kind}/rollback");
            show(query, control(&query.socket)?.post(&path, "text/plain", "").await?)
        }
        PolicyCommand::Check { file, config, json } => check_file(file, config, json.json),
    }
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
    Ok(())
}

async fn set(kind: Kind, plugin: &str, config: &[(String, String)], query: &Query) -> anyhow::Result<()> {
    let control = control(&query.socket)?;
    if let Some(name) = plugin.strip_prefix("builtin:") {
        let config: std::collections::BTreeMap<_, _> = config.iter().cloned().collect();
        let body = serde_json::to_vec(&json!({ "builtin": name, "config": config }))?;
        return show(query, control.post(&format!("/v1/policy/{kind}"), "application/json", body).await?);
    }
    let wasm = std::fs::read(plugin).with_context(|| plugin.to_owned())?;
    let name = Path::new(plugin).file_name().unwrap_or_default().to_string_lossy();
    let mut path = format!("/v1/policy/{kind}?name={}", escape(&name));
    for (key, value) in config {
        path.push_str(&format!("&{}={}", escape(key), escape(value)));
    }
    show(query, control.post(&path, "application/wasm", wasm).await?)
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

fn check_file(file: &Path, config: &[(String, String)], json: bool) -> anyhow::Result<()> {
    let wasm = std::fs::read(file).with_context(|| file.display().to_string())?;
    let report = check(&Engine::new()?, &wasm, config, Limits::default())
        .with_context(|| format!("{} will not do", file.display()))?;
    let kind = report.kind.map(|kind| kind.to_string()).unwrap_or_default();
    if json {
        return print_json(&json!({
            "kind": kind,
            "version": report.version,
            "sha256": report.sha256,
            "size_bytes": report.size_bytes,
            "imports": report.imports,
            "exports": report.exports,
        }));
    }
    out!("{}: a sound {kind} policy", file.display());
    out!("  contract  {}", report.version.unwrap_or_default());
    out!("  sha256    {}", report.sha256);
    out!("  size      {} bytes", report.size_bytes);
    out!("  imports   {}", report.imports.join(", "));
    Ok(())
}
