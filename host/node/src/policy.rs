//! The policy workers: one thread for each kind of question, so that a slow answer of one kind holds up nothing else,
//! and never the driver. Plugins are compiled on a thread of the lowest priority before a worker swaps them in.

use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use overlan_contract::{Attributes, Kind};
use overlan_core::policy::{Answer, Question, Ticket};
use overlan_policy::{
    Assignment, BreakerConfig, BreakerState, Engine, EngineError, Failover, Limits, NoAnswer, Plugin, Policy,
    Sizing, Slot,
};
use overlan_wire::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Answered, Command};
use crate::journal::{self, JournalStatus, Recorder};

/// One kind of policy, as the control API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Which decision.
    pub kind: Kind,
    /// The active plugin: `builtin:NAME` or a file's name; `native` where the fallback answers.
    pub plugin: String,
    /// SHA-256 of the component; empty for the native fallback.
    pub sha256: String,
    /// What it was configured with.
    pub config: Attributes,
    /// The plugin that a rollback brings back.
    pub previous: Option<String>,
    /// `closed` (it is asked), `open` or `half-open` (it failed too often).
    pub breaker: String,
    /// Questions put to it.
    pub questions: u64,
    /// Valid answers.
    pub answers: u64,
    /// Failures of any sort.
    pub faults: u64,
    /// The last of them.
    pub last_fault: Option<String>,
    /// Microseconds that the last answer took.
    pub last_us: u64,
    /// The longest of them.
    pub max_us: u64,
    /// Units of fuel of the last answer, where the kind is metered.
    pub fuel: Option<u64>,
}

/// Why a policy was not changed. The active one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not shipped.
    #[error("no plugin `{0}` is shipped; `overlan policy list` names them")]
    UnknownBuiltin(String),
    /// The file won't do.
    #[error("{0}")]
    Load(String),
    /// There is nothing to go back to.
    #[error("there is no earlier {0} plugin to go back to")]
    NothingBefore(Kind),
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}

type Reply = oneshot::Sender<Result<PolicyStatus, PolicyError>>;

enum Work {
    Ask(Ticket, Question),
    /// A compiled plugin of the worker's kind.
    Swap(Loaded, Reply),
    Rollback(Reply),
    Unset(Reply),
}

struct Loaded {
    plugin: AnyPlugin,
    config: Attributes,
}

enum AnyPlugin {
    Assignment(Plugin<Assignment>),
    Sizing(Plugin<Sizing>),
    Failover(Plugin<Failover>),
}

/// How much a compilation may get in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// At the start, when everything waits for it.
    Normal,
    /// Beside running traffic: whatever processor time is left over.
    Background,
}

/// The three workers.
#[derive(Clone)]
pub(crate) struct Policies {
    engine: Engine,
    workers: [std_mpsc::Sender<Work>; 3],
    shown: Arc<Mutex<[PolicyStatus; 3]>>,
    journal: Option<Recorder>,
}

impl Policies {
    /// Starts the workers; no plugin is active, so the core's native fallbacks stand.
    pub(crate) fn start(
        answers: &mpsc::UnboundedSender<Answered>,
        commands: &mpsc::WeakSender<Command>,
        journal: Option<Recorder>,
    ) -> Result<Self, EngineError> {
        let shown = Arc::new(Mutex::new(Kind::ALL.map(native)));
        let workers = [
            worker::<Assignment>(answers, commands, &shown, &journal)?,
            worker::<Sizing>(answers, commands, &shown, &journal)?,
            worker::<Failover>(answers, commands, &shown, &journal)?,
        ];
        Ok(Policies { engine: Engine::new()?, workers, shown, journal })
    }

    fn worker(&self, kind: Kind) -> &std_mpsc::Sender<Work> {
        &self.workers[place(kind)]
    }

    /// Puts a question to the worker of its kind; never blocks. The core has few questions open at a time.
    pub(crate) fn ask(&self, ticket: Ticket, question: Question) {
        // A worker ends only with the node.
        let _ = self.worker(question.kind()).send(Work::Ask(ticket, question));
    }

