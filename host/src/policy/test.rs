//! `overlan policy test`: the shipped questions and an author's own, judged as the host judges.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use overlan_contract::Violation;
use overlan_core::plan::ANSWER_DEADLINE;
use overlan_node::policy_host::{Answered, Assignment, Engine, Failover, Fault, Limits, Plugin, Sizing};
use overlan_node::{Kind, read_bounded};
use overlan_plugin_sdk::testkit::Fixture;
use serde_json::{Value, json};

use super::trial::{Case, Given, Trial, will_not_do};
use crate::args::TestArgs;
use crate::table::{Table, out, print_json, unread};

pub(super) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let given = Given::read(&args.plugin)?;
    match given.kind {
        Kind::Assignment => test::<Assignment>(&given, args),
        Kind::Sizing => test::<Sizing>(&given, args),
        Kind::Failover => test::<Failover>(&given, args),
    }
}

/// Questions put to one instance.
const IN_A_ROW: usize = 300;

/// What became of one fixture.
struct Outcome {
    name: String,
    fuel: Option<u64>,
    memory_bytes: usize,
    elapsed: Duration,
    /// Share of the owners that moved without need when a node died.
    moved: Option<f64>,
    violations: Vec<Violation>,
}

fn test<P: Trial>(given: &Given, args: &TestArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    // A node waits no longer for a plan.
    let limits = Limits { assignment_deadline: ANSWER_DEADLINE, ..Limits::default() };
    let mut plugin = Plugin::<P>::load(&Engine::new()?, &given.name, &given.wasm, &args.config, limits)
        .with_context(|| will_not_do(&args.plugin))?;
    let loaded = begun.elapsed();
    let shipped = P::fixtures().into_iter().map(|Fixture { name, question }| Case {
        name: name.to_owned(),
        question,
        answer: None,
    });
    let own = match &args.fixtures {
        Some(folder) => own_cases::<P>(folder)?,
        None => Vec::new(),
    };
    let most_moved = f64::from(args.max_moved) / 100.0;
    let cases: Vec<_> = shipped.chain(own).collect();
    let mut outcomes: Vec<Outcome> = cases.iter().map(|case| judge(&mut plugin, case, most_moved)).collect();
    if P::KIND != Kind::Assignment {
        outcomes.push(ask_in_a_row(&mut plugin, &cases));
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).count();
    let loaded_ms = loaded.as_millis();
    unread(if args.json.json {
        print_json(&json!({
            "plugin": given.name,
            "kind": P::KIND,
            "sha256": plugin.sha256(),
            "load_ms": loaded_ms,
            "passed": outcomes.len() - failed,
            "failed": failed,
            "fixtures": outcomes.iter().map(as_json).collect::<Vec<_>>(),
        }))
    } else {
        let plugin = format!("{} policy {}, loaded in {loaded_ms} ms", P::KIND, given.name);
        print(&outcomes, &plugin, failed)
    })?;
    anyhow::ensure!(
        failed == 0,
        "{} breaks the contract on {failed} of {} fixtures",
        given.name,
        outcomes.len()
    );
    Ok(())
}

/// Largest file of a fixture: a question of the most nodes and duties has a part of that.
const MAX_FIXTURE: usize = 64 << 20;

/// The files of an author's folder, in order of their names.
fn own_cases<P: Trial>(folder: &Path) -> anyhow::Result<Vec<Case<P::Question, P::Answer>>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    anyhow::ensure!(
        !files.is_empty(),
        "{} has no .json files; leave out --fixtures, or write one",
        folder.display()
    );
    files
        .into_iter()
        .map(|file| {
            let bytes = read_bounded(&file, MAX_FIXTURE).with_context(|| {
                format!("{} can't be read; remove it, or write a fixture", file.display())
            })?;
            anyhow::ensure!(
                bytes.len() <= MAX_FIXTURE,
                "{} has more than {MAX_FIXTURE} bytes, more than the largest question; remove it",
                file.display()
            );
            let text = String::from_utf8(bytes).with_context(|| format!("{} is no text", file.display()))?;
            let case = P::parse(&text).with_context(|| {
                format!("{} is no {} fixture; `overlan policy new` makes an example", file.display(), P::KIND)
            })?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Case { name, ..case })
        })
        .collect()
}

impl Outcome {
    fn of(name: &str) -> Outcome {
        Outcome {
            name: name.to_owned(),
            fuel: None,
            memory_bytes: 0,
            elapsed: Duration::ZERO,
            moved: None,
            violations: Vec::new(),
        }
    }
}

fn judge<P: Trial>(plugin: &mut Plugin<P>, case: &Case<P::Question, P::Answer>, most_moved: f64) -> Outcome {
    let mut outcome = Outcome::of(&case.name);
    if let Err(violations) = ask_all(plugin, case, most_moved, &mut outcome) {
        outcome.violations = violations;
    }
    outcome
}

