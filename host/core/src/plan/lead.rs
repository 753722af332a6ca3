//! The leader's half: when to propose, and what.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use overlan_contract::assignment::{self, Answer, Question, Responsibility};
use overlan_wire::{BootId, Digest, DocumentId, NodeId};

use super::fallback::fallback_assignment;
use super::question::{Packed, carried_over, document_digest, question_digest};
use super::wire::{Ballot, MAX_EPOCH, MAX_WHY, Opinion, PlanMessage, Proposal, Vote};
use super::{
    ANSWER_DEADLINE, DEBOUNCE, DEBOUNCE_MAX, DOCUMENT_WAIT, FETCH_WAIT, InForce, MAX_VOTES, OVERLOOKED_WAIT,
    PENDING, POLICY_WAIT, Planner, REPORT_WAIT, ids_contain,
};
use crate::time::Instant;

/// What a new plan is made for: the facts and the document.
type Inputs = (Digest, Digest);

/// What only a leader remembers.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// What the plan in force was made for, if this member proposed it.
    made_for: Option<Inputs>,
    /// What the next one would be made for; `None` until it is asked for.
    inputs: Option<Inputs>,
    /// Set when peers may lack the plan.
    unsent: bool,
    /// What of it was sent to whom.
    sent: BTreeMap<NodeId, Ballot>,
    /// Highest ballot in force with a live member.
    rival: Option<(Ballot, NodeId)>,
    /// A plan asked for, and until when it is waited for.
    fetching: Option<(Ballot, Instant)>,
    /// Responsibilities of another member, for want of own.
    lent: Option<(NodeId, Vec<Responsibility>)>,
    /// Since when a new plan is wanted.
    wanted_since: Option<Instant>,
    changed_at: Instant,
    due: Option<Instant>,
    asking: Option<Asking>,
}

#[derive(Debug)]
struct Asking {
    ticket: u64,
    deadline: Instant,
    inputs: Inputs,
    nodes: Vec<(NodeId, Option<BootId>)>,
    question: Question,
    plugin: Digest,
    document: DocumentId,
}

impl Lead {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asking.as_ref().map(|asking| asking.deadline).or(self.due)
    }

    pub(super) fn note_change(&mut self, now: Instant) {
        self.changed_at = now;
        self.note_plan();
    }

    /// Another plan is in force or held.
    pub(super) fn note_plan(&mut self) {
        self.inputs = None;
        self.unsent = true;
    }

    /// What the plan in force was made for is to be decided once more.
    pub(super) fn make_anew(&mut self) {
        self.made_for = None;
    }

    /// A live member has this ballot in force, or knows of one that has.
    pub(super) fn note_rival(&mut self, ballot: Ballot, node: NodeId) {
        self.rival = self.rival.max(Some((ballot, node)));
    }

    pub(super) fn forget_absent(&mut self, live: &BTreeMap<NodeId, BootId>) {
        self.sent.retain(|node, _| live.contains_key(node));
    }

    /// The lowest id's responsibilities stand in where the leader has none.
    pub(super) fn handle_document(&mut self, now: Instant, from: NodeId, document: Vec<Responsibility>) {
        if self.lent.as_ref().is_none_or(|(lender, _)| from <= *lender) {
            self.lent = Some((from, document));
            self.note_change(now);
        }
    }
}

impl Planner {
    pub(super) fn handle_vote(&mut self, from: NodeId, vote: Vote) {
        let live = self.live_boot(from);
        let dropped = match self.votes.get(&from) {
            Some(known) if known.boot == vote.boot => known.serial >= vote.serial,
            // Another life: what the live one said stands.
            Some(known) => live == Some(known.boot),
            None => self.votes.len() >= MAX_VOTES,
        };
        let epoch = vote.ballot.map_or(0, |ballot| ballot.epoch);
        if dropped || !self.is_near(epoch) {
            self.counters.votes_dropped += 1;
            return;
        }
        self.highest_epoch = self.highest_epoch.max(epoch);
        let wants = vote.wants && live == Some(vote.boot);
        let reported = vote.ballot.filter(|_| live == Some(vote.boot));
        self.votes.insert(from, vote);
        if self.lead.rival.is_some_and(|(_, node)| node == from) {
            self.note_rivals();
        } else if let Some(ballot) = reported {
            self.lead.note_rival(ballot, from);
        }
        if wants && self.proposes_in_force() && self.lead.wanted_since.is_none() {
            self.send(from, |outbox| outbox.proposal = true);
        }
    }

