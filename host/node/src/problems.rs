//! Tells the log of the problems that `status` lists: a node that cannot work is not to look fine there.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::handle::NodeHandle;

/// How often the problems are looked at: a new node has this long until what it lacks at first is one.
const LOOK: Duration = Duration::from_secs(5);

/// Until the node stops.
pub(crate) async fn log(node: NodeHandle) {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = BTreeMap::new();
    loop {
        look.tick().await;
        let Ok(status) = node.status().await else { return };
        let problems: BTreeMap<_, _> =
            status.core.problems.into_iter().map(|problem| (without_figures(&problem), problem)).collect();
        for (_, problem) in problems.iter().filter(|(key, _)| !known.contains_key(*key)) {
            tracing::warn!(problem);
        }
        for (_, problem) in known.iter().filter(|(key, _)| !problems.contains_key(*key)) {
            tracing::info!(problem, "this is over");
        }
        known = problems;
    }
}

/// What makes a problem the same though its counts go on.
fn without_figures(problem: &str) -> String {
    let is_figure = |word: &&str| word.trim_matches(|c: char| !c.is_alphanumeric()).parse::<u64>().is_err();
    problem.split(' ').filter(is_figure).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_make_no_new_problem_and_names_do() {
        let key =
            |name: &str, times: u32| without_figures(&format!("{name} began anew {times} times, never"));
        assert_eq!(key("n1", 4), key("n1", 5));
        assert_ne!(key("n1", 4), key("n2", 4));
    }
}
