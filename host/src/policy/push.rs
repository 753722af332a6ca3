//! `overlan policy push`.

use std::path::{Path, PathBuf};

use overlan_node::Kind;
use overlan_node::document::{DocumentView, Pairs, PolicyText};
use overlan_node::rollout::ComponentView;

use crate::args::{Query, key_value};
use crate::document::{report, submit};
use crate::list::control;

#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    kind: Kind,
    /// A component file, or `builtin:NAME`
    plugin: String,
    /// Configuration of the plugin, repeatable
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// Sign the document with the operator's key, which `overlan keygen --operator` made
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    query: Query,
}

pub(crate) async fn run(args: &PushArgs) -> anyhow::Result<()> {
    let control = control(&args.query.socket)?;
    let config = Pairs(args.config.iter().cloned().collect());
    let policy = if args.plugin.starts_with("builtin:") {
        PolicyText { plugin: args.plugin.clone(), sha256: None, size: None, config }
    } else {
        let wasm = super::read_component(Path::new(&args.plugin))?;
        let name = Path::new(&args.plugin).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let offered: ComponentView = control.post("/v1/components", "application/wasm", wasm).await?;
        PolicyText { plugin: name, sha256: Some(offered.sha256), size: Some(offered.size), config }
    };
    let view: DocumentView = control.get("/v1/document").await?;
    let mut content = view.content;
    *content.policy.of(args.kind) = Some(policy);
    let applied = submit(&content, args.sign.as_deref(), &args.query).await?;
    report(&applied, &args.query)
}
