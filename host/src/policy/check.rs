//! `overlan policy check`: whether a file would do, without a node.

use std::path::Path;

use anyhow::Context as _;
use overlan_node::policy_host::{Engine, Limits, check};
use serde_json::json;

use crate::table::{out, print_json};

pub(super) fn run(file: &Path, config: &[(String, String)], json: bool) -> anyhow::Result<()> {
    let wasm = super::read_component(file)?;
    let report = check(&Engine::new()?, &wasm, config, Limits::default())
        .with_context(|| format!("{} will not do", file.display()))?;
    let kind = report.kind.map(|kind| kind.to_string()).unwrap_or_default();
    if json {
        return print_json(&json!({
            "verdict": "sound",
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
    out!("  imports   {}", names(&report.imports));
    out!("  exports   {}", names(&report.exports));
    Ok(())
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
