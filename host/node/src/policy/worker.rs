//! The worker of one kind: the thread on which its plugins answer, and where they are exchanged between two questions.

use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use overlan_contract::{Attributes, Kind};
use overlan_core::plan::ANSWER_DEADLINE;
use overlan_core::policy::{Answer, Question, Ticket};
use overlan_policy::{
    BreakerConfig, BreakerState, Fault, LineBudget, NoAnswer, Probation, ProbationConfig, Slot, Verdict,
};
use overlan_wire::Digest;
use tokio::sync::{mpsc, oneshot};

use super::decision::Decision;
use super::prepare::Loaded;
use super::shadow::{Observation, Tap};
use super::status::{PolicyError, PolicyStatus, ProbationStatus, breaker_name, totals};
use super::{Board, place};
use crate::driver::{Answered, Command};
use crate::journal;

/// The board is told when there is nothing to answer, and at least this often.
const STALE: Duration = Duration::from_millis(100);

pub(super) type Reply = oneshot::Sender<Result<PolicyStatus, PolicyError>>;

pub(super) enum Work {
    /// A question, and when it was put.
    Ask(Ticket, Arc<Question>, Instant),
    /// A plugin of the worker's kind, and whether it is on probation.
    Swap(Box<Loaded>, Option<ProbationConfig>, Reply),
    Rollback(Reply),
    Unset(Reply),
    /// Questions and answers go there, too; `None`: no more.
    Shadow(Option<Tap>),
}

/// What is known of a plugin beside the plugin itself.
#[derive(Default)]
struct Facts {
    config: Attributes,
    digest: Digest,
}

/// A new plugin's probation, and what comes back if it fails: the plugin before it, or the native fallback.
struct OnProbation {
    probation: Probation,
    replaced_native: bool,
}

/// When what a plugin did not answer is asked again.
struct Again {
    at: Option<Duration>,
    /// When something was not answered last.
    failed: Duration,
    /// From a failure until then, doubled each time: some questions a plugin may never answer.
    pause: Duration,
}

impl Again {
    fn new(at: Option<Duration>, breaker: BreakerConfig) -> Self {
        Again { at, failed: Duration::ZERO, pause: breaker.first_backoff }
    }
}

struct Worker<P: Decision> {
    slot: Slot<P>,
    breaker: BreakerConfig,
    again: Again,
    /// Of the active plugin and of the one before it.
    facts: [Facts; 2],
    probation: Option<OnProbation>,
    shadow: Option<Tap>,
    /// What is told of failing and answering again.
    lines: LineBudget,
    /// How often a plugin failed its probation; the last time in a sentence, and which it was.
    rollbacks: u64,
    last_rollback: Option<(String, Digest)>,
    origin: Instant,
    /// Something happened since the board was last told, which was then.
    news: bool,
    published: Instant,
    board: Arc<Board>,
    commands: mpsc::WeakSender<Command>,
    answers: mpsc::UnboundedSender<Answered>,
}

