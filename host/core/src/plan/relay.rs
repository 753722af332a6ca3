//! How plans get past a leader that can't reach all who follow it.
//!
//! Beside its summaries a member tells which plan is in force with it. One that lacks it for a while, whatever keeps
//! its leader's messages away, asks whoever spoke of it: a plan counts by who proposed it, not by who hands it on.
//! The other way round, members pass on which plan a leader that does not hear its holder has to outbid, and with their
//! votes those of members to which they gave the plan.

use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::{Ballot, BootId, NodeId};

use super::wire::{MAX_PASSED, Vote};
use super::{MAX_VOTES, Planner};
use crate::time::Instant;

/// How long a plan is missing here before another than its proposer is asked for it, once in this time, and how long a
/// leader waits to hear itself of one that it has to outbid. The straight way is the rule, and takes less.
pub const RELAY_WAIT: Duration = Duration::from_secs(2);

/// Which plans a member knows of, as it tells the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plans {
    /// What its leader has in force with it, as far as it may own.
    pub in_force: Option<Ballot>,
    /// The highest in force with members that follow another than its proposer, who has to outbid it.
    pub above: Option<Ballot>,
}

/// What the others told.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Since when they have had a plan that is missing here, or when it was last asked for.
    missing_since: Option<Instant>,
    /// What the leader has to outbid, and since when something is.
    above: Option<(Ballot, Instant)>,
}

impl Relay {
    /// A plan came.
    pub(super) fn note_plan(&mut self) {
        self.missing_since = None;
    }

    pub(super) fn note_in_force(&mut self, ballot: Ballot) {
        self.note_plan();
        self.above.take_if(|(above, _)| *above <= ballot);
    }
}

impl Planner {
    /// What to tell other members beside a summary.
    pub fn plans(&self) -> Plans {
        let ballot = self.in_force.as_ref().map(|plan| plan.proposal.ballot);
        let follows = ballot.is_some_and(|ballot| self.leader == Some((ballot.proposer, ballot.boot)));
        let astray = ballot.filter(|_| !follows && !self.leads());
        Plans {
            in_force: ballot.filter(|_| follows && self.confirmed),
            above: astray.max(self.relay.above.map(|(above, _)| above)),
        }
    }

    /// Takes what a member tells.
    pub fn handle_plans(&mut self, now: Instant, from: NodeId, boot: BootId, plans: Plans) {
        if from == self.me || self.live_boot(from) != Some(boot) {
            return;
        }
        let Plans { in_force, above } = plans;
        if let Some(ballot) = in_force.filter(|ballot| self.is_near(ballot.epoch)) {
            self.note_elsewhere(now, from, ballot);
        }
        if let Some(ballot) = above.filter(|ballot| self.is_near(ballot.epoch)) {
            self.note_above(now, from, ballot);
        }
        self.react(now);
    }

    fn note_elsewhere(&mut self, now: Instant, from: NodeId, ballot: Ballot) {
        // A leader makes a plan, and is told by votes what to start from.
        if self.leads() || !self.lacks(ballot) {
            return;
        }
        let since = *self.relay.missing_since.get_or_insert(now);
        if now.since(since) >= RELAY_WAIT {
            self.relay.missing_since = Some(now);
            self.counters.fetches += 1;
            self.send(from, |outbox| outbox.fetch = true);
        }
    }

    /// Whether a plan is above all known here, or is to be confirmed by one with whom it stayed in force.
    fn lacks(&self, ballot: Ballot) -> bool {
        let in_force = self.in_force.as_ref().map(|plan| plan.proposal.ballot);
        let known = self.held.iter().map(|held| held.proposal.ballot).chain(in_force).max();
        Some(ballot) > known || Some(ballot) == in_force && !self.confirmed && self.quorate()
    }

    fn note_above(&mut self, now: Instant, from: NodeId, ballot: Ballot) {
        if Some(ballot) <= self.in_force.as_ref().map(|plan| plan.proposal.ballot) {
            return;
        }
        self.highest_epoch = self.highest_epoch.max(ballot.epoch);
        let (known, since) = self.relay.above.unwrap_or((ballot, now));
        let above = known.max(ballot);
        self.relay.above = Some((above, since));
        if self.leads() && now.since(since) >= RELAY_WAIT {
            self.lead.note_rival(above, from);
        }
    }

    /// Takes the votes of others that a member passes on, and sees its own vote passed on, where it got the plan here.
    pub(super) fn handle_passed(&mut self, from: NodeId, vote: &Vote, passed: Vec<(NodeId, Vote)>) {
        // Not each later vote: two that hand on to each other would never end.
        let is_news =
            |known: Option<&Vote>, vote: &Vote| known.is_none_or(|known| !known.says_the_same(vote));
        let mut news = self.hands_on(vote) && is_news(self.votes.get(&from), vote);
        for (node, vote) in passed {
            let counts = node != self.me && self.live_boot(node) == Some(vote.boot) && self.is_of_plan(&vote);
            let known = self.passed.get(&node).filter(|known| known.boot == vote.boot);
            if !counts || known.is_some_and(|known| known.serial >= vote.serial) {
                continue;
            }
            if self.passed.len() < MAX_VOTES || self.passed.contains_key(&node) {
                news |= self.hands_on(&vote) && is_news(known, &vote);
                self.passed.insert(node, vote);
            } else {
                self.counters.votes_dropped += 1;
            }
        }
        if news {
            self.report();
        }
    }

    /// What others said of the plan in force, for the member to which this one's vote goes.
    pub(super) fn votes_for(&self, to: NodeId) -> Vec<(NodeId, Vote)> {
        let all =
            self.votes.iter().chain(&self.passed).filter(|(node, vote)| **node != to && self.hands_on(vote));
        all.take(MAX_PASSED).map(|(node, vote)| (*node, vote.clone())).collect()
    }

    /// Whether the vote is for another, who proposed the plan.
    fn hands_on(&self, vote: &Vote) -> bool {
        self.is_of_plan(vote) && vote.ballot.is_some_and(|ballot| ballot.proposer != self.me)
    }

    fn is_of_plan(&self, vote: &Vote) -> bool {
        self.in_force.as_ref().is_some_and(|plan| vote.ballot == Some(plan.proposal.ballot))
    }
}
