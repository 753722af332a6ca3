//! The world `packed-failover-policy`.

use super::facts::adapter;
pub use super::unpack;
use crate::failover::{Answer, Mode, Path, PathState, Question, Rtt, Timing};

wit_bindgen::generate!({
    path: "../wit",
    world: "packed-failover-policy",
    runtime_path: "::overlan_plugin_sdk::glue::rt",
    pub_export_macro: true,
    with: {
        "overlan:policy/facts@0.1.0": super::assignment::overlan::policy::facts,
        "overlan:policy/log@0.1.0": super::assignment::overlan::policy::log,
    },
});

pub use exports::overlan::policy::failover as wit;
pub use exports::overlan::policy::packed_failover as packed;

/// Converts a question.
pub fn question(question: wit::Question) -> Result<Question, String> {
    Ok(Question {
        paths: question.paths.into_iter().map(path).collect::<Result<_, _>>()?,
        seed: question.seed,
        attributes: question.attributes,
    })
}

/// Converts an answer.
pub fn answer(answer: Answer) -> wit::Answer {
    wit::Answer {
        order: answer.order,
        mode: match answer.mode {
            Mode::Passive => wit::Mode::Passive,
            Mode::Active => wit::Mode::Active,
            Mode::Spread(weights) => wit::Mode::Spread(weights),
        },
        timings: answer.timings.into_iter().map(timing).collect(),
    }
}

fn path(path: wit::Path) -> Result<Path, String> {
    Ok(Path {
        local: adapter(path.local)?,
        remote: adapter(path.remote)?,
        rtt: path.rtt.map(|rtt| Rtt {
            smoothed_us: rtt.smoothed_us,
            variance_us: rtt.variance_us,
            min_us: rtt.min_us,
        }),
        loss_ppm: path.loss_ppm,
        state: match path.state {
            wit::PathState::Unverified => PathState::Unverified,
            wit::PathState::Up => PathState::Up,
            wit::PathState::Suspect => PathState::Suspect,
            wit::PathState::Down => PathState::Down,
        },
        since_ms: path.since_ms,
        flaps: path.flaps,
        attributes: path.attributes,
    })
}

fn timing(timing: Timing) -> wit::Timing {
    wit::Timing {
        probe_interval_us: timing.probe_interval_us,
        reply_timeout_us: timing.reply_timeout_us,
        misses: timing.misses,
        hold_down_ms: timing.hold_down_ms,
    }
}
