//! `overlan policy replay`: what another policy would have answered.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Context as _;
use overlan_node::policy_host::{
    Assignment, Compiled, Engine, Failover, Limits, Plugin, Policy, Sizing, inspect,
};
use overlan_node::policy_journal::{Damage, Exchange, Outcome as Recorded, Record, read};
use overlan_node::{Attributes, Changes, Compare, Kind};
use serde::Serialize;
use serde_json::json;

use super::trial::{Given, will_not_do};
use crate::args::ReplayArgs;
use crate::table::{Table, out, print_json};

/// Differences, and places of damage, that people are shown; `--json` has all.
const SHOWN: usize = 20;

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let given = Given::read(&args.policy)?;
    let (kind, sha256) = (given.kind, inspect(&given.wasm).sha256);
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    for path in &args.journals {
        let journal = read(path)?;
        records.extend(journal.records);
        damage.extend(journal.damage);
    }
    let total = records.len();
    records.retain(|record| record.exchange.kind() == kind);
    let policy = Candidate { name: &args.policy, wasm: &given.wasm, sha256: &sha256, config: &args.config };
    let outcome = match kind {
        Kind::Assignment => replay::<Assignment>(&policy, &records)?,
        Kind::Sizing => replay::<Sizing>(&policy, &records)?,
        Kind::Failover => replay::<Failover>(&policy, &records)?,
    };
    // Damage is no failure: whatever could be read was replayed.
    damage.iter().take(SHOWN).for_each(|damage| eprintln!("overlan: {damage}"));
    if damage.len() > SHOWN {
        let bytes: u64 = damage[SHOWN..].iter().map(|damage| damage.lost_bytes).sum();
        eprintln!("overlan: {bytes} bytes at {} more places; --json lists them", damage.len() - SHOWN);
    }
    if args.json.json {
        return show_json(args, kind, &policy, total, &damage, &outcome);
    }
    show(args, kind, total, &outcome)
}

/// The policy that is asked.
struct Candidate<'a> {
    name: &'a str,
    wasm: &'a [u8],
    sha256: &'a str,
    config: &'a [(String, String)],
}

impl Candidate<'_> {
    /// The conditions for a record: what was given, or else those of then if the same component answered.
    fn conditions(&self, record: &Record) -> Conditions {
        let same = record.sha256 == self.sha256;
        let config =
            if self.config.is_empty() && same { record.config.clone() } else { self.config.to_vec() };
        let same = same && record.config == config;
        Conditions { same, config, limits: if same { record.limits.clone() } else { Vec::new() } }
    }
}

/// What an instance answers under. Questions under other conditions get one of their own, so that they do not change
/// what this one remembers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Conditions {
    /// Whether they are those that the recorded answer came about under.
    same: bool,
    config: Attributes,
    limits: Vec<(String, u64)>,
}

/// The plugins of a replay, by their conditions.
struct Plugins<'a, P: Policy> {
    policy: &'a Candidate<'a>,
    compiled: Compiled<P>,
    started: BTreeMap<Conditions, Plugin<P>>,
}

impl<P: Policy> Plugins<'_, P> {
    /// The one to put a record's question to. It remembers no more than the one did that answered then.
    fn for_record(&mut self, record: &Record) -> anyhow::Result<(bool, &mut Plugin<P>)> {
        let conditions = self.policy.conditions(record);
        let same = conditions.same;
        match self.started.entry(conditions) {
            Entry::Occupied(started) => {
                let plugin = started.into_mut();
                if record.fresh {
                    // One that does not start fails at the question, which then tells it.
                    let _ = plugin.restart();
                }
                Ok((same, plugin))
            }
            Entry::Vacant(place) => {
                let mut limits = Limits::default();
                for (name, value) in &place.key().limits {
                    limits
                        .set(name, *value)
                        .context("a record was made under limits that this version has not")?;
                }
                let plugin = self.compiled.start(&place.key().config, limits);
                let plugin = plugin.with_context(|| will_not_do(self.policy.name))?;
                Ok((same, place.insert(plugin)))
            }
        }
    }
}

