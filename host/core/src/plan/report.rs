//! What the planner shows of itself.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use overlan_wire::{Digest, NodeId};

use super::Planner;
use super::follow::InForce;
use super::wire::Opinion;
use crate::status::{Duty, PlanStatus, Vote};

/// Responsibilities named where nobody owns them.
const MAX_NAMED: usize = 3;
/// Why a plan differs: it was made for another document.
const DOCUMENT_DIFFERS: &str = "document differs";

impl Planner {
    /// The plan in force and what the members make of it.
    pub fn status(&self, name_of: impl Fn(NodeId) -> String) -> PlanStatus {
        let Some(plan) = &self.in_force else {
            return PlanStatus { quorate: self.quorate(), ..PlanStatus::default() };
        };
        let proposal = &plan.proposal;
        PlanStatus {
            epoch: proposal.ballot.epoch,
            proposer: name_of(proposal.ballot.proposer),
            digest: plan.digest.to_string(),
            question: proposal.question.to_string(),
            table: proposal.table.to_string(),
            plugin: proposal.plugin.to_string(),
            document_version: proposal.document.version,
            quorate: self.confirmed,
            moved: moved(plan),
            duties: if self.confirmed { duties(plan, &name_of) } else { Vec::new() },
            votes: self.verdicts(plan, &name_of),
        }
    }

    /// What is wrong with the plan in force, in words.
    pub fn problems(&self, name_of: impl Fn(NodeId) -> String) -> Vec<String> {
        if self.facts.as_ref().is_some_and(|facts| facts.barred) {
            // Why it is says another.
            return Vec::new();
        }
        if self.facts.is_some() && !self.quorate() {
            return vec![String::from("this member sees no majority of the members, and owns nothing")];
        }
        let Some(plan) = &self.in_force else { return Vec::new() };
        let mut problems = Vec::new();
        let duties = plan.proposal.responsibilities.iter().zip(&plan.proposal.owners);
        let mut unowned = duties.filter(|(_, owners)| owners.is_empty()).map(|(duty, _)| duty.name.as_str());
        let named: Vec<&str> = unowned.by_ref().take(MAX_NAMED).collect();
        if !named.is_empty() {
            let more = match unowned.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            problems.push(format!(
                "nobody owns {}{more}: no live member meets what is required of an owner",
                named.join(", ")
            ));
        }
        for vote in self.verdicts(plan, &name_of) {
            let Vote { node, verdict, why, .. } = vote;
            match verdict.as_str() {
                // Of documents that differ, `status` tells beside this; a plan for a new one is on its way.
                "differs" if why == DOCUMENT_DIFFERS => {}
                "differs" => problems
                    .push(format!("{node} would have made another plan ({why}), and follows this one")),
                "fault" => problems.push(format!("the assignment policy of {node} gives no plan: {why}")),
                _ => {}
            }
        }
        problems
    }

    fn verdicts(&self, plan: &InForce, name_of: &impl Fn(NodeId) -> String) -> Vec<Vote> {
        let ballot = plan.proposal.ballot;
        let plugin = self.facts.as_ref().map_or(Digest::default(), |facts| facts.plugin_digest);
        let row = |(node, boot)| {
            let known = self.votes.get(&node).filter(|vote| vote.boot == boot);
            let passed = self.passed.get(&node).filter(|vote| vote.boot == boot);
            let told = known.filter(|vote| vote.ballot == Some(ballot)).or(passed);
            let (verdict, why) = if node == self.me {
                verdict(plan, &plan.opinion, plan.asked_plugin.unwrap_or(plugin), self.document_differs())
            } else if let Some(vote) = told {
                verdict(plan, &vote.opinion, vote.plugin, vote.document_differs)
            } else if node == ballot.proposer {
                match plan.proposal.fault.as_str() {
                    "" => ("same", String::new()),
                    fault => ("fault", String::from(fault)),
                }
            } else if ballot.proposer != self.me {
                return None;
            } else {
                match known.and_then(|vote| vote.ballot) {
                    Some(other) => ("pending", format!("epoch {} is in force there", other.epoch)),
                    None => ("pending", String::from("no vote yet")),
                }
            };
            Some(Vote { node: name_of(node), id: node.to_string(), verdict: verdict.into(), why })
        };
        plan.proposal.live().filter_map(row).collect()
    }
}

fn verdict(
    plan: &InForce,
    opinion: &Opinion,
    plugin: Digest,
    document_differs: bool,
) -> (&'static str, String) {
    match opinion {
        Opinion::Pending(why) => ("pending", why.clone()),
        Opinion::Fault(why) => ("fault", why.clone()),
        Opinion::Answered(_) if document_differs => ("differs", String::from(DOCUMENT_DIFFERS)),
        Opinion::Answered(digest) if *digest == plan.digest => ("same", String::new()),
        Opinion::Answered(_) if plugin != plan.proposal.plugin => {
            ("differs", format!("another plugin: {}", plugin.short()))
        }
        Opinion::Answered(_) if !plan.proposal.fault.is_empty() => {
            ("differs", String::from("the plan is the proposer's fallback"))
        }
        Opinion::Answered(digest) => {
            ("differs", format!("the same plugin made another plan: {}", digest.short()))
        }
    }
}

fn moved(plan: &InForce) -> u32 {
    let pairs = plan.proposal.previous.iter().zip(&plan.proposal.owners);
    pairs.filter(|(before, now)| !before.is_empty() && before.first() != now.first()).count() as u32
}

fn duties(plan: &InForce, name_of: &impl Fn(NodeId) -> String) -> Vec<Duty> {
    let proposal = &plan.proposal;
    let duty = |(index, owners): (usize, &Vec<u32>)| {
        let nodes: Vec<NodeId> =
            owners.iter().filter_map(|&owner| Some(proposal.nodes.get(owner as usize)?.0)).collect();
        Some(Duty {
            name: proposal.responsibilities.get(index)?.name.clone(),
            owners: nodes.iter().map(|node| name_of(*node)).collect(),
            ids: nodes.iter().map(ToString::to_string).collect(),
        })
    };
    proposal.owners.iter().enumerate().filter_map(duty).collect()
}
