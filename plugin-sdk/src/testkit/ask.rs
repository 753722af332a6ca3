//! Asking a policy as the host does.

use std::fmt::Debug;

use crate::{Assignment, Config, Discard, Failover, Sizing, Violation, assignment, failover, sizing};

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
#[doc = example!("Assignment" => "let answer = testkit::ask_assignment::<First>(&Config::default(), &testkit::cluster(3, 8));
assert_eq!(answer.owners.len(), 8);")]
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
#[track_caller]
pub fn ask_assignment<P: Assignment>(config: &Config, question: &assignment::Question) -> assignment::Answer {
    or_panic(assignment::<P>(config, question))
}

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
#[doc = example!("Sizing" => "let answer = testkit::ask_sizing::<Smallest>(&Config::default(), &testkit::sized_path(1_500, 9_000));
assert_eq!(answer.datagram, 1_200);")]
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
#[track_caller]
pub fn ask_sizing<P: Sizing>(config: &Config, question: &sizing::Question) -> sizing::Answer {
    or_panic(sizing::<P>(config, question))
}

/// Asks two fresh instances, and checks that they agree and that the host would accept the answer.
///
#[doc = example!("Failover" => "let answer = testkit::ask_failover::<InOrder>(&Config::default(), &testkit::paths(3));
assert_eq!(answer.order, [0, 1, 2]);")]
///
/// # Panics
/// When the policy refuses the configuration or the question, contradicts itself, or breaks a rule.
#[track_caller]
pub fn ask_failover<P: Failover>(config: &Config, question: &failover::Question) -> failover::Answer {
    or_panic(failover::<P>(config, question))
}

/// [`ask_assignment`], with what is wrong as a sentence.
pub(super) fn assignment<P: Assignment>(
    config: &Config,
    question: &assignment::Question,
) -> Result<assignment::Answer, String> {
    twice(
        || configured(P::configure(config))?.decide(question, &Discard).map_err(refusal),
        |answer| assignment::validate(question, answer),
    )
}

/// [`ask_sizing`], with what is wrong as a sentence.
pub(super) fn sizing<P: Sizing>(
    config: &Config,
    question: &sizing::Question,
) -> Result<sizing::Answer, String> {
    twice(
        || configured(P::configure(config))?.decide(question, &Discard).map_err(refusal),
        |answer| sizing::validate(question, answer),
    )
}

/// [`ask_failover`], with what is wrong as a sentence.
pub(super) fn failover<P: Failover>(
    config: &Config,
    question: &failover::Question,
) -> Result<failover::Answer, String> {
    twice(
        || configured(P::configure(config))?.decide(question, &Discard).map_err(refusal),
        |answer| failover::validate(question, answer),
    )
}

#[track_caller]
fn or_panic<A>(answer: Result<A, String>) -> A {
    answer.unwrap_or_else(|why| panic!("{why}"))
}

fn configured<P>(policy: Result<P, crate::ConfigError>) -> Result<P, String> {
    policy.map_err(|error| format!("the policy refuses its configuration: {error}"))
}

fn refusal(why: String) -> String {
    format!("the policy refuses the question: {why}")
}

fn twice<A: PartialEq + Debug>(
    ask: impl Fn() -> Result<A, String>,
    validate: impl Fn(&A) -> Result<(), Vec<Violation>>,
) -> Result<A, String> {
    let answer = ask()?;
    if let Err(violations) = validate(&answer) {
        let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
        return Err(format!("the host would refuse the answer:\n{}", lines.join("\n")));
    }
    let again = ask()?;
    if answer != again {
        return Err(format!("equal questions must get equal answers; first {answer:?}, then {again:?}"));
    }
    Ok(answer)
}
