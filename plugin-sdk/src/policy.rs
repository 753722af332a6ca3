//! The traits a policy implements: one for each kind of decision.

use crate::{Config, ConfigError, Log, assignment, failover, sizing};

/// Decides who is responsible for what.
///
/// The host makes a fresh instance for each question, so nothing that `decide` stores in `self`
/// is seen again: what was decided before comes with the question, as `previous`. The question's strings are not
/// copies of what the host handed over but lie in it; clone what `decide` wants to change.
pub trait Assignment: Sized {
    /// Makes the policy from its configuration. Called once, before anything else.
    ///
    /// # Errors
    /// Which key is wrong, and what would be right.
    fn configure(config: &Config) -> Result<Self, ConfigError>;

    /// Answers a question; [`assignment::validate`] tells which answers the host accepts.
    ///
    /// # Errors
    /// A sentence for the node's log. The host counts a fault and keeps the last good plan.
    fn decide(
        &mut self,
        question: &assignment::Question,
        log: &dyn Log,
    ) -> Result<assignment::Answer, String>;
}

/// Decides how large datagrams and bursts are on a path.
pub trait Sizing: Sized {
    /// Makes the policy from its configuration. Called once, before anything else.
    ///
    /// # Errors
    /// Which key is wrong, and what would be right.
    fn configure(config: &Config) -> Result<Self, ConfigError>;

    /// Answers a question; [`sizing::validate`] tells which answers the host accepts.
    ///
    /// # Errors
    /// A sentence for the node's log. The host counts a fault and keeps the last good sizes.
    fn decide(&mut self, question: &sizing::Question, log: &dyn Log) -> Result<sizing::Answer, String>;
}

/// Decides the order of the paths to a peer, and when a path is late or dead.
pub trait Failover: Sized {
    /// Makes the policy from its configuration. Called once, before anything else.
    ///
    /// # Errors
    /// Which key is wrong, and what would be right.
    fn configure(config: &Config) -> Result<Self, ConfigError>;

    /// Answers a question; [`failover::validate`] tells which answers the host accepts.
    ///
    /// # Errors
    /// A sentence for the node's log. The host counts a fault and keeps the last good decision.
    fn decide(&mut self, question: &failover::Question, log: &dyn Log) -> Result<failover::Answer, String>;
}
