//! The place of one kind of policy: the active plugin, the one before it, and what they did.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::breaker::{Breaker, BreakerConfig, BreakerState};
use crate::fault::{Fault, FaultKind};
use crate::kind::Policy;
use crate::plugin::{Answered, Plugin};

/// What happened since a plugin became active, or since the slot exists. Counts saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions put to a plugin.
    pub questions: u64,
    /// Valid answers.
    pub answers: u64,
    /// Questions not put, because the breaker was open, or nobody waited for the answer any more.
    pub skipped: u64,
    /// Faults by kind; absent kinds did not happen.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The last fault as a sentence.
    pub last_fault: Option<String>,
    /// Fuel of the last answer, where the kind is metered.
    pub last_fuel: Option<u64>,
    /// Time of the last answer.
    pub last_elapsed: Duration,
    /// Longest time of any answer.
    pub max_elapsed: Duration,
}

impl Counters {
    /// Faults of all kinds.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    fn record<A>(&mut self, outcome: &Result<Answered<A>, Fault>) {
        self.questions = self.questions.saturating_add(1);
        match outcome {
            Ok(answered) => {
                self.answers = self.answers.saturating_add(1);
                self.last_fuel = answered.fuel;
                self.last_elapsed = answered.elapsed;
                self.max_elapsed = self.max_elapsed.max(answered.elapsed);
            }
            Err(fault) => {
                let count = self.faults.entry(fault.kind()).or_default();
                *count = count.saturating_add(1);
                self.last_fault = Some(fault.to_string());
            }
        }
    }
}

/// Why a slot gave no answer. The last good decision or the native fallback of the kind stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No plugin is active.
    #[error("no plugin is active")]
    Empty,
    /// The plugin failed too often in a row and is not asked for a while.
    #[error("the policy failed too often and is not asked before {} ms", .retry_at.as_millis())]
    Open {
        /// When it is tried again, on the caller's clock.
        retry_at: Duration,
    },
    /// Whoever asked has given up waiting.
    #[error("the policy was busy until it was too late for an answer")]
    Late,
    /// The plugin failed this time.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The place of one kind of policy.
///
/// Swapping is a move of a pointer between two questions: compile and test a plugin elsewhere, then
/// [`swap`](Self::swap) it in. [`counters`](Self::counters) begin anew with each plugin, so that
/// whoever supervises it can judge its first answers and [`rollback`](Self::rollback).
pub struct Slot<P: Policy> {
    active: Option<Plugin<P>>,
    previous: Option<Plugin<P>>,
    breaker_config: BreakerConfig,
    breaker: Breaker,
    counters: Counters,
    totals: Counters,
}

impl<P: Policy> Slot<P> {
    /// An empty slot.
    pub fn new(breaker: BreakerConfig) -> Self {
        Self {
            active: None,
            previous: None,
            breaker_config: breaker,
            breaker: Breaker::new(breaker),
            counters: Counters::default(),
            totals: Counters::default(),
        }
    }

    /// The plugin that is asked.
    pub fn active(&self) -> Option<&Plugin<P>> {
        self.active.as_ref()
    }

    /// The plugin that [`rollback`](Self::rollback) would bring back.
    pub fn previous(&self) -> Option<&Plugin<P>> {
        self.previous.as_ref()
    }

    /// What the active plugin did since it became active.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What all plugins of this slot did.
    pub fn totals(&self) -> &Counters {
        &self.totals
    }

    /// Whether the active plugin is being asked.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Makes `plugin` active and keeps the one before it warm. Returns the one that fell out, so
    /// that the caller chooses where to pay for dropping it.
    pub fn swap(&mut self, plugin: Plugin<P>) -> Option<Plugin<P>> {
        self.install(Some(plugin))
    }

    /// Makes `plugin` active in place of one that is not worth to go back to, which it returns; the one before that
    /// stays the one before.
    pub fn replace(&mut self, plugin: Plugin<P>) -> Option<Plugin<P>> {
        let outgoing = self.active.take();
        self.install(Some(plugin));
        outgoing
    }

    /// Leaves the slot without an active plugin; the one that was is kept warm. Returns the one that
    /// fell out.
    pub fn unset(&mut self) -> Option<Plugin<P>> {
        if self.active.is_some() { self.install(None) } else { None }
    }

    /// Exchanges the active plugin and the one before it. `false` if there is none before it;
    /// nothing changes then.
    pub fn rollback(&mut self) -> bool {
        let Some(previous) = self.previous.take() else { return false };
        // The slot of `previous` was just emptied, so nothing falls out.
        self.install(Some(previous)).is_none()
    }

    /// Asks the active plugin. `now` is the caller's clock, from any fixed start, for the breaker.
    ///
    /// # Errors
    /// Why there is no answer; it is counted already.
    pub fn ask(&mut self, question: &P::Question, now: Duration) -> Result<Answered<P::Answer>, NoAnswer> {
        let plugin = self.active.as_mut().ok_or(NoAnswer::Empty)?;
        if let Err(retry_at) = self.breaker.handle_question(now) {
            skip([&mut self.counters, &mut self.totals]);
            return Err(NoAnswer::Open { retry_at });
        }
        let outcome = plugin.ask(question);
        match &outcome {
            Ok(_) => self.breaker.handle_answer(now),
            Err(_) => self.breaker.handle_fault(now),
        }
        self.counters.record(&outcome);
        self.totals.record(&outcome);
        Ok(outcome?)
    }

    /// Counts a question that came to its turn when nobody waited for the answer any more.
    pub fn pass_over(&mut self) -> NoAnswer {
        skip([&mut self.counters, &mut self.totals]);
        NoAnswer::Late
    }

    fn install(&mut self, plugin: Option<Plugin<P>>) -> Option<Plugin<P>> {
        let outgoing = std::mem::replace(&mut self.active, plugin);
        self.breaker = Breaker::new(self.breaker_config);
        self.counters = Counters::default();
        match outgoing {
            Some(outgoing) => self.previous.replace(outgoing),
            None => None,
        }
    }
}

fn skip(counters: [&mut Counters; 2]) {
    for counters in counters {
        counters.skipped = counters.skipped.saturating_add(1);
    }
}