    pub(crate) fn show(&self) -> Vec<PolicyStatus> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).to_vec()
    }

    /// What the journal took; `None` where none is kept.
    pub(crate) fn journal(&self) -> Option<JournalStatus> {
        self.journal.as_ref().map(Recorder::status)
    }

    /// Compiles a component and makes it active.
    pub(crate) async fn set(
        &self,
        kind: Kind,
        name: String,
        wasm: Vec<u8>,
        config: Attributes,
        priority: Priority,
    ) -> Result<PolicyStatus, PolicyError> {
        let (reply, answer) = oneshot::channel();
        let (engine, worker) = (self.engine.clone(), self.worker(kind).clone());
        let compile = move || {
            if priority == Priority::Background {
                // Linux gives each thread a priority of its own; where it refuses, compiling is merely less polite.
                let _ = rustix::process::setpriority_process(None, 19);
            }
            let loaded = match kind {
                Kind::Assignment => load(&engine, &name, &wasm, &config).map(AnyPlugin::Assignment),
                Kind::Sizing => load(&engine, &name, &wasm, &config).map(AnyPlugin::Sizing),
                Kind::Failover => load(&engine, &name, &wasm, &config).map(AnyPlugin::Failover),
            };
            match loaded {
                Ok(plugin) => drop(worker.send(Work::Swap(Loaded { plugin, config }, reply))),
                Err(error) => drop(reply.send(Err(error))),
            }
        };
        let spawned = thread::Builder::new().name("policy-compile".into()).stack_size(8 << 20).spawn(compile);
        spawned.map_err(|error| PolicyError::Load(format!("no thread to compile on: {error}")))?;
        answer.await.unwrap_or(Err(PolicyError::Stopped))
    }

    pub(crate) async fn rollback(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.change(kind, Work::Rollback).await
    }

    pub(crate) async fn unset(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.change(kind, Work::Unset).await
    }

    async fn change(&self, kind: Kind, work: fn(Reply) -> Work) -> Result<PolicyStatus, PolicyError> {
        let (reply, answer) = oneshot::channel();
        self.worker(kind).send(work(reply)).map_err(|_| PolicyError::Stopped)?;
        answer.await.unwrap_or(Err(PolicyError::Stopped))
    }
}

fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default()
}

fn native(kind: Kind) -> PolicyStatus {
    PolicyStatus {
        kind,
        plugin: "native".to_owned(),
        sha256: String::new(),
        config: Vec::new(),
        previous: None,
        breaker: "closed".to_owned(),
        questions: 0,
        answers: 0,
        faults: 0,
        last_fault: None,
        last_us: 0,
        max_us: 0,
        fuel: None,
    }
}

fn load<P: Policy>(
    engine: &Engine,
    name: &str,
    wasm: &[u8],
    config: &Attributes,
) -> Result<Plugin<P>, PolicyError> {
    Plugin::load(engine, name, wasm, config, Limits::default())
        .map_err(|error| PolicyError::Load(error.to_string()))
}

/// The digest that members compare: of the component and of its configuration.
fn digest(sha256: &str, config: &Attributes) -> Digest {
    let mut hash = Sha256::new();
    for text in
        [sha256].into_iter().chain(config.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))
    {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    Digest(hash.finalize().into())
}

/// A kind whose questions and answers the core knows.
trait Decision: Policy {
    fn ask(
        slot: &mut Slot<Self>,
        question: &Question,
        now: std::time::Duration,
    ) -> Option<Result<Answer, NoAnswer>>;
    fn plugin(plugin: AnyPlugin) -> Option<Plugin<Self>>;
}

macro_rules! decision {
    ($kind:ident) => {
        impl Decision for $kind {
            fn ask(
                slot: &mut Slot<Self>,
                question: &Question,
                now: std::time::Duration,
            ) -> Option<Result<Answer, NoAnswer>> {
                let Question::$kind(question) = question else { return None };
                Some(slot.ask(question, now).map(|answered| Answer::$kind(answered.answer)))
            }

            fn plugin(plugin: AnyPlugin) -> Option<Plugin<Self>> {
                match plugin {
                    AnyPlugin::$kind(plugin) => Some(plugin),
                    _ => None,
                }
            }
        }
    };
}

decision!(Assignment);
decision!(Sizing);
decision!(Failover);

struct Worker<P: Policy> {
    slot: Slot<P>,
    /// Of the active plugin and of the one before it.
    configs: [Attributes; 2],
    origin: Instant,
    shown: Arc<Mutex<[PolicyStatus; 3]>>,
    commands: mpsc::WeakSender<Command>,
    journal: Option<Recorder>,
}

