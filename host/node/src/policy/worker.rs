//! The worker of one kind: the thread on which its plugins answer, and where they are exchanged between two questions.

use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use overlan_contract::Attributes;
use overlan_core::policy::{Question, Ticket};
use overlan_policy::{BreakerConfig, BreakerState, Slot};
use overlan_wire::Digest;
use tokio::sync::{mpsc, oneshot};

use super::decision::Decision;
use super::prepare::Loaded;
use super::status::{PolicyError, PolicyStatus};
use super::{Board, place};
use crate::driver::{Answered, Command};

pub(super) type Reply = oneshot::Sender<Result<PolicyStatus, PolicyError>>;

pub(super) enum Work {
    Ask(Ticket, Arc<Question>),
    /// A plugin of the worker's kind.
    Swap(Loaded, Reply),
    Rollback(Reply),
    Unset(Reply),
}

/// What is known of a plugin beside the plugin itself.
#[derive(Default)]
struct Facts {
    config: Attributes,
    digest: Digest,
}

struct Worker<P: Decision> {
    slot: Slot<P>,
    /// Of the active plugin and of the one before it.
    facts: [Facts; 2],
    origin: Instant,
    board: Arc<Board>,
    commands: mpsc::WeakSender<Command>,
    answers: mpsc::UnboundedSender<Answered>,
}

/// Starts the thread; it ends when the sender is gone.
pub(super) fn start<P: Decision>(
    answers: &mpsc::UnboundedSender<Answered>,
    commands: &mpsc::WeakSender<Command>,
    board: &Arc<Board>,
) -> std::io::Result<std_mpsc::Sender<Work>> {
    let (sender, receiver) = std_mpsc::channel();
    let mut worker = Worker::<P> {
        slot: Slot::new(BreakerConfig::default()),
        facts: Default::default(),
        origin: Instant::now(),
        board: board.clone(),
        commands: commands.clone(),
        answers: answers.clone(),
    };
    // Guests run on this thread's stack.
    thread::Builder::new().name(format!("policy-{}", P::KIND)).stack_size(4 << 20).spawn(move || {
        while let Ok(work) = receiver.recv() {
            match work {
                Work::Ask(ticket, question) => {
                    if !worker.answer(ticket, &question) {
                        return;
                    }
                }
                Work::Swap(loaded, reply) => {
                    if let Some(plugin) = P::unwrap(loaded.plugin) {
                        worker.slot.swap(plugin);
                        worker.facts.rotate_right(1);
                        worker.facts[0] = Facts { config: loaded.config, digest: loaded.digest };
                    }
                    worker.announce(reply);
                }
                Work::Rollback(reply) => {
                    if worker.slot.rollback() {
                        worker.facts.rotate_right(1);
                        worker.announce(reply);
                    } else {
                        let _ = reply.send(Err(PolicyError::NothingBefore(P::KIND)));
                    }
                }
                Work::Unset(reply) => {
                    if worker.slot.active().is_some() {
                        worker.slot.unset();
                        worker.facts.rotate_right(1);
                        worker.facts[0] = Facts::default();
                    }
                    worker.announce(reply);
                }
            }
        }
    })?;
    Ok(sender)
}

impl<P: Decision> Worker<P> {
    /// Where a question meets its answer; `false` when the node is gone.
    fn answer(&mut self, ticket: Ticket, question: &Question) -> bool {
        let Some(outcome) = P::ask(&mut self.slot, question, self.origin.elapsed()) else { return true };
        let answer = outcome.map(|answered| answered.answer).map_err(|why| why.to_string());
        self.publish();
        self.answers.send((ticket, answer)).is_ok()
    }

    /// Another plugin answers from now on.
    fn announce(&mut self, reply: Reply) {
        let status = self.publish();
        let digest = self.facts[0].digest;
        if let Some(commands) = self.commands.upgrade() {
            // Waits while the driver is busy; the driver never waits for this thread.
            let _ = commands.blocking_send(Command::PolicyChanged(P::KIND, digest));
        }
        tracing::info!(kind = %P::KIND, plugin = status.plugin, "policy");
        let _ = reply.send(Ok(status));
    }

    fn publish(&self) -> PolicyStatus {
        let counters = self.slot.counters();
        let active = self.slot.active();
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let status = PolicyStatus {
            kind: P::KIND,
            plugin: active.map_or("native", |plugin| plugin.name()).to_owned(),
            sha256: active.map_or("", |plugin| plugin.sha256()).to_owned(),
            config: self.facts[0].config.clone(),
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
        };
        self.board.shown.lock().unwrap_or_else(PoisonError::into_inner)[place(P::KIND)] = status.clone();
        status
    }
}
