//! A member's half: putting plans in force, checking them with the own policy, reporting.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use overlan_contract::assignment::{self, Answer, Question, Responsibility};
use overlan_wire::{BootId, Digest, DocumentId, NodeId};

use super::question::{Packed, document_digest, plan_digest};
use super::wire::{Opinion, Proposal, Vote};
use super::{ANSWER_DEADLINE, MAX_HELD, NUDGE, NUDGE_MAX, OVERLOOKED_WAIT, PENDING, Planner};
use crate::status::Ownership;
use crate::time::Instant;

/// The plan in force, and what this member makes of it.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) proposal: Proposal,
    /// As it came, to be passed on.
    pub(super) bytes: Vec<u8>,
    /// Who gave it.
    pub(super) via: NodeId,
    pub(super) digest: Digest,
    /// Digest of the responsibilities, where no cluster document names them.
    pub(super) duties: Option<Digest>,
    places: BTreeMap<String, usize>,
    /// The question, as soon as this member's table lets it be rebuilt.
    pub(super) question: Option<Packed<Question>>,
    pub(super) opinion: Opinion,
    /// The plugin that was asked for `opinion`.
    pub(super) asked_plugin: Option<Digest>,
    asking: Option<(u64, Instant)>,
}

/// A proposal that is not in force, as it came.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) proposal: Proposal,
    bytes: Vec<u8>,
    /// Who gave it.
    from: NodeId,
    /// Until when it waits for what this member sees to fit.
    until: Instant,
}

impl InForce {
    pub(super) fn new(proposal: Proposal, bytes: Vec<u8>, via: NodeId) -> Self {
        let digest = plan_digest(&proposal.ids(), &proposal.responsibilities, &proposal.owners);
        let names = proposal.responsibilities.iter().map(|duty| duty.name.clone());
        InForce {
            digest,
            duties: (proposal.document.version == 0).then(|| document_digest(&proposal.responsibilities)),
            places: names.zip(0..).collect(),
            bytes,
            via,
            proposal,
            question: None,
            opinion: Opinion::Pending(String::from("another table")),
            asked_plugin: None,
            asking: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asking.map(|(_, deadline)| deadline)
    }

    /// Owners of a duty, primary first; `None` for an unknown one.
    pub(super) fn owners(&self, duty: &str) -> Option<impl Iterator<Item = NodeId>> {
        let owners = self.proposal.owners.get(*self.places.get(duty)?)?;
        Some(owners.iter().filter_map(|&index| Some(self.proposal.nodes.get(index as usize)?.0)))
    }
}

impl Planner {
    /// The duties of the plan in force.
    pub fn responsibilities(&self) -> Option<&[Responsibility]> {
        Some(&self.in_force.as_ref()?.proposal.responsibilities)
    }

    /// What this member owns and stands by for in the plan in force, and the plan's epoch; nothing without a quorum.
    pub fn own_duties(&self) -> (u64, BTreeMap<String, Ownership>) {
        let Some(plan) = &self.in_force else { return (0, BTreeMap::new()) };
        let proposal = &plan.proposal;
        let own = proposal.nodes.iter().position(|(node, _)| *node == self.me).filter(|_| self.confirmed);
        let own = own.map(|place| place as u32);
        let duties = proposal.responsibilities.iter().zip(&proposal.owners).filter_map(|(duty, owners)| {
            let ownership = match owners.iter().position(|owner| Some(*owner) == own)? {
                0 => Ownership::Primary,
                _ => Ownership::Standby,
            };
            Some((duty.name.clone(), ownership))
        });
        (proposal.ballot.epoch, duties.collect())
    }

    /// Finds the leader in the facts; reports to a new one.
    pub(super) fn follow_leader(&mut self, now: Instant, document_changed: bool) {
        let leader = self
            .facts
            .as_ref()
            .and_then(|facts| facts.live.first_key_value())
            .map(|(node, boot)| (*node, *boot));
        if leader != self.leader || document_changed {
            self.leader = leader;
            self.lend_document();
            self.report();
            self.reset_nudge();
        }
        if !self.quorate() {
            self.set_confirmed(false);
        }
        self.note_rivals();
        self.schedule_nudge(now);
    }

