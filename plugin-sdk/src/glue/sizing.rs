//! The world `packed-sizing-policy`.

use super::facts::adapter;
pub use super::unpack;
use crate::sizing::{Answer, Question};

wit_bindgen::generate!({
    path: "../wit",
    world: "packed-sizing-policy",
    runtime_path: "::overlan_plugin_sdk::glue::rt",
    pub_export_macro: true,
    with: {
        "overlan:policy/facts@0.1.0": super::assignment::overlan::policy::facts,
        "overlan:policy/log@0.1.0": super::assignment::overlan::policy::log,
    },
});

pub use exports::overlan::policy::packed_sizing as packed;
pub use exports::overlan::policy::sizing as wit;

/// Converts a question.
pub fn question(question: wit::Question) -> Result<Question, String> {
    Ok(Question {
        local: adapter(question.local)?,
        remote: adapter(question.remote)?,
        path_mtu: question.path_mtu,
        rtt_us: question.rtt_us,
        loss_ppm: question.loss_ppm,
        overhead: question.overhead,
        attributes: question.attributes,
    })
}

/// Converts an answer.
pub fn answer(answer: Answer) -> wit::Answer {
    wit::Answer { datagram: answer.datagram, coalesce: answer.coalesce, burst: answer.burst }
}
