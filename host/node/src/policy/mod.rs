//! The policy workers: one thread for each kind of question, so that a slow answer of one kind holds up nothing else,
//! and never the driver. A plugin is compiled on a thread of the lowest priority, and tested on one of normal priority,
//! before a worker swaps it in.
//!
//! Reading order: [`status`] (what is told), [`prepare`] (a plugin made ready), [`worker`] (where it answers),
//! [`shadow`] (one that answers beside it) and [`compare`], `decision` (between the kinds as types and as values).

mod compare;
mod decision;
mod prepare;
mod shadow;
mod status;
mod worker;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use overlan_contract::Kind;
use overlan_core::document;
use overlan_core::plan::ANSWER_DEADLINE;
use overlan_core::policy::{Question, Ticket};
use overlan_policy::{
    AotCache, Assignment, BreakerConfig, Engine, EngineError, Failover, Limits, ProbationConfig, Sizing,
};
use overlan_wire::Digest;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub use compare::{Change, Changes, Compare, Difference, Pair, PlanComparison};
use prepare::Preparation;
pub(crate) use prepare::{Candidate, Prepared, Priority};
pub use shadow::PolicyShadow;
use shadow::Shadow;
pub use status::{PolicyError, PolicyStatus, PolicyTotals, ProbationStatus};
use worker::{Reply, Work};

use crate::config::PolicyChoice;
use crate::driver::{Answered, Command};
use crate::journal::{JournalStatus, Recorder};

/// Plugins compiled at a time, also those that were given up: one of each kind.
const MAX_COMPILATIONS: usize = 3;

/// What the workers share: what they show to everybody, and the journal.
struct Board {
    shown: Mutex<[PolicyStatus; 3]>,
    journal: Option<Recorder>,
}

/// What is configured for a kind, whichever plugin answers it.
#[derive(Default)]
struct Settings {
    limits: Limits,
    probation: ProbationConfig,
    breaker: BreakerConfig,
}

/// The latest questions of each kind, oldest first: what a new plugin is tested on.
#[derive(Default)]
struct Recent([VecDeque<Arc<Question>>; 3]);

impl Recent {
    /// An assignment question is the whole cluster; the others are one peer, or one path of one.
    fn capacity(kind: Kind) -> usize {
        match kind {
            Kind::Assignment => 2,
            Kind::Sizing | Kind::Failover => 16,
        }
    }

    fn push(&mut self, question: Arc<Question>) {
        let kind = question.kind();
        let recent = &mut self.0[place(kind)];
        if recent.len() == Self::capacity(kind) {
            recent.pop_front();
        }
        recent.push_back(question);
    }
}

/// The three workers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Policies {
    engine: Engine,
    workers: [std_mpsc::Sender<Work>; 3],
    board: Arc<Board>,
    settings: Arc<[Settings; 3]>,
    recent: Arc<Mutex<Recent>>,
    shadows: Arc<Mutex<[Option<Shadow>; 3]>>,
    compilations: Arc<Semaphore>,
}

impl Policies {
    /// Starts the workers; no plugin is active, so the core's native fallbacks stand.
    pub(crate) fn start(
        choices: &[PolicyChoice],
        aot_dir: &Path,
        answers: &mpsc::UnboundedSender<Answered>,
        commands: &mpsc::WeakSender<Command>,
        journal: Option<Recorder>,
    ) -> Result<Self, EngineError> {
        let board = Arc::new(Board { shown: Mutex::new(Kind::ALL.map(PolicyStatus::native)), journal });
        let settings = Kind::ALL.map(|kind| {
            let choice = choices.iter().find(|choice| choice.kind == kind);
            let of = |choice: &PolicyChoice| Settings {
                limits: choice.limits.clone(),
                probation: choice.probation,
                breaker: choice.breaker,
            };
            choice.map(of).unwrap_or_default()
        });
        let breaker = |kind| settings[place(kind)].breaker;
        let workers = [
            worker::start::<Assignment>(answers, commands, &board, breaker(Kind::Assignment))?,
            worker::start::<Sizing>(answers, commands, &board, breaker(Kind::Sizing))?,
            worker::start::<Failover>(answers, commands, &board, breaker(Kind::Failover))?,
        ];
        Ok(Policies {
            engine: engine(aot_dir)?,
            workers,
            board,
            settings: Arc::new(settings),
            recent: Arc::default(),
            shadows: Arc::default(),
            compilations: Arc::new(Semaphore::new(MAX_COMPILATIONS)),
        })
    }

    fn worker(&self, kind: Kind) -> &std_mpsc::Sender<Work> {
        &self.workers[place(kind)]
    }

    /// Puts a question to the worker of its kind; never blocks. The core has few questions open at a time.
    pub(crate) fn ask(&self, ticket: Ticket, question: Question) {
        let question = Arc::new(question);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
        // A worker ends only with the node.
        let _ = self.worker(question.kind()).send(Work::Ask(ticket, question, Instant::now()));
    }