    fn set_confirmed(&mut self, confirmed: bool) {
        if let (true, Some(plan)) = (self.confirmed != confirmed, &self.in_force) {
            self.changed = Some(plan.proposal.ballot.epoch);
            self.relay.note_plan();
        }
        self.confirmed = confirmed;
    }

    pub(super) fn handle_proposal(&mut self, now: Instant, from: NodeId, proposal: Proposal, bytes: &[u8]) {
        let ballot = proposal.ballot;
        if !self.is_near(ballot.epoch) {
            self.counters.invalid += 1;
            return;
        }
        self.highest_epoch = self.highest_epoch.max(ballot.epoch);
        let current = self.in_force.as_ref().map(|plan| plan.proposal.ballot);
        let of_leader = self.leader == Some((ballot.proposer, ballot.boot));
        if Some(ballot) == current {
            // What a reminder asked for; the vote that answers must not ask again.
            self.nudging = false;
            if of_leader && self.quorate() {
                self.set_confirmed(true);
            }
            self.send(from, |outbox| outbox.vote = true);
        } else if Some(ballot) < current {
            self.counters.stale += 1;
            // A leader that overtook itself on the way needs no telling; one that forgot or never knew does.
            let overtaken = current.is_some_and(|c| (c.proposer, c.boot) == (ballot.proposer, ballot.boot));
            if of_leader && from == ballot.proposer && !overtaken {
                self.send(from, |outbox| outbox.vote = true);
            }
        } else if of_leader && ballot.proposer != self.me && !self.overlooks(&proposal) {
            self.adopt(now, proposal, bytes.to_vec(), from);
        } else {
            self.hold(Held { proposal, bytes: bytes.to_vec(), from, until: now + OVERLOOKED_WAIT });
        }
    }

    /// Whether a plan leaves out a member that this one sees alive. One that was cut off for a while leads with what it
    /// saw then: it would give away what others own and go on with.
    fn overlooks(&self, proposal: &Proposal) -> bool {
        let Some(facts) = &self.facts else { return false };
        let mut there = proposal.live().peekable();
        let in_table = |(node, _): &(&NodeId, &BootId)| super::ids_contain(&self.ids, **node);
        // Both are in the order of the ids.
        facts.live.iter().filter(in_table).any(|(node, boot)| {
            while there.next_if(|(other, _)| other < node).is_some() {}
            there.next_if_eq(&(*node, *boot)).is_none()
        })
    }

    /// Keeps a proposal until its proposer is the leader here too and sees what this member sees, or, at a leader, as one
    /// to start from.
    fn hold(&mut self, held: Held) {
        if self.held.iter().any(|other| other.proposal.ballot == held.proposal.ballot) {
            return;
        }
        self.counters.held += 1;
        self.held.push(held);
        self.lead.note_plan();
        self.relay.note_plan();
        self.held.sort_by_key(|held| core::cmp::Reverse(held.proposal.ballot));
        if self.held.len() > MAX_HELD {
            self.held.truncate(MAX_HELD);
            self.counters.held_dropped += 1;
        }
    }

    pub(super) fn adopt_held(&mut self, now: Instant) {
        while let Some(place) = self.held.iter().position(|held| {
            self.is_of_leader(held) && (now >= held.until || !self.overlooks(&held.proposal))
        }) {
            let Held { proposal, bytes, from, .. } = self.held.remove(place);
            self.adopt(now, proposal, bytes, from);
        }
    }

    /// When a plan that waits is adopted all the same.
    pub(super) fn held_deadline(&self) -> Option<Instant> {
        self.held.iter().filter(|held| self.is_of_leader(held)).map(|held| held.until).min()
    }

    /// Whether its proposer leads another member than it.
    fn is_of_leader(&self, held: &Held) -> bool {
        let ballot = held.proposal.ballot;
        ballot.proposer != self.me && self.leader == Some((ballot.proposer, ballot.boot))
    }

