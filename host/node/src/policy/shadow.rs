//! A plugin that answers beside the active one, on a thread of its own at the lowest priority, and is only compared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use overlan_contract::{Attributes, Kind};
use overlan_core::policy::{Answer, Question};
use overlan_policy::{Answered, Assignment, BreakerConfig, Failover, NoAnswer, Plugin, Sizing, Slot};
use serde::{Deserialize, Serialize};

use super::compare::{Difference, Pair, PlanComparison, compare, compare_plans};
use super::decision::{AnyPlugin, Decision};
use super::prepare::Loaded;
use super::status::totals;

/// Questions that may wait for a shadow; more are passed over, since nothing waits for it.
const MAX_WAITING: usize = 64;
/// Differences kept; newer ones push the oldest out.
const MAX_DIFFERENCES: usize = 64;

/// How a shadow compares to the active policy so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShadow {
    /// Which decision.
    pub kind: Kind,
    /// `builtin:NAME` or a file's name.
    pub plugin: String,
    /// SHA-256 of the component.
    pub sha256: String,
    /// What it was configured with.
    pub config: Attributes,
    /// Questions that both answered.
    pub compared: u64,
    /// Those with different answers.
    pub different: u64,
    /// Questions the shadow was not asked, since it was too slow, or failed too often.
    pub skipped: u64,
    /// Questions that the active policy did not answer.
    pub unanswered: u64,
    /// Faults of the shadow by kind.
    pub faults: BTreeMap<String, u64>,
    /// The last of them.
    pub last_fault: Option<String>,
    /// Microseconds that all answers compared took together.
    pub total_us: Pair<u64>,
    /// Units of fuel of the last answers compared, where the kind is metered.
    pub fuel: Option<Pair<u64>>,
    /// Of the last plans compared, for `assignment`.
    pub plan: Option<PlanComparison>,
    /// Responsibilities whose primary differed, over all plans compared.
    pub moved: u64,
    /// The latest differences, oldest first.
    pub differences: VecDeque<Difference>,
}

/// A question, and what the active policy made of it.
pub(super) struct Observation {
    pub(super) question: Arc<Question>,
    pub(super) answer: Option<Answered<Answer>>,
}

/// The worker's end: hands observations over and never waits.
pub(super) struct Tap {
    sender: SyncSender<Observation>,
    report: Arc<Mutex<PolicyShadow>>,
}

impl Tap {
    pub(super) fn observe(&self, observation: Observation) {
        if self.sender.try_send(observation).is_err() {
            let mut report = lock(&self.report);
            report.skipped = report.skipped.saturating_add(1);
        }
    }
}

/// Whoever shows the report.
pub(super) struct Shadow(Arc<Mutex<PolicyShadow>>);

impl Shadow {
    pub(super) fn status(&self) -> PolicyShadow {
        lock(&self.0).clone()
    }
}

/// Starts the thread; it ends when the tap is gone.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(loaded: Loaded) -> std::io::Result<(Tap, Shadow)> {
    match loaded.plugin {
        AnyPlugin::Assignment(plugin) => start_kind::<Assignment>(plugin, loaded.config),
        AnyPlugin::Sizing(plugin) => start_kind::<Sizing>(plugin, loaded.config),
        AnyPlugin::Failover(plugin) => start_kind::<Failover>(plugin, loaded.config),
    }
}

fn start_kind<P: Decision>(plugin: Plugin<P>, config: Attributes) -> std::io::Result<(Tap, Shadow)> {
    let report = Arc::new(Mutex::new(PolicyShadow {
        kind: P::KIND,
        plugin: plugin.name().to_owned(),
        sha256: plugin.sha256().to_owned(),
        config,
        compared: 0,
        different: 0,
        skipped: 0,
        unanswered: 0,
        faults: BTreeMap::new(),
        last_fault: None,
        total_us: Pair::default(),
        fuel: None,
        plan: None,
        moved: 0,
        differences: VecDeque::new(),
    }));
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let shown = report.clone();
    let name = format!("shadow-{}", P::KIND);
    // Guests run on this thread's stack.
    thread::Builder::new().name(name).stack_size(4 << 20).spawn(move || {
        // Linux gives each thread a priority of its own; where it refuses, the shadow is merely less polite.
        let _ = rustix::process::setpriority_process(None, 19);
        let mut slot = Slot::new(BreakerConfig::default());
        slot.swap(plugin);
        run(slot, &receiver, &shown);
    })?;
    Ok((Tap { sender, report: report.clone() }, Shadow(report)))
}

fn run<P: Decision>(mut slot: Slot<P>, observations: &Receiver<Observation>, shown: &Mutex<PolicyShadow>) {
    let origin = Instant::now();
    let mut number = 0;
    while let Ok(Observation { question, answer }) = observations.recv() {
        let Some(outcome) = P::ask(&mut slot, &question, origin.elapsed()) else { continue };
        let both = match (&answer, &outcome) {
            (Some(active), Ok(shadow)) => Some((
                active,
                shadow,
                compare(number, &question, &active.answer, &shadow.answer),
                compare_plans(&question, &active.answer, &shadow.answer),
            )),
            _ => None,
        };
        let counted = totals(slot.totals());
        let mut report = lock(shown);
        report.faults = counted.faults;
        report.last_fault.clone_from(&slot.totals().last_fault);
        report.unanswered += u64::from(answer.is_none());
        report.skipped += u64::from(matches!(outcome, Err(NoAnswer::Open { .. })));
        if let Some((active, shadow, difference, plan)) = both {
            report.compared += 1;
            report.total_us.active += micros(active.elapsed);
            report.total_us.shadow += micros(shadow.elapsed);
            report.fuel = active.fuel.zip(shadow.fuel).map(|(active, shadow)| Pair { active, shadow });
            report.moved += plan.map_or(0, |plan| plan.moved);
            report.plan = plan;
            if let Some(difference) = difference {
                report.different += 1;
                if report.differences.len() == MAX_DIFFERENCES {
                    report.differences.pop_front();
                }
                report.differences.push_back(difference);
            }
        }
        number += 1;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counters and lists, whole after any panic.
fn lock(report: &Mutex<PolicyShadow>) -> MutexGuard<'_, PolicyShadow> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