    /// What the journal took; `None` where none is kept.
    pub(crate) fn journal(&self) -> Option<JournalStatus> {
        self.board.journal.as_ref().map(Recorder::status)
    }

    pub(crate) fn show(&self) -> Vec<PolicyStatus> {
        let mut shown = self.board.shown.lock().unwrap_or_else(PoisonError::into_inner).to_vec();
        for probation in shown.iter_mut().filter_map(|status| status.probation.as_mut()) {
            *probation = probation.now();
        }
        shown
    }

    /// What [`Prepared::digest`] will be of a policy of the cluster document.
    pub(crate) fn digest(&self, policy: &document::PolicyChoice) -> Digest {
        let limits = &self.settings[place(policy.kind)].limits;
        prepare::digest(policy.kind, &policy.sha256.to_string(), &policy.config, limits)
    }

    /// Compiles a plugin and tests it on what this node was asked lately. Nothing changes before
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) async fn prepare(
        &self,
        candidate: Candidate,
        priority: Priority,
    ) -> Result<Prepared, PolicyError> {
        let settings = &self.settings[place(candidate.kind)];
        let mut limits = settings.limits.clone();
        for (name, value) in &candidate.limits {
            limits.set(name, *value)?;
        }
        // A plan that is later comes to nothing, so it is a fault of the plugin: in the self-test, in its probation and
        // for the breaker.
        limits.assignment_deadline = limits.assignment_deadline.min(ANSWER_DEADLINE);
        let permit = timeout(limits.compile_deadline, self.compilations.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| PolicyError::Busy)?.map_err(|_| PolicyError::Stopped)?;
        let questions = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.0[place(candidate.kind)].iter().cloned().collect()
        };
        let engine = self.engine.clone();
        let preparation = Preparation { engine, candidate, limits, questions, priority, permit };
        let mut prepared = preparation.run().await?;
        // At the start nothing better stands behind it.
        prepared.probation = (priority != Priority::Start).then_some(settings.probation);
        Ok(prepared)
    }

    /// Makes a prepared plugin the active one, between two questions; the one before it stays warm.
    ///
    /// # Errors
    /// The node has stopped.
    pub(crate) async fn commit(&self, prepared: Prepared) -> Result<PolicyStatus, PolicyError> {
        self.change(prepared.kind, |reply| Work::Swap(Box::new(prepared.loaded), prepared.probation, reply))
            .await
    }

    /// Prepares and commits.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare) and [`commit`](Self::commit).
    pub(crate) async fn set(
        &self,
        candidate: Candidate,
        priority: Priority,
    ) -> Result<PolicyStatus, PolicyError> {
        let prepared = self.prepare(candidate, priority).await?;
        self.commit(prepared).await
    }

    pub(crate) async fn rollback(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.change(kind, Work::Rollback).await
    }

    pub(crate) async fn unset(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.change(kind, Work::Unset).await
    }

    /// Lets a plugin answer beside the active one, instead of the one that did so before; its report begins anew.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub(crate) async fn shadow(&self, candidate: Candidate) -> Result<PolicyShadow, PolicyError> {
        let prepared = self.prepare(candidate, Priority::Background).await?;
        let no_thread = |error| PolicyError::Host(format!("no thread for the shadow: {error}"));
        let (tap, shadow) = shadow::start(prepared.loaded).map_err(no_thread)?;
        let status = shadow.status();
        // Under the lock, so that what is shown is what is asked.
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        self.worker(prepared.kind).send(Work::Shadow(Some(tap))).map_err(|_| PolicyError::Stopped)?;
        shadows[place(prepared.kind)] = Some(shadow);
        tracing::info!(kind = %prepared.kind, plugin = status.plugin, "a shadow begins");
        Ok(status)
    }

    pub(crate) fn show_shadow(&self, kind: Kind) -> Option<PolicyShadow> {
        let shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        shadows[place(kind)].as_ref().map(Shadow::status)
    }

    /// Ends a shadow; what it showed to the end.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn stop_shadow(&self, kind: Kind) -> Result<PolicyShadow, PolicyError> {
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        let shadow = shadows[place(kind)].take().ok_or(PolicyError::NoShadow(kind))?;
        self.worker(kind).send(Work::Shadow(None)).map_err(|_| PolicyError::Stopped)?;
        Ok(shadow.status())
    }

    async fn change(
        &self,
        kind: Kind,
        work: impl FnOnce(Reply) -> Work,
    ) -> Result<PolicyStatus, PolicyError> {
        let (reply, answer) = oneshot::channel();
        self.worker(kind).send(work(reply)).map_err(|_| PolicyError::Stopped)?;
        answer.await.unwrap_or(Err(PolicyError::Stopped))
    }
}

/// With a cache of compiled plugins, where the folder can be used.
fn engine(aot_dir: &Path) -> Result<Engine, EngineError> {
    match AotCache::open(aot_dir) {
        Ok(cache) => Engine::with_cache(cache),
        Err(error) => {
            tracing::warn!(%error, "policies are compiled at each start");
            Engine::new()
        }
    }
}

fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default()
}