/// What came of a replay.
#[derive(Default, Serialize)]
struct Outcome {
    /// Questions asked.
    asked: u64,
    /// Answers equal to the recorded ones, byte for byte.
    identical: u64,
    /// Answers that differ.
    different: u64,
    /// Questions that the recorded policy failed at.
    faults_before: u64,
    /// Questions that this one fails at.
    faults_now: u64,
    /// Of the questions of the same component, configuration and limits, those whose fuel differs: none unless the
    /// engine changed.
    fuel_differs: u64,
    /// What changed, counted: responsibilities whose owner moved, sizes, timings, ...
    changes: BTreeMap<&'static str, u64>,
    /// Microseconds of all answers that both gave.
    elapsed_before_us: u64,
    /// The same of this policy, on this machine.
    elapsed_now_us: u64,
    /// One for each change.
    differences: Vec<Difference>,
}

/// One thing that is decided otherwise.
#[derive(Serialize)]
struct Difference {
    /// Which record of the kind, from 0.
    record: usize,
    /// When it was asked.
    unix_ms: u64,
    /// What is decided.
    what: String,
    before: String,
    now: String,
}

fn replay<P: Replayed>(policy: &Candidate<'_>, records: &[Record]) -> anyhow::Result<Outcome> {
    let compiled = Compiled::<P>::new(&Engine::new()?, policy.name, policy.wasm, &Limits::default());
    let compiled = compiled.with_context(|| will_not_do(policy.name))?;
    let mut plugins = Plugins { policy, compiled, started: BTreeMap::new() };
    let mut outcome = Outcome::default();
    for (number, record) in records.iter().enumerate() {
        let Some((question, before)) = P::of(&record.exchange) else { continue };
        let (same, plugin) = plugins.for_record(record)?;
        let now = plugin.ask(question);
        outcome.asked += 1;
        outcome.faults_before += u64::from(before.is_err());
        outcome.faults_now += u64::from(now.is_err());
        let mut changes = Changes::new(usize::MAX);
        match (before, &now) {
            (Ok(before), Ok(now)) => {
                outcome.elapsed_before_us += record.elapsed_us;
                outcome.elapsed_now_us += u64::try_from(now.elapsed.as_micros()).unwrap_or(u64::MAX);
                outcome.fuel_differs += u64::from(same && record.fuel != now.fuel);
                P::compare(question, [before, &now.answer], &mut changes);
            }
            (before, now) => {
                let text = |fault: Option<String>| fault.unwrap_or_else(|| "an answer".into());
                let now = now.as_ref().err().map(ToString::to_string);
                let pair = [&text(before.as_ref().err().cloned()), &text(now)];
                changes.note("outcomes", || "outcome".into(), pair, String::clone);
            }
        }
        let equal = changes.kept.is_empty();
        outcome.identical += u64::from(equal);
        outcome.different += u64::from(!equal);
        for (count, changed) in changes.counts {
            *outcome.changes.entry(count).or_default() += changed;
        }
        outcome.differences.extend(changes.kept.into_iter().map(|change| Difference {
            record: number,
            unix_ms: record.unix_ms,
            what: format!("{}: {}", P::about(question), change.field),
            before: change.active,
            now: change.shadow,
        }));
    }
    Ok(outcome)
}

/// A kind whose questions a journal has.
trait Replayed: Compare {
    fn of(exchange: &Exchange) -> Option<(&Self::Question, &Recorded<Self::Answer>)>;
}

macro_rules! replayed {
    ($($kind:ident),*) => {
        $(
            impl Replayed for $kind {
                fn of(exchange: &Exchange) -> Option<(&Self::Question, &Recorded<Self::Answer>)> {
                    let Exchange::$kind(question, outcome) = exchange else { return None };
                    Some((question, outcome))
                }
            }
        )*
    };
}

replayed!(Assignment, Sizing, Failover);

