//! The side of the member that was asked for a rollout: it has all members prepare, and counts their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use overlan_contract::Kind;
use overlan_core::document::{PolicyChoice, SignedDocument};
use overlan_wire::{Digest, NodeId};
use tokio::time::{Instant, sleep, timeout};

use super::message::{Outcome, RolloutMessage};
use super::prepare::changed;
use super::{DEADLINE, Rollout};
use crate::document::{ApplyFailure, DocumentError};
use crate::handle::NodeHandle;
use crate::state::random;

/// Who has not answered is asked again after this long.
const REPEAT: Duration = Duration::from_secs(5);
/// A live member that nothing from here reaches has so long to come into reach: what is asked of it can't be passed on.
const REACH: Duration = Duration::from_secs(30);
/// How often it is looked who is alive still, and those are asked again that could not begin yet.
const LOOK: Duration = Duration::from_secs(1);

/// Of a member that is out of reach of the one that was asked.
const UNREACHABLE: &str = "it lives, as other members say, and nothing that is sent from here is answered, so that it can't \
                           make the policies ready: ask a member that reaches all others (one whose `overlan status` names \
                           no such problem)";

/// A rollout that every live member is ready for. Dropped before it is [settled](Self::settle), nothing comes of it, on
/// no member.
pub(crate) struct Undertaking {
    node: NodeHandle,
    token: u64,
    settled: bool,
    without: Vec<String>,
}

impl Undertaking {
    /// The document is in force. Names the members that went away before they were ready.
    pub(crate) fn settle(mut self) -> Vec<String> {
        self.settled = true;
        std::mem::take(&mut self.without)
    }
}

impl Drop for Undertaking {
    fn drop(&mut self) {
        let (node, token) = (self.node.clone(), self.token);
        node.shared.rollout.lock().answers.remove(&token);
        if self.settled {
            return;
        }
        tracing::info!("a change of the policies is abandoned on all members");
        node.shared.rollout.handle_abandon(node.id(), token);
        let telling = node.clone();
        node.spawn_beside(async move {
            let live = telling.inspect(|core, _| core.live_peers()).await.unwrap_or_default();
            let abandon = Bytes::from(RolloutMessage::Abandon { token }.emit());
            join_all(live.into_iter().map(|peer| telling.tell(peer, abandon.clone()))).await;
        });
    }
}

/// Has this and every other live member make the policies ready that a document changes; names the first that will not.
/// `None`: it changes none.
///
/// # Errors
/// Nothing changed anywhere.
pub(crate) async fn prepare_everywhere(
    node: &NodeHandle,
    document: &SignedDocument,
) -> Result<Option<Undertaking>, ApplyFailure> {
    let rollout = &node.shared.rollout;
    let offered = document.clone();
    let policies = node.inspect(move |core, _| changed(core, &offered)).await??;
    if policies.is_empty() {
        return Ok(None);
    }
    for PolicyChoice { kind, sha256, size: named, .. } in &policies {
        let size = rollout.components.size(*sha256).ok_or(ApplyFailure::NoComponent(*kind))?;
        if size != u64::from(*named) {
            // Who has to fetch it would never get it.
            let why = format!("policy.{kind}.size is {named}; the component has {size} bytes");
            return Err(DocumentError(why).into());
        }
    }
    let version = document.document().version;
    tracing::info!(version, "all members prepare the policies of a cluster document");
    let token = u64::from_be_bytes(random());
    rollout.lock().answers.insert(token, BTreeMap::new());
    let mut undertaking = Undertaking { node: node.clone(), token, settled: false, without: Vec::new() };
    let until = Instant::now() + DEADLINE;
    let own = loop {
        match rollout.prepare(node, node.id(), token, document.clone()).await {
            Some(Outcome::Ready(digests)) => break digests,
            Some(Outcome::NotYet(_)) | None if Instant::now() < until => sleep(LOOK).await,
            Some(Outcome::Refused(why) | Outcome::NotYet(why)) => {
                return Err(refused(&node.config().name, why));
            }
            None => return Err(refused(&node.config().name, late(""))),
        }
    };
    undertaking.without = rollout.ask_all(node, token, document, &own, until).await?;
    Ok(Some(undertaking))
}

impl Rollout {
    pub(super) fn handle_prepared(&self, from: NodeId, token: u64, outcome: Outcome) {
        if let Some(answers) = self.lock().answers.get_mut(&token) {
            answers.insert(from, outcome);
            self.answered.notify_one();
        }
    }

