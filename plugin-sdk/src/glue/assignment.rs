//! The world `assignment-policy`.

use super::facts::adapter;
use crate::assignment::{Answer, Node, Question, Responsibility};

wit_bindgen::generate!({
    path: "../wit",
    world: "assignment-policy",
    runtime_path: "::overlan_plugin_sdk::glue::rt",
    pub_export_macro: true,
});

pub use exports::overlan::policy::assignment as wit;

/// Converts a question.
pub fn question(question: wit::Question) -> Result<Question, String> {
    Ok(Question {
        nodes: question.nodes.into_iter().map(node).collect::<Result<_, _>>()?,
        responsibilities: question.responsibilities.into_iter().map(responsibility).collect(),
        previous: question.previous,
        seed: question.seed,
        attributes: question.attributes,
    })
}

/// Converts an answer.
pub fn answer(answer: Answer) -> wit::Answer {
    wit::Answer { owners: answer.owners }
}

fn node(node: wit::Node) -> Result<Node, String> {
    Ok(Node {
        id: node.id,
        name: node.name,
        live: node.live,
        adapters: node.adapters.into_iter().map(adapter).collect::<Result<_, _>>()?,
        attributes: node.attributes,
    })
}

fn responsibility(duty: wit::Responsibility) -> Responsibility {
    Responsibility {
        name: duty.name,
        replicas: duty.replicas,
        weight_milli: duty.weight_milli,
        requires: duty.requires,
    }
}
