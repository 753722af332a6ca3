//! One plan: which member is responsible for what, agreed by all that see each other.
//!
//! The assignment question is replicated data. The **leader**, the lowest live node id in a member's own
//! view, asks its policy, numbers the answer with a [`Ballot`] above all it ever heard of, and sends question
//! and plan to every live member. A member puts in force what its leader proposes, if the ballot is above
//! that of the plan it has; then it asks its own policy the same question and reports how the answers
//! compare. One that differs or faults owns what the plan says all the same, and is named in the status.
//!
//! ```text
//!   leader                                  member
//!     |        <-------- Vote ----------      |   whenever its leader changes: what is in force here
//!     |  Fetch -->   <-- Proposal             |   where that is above all the leader knows
//!   (asks its policy: answer, or the native fallback after a fault or two seconds)
//!     |  Proposal ---------------------->   (in force at once; asks its own policy)
//!     |        <-------- Vote ----------      |   pending, then same, differs or fault
//! ```
//!
//! A member follows nobody but its leader, so that one who wrongly takes the leader for dead disturbs only
//! itself; a proposal of another is held until the views agree. It may come by way of a third (`relay`). A leader
//! that restarted and forgot its epoch, or two that worked apart, learn of the higher ballot from the votes and
//! outbid it.
//!
//! Under [`Quorum::Majority`] a member that does not see more than half of the members owns nothing, and
//! after that owns again only when its leader has proposed or confirmed a plan: the one it still has may be
//! older than what the others agreed on meanwhile. This is not a fence: a member that has not yet noticed
//! that it is cut off still owns.
//!
//! The engine gives [`Facts`] (replaced whole) and messages; it sends what [`Planner::poll_send`] gives as
//! reliable messages, and polls only for peers that take what they are sent: a message is built when it is
//! polled. It may abandon those to a peer that leaves the live set: all is sent again when the peer returns.

mod fallback;
mod follow;
#[cfg(test)]
mod fuzz;
mod lead;
mod question;
mod relay;
mod report;
#[cfg(test)]
mod tests;
mod wire;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_contract::assignment::{Answer, Node, Question, Responsibility};
use overlan_wire::{BootId, DecodeError, Digest, DocumentId, NodeId};

use crate::config::Quorum;
use crate::time::Instant;
use follow::{Held, InForce};
use lead::Lead;
use question::Packed;
use relay::Relay;
use wire::{PlanMessage, Vote};

pub(crate) use wire::{
    check_responsibility, emit_document as emit_responsibilities, parse_document as parse_responsibilities,
};

pub use fallback::{CAPACITY, DEFAULT_CAPACITY, MAX_CAPACITY, fallback_assignment};
pub use relay::{Plans, RELAY_WAIT};
pub use wire::{Ballot, MAX_DOCUMENT, MAX_DUTY_TEXT, MAX_EPOCH, MAX_WHY};

/// Facts must be quiet for this long before a plan is made for them: joins at once give few plans.
pub const DEBOUNCE: Duration = Duration::from_millis(50);
/// Facts that never come to rest get a plan after this long all the same.
pub const DEBOUNCE_MAX: Duration = Duration::from_millis(500);
/// How long a leader waits for the report of a member that is new to it, and a member that knows no plan
/// for others to be found.
pub const REPORT_WAIT: Duration = Duration::from_millis(500);
/// How long a leader waits for a plan that it fetches.
pub const FETCH_WAIT: Duration = Duration::from_millis(500);
/// How long a leader waits for the cluster document that a plan it knows was made for.
pub const DOCUMENT_WAIT: Duration = Duration::from_secs(3);
/// How long a leader waits for its policy to be made ready before it goes on without.
pub const POLICY_WAIT: Duration = Duration::from_secs(3);
/// Why a plan is nobody's answer, or there is none yet to compare it with.
const PENDING: &str = "its policy is being made ready";
/// When a policy's answer is late.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// A member whose plan does not fit what it sees reminds its leader after this long; then after twice as
/// long, up to [`NUDGE_MAX`].
pub const NUDGE: Duration = Duration::from_secs(3);
/// The longest time between two reminders.
pub const NUDGE_MAX: Duration = Duration::from_secs(24);
/// How long a plan that leaves out a member seen alive here waits for that to clear up, and a leader that knows of a plan
/// for members it does not see. Views differ for as long as gossip takes.
pub const OVERLOOKED_WAIT: Duration = Duration::from_secs(1);
/// Epochs that a cluster may be ahead of what this member knows: more than it will ever make.
const MAX_LEAP: u64 = 1 << 32;
/// Most proposals held for leaders that this member does not see yet.
pub const MAX_HELD: usize = 4;
/// Most members whose vote is kept.
pub const MAX_VOTES: usize = overlan_contract::assignment::MAX_NODES;