    fn adopt(&mut self, now: Instant, proposal: Proposal, bytes: Vec<u8>, via: NodeId) {
        if !self.keeps_document(&proposal) {
            self.counters.invalid += 1;
            return;
        }
        let mut plan = InForce::new(proposal, bytes, via);
        let facts = self.facts.as_ref();
        let question = facts.and_then(|_| plan.proposal.rebuild_question(&self.ids, &self.nodes));
        if let Some(question) = &question {
            let owners = Answer { owners: plan.proposal.owners.clone() };
            if assignment::validate(question, &owners).is_err() {
                self.counters.invalid += 1;
                return;
            }
            plan.question = Some(Packed::new(question));
        }
        self.put_in_force(now, plan);
        self.lend_document();
        self.recheck(now);
        self.report();
    }

    /// Whether a plan that names the document held here gives its responsibilities.
    fn keeps_document(&self, proposal: &Proposal) -> bool {
        self.facts.as_ref().is_none_or(|facts| {
            facts.document.version == 0
                || facts.document != proposal.document
                || facts.responsibilities == proposal.responsibilities
        })
    }

    pub(super) fn put_in_force(&mut self, now: Instant, plan: InForce) {
        let ballot = plan.proposal.ballot;
        debug_assert!(self.in_force.as_ref().is_none_or(|old| old.proposal.ballot < ballot));
        if let Some((ticket, _)) = self.in_force.as_ref().and_then(|old| old.asking) {
            self.cancel(ticket);
        }
        self.held.retain(|held| held.proposal.ballot > ballot);
        self.held.shrink_to_fit();
        self.passed.clear();
        self.in_force = Some(plan);
        self.lead.note_plan();
        self.relay.note_in_force(ballot);
        self.counters.adopted += 1;
        self.confirmed = self.quorate();
        self.changed = Some(ballot.epoch);
        self.reset_nudge();
        self.schedule_nudge(now);
    }

    /// Offers the own duties to a leader that knows of none.
    fn lend_document(&mut self) {
        let (Some(plan), Some(facts)) = (&self.in_force, &self.facts) else { return };
        let documents = facts.document.version > 0 || plan.proposal.document.version > 0;
        let lends =
            !documents && plan.proposal.responsibilities.is_empty() && !facts.responsibilities.is_empty();
        if let Some((leader, _)) = self.leader.filter(|_| lends) {
            self.send(leader, |outbox| outbox.document = true);
        }
    }

    /// Asks the own policy what is in force, unless it was asked already.
    pub(super) fn recheck(&mut self, now: Instant) {
        // Its own plan a leader makes anew when the plugin changes; asking twice would only cost.
        if self.quorate() && self.proposes_in_force() {
            return;
        }
        let (Some(plan), Some(facts)) = (&mut self.in_force, &self.facts) else { return };
        if plan.question.is_none() {
            let question = plan.proposal.rebuild_question(&self.ids, &self.nodes);
            plan.question = question.as_ref().map(Packed::new);
        }
        let Some(question) = &plan.question else { return };
        if facts.plugin_pending {
            plan.opinion = Opinion::Pending(String::from(PENDING));
            return;
        }
        if plan.asked_plugin == Some(facts.plugin_digest) {
            return;
        }
        plan.asked_plugin = Some(facts.plugin_digest);
        plan.opinion = Opinion::Pending(String::from("asking its policy"));
        let question = question.unpack();
        let former = plan.asking.take();
        if let Some((ticket, _)) = former {
            self.cancel(ticket);
        }
        let ticket = self.ask(question);
        if let Some(plan) = &mut self.in_force {
            plan.asking = Some((ticket, now + ANSWER_DEADLINE));
        }
        self.report();
    }

    /// Takes an answer to a member's question; false where it is for another.
    pub(super) fn check_answer(&mut self, ticket: u64, answer: &Result<Answer, String>) -> bool {
        let Some(plan) = &mut self.in_force else { return false };
        if plan.asking.take_if(|(asked, _)| *asked == ticket).is_none() {
            return false;
        }
        let Some(question) = plan.question.as_ref().map(Packed::unpack) else { return true };
        let judged = self.judge(&question, answer);
        if let Some(plan) = &mut self.in_force {
            plan.opinion = match judged {
                Ok(Answer { owners }) => Opinion::Answered(plan_digest(
                    &plan.proposal.ids(),
                    &plan.proposal.responsibilities,
                    &owners,
                )),
                Err(why) => Opinion::Fault(why),
            };
        }
        self.report();
        true
    }

