//! Asking a policy as the host does.

use std::fmt::Debug;

use crate::{Assignment, Config, Discard, Failover, Sizing, Violation, assignment, failover, sizing};

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
pub fn ask_assignment<P: Assignment>(config: &Config, question: &assignment::Question) -> assignment::Answer {
    twice(
        || fresh(P::configure(config)).decide(question, &Discard),
        |answer| assignment::validate(question, answer),
    )
}

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
pub fn ask_sizing<P: Sizing>(config: &Config, question: &sizing::Question) -> sizing::Answer {
    twice(
        || fresh(P::configure(config)).decide(question, &Discard),
        |answer| sizing::validate(question, answer),
    )
}

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
pub fn ask_failover<P: Failover>(config: &Config, question: &failover::Question) -> failover::Answer {
    twice(
        || fresh(P::configure(config)).decide(question, &Discard),
        |answer| failover::validate(question, answer),
    )
}

fn fresh<P>(policy: Result<P, crate::ConfigError>) -> P {
    policy.unwrap_or_else(|error| panic!("the policy refuses its configuration: {error}"))
}

fn twice<A: PartialEq + Debug>(
    ask: impl Fn() -> Result<A, String>,
    validate: impl Fn(&A) -> Result<(), Vec<Violation>>,
) -> A {
    let answer = ask().unwrap_or_else(|error| panic!("the policy refuses the question: {error}"));
    if let Err(violations) = validate(&answer) {
        let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
        panic!("the host would refuse the answer:\n{}", lines.join("\n"));
    }
    assert_eq!(Ok(&answer), ask().as_ref(), "equal questions must get equal answers");
    answer
}
