//! Policy questions: asked by ticket, answered later, validated like network input.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_contract::{Kind, failover, sizing};
use overlan_wire::{Digest, NodeId, PathId};
use rand::Rng;

use super::Core;
use crate::crypto::Crypto;
use crate::event::Event;
use crate::peer::Surroundings;
use crate::policy::{Answer, Fault, Question, Ticket, fallback};
use crate::time::Instant;

/// Questions about one peer's paths come at most this often, unless a state changed.
const PAUSE: Duration = Duration::from_millis(200);

/// There is always room for so many questions.
const FEW_QUESTIONS: usize = 4;

/// What a ticket's answer is for.
#[derive(Debug)]
pub(super) enum Pending {
    Assignment { planner: u64 },
    Sizing { node: NodeId, path: PathId, question: Box<sizing::Question> },
    Failover { node: NodeId, paths: Vec<PathId>, question: failover::Question },
}

impl<C: Crypto> Core<C> {
    /// The next policy question.
    pub fn poll_question(&mut self) -> Option<(Ticket, Question)> {
        let next = self.questions.pop_front();
        if next.is_none() {
            // The room that many at once took is given back.
            self.questions.shrink_to(FEW_QUESTIONS);
        }
        next
    }

    /// Takes a policy's answer. Late or invalid ones are counted; what stands is the last good decision
    /// or the native fallback.
    pub fn handle_answer(&mut self, now: Instant, ticket: Ticket, answer: Result<Answer, Fault>) {
        self.now = now;
        let Some(pending) = self.pending.remove(&ticket) else { return };
        if answer.is_err() {
            self.counters.policy_faults += 1;
        }
        match pending {
            Pending::Assignment { planner } => {
                let answer = answer.and_then(|answer| match answer {
                    Answer::Assignment(answer) => Ok(answer),
                    Answer::Sizing(_) | Answer::Failover(_) => {
                        self.counters.policy_invalid += 1;
                        Err("the policy answered another kind of question".into())
                    }
                });
                // It checks the answer.
                let invalid = self.planner.counters().policy_invalid;
                self.planner.handle_answer(now, planner, answer);
                self.counters.policy_invalid += self.planner.counters().policy_invalid - invalid;
            }
            Pending::Sizing { node, path, question } => {
                if let Ok(Answer::Sizing(answer)) = answer {
                    if sizing::validate(&question, &answer).is_ok() {
                        if let Some(peer) = self.peers.get_mut(&node) {
                            peer.apply_sizing(path, answer);
                        }
                    } else {
                        self.counters.policy_invalid += 1;
                    }
                }
                self.touch(node);
            }
            Pending::Failover { node, paths, question } => {
                let answer = match answer {
                    Ok(Answer::Failover(answer)) if failover::validate(&question, &answer).is_ok() => {
                        Some(answer)
                    }
                    Ok(_) => {
                        self.counters.policy_invalid += 1;
                        None
                    }
                    Err(_) => None,
                };
                self.apply_failover(now, node, &paths, &question, answer);
            }
        }
        self.pump();
    }

    fn apply_failover(
        &mut self,
        now: Instant,
        node: NodeId,
        paths: &[PathId],
        question: &failover::Question,
        answer: Option<failover::Answer>,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let mut env = Surroundings {
            counters: &mut self.counters,
            events: &mut self.events,
            fates: &mut self.fates,
            outcome: &mut self.outcome,
        };
        // Without a good answer the last decision stands; paths that never had one have the fallback's.
        if let Some(answer) = answer {
            peer.decided = true;
            peer.apply_failover(now, paths, &answer, &mut env);
        } else if !peer.decided {
            peer.apply_failover(now, paths, &fallback::failover(question), &mut env);
        }
        peer.asked_failover = false;
        self.touch(node);
    }

    /// Another plugin (by the digest of its bytes and configuration) answers this kind from now on: all
    /// questions of the kind are asked again.
    pub fn handle_policy_change(&mut self, now: Instant, kind: Kind, digest: Digest) {
        self.now = now;
        self.plugin_digests[kind as usize] = digest;
        self.events.push_back(Event::Policy { kind, digest });
        if kind == Kind::Assignment {
            self.config.assignment_pending = false;
            self.facts_changed = true;
        }
        self.ask_paths(kind);
        self.pump();
    }

    /// A policy may answer again: what it gave no answer to is asked once more.
    pub fn ask_again(&mut self, now: Instant, kind: Kind) {
        self.now = now;
        if kind == Kind::Assignment {
            self.planner.ask_again(now);
        }
        self.ask_paths(kind);
        self.pump();
    }

    fn ask_paths(&mut self, kind: Kind) {
        for peer in self.peers.values_mut() {
            match kind {
                Kind::Assignment => {}
                Kind::Sizing => peer.ask_sizing = peer.paths.iter().map(|path| path.id).collect(),
                Kind::Failover => peer.ask_failover = true,
            }
        }
        self.to_schedule.extend(self.peers.keys());
    }

    /// The digest of the plugin that answers a kind.
    pub fn policy_digest(&self, kind: Kind) -> Digest {
        self.plugin_digests[kind as usize]
    }

    /// Whether the assignment policy is being made ready: see [`Config`](crate::Config::assignment_pending).
    pub fn set_assignment_pending(&mut self, now: Instant, pending: bool) {
        if core::mem::replace(&mut self.config.assignment_pending, pending) != pending {
            self.now = now;
            self.facts_changed = true;
            self.pump();
        }
    }

    /// Asks what changed facts call for.
    pub(super) fn pump_questions(&mut self) {
        while let Some((planner, question)) = self.planner.poll_question() {
            self.ask(Pending::Assignment { planner }, Question::Assignment(question));
        }
        // Among few, a policy has spoken of the paths before the first datagram.
        let probe_all = self.probe_all();
        let touched: Vec<NodeId> = self.to_schedule.iter().copied().collect();
        for node in touched {
            let met = probe_all || self.lived.contains(&node);
            // Of one that only an entry speaks of nothing is known that a policy could judge by.
            let Some(peer) = self.peers.get_mut(&node).filter(|peer| met || peer.is_open()) else { continue };
            let Some(entry) = self.table.entry(node) else { continue };
            let adapters = (&self.adapters[..], &entry.adapters[..]);
            let mut sizing = core::mem::take(&mut peer.ask_sizing);
            sizing.sort_unstable();
            sizing.dedup();
            let asked: Vec<_> = sizing
                .into_iter()
                .filter_map(|path| Some((path, peer.sizing_question(path, adapters)?)))
                .collect();
            let wants_failover = !peer.asked_failover && peer.wants_failover(self.now, PAUSE);
            let failover = wants_failover
                .then(|| peer.failover_question(self.now, self.rng.next_u64(), adapters))
                .flatten()
                .map(|question| (peer.paths.iter().map(|path| path.id).collect::<Vec<_>>(), question));
            peer.asked_failover |= failover.is_some();
            for (path, question) in asked {
                self.ask(
                    Pending::Sizing { node, path, question: Box::new(question.clone()) },
                    Question::Sizing(question),
                );
            }
            if let Some((paths, question)) = failover {
                let pending = Pending::Failover { node, paths, question: question.clone() };
                self.ask(pending, Question::Failover(question));
            }
        }
    }

    fn ask(&mut self, pending: Pending, question: Question) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.counters.policy_questions += 1;
        self.pending.insert(ticket, pending);
        self.questions.push_back((ticket, question));
    }
}