    pub(super) fn check_timeout(&mut self, now: Instant) {
        let Some(plan) = &mut self.in_force else { return };
        let Some((ticket, _)) = plan.asking.take_if(|(_, deadline)| *deadline <= now) else { return };
        plan.opinion = Opinion::Fault(String::from("no answer in time"));
        self.counters.policy_faults += 1;
        self.cancel(ticket);
        self.report();
    }

    /// Sends the vote to the leader, to the proposer where that is another, and to who gave the plan: the proposer may be
    /// out of reach.
    pub(super) fn report(&mut self) {
        let leader = self.leader.map(|(leader, _)| leader);
        let plan = self.in_force.as_ref().map(|plan| [plan.proposal.ballot.proposer, plan.via]);
        for node in leader.into_iter().chain(plan.into_iter().flatten()) {
            self.send(node, |outbox| outbox.vote = true);
        }
    }

    /// The cluster document held here.
    pub(super) fn own_document(&self) -> DocumentId {
        self.facts.as_ref().map(|facts| facts.document).unwrap_or_default()
    }

    /// Whether the own document is another than the plan's; one that has none leaves it to the others.
    pub(super) fn document_differs(&self) -> bool {
        let (Some(plan), Some(facts)) = (&self.in_force, &self.facts) else { return false };
        if facts.document.version > 0 || plan.proposal.document.version > 0 {
            return facts.document != plan.proposal.document;
        }
        !facts.responsibilities.is_empty() && plan.duties != Some(document_digest(&facts.responsibilities))
    }

    /// The vote as it stands now.
    pub(super) fn vote(&mut self) -> Option<Vote> {
        let facts = self.facts.as_ref()?;
        let boot = self.live_boot(self.me)?;
        self.vote_serial += 1;
        let leader = self.leader;
        let of_leader = self
            .in_force
            .as_ref()
            .is_some_and(|plan| Some((plan.proposal.ballot.proposer, plan.proposal.ballot.boot)) == leader);
        Some(Vote {
            boot,
            serial: self.vote_serial,
            ballot: self.in_force.as_ref().map(|plan| plan.proposal.ballot),
            table: facts.table_digest,
            plugin: facts.plugin_digest,
            opinion: match &self.in_force {
                Some(plan) => plan.opinion.clone(),
                None => Opinion::Pending(String::from("no plan yet")),
            },
            document_differs: self.document_differs(),
            wants: self.quorate() && (self.nudging || (of_leader && !self.confirmed)),
        })
    }

    /// Whether this member's plan fits what it sees.
    fn settled(&self) -> bool {
        let (Some(plan), Some(facts)) = (&self.in_force, &self.facts) else { return false };
        let ballot = plan.proposal.ballot;
        let in_table = |node: &NodeId| super::ids_contain(&self.ids, *node);
        let live = facts.live.iter().filter(|(node, _)| in_table(node));
        self.confirmed
            && self.leader == Some((ballot.proposer, ballot.boot))
            && plan.proposal.live().eq(live.map(|(node, boot)| (*node, *boot)))
    }

    pub(super) fn schedule_nudge(&mut self, now: Instant) {
        if self.facts.is_none() || self.leads() || !self.quorate() || self.settled() {
            self.reset_nudge();
        } else if self.nudge_at.is_none() {
            self.nudge_at = Some(now + self.nudge_after);
        }
    }

    fn reset_nudge(&mut self) {
        self.nudge_at = None;
        self.nudge_after = NUDGE;
        self.nudging = false;
    }

    pub(super) fn nudge_timeout(&mut self, now: Instant) {
        if self.nudge_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        self.nudge_after = (self.nudge_after * 2).min(NUDGE_MAX);
        self.counters.nudges += 1;
        self.nudging = true;
        self.report();
    }
}