    /// Asks all live members, also those that come meanwhile, until all are as ready as this one; names those that went
    /// away.
    async fn ask_all(
        &self,
        node: &NodeHandle,
        token: u64,
        document: &SignedDocument,
        own: &[(Kind, Digest)],
        until: Instant,
    ) -> Result<Vec<String>, ApplyFailure> {
        let prepare = RolloutMessage::Prepare { token, document: document.clone() };
        let prepare = Bytes::from(prepare.emit());
        let mut asked: BTreeMap<NodeId, (String, Instant)> = BTreeMap::new();
        let reach_until = Instant::now() + REACH;
        loop {
            let names = node.inspect(|core, now| {
                let live = core.live_peers().into_iter().map(|id| (id, core.name_of(id)));
                (live.collect::<BTreeMap<_, _>>(), core.unreachable(now))
            });
            let (live, unreachable) = names.await?;
            let answers = self.lock().answers.get(&token).cloned().unwrap_or_default();
            let (mut waits, mut due) = (None, Vec::new());
            let now = Instant::now();
            for (&peer, name) in &live {
                let Some(why) = missing(answers.get(&peer), own).map_err(|why| refused(name, why))? else {
                    continue;
                };
                if now >= reach_until && !answers.contains_key(&peer) && unreachable.contains(&peer) {
                    return Err(refused(name, UNREACHABLE.to_owned()));
                }
                waits.get_or_insert((name, why));
                let pause = if answers.contains_key(&peer) { LOOK } else { REPEAT };
                if asked.get(&peer).is_none_or(|(_, at)| now.duration_since(*at) >= pause) {
                    asked.insert(peer, (name.clone(), now));
                    due.push(peer);
                }
            }
            let Some((name, why)) = waits else {
                let ready = |peer: &NodeId| matches!(answers.get(peer), Some(Outcome::Ready(_)));
                asked.retain(|peer, _| !live.contains_key(peer) && !ready(peer));
                return Ok(asked.into_values().map(|(name, _)| name).collect());
            };
            if now >= until {
                return Err(refused(name, late(&why)));
            }
            join_all(due.into_iter().map(|peer| node.tell(peer, prepare.clone()))).await;
            let _ = timeout(LOOK, self.answered.notified()).await;
        }
    }
}

fn late(why: &str) -> String {
    format!("it was not ready within {} s{why}", DEADLINE.as_secs())
}

fn refused(member: &str, why: String) -> ApplyFailure {
    ApplyFailure::Member { member: member.to_owned(), why }
}

/// What an answer leaves to wait for, as the end of a sentence; `None`: nothing.
///
/// # Errors
/// Why it never will be.
fn missing(answer: Option<&Outcome>, own: &[(Kind, Digest)]) -> Result<Option<String>, String> {
    match answer {
        None => Ok(Some(String::new())),
        Some(Outcome::NotYet(why)) => Ok(Some(format!(": {why}"))),
        Some(Outcome::Refused(why)) => Err(why.clone()),
        Some(Outcome::Ready(digests)) if digests == own => Ok(None),
        Some(Outcome::Ready(digests)) => {
            let differs = own.iter().find(|policy| !digests.contains(policy));
            let kind = differs.or(digests.first()).map_or_else(String::new, |(kind, _)| format!(".{kind}"));
            Err(format!(
                "with its limits the policy would not answer as here; write the same [policy{kind}] limits on every \
                 member and start those again"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_must_be_ready_for_the_same() {
        let own = [(Kind::Assignment, Digest([1; 32])), (Kind::Sizing, Digest([2; 32]))];
        assert_eq!(missing(None, &own), Ok(Some(String::new())));
        assert_eq!(missing(Some(&Outcome::NotYet("x".into())), &own), Ok(Some(": x".into())));
        assert_eq!(missing(Some(&Outcome::Refused("x".into())), &own), Err("x".into()));
        assert_eq!(missing(Some(&Outcome::Ready(own.to_vec())), &own), Ok(None));
        let other = vec![(Kind::Assignment, Digest([9; 32])), own[1]];
        let differs = missing(Some(&Outcome::Ready(other)), &own).unwrap_err();
        assert!(differs.contains("[policy.assignment] limits"), "{differs}");
        assert!(missing(Some(&Outcome::Ready(Vec::new())), &own).is_err());
    }
}