    /// Finds the highest ballot that a live member reports.
    pub(super) fn note_rivals(&mut self) {
        let voted = self.votes.iter().filter(|(node, vote)| self.live_boot(**node) == Some(vote.boot));
        self.lead.rival = voted.filter_map(|(node, vote)| Some((vote.ballot?, *node))).max();
    }

    pub(super) fn proposes_in_force(&self) -> bool {
        let me = self.live_boot(self.me);
        self.leads()
            && self.in_force.as_ref().is_some_and(|plan| {
                plan.proposal.ballot.proposer == self.me && Some(plan.proposal.ballot.boot) == me
            })
    }

    /// The plan that the next one starts from: of those known, the one that most live members are in; among
    /// these the highest.
    fn base(&self) -> Option<&Proposal> {
        let held = self.held.iter().map(|held| &held.proposal);
        let plans = self.in_force.iter().map(|plan| &plan.proposal).chain(held);
        plans.max_by_key(|plan| {
            let here = plan.live().filter(|&(node, boot)| self.live_boot(node) == Some(boot)).count();
            (here, plan.ballot)
        })
    }

    /// The cluster document's responsibilities. Without one the own, or, for want of these, those in force, or another
    /// member's.
    fn document(&self) -> &[Responsibility] {
        let own = self.facts.as_ref().map_or(&[][..], |facts| &facts.responsibilities);
        if self.own_document().version > 0 {
            return own;
        }
        let base = self.base().map_or(&[][..], |plan| &plan.responsibilities);
        let lent = self.lead.lent.as_ref().map_or(&[][..], |(_, document)| document);
        [own, base].into_iter().find(|document| !document.is_empty()).unwrap_or(lent)
    }

    fn inputs(&mut self) -> Inputs {
        let inputs = self.lead.inputs.unwrap_or_else(|| match self.own_document() {
            DocumentId { version: 0, .. } => (self.inputs, document_digest(self.document())),
            document => (self.inputs, document.digest),
        });
        *self.lead.inputs.insert(inputs)
    }

    /// Whether this member has to make a plan.
    fn wants_plan(&mut self) -> bool {
        let able = self.highest_epoch < MAX_EPOCH && ids_contain(&self.ids, self.me);
        if !able || !self.leads() || !self.quorate() {
            return false;
        }
        let in_force = self.in_force.as_ref().map(|plan| plan.proposal.ballot);
        let inputs = self.inputs();
        !self.confirmed
            || !self.proposes_in_force()
            || self.lead.rival.map(|(ballot, _)| ballot) > in_force
            || self.lead.made_for != Some(inputs)
    }

    /// Decides when to propose, or brings peers up to date where there is nothing to propose.
    pub(super) fn schedule_lead(&mut self, now: Instant) {
        if !self.wants_plan() {
            self.lead.wanted_since = None;
            self.lead.due = None;
            self.stop_asking();
            self.send_to_late_comers();
            return;
        }
        let since = *self.lead.wanted_since.get_or_insert(now);
        if self.lead.asking.is_some() {
            return;
        }
        self.fetch_rival(now);
        let rest = (self.lead.changed_at + DEBOUNCE).max(self.reports_due(now));
        let fetched = self.lead.fetching.map_or(Instant::ZERO, |(_, until)| until);
        let document = if self.lacks_document() { since + DOCUMENT_WAIT } else { Instant::ZERO };
        let pending = self.facts.as_ref().is_some_and(|facts| facts.plugin_pending);
        let policy = if pending { since + POLICY_WAIT } else { Instant::ZERO };
        let unseen = if self.lacks_members() { since + OVERLOOKED_WAIT } else { Instant::ZERO };
        let due = rest.min(since + DEBOUNCE_MAX).max(fetched).max(document).max(policy).max(unseen);
        self.lead.due = Some(due);
    }

