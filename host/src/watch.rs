//! `overlan watch`.

use std::io::Write as _;

use overlan_node::WatchEvent;

use crate::args::Query;
use crate::list::{control, word};

pub(crate) async fn run(query: &Query) -> anyhow::Result<()> {
    let mut lines = control(&query.socket)?.lines("/v1/watch").await?;
    while let Some(event) = lines.next::<WatchEvent>().await? {
        let line = if query.json.json { serde_json::to_string(&event)? } else { describe(&event) };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}

fn describe(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Responsibility { name, before, now, epoch } => {
            format!("responsibility {name}: {} -> {} (plan {epoch})", word(before), word(now))
        }
        WatchEvent::Plan { epoch } => format!("plan {epoch}"),
        WatchEvent::Member { name, state, .. } => format!("member {name}: {}", word(state)),
        WatchEvent::Document { version, digest } => format!("document {version}: {digest}"),
        WatchEvent::DocumentAgreed { version, .. } => format!("document {version}: all live members hold it"),
        WatchEvent::Policy { kind, plugin, rolled_back: None } => format!("policy {kind}: {plugin}"),
        WatchEvent::Policy { kind, plugin, rolled_back: Some(why) } => {
            format!("policy {kind} rolled back to {plugin}: {why}")
        }
        WatchEvent::Missed { count } => format!("missed {count} events: this reader is too slow"),
    }
}