/// Asks everything again and again of one instance, as a node does of kinds that keep theirs: what it remembers may
/// neither break it nor change an answer.
fn ask_in_a_row<P: Trial>(plugin: &mut Plugin<P>, cases: &[Case<P::Question, P::Answer>]) -> Outcome {
    let mut outcome = Outcome::of("all in a row");
    let begun = Instant::now();
    let asked = plugin.restart().map_err(|fault| refusal(fault, "the start")).and_then(|()| {
        let mut first: Vec<P::Answer> = Vec::new();
        for turn in 0..IN_A_ROW {
            let case = &cases[turn % cases.len()];
            let answered = plugin.ask(&case.question);
            let answer = answered.map_err(|fault| refusal(fault, &format!("question {}", turn + 1)))?.answer;
            match first.get(turn % cases.len()) {
                None => first.push(answer),
                Some(before) if *before != answer => {
                    let rule = format!("question {} ({}) had {} before", turn + 1, case.name, short(before));
                    return Err(violation("answer", short(&answer), rule));
                }
                Some(_) => {}
            }
        }
        Ok(())
    });
    (outcome.memory_bytes, outcome.elapsed) = (plugin.memory_bytes(), begun.elapsed());
    outcome.violations = asked.err().unwrap_or_default();
    outcome
}

fn ask_all<P: Trial>(
    plugin: &mut Plugin<P>,
    case: &Case<P::Question, P::Answer>,
    most_moved: f64,
    outcome: &mut Outcome,
) -> Result<(), Vec<Violation>> {
    let question = &case.question;
    let first = ask_fresh(plugin, question)?;
    (outcome.fuel, outcome.elapsed) = (first.fuel, first.elapsed);
    outcome.memory_bytes = plugin.memory_bytes();
    let second = ask_fresh(plugin, question)?;
    if first.answer != second.answer {
        let rule = format!("a second instance answered the same question with {}", short(&second.answer));
        return Err(violation("answer", short(&first.answer), rule));
    }
    if first.fuel != second.fuel {
        let rule = "equal questions must take equal fuel on every member; a clock, randomness or the order of a \
                    hash table got in";
        return Err(violation("fuel", format!("{:?} and {:?}", first.fuel, second.fuel), rule.to_owned()));
    }
    if let Some(wanted) = case.answer.as_ref().filter(|wanted| **wanted != first.answer) {
        return Err(violation(
            "answer",
            short(&first.answer),
            format!("the fixture wants {}", short(wanted)),
        ));
    }
    let Some((changed, lost)) = P::after_loss(question, &first.answer) else { return Ok(()) };
    let after = ask_fresh(plugin, &changed).map_err(|violations| {
        let when = |violation: Violation| Violation {
            rule: format!("{} (after the death of node {lost})", violation.rule),
            ..violation
        };
        violations.into_iter().map(when).collect::<Vec<_>>()
    })?;
    let moved = P::moved_share(question, lost, &first.answer, &after.answer);
    outcome.moved = Some(moved);
    if moved > most_moved {
        let rule = format!(
            "of the owners that could stay when node {lost} died, at most {:.0}% may move (--max-moved)",
            100.0 * most_moved
        );
        return Err(violation("moved_share", format!("{:.1}%", 100.0 * moved), rule));
    }
    Ok(())
}

/// Asks an instance that has seen no question before.
fn ask_fresh<P: Trial>(
    plugin: &mut Plugin<P>,
    question: &P::Question,
) -> Result<Answered<P::Answer>, Vec<Violation>> {
    plugin.restart().and_then(|()| plugin.ask(question)).map_err(|fault| refusal(fault, ""))
}

/// What a fault says against a plugin; `when` tells which question it was, if that is not plain.
fn refusal(fault: Fault, when: &str) -> Vec<Violation> {
    match fault {
        Fault::Invalid(violations) => violations,
        fault => {
            let told = if when.is_empty() { fault.to_string() } else { format!("{when}: {fault}") };
            violation("answer", fault.kind().name().to_owned(), told)
        }
    }
}

fn violation(field: &str, value: String, rule: String) -> Vec<Violation> {
    vec![Violation { field: field.to_owned(), value, rule }]
}

/// The beginning of a value: answers of large clusters are long.
fn short(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.len() {
        0..=200 => text,
        _ => format!("{}…", &text[..text.floor_char_boundary(200)]),
    }
}

fn as_json(outcome: &Outcome) -> Value {
    let violations: Vec<_> = outcome
        .violations
        .iter()
        .map(|Violation { field, value, rule }| json!({ "field": field, "value": value, "rule": rule }))
        .collect();
    json!({
        "name": outcome.name,
        "passed": violations.is_empty(),
        "fuel": outcome.fuel,
        "memory_bytes": outcome.memory_bytes,
        "elapsed_us": outcome.elapsed.as_micros(),
        "moved_share": outcome.moved,
        "violations": violations,
    })
}

fn print(outcomes: &[Outcome], plugin: &str, failed: usize) -> anyhow::Result<()> {
    let mut table = Table::new(&["fixture", "", "fuel", "memory", "time", "moved"]);
    for outcome in outcomes {
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            outcome.name.clone(),
            if outcome.violations.is_empty() { "ok" } else { "FAILED" }.to_owned(),
            cell(outcome.fuel.map(|fuel| fuel.to_string())),
            format!("{} KiB", outcome.memory_bytes >> 10),
            format!("{} us", outcome.elapsed.as_micros()),
            cell(outcome.moved.map(|share| format!("{:.1}%", 100.0 * share))),
        ]);
    }
    table.print()?;
    for outcome in outcomes {
        for violation in &outcome.violations {
            out!("{}: {violation}", outcome.name);
        }
    }
    out!("{plugin}");
    out!("{} fixtures passed, {failed} failed", outcomes.len() - failed);
    Ok(())
}
