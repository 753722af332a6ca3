//! The world `packed-assignment-policy`.

use super::facts::adapter;
use crate::assignment::{Answer, Node, Question, Responsibility};
use crate::packed::{self as bytes, Asked};

wit_bindgen::generate!({
    path: "../wit",
    world: "packed-assignment-policy",
    runtime_path: "::overlan_plugin_sdk::glue::rt",
    pub_export_macro: true,
});

pub use exports::overlan::policy::assignment as wit;
pub use exports::overlan::policy::packed_assignment as packed;

/// Converts a question.
pub fn question(question: wit::Question) -> Result<Asked, String> {
    Ok(Asked::from(Question {
        nodes: question.nodes.into_iter().map(node).collect::<Result<_, _>>()?,
        responsibilities: question.responsibilities.into_iter().map(responsibility).collect(),
        previous: question.previous,
        seed: question.seed,
        attributes: question.attributes,
    }))
}

/// A question that came in one piece, which stays where it is: the instance ends with the answer.
pub fn unpack(packed: Vec<u8>) -> Result<Asked, String> {
    bytes::read(packed.leak()).ok_or_else(|| "the packed question cannot be read".to_owned())
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
