//! `overlan policy shadow`: a policy that answers beside the active one and is only compared.

use anyhow::bail;
use overlan_node::PolicyShadow;

use crate::args::{Query, ShadowArgs};
use crate::list::control;
use crate::policy::upload;
use crate::table::{Table, out, print_json};

pub(crate) async fn run(args: &ShadowArgs) -> anyhow::Result<()> {
    let path = format!("/v1/policy/{}/shadow", args.kind);
    if args.stop {
        return show(&args.query, &control(&args.query.socket)?.delete(&path).await?);
    }
    if let Some(plugin) = &args.plugin {
        return show(&args.query, &upload(&path, plugin, &args.config, &args.limits, &args.query).await?);
    }
    let shadow: Option<PolicyShadow> = control(&args.query.socket)?.get(&path).await?;
    match shadow {
        Some(shadow) => show(&args.query, &shadow),
        None if args.query.json.json => print_json(&shadow),
        None => bail!("no policy shadows {0}; `overlan policy shadow {0} FILE` begins", args.kind),
    }
}

fn show(query: &Query, shadow: &PolicyShadow) -> anyhow::Result<()> {
    if query.json.json {
        return print_json(shadow);
    }
    out!("{}: {} in the shadow of the active policy", shadow.kind, shadow.plugin);
    out!("  sha256     {}", shadow.sha256);
    out!("  compared   {} questions, {} answered otherwise", shadow.compared, shadow.different);
    out!("  passed by  {} not asked, {} without an active answer", shadow.skipped, shadow.unanswered);
    let mean = |total: u64| total.checked_div(shadow.compared);
    if let (Some(own), Some(active)) = (mean(shadow.total_us.shadow), mean(shadow.total_us.active)) {
        out!("  time       {own} us, active {active} us (mean)");
    }
    if let Some(fuel) = shadow.fuel {
        out!("  fuel       {}, active {} (last)", fuel.shadow, fuel.active);
    }
    if let Some(plan) = shadow.plan {
        out!(
            "  plan       {} of {} responsibilities elsewhere, {} with other standbys; {} in all plans",
            plan.moved,
            plan.responsibilities,
            plan.standbys_moved,
            shadow.moved
        );
        let share = |milli: u64| format!("{}.{:03}", milli / 1_000, milli % 1_000);
        let load = plan.imbalance_milli;
        out!("  load       largest over mean {}, active {}", share(load.shadow), share(load.active));
        let moved = plan.moved_from_previous;
        out!("  moves      {} from the plan before, active {}", moved.shadow, moved.active);
    }
    for (kind, count) in &shadow.faults {
        out!("  faults     {kind}: {count}");
    }
    if let Some(fault) = &shadow.last_fault {
        out!("  last fault: {fault}");
    }
    differences(shadow)
}

fn differences(shadow: &PolicyShadow) -> anyhow::Result<()> {
    if shadow.differences.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["question", "about", "field", "active", "shadow"]);
    for difference in &shadow.differences {
        let question = difference.question.to_string();
        for change in &difference.changes {
            let about = difference.about.clone();
            let values = [change.field.clone(), change.active.clone(), change.shadow.clone()];
            table.row([question.clone(), about].into_iter().chain(values));
        }
        if difference.more > 0 {
            table.row([question, difference.about.clone(), format!("and {} more", difference.more)]);
        }
    }
    table.print()
}