/// What this member sees now.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub me: NodeId,
    /// All nodes of the table, `id` in hexadecimal digits. The planner sets `live`.
    pub nodes: Vec<Node>,
    /// The members that are alive, this one included.
    pub live: BTreeMap<NodeId, BootId>,
    /// How many are in the table, neither left nor forgotten: what a majority is counted of.
    pub members: usize,
    /// Digest of the table.
    pub table_digest: Digest,
    /// Digest of the assignment plugin and its configuration.
    pub plugin_digest: Digest,
    /// The assignment plugin is being made ready, and is asked nothing.
    pub plugin_pending: bool,
    /// The cluster document held here; the default where none was applied.
    pub document: DocumentId,
    /// The document's duties. Without a document those this member is configured with; empty where it leaves them to
    /// others.
    pub responsibilities: Vec<Responsibility>,
    /// What a minority may own.
    pub quorum: Quorum,
    /// This node is alone and told by others that it may not join them: it owns and decides nothing.
    pub barred: bool,
}

/// What the planner dropped or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounters {
    /// Proposals put in force.
    pub adopted: u64,
    /// Proposals older than the plan in force.
    pub stale: u64,
    /// Proposals held because their proposer is not the leader here.
    pub held: u64,
    /// Plans asked for because they are above all known here, or to have that in force confirmed.
    pub fetches: u64,
    /// Proposals that were held and made way for higher ones.
    pub held_dropped: u64,
    /// Proposals whose plan breaks the contract, or whose epoch nobody can have come to.
    pub invalid: u64,
    /// Votes that came late, of more members than [`MAX_VOTES`], or of an epoch nobody can have come to.
    pub votes_dropped: u64,
    /// Answers to questions no longer asked.
    pub answers_late: u64,
    /// Faults of the own policy: errors, invalid answers, none in time.
    pub policy_faults: u64,
    /// Invalid ones among them.
    pub policy_invalid: u64,
    /// Nodes and responsibilities in the facts that exceed the contract's limits.
    pub facts_refused: u64,
    /// Reminders sent to a leader.
    pub nudges: u64,
}

/// What waits to be sent to one peer. Messages are built when polled, so that the latest state travels and
/// the queue is never longer than the live set.
#[derive(Clone, Copy, Debug, Default)]
struct Outbox {
    proposal: bool,
    vote: bool,
    fetch: bool,
    document: bool,
}

/// One member's part in agreeing on the plan.
///
/// Inputs are the `handle_*` methods; after each, drain the `poll_*` ones.
#[derive(Debug)]
pub struct Planner {
    me: NodeId,
    seed: u64,
    facts: Option<Facts>,
    /// Those of the facts, which lack them.
    nodes: Packed<Vec<Node>>,
    /// Their parsed ids.
    ids: Vec<NodeId>,
    /// Digest of everything in the facts that a new plan is made for, except the document.
    inputs: Digest,
    /// Since when each peer has been live, in this life.
    since: BTreeMap<NodeId, (BootId, Instant)>,
    started: Option<Instant>,
    leader: Option<(NodeId, BootId)>,
    /// Cleared while this member may own nothing: no quorum, or none confirmed since it came back.
    confirmed: bool,
    in_force: Option<InForce>,
    held: Vec<Held>,
    votes: BTreeMap<NodeId, Vote>,
    /// Votes on the plan in force that came by way of others: they are shown and passed on, and decide nothing.
    passed: BTreeMap<NodeId, Vote>,
    highest_epoch: u64,
    lead: Lead,
    relay: Relay,
    nudge_at: Option<Instant>,
    nudge_after: Duration,
    nudging: bool,
    vote_serial: u64,
    next_ticket: u64,
    questions: Vec<(u64, Question)>,
    outbox: BTreeMap<NodeId, Outbox>,
    changed: Option<u64>,
    counters: PlanCounters,
}

