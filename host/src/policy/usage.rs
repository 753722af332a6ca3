//! The part of `overlan policy show` that tells how a plugin fares: limits, probation, roll-backs.

use overlan_node::PolicyStatus;

use crate::table::{Table, out};

pub(crate) fn print(status: &PolicyStatus) -> anyhow::Result<()> {
    if let Some(probation) = status.probation {
        out!(
            "  probation {} answers and {} s to go; a fault before that brings {} back",
            probation.answers_left,
            probation.ends_in_ms.div_ceil(1_000),
            status.previous.as_deref().unwrap_or("the native fallback")
        );
    }
    if let Some(rollback) = &status.last_rollback {
        out!("  rolled back {} times, last: {rollback}", status.rollbacks);
    }
    let faults: Vec<_> = status.totals.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    if !faults.is_empty() {
        out!("  faults of all {} plugins so far: {}", status.kind, faults.join(", "));
    }
    if status.limits.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["limit", "used", "of"]);
    for (name, of) in &status.limits {
        let used = of.used.map_or_else(|| "not measured".to_owned(), |used| used.to_string());
        table.row([name.clone(), used, of.limit.to_string()]);
    }
    table.print()
}
