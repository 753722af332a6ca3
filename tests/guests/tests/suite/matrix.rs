//! Each hostile guest beside a good one: whatever it does, the slot goes on, and the good one answers as before.

use std::time::Duration;

use crate::report::Report;
use overlan_contract::Kind;
use overlan_guests::matrix::{Case, Expect, MATRIX};
use overlan_guests::{good, questions};
use overlan_policy::{
    Assignment, BreakerConfig, Engine, Failover, FaultKind, Limits, NoAnswer, Plugin, Policy, Sizing, Slot,
};

/// Little fuel and memory, so that what never ends does not take long; the deadlines leave a busy machine its time.
fn limits() -> Limits {
    Limits {
        fuel_base: 5_000_000,
        deadline: Duration::from_millis(250),
        start_deadline: Duration::from_millis(500),
        memory_bytes: 32 << 20,
        ..Limits::default()
    }
}

struct Bench<P: Policy> {
    engine: Engine,
    question: P::Question,
    slot: Slot<P>,
    expected: P::Answer,
}

impl<P: Policy> Bench<P> {
    fn new(engine: &Engine, question: P::Question) -> Self {
        let mut slot = Slot::new(BreakerConfig::default());
        let file = good(P::KIND).component();
        slot.swap(Plugin::load(engine, "good", &file, &[], limits()).expect("the good guest loads"));
        let expected = slot.ask(&question, Duration::ZERO).expect("the good guest answers").answer;
        Bench { engine: engine.clone(), question, slot, expected }
    }

    /// Runs one guest; the sentence that tells what became of it.
    fn run(&mut self, case: &Case) -> String {
        let what = format!("{} ({})", case.name, P::KIND);
        let loaded = Plugin::<P>::load(&self.engine, case.name, &(case.file)(P::KIND), &[], limits());
        let outcome = match (loaded, case.expect) {
            (Err(error), Expect::Refused(says)) => {
                let error = error.to_string();
                assert!(error.contains(says), "{what}: {error}");
                format!("refused: {error}")
            }
            (Ok(plugin), Expect::Faults(kinds)) => self.faults(&what, plugin, kinds),
            (Ok(plugin), Expect::Harmless) => {
                self.slot.swap(plugin);
                let answer = self.slot.ask(&self.question, Duration::ZERO).map(|answered| answered.answer);
                assert_eq!(answer.as_ref(), Ok(&self.expected), "{what}");
                assert!(self.slot.rollback());
                "answered".to_owned()
            }
            (Ok(_), expected) => panic!("{what}: was loaded, expected {expected:?}"),
            (Err(error), expected) => panic!("{what}: {error}, expected {expected:?}"),
        };
        assert!(!outcome.contains('\n'), "{what}: one line, not {outcome:?}");
        let answer = self.slot.ask(&self.question, Duration::ZERO).map(|answered| answered.answer);
        assert_eq!(answer.as_ref(), Ok(&self.expected), "{what}: the good guest answers as before");
        outcome
    }

    /// Every question ends in a fault of a wanted kind, until the breaker opens.
    fn faults(&mut self, what: &str, plugin: Plugin<P>, kinds: &[&str]) -> String {
        self.slot.swap(plugin);
        let mut said = String::new();
        for round in 0..3 {
            match self.slot.ask(&self.question, Duration::ZERO) {
                Err(NoAnswer::Fault(fault)) => {
                    assert!(kinds.contains(&fault.kind().name()), "{what}: {fault}");
                    said = format!("{}: {fault}", fault.kind().name());
                }
                other => panic!("{what}: question {round} ended in {other:?}"),
            }
        }
        assert!(
            matches!(self.slot.ask(&self.question, Duration::ZERO), Err(NoAnswer::Open { .. })),
            "{what}"
        );
        assert_eq!(self.slot.counters().fault_count(), 3, "{what}");
        assert!(self.slot.rollback());
        said
    }
}

fn run_all<P: Policy>(question: P::Question, report: &mut Report) {
    let engine = Engine::new().expect("the engine runs here");
    let mut bench = Bench::<P>::new(&engine, question);
    for case in MATRIX {
        let outcome = bench.run(case);
        report.row(case.name, P::KIND, outcome);
    }
}

#[test]
fn every_hostile_guest_against_every_kind() {
    let mut report = Report::default();
    run_all::<Assignment>(questions::assignment(3, 3), &mut report);
    run_all::<Sizing>(questions::sizing(), &mut report);
    run_all::<Failover>(questions::failover(2), &mut report);
    report.publish("hostile-guests");
}

#[test]
fn the_matrix_meets_every_fault() {
    use FaultKind::{AnswerTooLarge, Deadline, Invalid, MemoryLimit, OutOfFuel, Refused, Trap};
    for kind in [Trap, Deadline, OutOfFuel, MemoryLimit, AnswerTooLarge, Refused, Invalid] {
        let met = |case: &Case| matches!(case.expect, Expect::Faults(kinds) if kinds.contains(&kind.name()));
        assert!(MATRIX.iter().any(met), "no guest provokes {}", kind.name());
    }
}

#[test]
fn equal_questions_of_an_assignment_fail_equally() {
    // Members compare outcomes: whatever is told apart by them must not depend on the machine.
    let question = questions::assignment(3, 3);
    for case in MATRIX.iter().filter(|case| matches!(case.expect, Expect::Faults(_))) {
        let fault = || {
            let engine = Engine::new().expect("the engine runs here");
            let file = (case.file)(Kind::Assignment);
            let mut plugin =
                Plugin::<Assignment>::load(&engine, case.name, &file, &[], limits()).expect("it loads");
            plugin.ask(&question).expect_err("it faults")
        };
        assert_eq!(fault(), fault(), "{}", case.name);
    }
}
