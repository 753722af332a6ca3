//! Policy questions and answers, and the native fallback of each kind.

pub mod fallback;

use alloc::string::String;
use overlan_contract::{assignment, failover, sizing};

/// Names a question until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A question to the policy of its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Who owns what.
    Assignment(assignment::Question),
    /// How large.
    Sizing(sizing::Question),
    /// Which path, and when it is late.
    Failover(failover::Question),
}

impl Question {
    /// The kind of policy to ask.
    pub fn kind(&self) -> overlan_contract::Kind {
        match self {
            Question::Assignment(_) => overlan_contract::Kind::Assignment,
            Question::Sizing(_) => overlan_contract::Kind::Sizing,
            Question::Failover(_) => overlan_contract::Kind::Failover,
        }
    }
}

/// An answer, already validated or not: the core validates it again.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Who owns what.
    Assignment(assignment::Answer),
    /// How large.
    Sizing(sizing::Answer),
    /// Which path, and when it is late.
    Failover(failover::Answer),
}

/// Why there is no answer, in a sentence.
pub type Fault = String;