fn show_json(
    args: &ReplayArgs,
    kind: Kind,
    policy: &Candidate<'_>,
    total: usize,
    damage: &[Damage],
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let damage: Vec<_> = damage
        .iter()
        .map(|damage| {
            json!({
                "path": damage.path,
                "records": damage.records,
                "offset": damage.offset,
                "lost_bytes": damage.lost_bytes,
                "what": damage.to_string(),
            })
        })
        .collect();
    print_json(&json!({
        "policy": args.policy,
        "kind": kind,
        "sha256": policy.sha256,
        "journal": args.journals,
        "records": total,
        "damage": damage,
        "outcome": outcome,
    }))
}

fn show(args: &ReplayArgs, kind: Kind, total: usize, outcome: &Outcome) -> anyhow::Result<()> {
    out!("{}: {} of {total} records are {kind} questions", args.policy, outcome.asked);
    out!("  answers   {} identical, {} different", outcome.identical, outcome.different);
    out!("  faults    {} then, {} now", outcome.faults_before, outcome.faults_now);
    let both = (outcome.asked - outcome.faults_before.max(outcome.faults_now)).max(1);
    out!(
        "  time      {} us then, {} us now, on average",
        outcome.elapsed_before_us / both,
        outcome.elapsed_now_us / both
    );
    if outcome.fuel_differs > 0 {
        out!("  fuel      differs in {} questions of the same policy", outcome.fuel_differs);
    }
    for (what, count) in &outcome.changes {
        out!("  changed   {count} {}", what.replace('_', " "));
    }
    if outcome.differences.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["record", "what", "then", "now"]);
    for difference in outcome.differences.iter().take(SHOWN) {
        let Difference { record, what, before, now, .. } = difference;
        table.row([&record.to_string(), what, before, now]);
    }
    table.print()?;
    if outcome.differences.len() > SHOWN {
        out!("and {} more; --json has all", outcome.differences.len() - SHOWN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use overlan_guests::{questions, sizing};

    use super::*;

    /// A guest that counts its questions, so that an answer shows what it was asked before.
    #[test]
    fn instances_begin_where_they_began() {
        let counts = sizing(1_400, 0, 65_536)
            .decide(
                "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
                (i32.store (i32.const 4) (i32.add (i32.const 1400) (global.get $asked))) i32.const 0",
            )
            .extra("(global $asked (mut i32) (i32.const 0))")
            .component();
        let report = inspect(&counts);
        let answered = |datagram| overlan_contract::sizing::Answer { datagram, coalesce: 0, burst: 65_536 };
        let record = |datagram, fresh, sha256: &str, limits: &[(&str, u64)]| Record {
            unix_ms: 0,
            plugin: "x".into(),
            sha256: sha256.to_owned(),
            config: Vec::new(),
            elapsed_us: 0,
            fuel: None,
            exchange: Exchange::Sizing(questions::sizing(), Ok(answered(datagram))),
            limits: limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            fresh,
        };
        let sha256 = &*report.sha256;
        let limits = [("memory_bytes", 1 << 20)];
        let records = [
            record(1_401, true, sha256, &[]),
            record(1_402, false, sha256, &[]),
            // Another plugin's, and the same one's under other limits; then it is rolled back to the first.
            record(9_000, true, "other", &[]),
            record(1_401, true, sha256, &limits),
            record(1_403, false, sha256, &[]),
            record(1_401, true, sha256, &[]),
        ];
        let policy = Candidate { name: "x", wasm: &counts, sha256, config: &[] };
        let outcome = replay::<Sizing>(&policy, &records).unwrap();
        assert_eq!((outcome.asked, outcome.identical, outcome.different), (6, 5, 1));
        let Difference { record: differs, what, before, now, .. } = &outcome.differences[0];
        assert_eq!((*differs, before.as_str(), now.as_str()), (2, "9000", "1401"));
        assert!(what.ends_with(": datagram") && outcome.changes["datagrams"] == 1, "{what}");
        let unknown = [record(1_401, true, sha256, &[("no_such_limit", 1)])];
        let error = replay::<Sizing>(&policy, &unknown).err().unwrap();
        assert!(format!("{error:#}").contains("no_such_limit"), "{error:#}");
    }
}
