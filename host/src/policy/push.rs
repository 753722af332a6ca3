//! `overlan policy push`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use overlan_node::Kind;
use overlan_node::client::Control;
use overlan_node::document::{Content, DocumentView, Pairs, PolicyText};
use overlan_node::rollout::ComponentView;

use crate::args::{Query, key_value};
use crate::document::{EXIT_STATUS, report, submit};
use crate::list::control;
use crate::progress::waiting;

/// How long a member that has just started may take until it knows a plan.
const FIRST_PLAN: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
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

pub(crate) async fn run(args: &PushArgs) -> anyhow::Result<ExitCode> {
    let control = control(&args.query.socket)?;
    let config = Pairs(super::by_key("config", &args.config)?);
    let policy = if args.plugin.starts_with("builtin:") {
        PolicyText { plugin: args.plugin.clone(), sha256: None, size: None, config }
    } else {
        let wasm = super::read_component(Path::new(&args.plugin))?;
        let name = Path::new(&args.plugin).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let offered: ComponentView = waiting(
            "the member asked checks the component",
            control.post("/v1/components", "application/wasm", wasm),
        )
        .await?;
        PolicyText { plugin: name, sha256: Some(offered.sha256), size: Some(offered.size), config }
    };
    let mut content = standing(&control).await?;
    *content.policy.of(args.kind) = Some(policy);
    let applied = submit(&content, args.sign.as_deref(), &args.query).await?;
    let duties = content.responsibility.len();
    if content.version == Some(0) && duties > 0 {
        eprintln!(
            "overlan: this is the first document: it took over the {duties} responsibilities of the plan in force, and the \
             members' own [[responsibility]] sections say nothing from now on"
        );
    }
    report(&applied, &args.query)
}

/// What the document with the policy is made from: a document says all there is to say of responsibilities, too.
async fn standing(control: &Control) -> anyhow::Result<Content> {
    let until = Instant::now() + FIRST_PLAN;
    loop {
        let DocumentView { settled, content, .. } = control.get("/v1/document").await?;
        match settled {
            true => return Ok(content),
            false if Instant::now() < until => tokio::time::sleep(LOOK).await,
            false => anyhow::bail!(
                "there is no document yet, and this member, without a plan or alone, cannot tell which responsibilities \
                 it would have to hold: `overlan apply` them first, or push when `overlan members` shows the others"
            ),
        }
    }
}