impl Planner {
    /// A planner that knows nothing yet. `seed` becomes the questions' seed in a cluster that has none.
    pub fn new(me: NodeId, seed: u64) -> Self {
        Planner {
            me,
            seed,
            facts: None,
            nodes: Packed::new(&Vec::new()),
            ids: Vec::new(),
            inputs: Digest::default(),
            since: BTreeMap::new(),
            started: None,
            leader: None,
            confirmed: false,
            in_force: None,
            held: Vec::new(),
            votes: BTreeMap::new(),
            passed: BTreeMap::new(),
            highest_epoch: 0,
            lead: Lead::default(),
            relay: Relay::default(),
            nudge_at: None,
            nudge_after: NUDGE,
            nudging: false,
            vote_serial: 0,
            next_ticket: 0,
            questions: Vec::new(),
            outbox: BTreeMap::new(),
            changed: None,
            counters: PlanCounters::default(),
        }
    }

    /// Takes what this member sees now.
    pub fn handle_facts(&mut self, now: Instant, facts: Facts) {
        self.started.get_or_insert(now);
        let Facts { nodes, responsibilities, live, .. } = facts;
        let (ids, nodes, refused_nodes) = question::checked_nodes(nodes, &live);
        let known = self.facts.take().map(|facts| (facts.document, facts.responsibilities));
        let (document_changed, responsibilities) = match known {
            // One document has one content, which was checked before.
            Some((id, known)) if id == facts.document && id.version > 0 => (false, known),
            known => {
                let (checked, refused) = question::checked_document(responsibilities);
                self.counters.facts_refused += refused as u64;
                (known.is_some_and(|(id, known)| id != facts.document || known != checked), checked)
            }
        };
        self.counters.facts_refused += refused_nodes as u64;
        self.nodes = Packed::new(&nodes);
        self.inputs = question::inputs_digest(&self.nodes, &live, facts.plugin_digest, facts.plugin_pending);
        self.ids = ids;
        self.since.retain(|node, (boot, _)| live.get(node) == Some(boot));
        for (&node, &boot) in &live {
            self.since.entry(node).or_insert((boot, now));
        }
        self.outbox.retain(|node, _| live.contains_key(node));
        self.votes.retain(|node, vote| match live.get(node) {
            Some(boot) => vote.boot == *boot,
            None => ids_contain(&self.ids, *node),
        });
        self.lead.forget_absent(&live);
        self.facts = Some(Facts { nodes: Vec::new(), responsibilities, live, ..facts });
        self.lead.note_change(now);
        self.follow_leader(now, document_changed);
        self.recheck(now);
        self.react(now);
    }

    /// Takes a message of another member.
    ///
    /// # Errors
    /// The bytes are no message of ours; nothing changed.
    pub fn handle_message(&mut self, now: Instant, from: NodeId, bytes: &[u8]) -> Result<(), DecodeError> {
        if from == self.me {
            return Ok(());
        }
        match PlanMessage::parse(bytes)? {
            PlanMessage::Proposal(proposal) => self.handle_proposal(now, from, proposal, bytes),
            PlanMessage::Vote(vote, passed) => {
                self.handle_passed(from, &vote, passed);
                self.handle_vote(from, vote);
            }
            PlanMessage::Fetch => self.send(from, |outbox| outbox.proposal = true),
            PlanMessage::Document(document) => self.lead.handle_document(now, from, document),
        }
        self.react(now);
        Ok(())
    }

    /// Takes the own policy's answer to a question of [`poll_question`](Self::poll_question).
    pub fn handle_answer(&mut self, now: Instant, ticket: u64, answer: Result<Answer, String>) {
        if !self.lead_answer(now, ticket, &answer) && !self.check_answer(ticket, &answer) {
            self.counters.answers_late += 1;
        }
        self.react(now);
    }