fn worker<P: Decision>(
    answers: &mpsc::UnboundedSender<Answered>,
    commands: &mpsc::WeakSender<Command>,
    shown: &Arc<Mutex<[PolicyStatus; 3]>>,
    journal: &Option<Recorder>,
) -> std::io::Result<std_mpsc::Sender<Work>> {
    let (sender, receiver) = std_mpsc::channel();
    let mut worker = Worker::<P> {
        slot: Slot::new(BreakerConfig::default()),
        configs: Default::default(),
        origin: Instant::now(),
        shown: shown.clone(),
        commands: commands.clone(),
        journal: journal.clone(),
    };
    let answers = answers.clone();
    // Guests run on this thread's stack.
    thread::Builder::new().name(format!("policy-{}", P::KIND)).stack_size(4 << 20).spawn(move || {
        while let Ok(work) = receiver.recv() {
            match work {
                Work::Ask(ticket, question) => {
                    let Some(answer) = P::ask(&mut worker.slot, &question, worker.origin.elapsed()) else {
                        continue;
                    };
                    let outcome = worker.journal.is_some().then(|| answer.clone());
                    let answer = answer.map_err(|why| why.to_string());
                    worker.publish();
                    if answers.send((ticket, answer)).is_err() {
                        return;
                    }
                    // After the answer is on its way, so that it never waits for this.
                    if let Some(outcome) = outcome {
                        worker.write_down(question, outcome);
                    }
                }
                Work::Swap(loaded, reply) => {
                    if let Some(plugin) = P::plugin(loaded.plugin) {
                        worker.slot.swap(plugin);
                        worker.configs.rotate_right(1);
                        worker.configs[0] = loaded.config;
                    }
                    worker.announce(reply);
                }
                Work::Rollback(reply) => {
                    if worker.slot.rollback() {
                        worker.configs.rotate_right(1);
                        worker.announce(reply);
                    } else {
                        let _ = reply.send(Err(PolicyError::NothingBefore(P::KIND)));
                    }
                }
                Work::Unset(reply) => {
                    if worker.slot.unset().is_some() || worker.slot.active().is_none() {
                        worker.configs.rotate_right(1);
                        worker.configs[0] = Vec::new();
                    }
                    worker.announce(reply);
                }
            }
        }
    })?;
    Ok(sender)
}

impl<P: Policy> Worker<P> {
    /// Another plugin answers from now on.
    fn announce(&mut self, reply: Reply) {
        let status = self.publish();
        let digest = match self.slot.active() {
            Some(plugin) => digest(plugin.sha256(), &self.configs[0]),
            None => Digest::default(),
        };
        if let Some(commands) = self.commands.upgrade() {
            // Waits while the driver is busy; the driver never waits for this thread.
            let _ = commands.blocking_send(Command::PolicyChanged(P::KIND, digest));
        }
        tracing::info!(kind = %P::KIND, plugin = status.plugin, "policy");
        let _ = reply.send(Ok(status));
    }

    /// Puts a question and what the plugin made of it into the journal; nothing where it was not asked.
    fn write_down(&self, question: Question, outcome: Result<Answer, NoAnswer>) {
        let (Some(journal), Some(plugin)) = (&self.journal, self.slot.active()) else { return };
        let counters = self.slot.counters();
        let (outcome, elapsed, fuel) = match outcome {
            Ok(answer) => (Ok(answer), counters.last_elapsed, counters.last_fuel),
            Err(NoAnswer::Fault(fault)) => (Err(fault.to_string()), std::time::Duration::ZERO, None),
            Err(NoAnswer::Empty | NoAnswer::Open { .. }) => return,
        };
        let Some(exchange) = journal::exchange(question, outcome) else { return };
        journal.record(&overlan_journal::Record {
            unix_ms: journal::unix_ms(),
            plugin: plugin.name().to_owned(),
            sha256: plugin.sha256().to_owned(),
            config: self.configs[0].clone(),
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            fuel,
            exchange,
        });
    }

    fn publish(&self) -> PolicyStatus {
        let counters = self.slot.counters();
        let active = self.slot.active();
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let status = PolicyStatus {
            plugin: active.map_or("native", |plugin| plugin.name()).to_owned(),
            sha256: active.map_or("", |plugin| plugin.sha256()).to_owned(),
            config: self.configs[0].clone(),
            previous: self.slot.previous().map(|plugin| plugin.name().to_owned()),
            breaker: match self.slot.breaker() {
                BreakerState::Closed { .. } => "closed",
                BreakerState::Open { .. } => "open",
                BreakerState::HalfOpen { .. } => "half-open",
            }
            .to_owned(),
            questions: counters.questions,
            answers: counters.answers,
            faults: counters.fault_count(),
            last_fault: counters.last_fault.clone(),
            last_us: us(counters.last_elapsed),
            max_us: us(counters.max_elapsed),
            fuel: counters.last_fuel,
            ..native(P::KIND)
        };
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)[place(P::KIND)] = status.clone();
        status
    }
}
