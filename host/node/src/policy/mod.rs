//! The policy workers: one thread for each kind of question, so that a slow answer of one kind holds up nothing else,
//! and never the driver. A plugin is compiled and tested on a thread of the lowest priority before a worker swaps it in.
//!
//! Reading order: [`status`] (what is told), [`prepare`] (a plugin made ready), [`worker`] (where it answers),
//! `decision` (between the kinds as types and as values).

mod decision;
mod prepare;
mod status;
mod worker;

use std::collections::VecDeque;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use overlan_contract::Kind;
use overlan_core::policy::{Question, Ticket};
use overlan_policy::{Assignment, Engine, EngineError, Failover, Limits, Sizing};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use prepare::{Candidate, Prepared, Priority};
pub use status::{PolicyError, PolicyStatus};
use worker::{Reply, Work};

use crate::driver::{Answered, Command};

/// Plugins compiled at a time, also those that were given up: one of each kind.
const MAX_COMPILATIONS: usize = 3;

/// What the workers show to everybody.
struct Board {
    shown: Mutex<[PolicyStatus; 3]>,
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
    recent: Arc<Mutex<Recent>>,
    compilations: Arc<Semaphore>,
}

impl Policies {
    /// Starts the workers; no plugin is active, so the core's native fallbacks stand.
    pub(crate) fn start(
        answers: &mpsc::UnboundedSender<Answered>,
        commands: &mpsc::WeakSender<Command>,
    ) -> Result<Self, EngineError> {
        let board = Arc::new(Board { shown: Mutex::new(Kind::ALL.map(PolicyStatus::native)) });
        let workers = [
            worker::start::<Assignment>(answers, commands, &board)?,
            worker::start::<Sizing>(answers, commands, &board)?,
            worker::start::<Failover>(answers, commands, &board)?,
        ];
        Ok(Policies {
            engine: Engine::new()?,
            workers,
            board,
            recent: Arc::default(),
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
        let _ = self.worker(question.kind()).send(Work::Ask(ticket, question));
    }

    pub(crate) fn show(&self) -> Vec<PolicyStatus> {
        self.board.shown.lock().unwrap_or_else(PoisonError::into_inner).to_vec()
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
        let limits = Limits::default();
        let permit = timeout(limits.compile_deadline, self.compilations.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| PolicyError::Busy)?.map_err(|_| PolicyError::Stopped)?;
        let questions = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.0[place(candidate.kind)].iter().cloned().collect()
        };
        prepare::prepare(self.engine.clone(), candidate, limits, questions, priority, permit).await
    }

    /// Makes a prepared plugin the active one, between two questions; the one before it stays warm.
    ///
    /// # Errors
    /// The node has stopped.
    pub(crate) async fn commit(&self, prepared: Prepared) -> Result<PolicyStatus, PolicyError> {
        self.change(prepared.kind, |reply| Work::Swap(prepared.loaded, reply)).await
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

fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default()
}
