//! What is written down of each question.

use overlan_contract::{Attributes, Kind, assignment, failover, sizing};
use serde::{Deserialize, Serialize};

/// A question, what became of it, and who answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since the Unix epoch, by the writer's clock.
    pub unix_ms: u64,
    /// The plugin's name as listings show it.
    pub plugin: String,
    /// SHA-256 of its component in hexadecimal digits.
    pub sha256: String,
    /// What it was configured with.
    pub config: Attributes,
    /// Microseconds that the answer took.
    pub elapsed_us: u64,
    /// Units of fuel it used, where the kind is metered.
    pub fuel: Option<u64>,
    /// The question and its outcome.
    pub exchange: Exchange,
    /// The limits that an answer may depend on, by name, as far as they were not the default.
    pub limits: Vec<(String, u64)>,
    /// Whether it was the first question of its instance, so that none before it can have coloured the answer.
    pub fresh: bool,
}

/// A valid answer, or why there was none, as a sentence.
pub type Outcome<A> = Result<A, String>;

/// A question with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Exchange {
    /// Who owns what.
    Assignment(assignment::Question, Outcome<assignment::Answer>),
    /// How large.
    Sizing(sizing::Question, Outcome<sizing::Answer>),
    /// Which path, and when it is late.
    Failover(failover::Question, Outcome<failover::Answer>),
}

impl Exchange {
    /// The kind of question.
    pub fn kind(&self) -> Kind {
        match self {
            Exchange::Assignment(..) => Kind::Assignment,
            Exchange::Sizing(..) => Kind::Sizing,
            Exchange::Failover(..) => Kind::Failover,
        }
    }
}
