//! The part of `overlan policy show` that tells how a plugin fares: limits, probation, roll-backs.

use overlan_node::PolicyStatus;

use crate::table::{Table, out};

pub(crate) fn print(status: &PolicyStatus) -> anyhow::Result<()> {
    if let Some(probation) = status.probation {
        let previous = status.previous.as_deref().filter(|_| !probation.replaced_native);
        out!(
            "  probation {} answers and {} s to go; {} before that brings {} back",
            probation.answers_left,
            probation.ends_in_ms.div_ceil(1_000),
            ends_it(probation.faults_left),
            previous.unwrap_or("the native fallback")
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
    let mut table = Table::new(&["limit", "used", "of", ""]);
    for (name, of) in &status.limits {
        let used = of.used.map_or_else(|| "not measured".to_owned(), |used| used.to_string());
        let fixed = if of.fixed { "fixed" } else { "" };
        table.row([name.clone(), used, of.limit.to_string(), fixed.to_owned()]);
    }
    table.print()
}

/// What ends a probation in failure.
fn ends_it(faults_left: Option<u32>) -> String {
    match faults_left {
        None => "an open breaker".to_owned(),
        Some(0 | 1) => "a fault".to_owned(),
        Some(faults) => format!("{faults} faults, or an open breaker,"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probation_says_what_ends_it() {
        assert_eq!(ends_it(None), "an open breaker");
        assert_eq!(ends_it(Some(1)), "a fault");
        assert_eq!(ends_it(Some(2)), "2 faults, or an open breaker,");
    }
}