    /// Whether others made a plan above the one in force here for members that this one does not see (yet): it comes
    /// back from where it saw nobody, and they may be there.
    fn lacks_members(&self) -> bool {
        let in_force = self.in_force.as_ref().map(|plan| plan.proposal.ballot);
        let above = self.held.iter().filter(|held| Some(held.proposal.ballot) > in_force);
        let mut unseen = above.flat_map(|held| held.proposal.live());
        unseen.any(|(node, boot)| self.live_boot(node) != Some(boot) && ids_contain(&self.ids, node))
    }

    /// Whether a plan known here was made for a cluster document above the own, which is on its way then.
    fn lacks_document(&self) -> bool {
        let held = self.held.iter().map(|held| &held.proposal);
        let mut known = self.in_force.iter().map(|plan| &plan.proposal).chain(held);
        known.any(|plan| plan.document > self.own_document())
    }

    /// Until when to wait for members that have not said yet what is in force with them.
    fn reports_due(&self, now: Instant) -> Instant {
        let silent = self.since.iter().filter(|(node, (boot, _))| {
            **node != self.me && self.votes.get(*node).is_none_or(|vote| vote.boot != *boot)
        });
        let alone = self.in_force.is_none() && self.held.is_empty() && self.since.len() == 1;
        let found = if alone { self.started.map(|start| start + REPORT_WAIT) } else { None };
        let reported = silent.map(|(_, (_, since))| *since + REPORT_WAIT).filter(|due| *due > now).max();
        found.max(reported).unwrap_or(Instant::ZERO)
    }

    fn fetch_rival(&mut self, now: Instant) {
        let known = self.in_force.iter().map(|plan| plan.proposal.ballot);
        let known = known.chain(self.held.iter().map(|held| held.proposal.ballot)).max();
        let Some((ballot, node)) = self.lead.rival.filter(|(ballot, _)| Some(*ballot) > known) else {
            self.lead.fetching = None;
            return;
        };
        if self.lead.fetching.is_none_or(|(asked, _)| asked != ballot) {
            self.lead.fetching = Some((ballot, now + FETCH_WAIT));
            self.counters.fetches += 1;
            self.send(node, |outbox| outbox.fetch = true);
        }
    }

    fn send_to_late_comers(&mut self) {
        if !self.lead.unsent || !self.proposes_in_force() {
            return;
        }
        self.lead.unsent = false;
        let (Some(plan), Some(facts)) = (&self.in_force, &self.facts) else { return };
        let ballot = plan.proposal.ballot;
        for &node in facts.live.keys().filter(|node| **node != self.me) {
            if self.lead.sent.insert(node, ballot) != Some(ballot) {
                self.outbox.entry(node).or_default().proposal = true;
            }
        }
    }

    fn stop_asking(&mut self) {
        if let Some(asking) = self.lead.asking.take() {
            self.cancel(asking.ticket);
        }
    }

    pub(super) fn lead_timeout(&mut self, now: Instant) {
        if self.lead.asking.as_ref().is_some_and(|asking| asking.deadline <= now) {
            let asking = self.lead.asking.take().expect("looked at just now");
            self.cancel(asking.ticket);
            self.counters.policy_faults += 1;
            self.propose(now, asking, Err(String::from("no answer in time")));
        } else if self.lead.asking.is_none() && self.lead.due.is_some_and(|due| due <= now) {
            self.start_asking(now);
        }
    }

    fn start_asking(&mut self, now: Instant) {
        self.lead.due = None;
        let inputs = self.inputs();
        let Some(facts) = &self.facts else { return };
        let base = self.base();
        let document = self.document().to_vec();
        let question = Question {
            nodes: self.nodes.unpack(),
            previous: carried_over(base, &self.ids, &document),
            seed: base.map_or(self.seed, |plan| plan.seed),
            responsibilities: document,
            attributes: Vec::new(),
        };
        let nodes = self.ids.iter().map(|id| (*id, facts.live.get(id).copied())).collect();
        let (plugin, document, pending) = (facts.plugin_digest, facts.document, facts.plugin_pending);
        let deadline = now + ANSWER_DEADLINE;
        let mut asking = Asking { ticket: 0, deadline, inputs, nodes, question, plugin, document };
        if pending {
            return self.propose(now, asking, Err(String::from(PENDING)));
        }
        asking.ticket = self.ask(asking.question.clone());
        self.lead.asking = Some(asking);
    }