    /// The own policy may answer again: the plan in force is put to it once more where it gave no answer.
    pub fn ask_again(&mut self, now: Instant) {
        let proposes = self.proposes_in_force();
        let Some(plan) = &mut self.in_force else { return };
        if proposes {
            if !plan.proposal.fault.is_empty() {
                self.lead.make_anew();
            }
        } else if matches!(plan.opinion, wire::Opinion::Fault(_)) {
            plan.asked_plugin = None;
            self.recheck(now);
        }
        self.react(now);
    }

    /// Call when [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.lead_timeout(now);
        self.check_timeout(now);
        self.nudge_timeout(now);
        self.react(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let check = self.in_force.as_ref().and_then(InForce::deadline);
        [self.lead.deadline(), check, self.nudge_at, self.held_deadline()].into_iter().flatten().min()
    }

    /// The next message to send, reliably, to a member that has room for one.
    pub fn poll_send(&mut self, has_room: impl Fn(NodeId) -> bool) -> Option<(NodeId, Vec<u8>)> {
        loop {
            let to = self.outbox.keys().copied().find(|&to| has_room(to))?;
            let outbox = self.outbox.get_mut(&to)?;
            if core::mem::take(&mut outbox.fetch) {
                return Some((to, PlanMessage::Fetch.emit()));
            }
            if core::mem::take(&mut outbox.vote) {
                let vote = self.vote()?;
                return Some((to, PlanMessage::Vote(vote, self.votes_for(to)).emit()));
            }
            if core::mem::take(&mut outbox.document) {
                let document = self.facts.as_ref()?.responsibilities.clone();
                return Some((to, PlanMessage::Document(document).emit()));
            }
            let proposal = outbox.proposal;
            self.outbox.remove(&to);
            if let (true, Some(plan)) = (proposal, &self.in_force) {
                return Some((to, plan.bytes.clone()));
            }
        }
    }

    /// The next question for the own policy, with the ticket its answer must carry.
    pub fn poll_question(&mut self) -> Option<(u64, Question)> {
        if self.questions.is_empty() { None } else { Some(self.questions.remove(0)) }
    }

    /// The epoch of the plan in force, once whenever the plan or the right to own changed.
    pub fn poll_changed(&mut self) -> Option<u64> {
        self.changed.take()
    }

    /// The primary owner of a responsibility in the plan in force; none without a quorum.
    pub fn owner(&self, responsibility: &str) -> Option<NodeId> {
        if !self.confirmed {
            return None;
        }
        self.in_force.as_ref()?.owners(responsibility)?.next()
    }

    /// Whether enough members are seen, by the facts' quorum, to own and to decide; not before there are facts, and not
    /// where the facts bar this node.
    pub fn quorate(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| match facts.quorum {
            _ if facts.barred => false,
            Quorum::None => true,
            Quorum::Majority => facts.live.len() * 2 > facts.members,
        })
    }

    /// What was dropped or refused.
    pub fn counters(&self) -> PlanCounters {
        self.counters
    }

    /// Whether plans may have come as far since the last one heard of. Without this, one message of the last epoch would
    /// be the end of all plans.
    fn is_near(&self, epoch: u64) -> bool {
        epoch <= self.highest_epoch.saturating_add(MAX_LEAP)
    }

    fn leads(&self) -> bool {
        self.leader.is_some_and(|(node, _)| node == self.me)
    }

    fn live_boot(&self, node: NodeId) -> Option<BootId> {
        self.facts.as_ref()?.live.get(&node).copied()
    }

    /// Notes that `to`, if it is live, is to be sent something.
    fn send(&mut self, to: NodeId, what: impl FnOnce(&mut Outbox)) {
        if to != self.me && self.live_boot(to).is_some() {
            what(self.outbox.entry(to).or_default());
        }
    }

    fn ask(&mut self, question: Question) -> u64 {
        self.next_ticket += 1;
        self.questions.push((self.next_ticket, question));
        self.next_ticket
    }

    /// A question no longer asked need not be polled.
    fn cancel(&mut self, ticket: u64) {
        self.questions.retain(|(asked, _)| *asked != ticket);
    }

    /// What every input ends with.
    fn react(&mut self, now: Instant) {
        self.adopt_held(now);
        self.schedule_lead(now);
        self.schedule_nudge(now);
    }
}

fn ids_contain(ids: &[NodeId], node: NodeId) -> bool {
    ids.binary_search(&node).is_ok()
}
