//! `overlan policy check`: whether a file would do, without a node.

use std::path::Path;

use anyhow::Context as _;
use overlan_node::policy_host::{Engine, Limits, Report, check, inspect};
use serde_json::json;

use crate::table::{out, print_json};

pub(super) fn run(file: &Path, config: &[(String, String)], json: bool) -> anyhow::Result<()> {
    let wasm = super::read_component(file)?;
    let checked = check(&Engine::new()?, &wasm, config, Limits::default());
    if json {
        // What it is, as far as that shows, of one that will not do as well.
        let report = checked.as_ref().map_or_else(|_| inspect(&wasm), Report::clone);
        print_json(&json!({
            "verdict": if checked.is_ok() { "sound" } else { "refused" },
            "why": checked.as_ref().err().map(ToString::to_string),
            "kind": report.kind.map(|kind| kind.to_string()),
            "version": report.version,
            "sha256": report.sha256,
            "size_bytes": report.size_bytes,
            "imports": report.imports,
            "exports": report.exports,
        }))?;
    }
    let report = checked.with_context(|| format!("{} will not do", file.display()))?;
    if json {
        return Ok(());
    }
    let kind = report.kind.map(|kind| kind.to_string()).unwrap_or_default();
    out!(
        "{}: a sound {kind} policy, as far as shows without asking it (`overlan policy test` asks)",
        file.display()
    );
    out!("  contract  {}", report.version.unwrap_or_default());
    out!("  sha256    {}", report.sha256);
    out!("  size      {} bytes", report.size_bytes);
    out!("  imports   {}", names(&report.imports));
    out!("  exports   {}", names(&report.exports));
    Ok(())
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