    /// Takes an answer to the leader's question; false where it is for another.
    pub(super) fn lead_answer(&mut self, now: Instant, ticket: u64, answer: &Result<Answer, String>) -> bool {
        let Some(asking) = self.lead.asking.take_if(|asking| asking.ticket == ticket) else { return false };
        let answer = self.judge(&asking.question, answer);
        self.propose(now, asking, answer);
        true
    }

    /// Counts what is wrong with an answer and puts it in words.
    pub(super) fn judge(
        &mut self,
        question: &Question,
        answer: &Result<Answer, String>,
    ) -> Result<Answer, String> {
        let judged = match answer {
            Ok(answer) => match assignment::validate(question, answer) {
                Ok(()) => return Ok(answer.clone()),
                Err(violations) => {
                    self.counters.policy_invalid += 1;
                    Err(match violations.first() {
                        Some(violation) => format!("invalid answer: {violation}"),
                        None => String::from("invalid answer"),
                    })
                }
            },
            Err(fault) if fault.is_empty() => Err(String::from("fault")),
            Err(fault) => Err(fault.clone()),
        };
        self.counters.policy_faults += 1;
        judged.map_err(|why| String::from(&why[..why.floor_char_boundary(MAX_WHY)]))
    }

    fn propose(&mut self, now: Instant, asking: Asking, answer: Result<Answer, String>) {
        let Some(boot) = self.live_boot(self.me) else { return };
        let Some(facts) = &self.facts else { return };
        self.highest_epoch += 1;
        let Asking { inputs, nodes, question, plugin, document, .. } = asking;
        let (owners, fault) = match answer {
            Ok(answer) => (answer.owners, String::new()),
            Err(fault) => (without_answer(&question), fault),
        };
        let proposal = Proposal {
            ballot: Ballot { epoch: self.highest_epoch, proposer: self.me, boot },
            seed: question.seed,
            question: question_digest(&question),
            table: facts.table_digest,
            plugin,
            fault,
            nodes,
            responsibilities: question.responsibilities.clone(),
            previous: question.previous.clone(),
            owners,
            document,
        };
        let message = PlanMessage::Proposal(proposal);
        let bytes = message.emit();
        let PlanMessage::Proposal(proposal) = message else { return };
        let mut plan = InForce::new(proposal, bytes, self.me);
        plan.opinion = match plan.proposal.fault.as_str() {
            "" => Opinion::Answered(plan.digest),
            fault => Opinion::Fault(String::from(fault)),
        };
        plan.asked_plugin = Some(plugin);
        plan.question = Some(Packed::new(&question));
        self.lead.made_for = Some(inputs);
        self.lead.wanted_since = None;
        self.put_in_force(now, plan);
    }
}

/// Who owns what when the policy does not say: the plan before, where it still fits the facts, else the native fallback's.
fn without_answer(question: &Question) -> Vec<Vec<u32>> {
    let before = Answer { owners: question.previous.clone() };
    match assignment::validate(question, &before) {
        Ok(()) => before.owners,
        Err(_) => fallback_assignment(question).owners,
    }
}

#[cfg(test)]
mod tests {
    use overlan_contract::assignment::Node;

    use super::*;

    #[test]
    fn without_an_answer_the_plan_before_stands_while_it_fits() {
        let node = |id: &str, live| Node {
            id: id.into(),
            name: id.into(),
            live,
            adapters: Vec::new(),
            attributes: Vec::new(),
        };
        let duty =
            |name: String| Responsibility { name, replicas: 1, weight_milli: 1_000, requires: Vec::new() };
        let mut question = Question {
            nodes: alloc::vec![node("a", true), node("b", true)],
            responsibilities: (0..8).map(|number| duty(format!("duty-{number}"))).collect(),
            ..Question::default()
        };
        assert_eq!(without_answer(&question), fallback_assignment(&question).owners, "there is none before");
        question.previous = alloc::vec![alloc::vec![1]; 8];
        assert_eq!(without_answer(&question), question.previous);
        question.nodes[1].live = false;
        assert_eq!(without_answer(&question), alloc::vec![alloc::vec![0]; 8]);
    }
}
