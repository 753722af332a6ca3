//! The traits a policy implements: one for each kind of decision.

use crate::{Config, ConfigError, Log, assignment, failover, sizing};

/// Decides who is responsible for what.
///
/// The host makes a fresh instance for each question, so nothing that `decide` stores in `self`
/// is seen again: what was decided before comes with the question, as `previous`. The question's strings are not
/// copies of what the host handed over but lie in it; clone what `decide` wants to change.
///
/// ```
/// use overlan_plugin_sdk::{Assignment, Config, ConfigError, Log, assignment, placement::Eligible, testkit};
///
/// /// Each duty to the first nodes that may have it.
/// struct First;
///
/// impl Assignment for First {
///     fn configure(config: &Config) -> Result<Self, ConfigError> {
///         config.expect_empty().map(|()| First)
///     }
///
///     fn decide(&mut self, question: &assignment::Question, _: &dyn Log) -> Result<assignment::Answer, String> {
///         let eligible = Eligible::new(question, |index, _| index);
///         let owners = |duty| eligible.nodes(duty)[..eligible.wanted(duty)].to_vec();
///         Ok(assignment::Answer { owners: (0..question.responsibilities.len()).map(owners).collect() })
///     }
/// }
///
/// testkit::check_assignment::<First>(&Config::default(), 0.5);
/// ```
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
///
/// ```
/// use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, sizing, testkit};
///
/// /// As large as both ends carry.
/// struct Fits;
///
/// impl Sizing for Fits {
///     fn configure(config: &Config) -> Result<Self, ConfigError> {
///         config.expect_empty().map(|()| Fits)
///     }
///
///     fn decide(&mut self, question: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
///         let far = question.remote.mtu.saturating_sub(question.overhead);
///         let datagram = question.largest_datagram().min(far).max(sizing::MIN_DATAGRAM);
///         Ok(sizing::Answer { datagram, coalesce: datagram, burst: sizing::MAX_BURST })
///     }
/// }
///
/// testkit::check_sizing::<Fits>(&Config::default());
/// ```
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
///
/// ```
/// use overlan_plugin_sdk::{Config, ConfigError, Failover, Log, failover, testkit};
///
/// /// Paths as they stand, each dead after three probes without a reply.
/// struct InOrder;
///
/// impl Failover for InOrder {
///     fn configure(config: &Config) -> Result<Self, ConfigError> {
///         config.expect_empty().map(|()| InOrder)
///     }
///
///     fn decide(&mut self, question: &failover::Question, _: &dyn Log) -> Result<failover::Answer, String> {
///         let timing = failover::Timing {
///             probe_interval_us: 200_000,
///             reply_timeout_us: 100_000,
///             misses: 3,
///             hold_down_ms: 5_000,
///         };
///         Ok(failover::Answer {
///             order: (0..question.paths.len() as u32).collect(),
///             mode: failover::Mode::Passive,
///             timings: vec![timing; question.paths.len()],
///         })
///     }
/// }
///
/// testkit::check_failover::<InOrder>(&Config::default());
/// ```
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