/// Starts the thread; it ends when the sender is gone.
pub(super) fn start<P: Decision>(
    answers: &mpsc::UnboundedSender<Answered>,
    commands: &mpsc::WeakSender<Command>,
    board: &Arc<Board>,
    breaker: BreakerConfig,
) -> std::io::Result<std_mpsc::Sender<Work>> {
    let (sender, receiver) = std_mpsc::channel();
    let mut worker = Worker::<P> {
        slot: Slot::new(breaker),
        breaker,
        again: Again::new(None, breaker),
        facts: Default::default(),
        probation: None,
        shadow: None,
        lines: LineBudget::default(),
        rollbacks: 0,
        last_rollback: None,
        origin: Instant::now(),
        news: false,
        published: Instant::now(),
        board: board.clone(),
        commands: commands.clone(),
        answers: answers.clone(),
    };
    // Guests run on this thread's stack.
    thread::Builder::new().name(format!("policy-{}", P::KIND)).stack_size(4 << 20).spawn(move || {
        loop {
            let work = match receiver.try_recv() {
                Ok(work) => work,
                Err(_) => {
                    worker.publish_news();
                    match worker.wait(&receiver) {
                        Ok(work) => work,
                        Err(RecvTimeoutError::Timeout) => {
                            worker.ask_again();
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            match work {
                Work::Ask(ticket, question, asked) => {
                    if !worker.answer(ticket, question, asked) {
                        return;
                    }
                }
                Work::Swap(loaded, probation, reply) => {
                    worker.swap(*loaded, probation);
                    let _ = reply.send(Ok(worker.announce()));
                }
                Work::Rollback(reply) => {
                    let _ = reply.send(if worker.rollback() {
                        Ok(worker.announce())
                    } else {
                        Err(PolicyError::NothingBefore(P::KIND))
                    });
                }
                Work::Unset(reply) => {
                    worker.unset();
                    let _ = reply.send(Ok(worker.announce()));
                }
                Work::Shadow(tap) => worker.shadow = tap,
            }
        }
    })?;
    Ok(sender)
}

/// Times in a minute that a plugin is told to fail or to answer again: one that does so in turns must not fill the log.
const MAX_CHANGES: u32 = 16;

/// What became of a plugin by a question.
#[derive(Debug, PartialEq)]
enum Change<'a> {
    /// It gave an answer to the question before, and none to this.
    Fails(&'a Fault),
    /// It failed once too often.
    Opens(&'a Fault, Duration),
    /// It failed before.
    Answers,
}

fn change<A>(before: BreakerState, after: BreakerState, outcome: &Result<A, NoAnswer>) -> Option<Change<'_>> {
    let answered = matches!(before, BreakerState::Closed { faults: 0 });
    match (outcome, after) {
        (Err(NoAnswer::Fault(why)), BreakerState::Open { backoff, .. }) => Some(Change::Opens(why, backoff)),
        (Err(NoAnswer::Fault(why)), _) if answered => Some(Change::Fails(why)),
        (Ok(_), _) if !answered => Some(Change::Answers),
        _ => None,
    }
}

impl<P: Decision> Worker<P> {
    /// Where a question meets its answer; `false` when the node is gone.
    fn answer(&mut self, ticket: Ticket, question: Arc<Question>, asked: Instant) -> bool {
        let breaker = self.slot.breaker();
        let outcome = if P::KIND == Kind::Assignment && asked.elapsed() >= ANSWER_DEADLINE {
            Err(self.slot.pass_over())
        } else {
            let outcome = P::ask(&mut self.slot, &question, self.origin.elapsed());
            let Some(outcome) = outcome else { return true };
            outcome
        };
        self.log(breaker, &outcome);
        self.note_unanswered(breaker, &outcome);
        let failed = self.judge(&outcome);
        self.news = true;
        if self.published.elapsed() >= STALE {
            self.publish_news();
        }
        if let Some(shadow) = &self.shadow {
            shadow
                .observe(Observation { question: question.clone(), answer: outcome.as_ref().ok().cloned() });
        }
        let record = self.board.journal.is_some().then(|| outcome.clone());
        let answer = outcome.map(|answered| answered.answer).map_err(|why| why.to_string());
        let heard = self.answers.send((ticket, answer)).is_ok();
        // After the answer is on its way, so that it never waits for this.
        if let Some(outcome) = record {
            self.write_down(question, outcome);
        }
        if let Some(why) = failed {
            self.back_out(&why);
        }
        heard
    }

    /// Waits for work, or until it is time to ask again.
    fn wait(&self, work: &std_mpsc::Receiver<Work>) -> Result<Work, RecvTimeoutError> {
        match self.again.at {
            Some(at) => work.recv_timeout(at.saturating_sub(self.origin.elapsed())),
            None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn note_unanswered<A>(&mut self, before: BreakerState, outcome: &Result<A, NoAnswer>) {
        match outcome {
            // It works again, and was not asked meanwhile.
            Ok(_) if !matches!(before, BreakerState::Closed { .. }) => {
                self.again = Again::new(Some(self.origin.elapsed()), self.breaker);
            }
            Err(NoAnswer::Fault(_) | NoAnswer::Late | NoAnswer::Open { .. }) if self.again.at.is_none() => {
                let now = self.origin.elapsed();
                // After a long while without it is another cause.
                if now.saturating_sub(self.again.failed) > 4 * self.again.pause {
                    self.again.pause = self.breaker.first_backoff;
                }
                self.again.failed = now;
                let opens = match self.slot.breaker() {
                    BreakerState::Open { retry_at, .. } => retry_at,
                    BreakerState::Closed { .. } | BreakerState::HalfOpen { .. } => now,
                };
                self.again.at = Some(opens.max(now + self.again.pause));
                self.again.pause = (2 * self.again.pause).min(self.breaker.max_backoff);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn ask_again(&mut self) {
        self.again.at = None;
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.blocking_send(Command::AskAgain(P::KIND));
        }
    }

    /// Puts a question and what the plugin made of it into the journal; nothing where it was not asked.
    fn write_down(
        &self,
        question: Arc<Question>,
        outcome: Result<overlan_policy::Answered<Answer>, NoAnswer>,
    ) {
        let (Some(journal), Some(plugin)) = (&self.board.journal, self.slot.active()) else { return };
        let (outcome, elapsed, fuel) = match outcome {
            Ok(answered) => (Ok(answered.answer), answered.elapsed, answered.fuel),
            Err(NoAnswer::Fault(fault)) => (Err(fault.to_string()), Duration::ZERO, None),
            Err(NoAnswer::Empty | NoAnswer::Late | NoAnswer::Open { .. }) => return,
        };
        let Some(exchange) = journal::exchange(Arc::unwrap_or_clone(question), outcome) else { return };
        journal.record(&overlan_journal::Record {
            unix_ms: journal::unix_ms(),
            plugin: plugin.name().to_owned(),
            sha256: plugin.sha256().to_owned(),
            config: self.facts[0].config.clone(),
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            fuel,
            exchange,
            limits: plugin.limits().semantics().into_iter().map(|(name, of)| (name.to_owned(), of)).collect(),
            fresh: plugin.was_fresh(),
        });
    }

    /// Tells when a plugin begins to fail, when its breaker opens, and when it answers again, [`MAX_CHANGES`] a minute;
    /// everything else is counted.
    fn log<A>(&mut self, before: BreakerState, outcome: &Result<A, NoAnswer>) {
        let plugin = self.slot.active().map_or("native", |plugin| plugin.name());
        if let Some(change) = change(before, self.slot.breaker(), outcome)
            && self.lines.take(Instant::now(), MAX_CHANGES)
        {
            match change {
                Change::Fails(why) => {
                    tracing::warn!(kind = %P::KIND, plugin, %why, "the policy failed; its last good decision stands");
                }
                Change::Opens(why, backoff) => tracing::warn!(kind = %P::KIND, plugin, %why, ?backoff,
                    "the policy keeps failing and is not asked for a while; its last good decisions stand"),
                Change::Answers => tracing::info!(kind = %P::KIND, plugin, "the policy answers again"),
            }
        }
        if let Some(left_out) = self.lines.handle_end(Instant::now) {
            tracing::warn!(kind = %P::KIND, plugin, left_out, "the policy fails and answers in turns; not all was told");
        }
    }

    /// Why the active plugin failed its probation, if it did.
    fn judge<A>(&mut self, outcome: &Result<A, NoAnswer>) -> Option<String> {
        let probation = &mut self.probation.as_mut()?.probation;
        let fault = match outcome {
            Ok(_) => None,
            Err(NoAnswer::Fault(fault)) => Some(fault),
            Err(NoAnswer::Empty | NoAnswer::Late | NoAnswer::Open { .. }) => return None,
        };
        let open = matches!(self.slot.breaker(), BreakerState::Open { .. });
        match probation.handle_outcome(fault.is_none(), open, self.origin.elapsed()) {
            Verdict::OnProbation => None,
            Verdict::Passed => {
                self.probation = None;
                let plugin = self.slot.active().map_or("native", |plugin| plugin.name());
                tracing::info!(kind = %P::KIND, plugin, "the policy passed its probation");
                None
            }
            Verdict::Failed => fault.map(ToString::to_string),
        }
    }

    fn swap(&mut self, loaded: Loaded, probation: Option<ProbationConfig>) {
        let Some(plugin) = P::unwrap(loaded.plugin) else { return };
        let facts = Facts { config: loaded.config, digest: loaded.digest };
        // One whose own probation is not over is nothing to go back to.
        let now = self.origin.elapsed();
        let unproven = self.probation.take().filter(|on| now < on.probation.ends());
        let replaced_native =
            unproven.as_ref().map_or(self.slot.active().is_none(), |unproven| unproven.replaced_native);
        if unproven.is_some() {
            self.slot.replace(plugin);
            self.facts[0] = facts;
        } else {
            self.slot.swap(plugin);
            self.facts.rotate_right(1);
            self.facts[0] = facts;
        }
        self.probation =
            probation.map(|config| OnProbation { probation: Probation::new(config, now), replaced_native });
    }

    /// `false`: there is no plugin before this one.
    fn rollback(&mut self) -> bool {
        let done = self.slot.rollback();
        if done {
            self.probation = None;
            self.facts.rotate_right(1);
        }
        done
    }

    fn unset(&mut self) {
        self.probation = None;
        if self.slot.active().is_some() {
            self.slot.unset();
            self.facts.rotate_right(1);
            self.facts[0] = Facts::default();
        }
    }

    /// Brings back what answered before the plugin that failed its probation.
    fn back_out(&mut self, why: &str) {
        let failed = self.slot.active().map_or("native", |plugin| plugin.name()).to_owned();
        let digest = self.facts[0].digest;
        let native = self.probation.take().is_some_and(|on| on.replaced_native);
        if native || !self.rollback() {
            self.unset();
        }
        let plugin = self.slot.active().map_or("native", |plugin| plugin.name());
        tracing::warn!(kind = %P::KIND, failed, plugin, why, "a new policy failed its probation and was rolled back");
        self.rollbacks = self.rollbacks.saturating_add(1);
        self.last_rollback = Some((format!("{failed} gave way: {why}"), digest));
        self.announce();
    }

    /// Another plugin answers from now on.
    fn announce(&mut self) -> PolicyStatus {
        // All is asked of it anew.
        self.again = Again::new(None, self.breaker);
        let status = self.publish();
        if let Some(commands) = self.commands.upgrade() {
            // Waits while the driver is busy; the driver never waits for this thread.
            let _ = commands.blocking_send(Command::PolicyChanged(P::KIND, self.facts[0].digest));
        }
        tracing::info!(kind = %P::KIND, plugin = status.plugin, "policy");
        status
    }

    fn publish_news(&mut self) {
        if self.news {
            self.publish();
        }
    }

    fn publish(&mut self) -> PolicyStatus {
        (self.news, self.published) = (false, Instant::now());
        let counters = self.slot.counters();
        let active = self.slot.active();
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let limits = active.map(|plugin| plugin.usage()).unwrap_or_default();
        let status = PolicyStatus {
            kind: P::KIND,
            plugin: active.map_or("native", |plugin| plugin.name()).to_owned(),
            sha256: active.map_or("", |plugin| plugin.sha256()).to_owned(),
            config: self.facts[0].config.clone(),
            digest: active.map_or_else(String::new, |_| self.facts[0].digest.to_string()),
            previous: self.slot.previous().map(|plugin| plugin.name().to_owned()),
            breaker: breaker_name(self.slot.breaker()).to_owned(),
            questions: counters.questions,
            answers: counters.answers,
            faults: counters.fault_count(),
            last_fault: counters.last_fault.clone(),
            last_us: us(counters.last_elapsed),
            max_us: us(counters.max_elapsed),
            fuel: counters.last_fuel,
            probation: self
                .probation
                .as_ref()
                .map(|on| ProbationStatus::new(&on.probation, on.replaced_native, self.origin)),
            rollbacks: self.rollbacks,
            last_rollback: self.last_rollback.as_ref().map(|(why, _)| why.clone()),
            last_rollback_digest: self.last_rollback.as_ref().map(|(_, digest)| digest.to_string()),
            totals: totals(self.slot.totals()),
            limits: limits.into_iter().map(|(name, of)| (name.to_owned(), of)).collect(),
        };
        self.board.shown.lock().unwrap_or_else(PoisonError::into_inner)[place(P::KIND)] = status.clone();
        status
    }
}

#[cfg(test)]
mod tests {
    use overlan_contract::assignment;
    use overlan_policy::Assignment;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn failing_is_told_again_after_each_answer() {
        let closed = |faults| BreakerState::Closed { faults };
        let (fault, backoff) = (Fault::Refused("no".into()), Duration::from_secs(1));
        let open = BreakerState::Open { retry_at: backoff, backoff };
        let failed: Result<(), _> = Err(NoAnswer::Fault(fault.clone()));
        for (before, after, outcome, told) in [
            (closed(0), closed(0), Ok(()), None),
            (closed(0), closed(1), failed.clone(), Some(Change::Fails(&fault))),
            (closed(1), closed(2), failed.clone(), None),
            (closed(2), closed(0), Ok(()), Some(Change::Answers)),
            (closed(0), closed(1), failed.clone(), Some(Change::Fails(&fault))),
            (closed(2), open, failed.clone(), Some(Change::Opens(&fault, backoff))),
            (open, open, Err(NoAnswer::Open { retry_at: backoff }), None),
            (open, open, failed, Some(Change::Opens(&fault, backoff))),
            (open, closed(0), Ok(()), Some(Change::Answers)),
        ] {
            assert_eq!(change(before, after, &outcome), told, "{before:?} {after:?}");
        }
    }

    /// The core does not wait for an answer any more, so the plugin's time goes to the next question.
    #[test]
    fn a_question_that_waited_too_long_is_not_put() {
        let board = Arc::new(Board {
            shown: std::sync::Mutex::new(Kind::ALL.map(PolicyStatus::native)),
            journal: None,
        });
        let (answers, mut answered) = unbounded_channel();
        let (commands, _commands) = mpsc::channel(1);
        let worker =
            start::<Assignment>(&answers, &commands.downgrade(), &board, BreakerConfig::default()).unwrap();
        let question = Arc::new(Question::Assignment(assignment::Question::default()));
        let now = Instant::now();
        for (ticket, asked) in [(1, now.checked_sub(ANSWER_DEADLINE).unwrap()), (2, now)] {
            worker.send(Work::Ask(Ticket(ticket), question.clone(), asked)).unwrap();
        }
        let mut said =
            || answered.blocking_recv().map(|(ticket, answer)| (ticket, answer.unwrap_err())).unwrap();
        assert_eq!(said(), (Ticket(1), NoAnswer::Late.to_string()));
        assert_eq!(said(), (Ticket(2), NoAnswer::Empty.to_string()));
        let skipped = || board.shown.lock().unwrap()[place(Kind::Assignment)].totals.skipped;
        while skipped() == 0 && now.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        assert_eq!(skipped(), 1);
    }
}
