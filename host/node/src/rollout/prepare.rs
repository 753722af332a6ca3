//! A member's side of a rollout: it looks at the document, makes the policies ready that it changes, and says so.

use overlan_contract::Kind;
use overlan_core::ApplyError;
use overlan_core::document::{PolicyChoice, SignedDocument};
use overlan_wire::{Digest, NodeId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::message::{Outcome, RolloutMessage};
use super::{Current, DEADLINE, Ready, Rollout, State};
use crate::driver::NodeCore;
use crate::handle::NodeHandle;
use crate::policy::{Candidate, PolicyStatus, Priority};

/// Why nothing came of a rollout that its leader gave up.
const ABANDONED: &str = "the change was abandoned";

/// Prepares in the background and answers. Where too much is under way, nothing: it will be asked again.
pub(super) fn handle_prepare(node: &NodeHandle, from: NodeId, token: u64, document: SignedDocument) {
    let Ok(place) = node.shared.rollout.answering.clone().try_acquire_owned() else { return };
    let node = node.clone();
    tokio::spawn(async move {
        let _place = place;
        if let Some(outcome) = node.shared.rollout.prepare(&node, from, token, document).await {
            node.tell(from, RolloutMessage::Prepared { token, outcome }.emit()).await;
        }
    });
}

/// The policies that a document changes here; refused where this member would not take the document.
pub(super) fn changed(core: &NodeCore, offered: &SignedDocument) -> Result<Vec<PolicyChoice>, ApplyError> {
    core.check_offer(offered)?;
    let held = core.document().map(|held| held.document().policies.as_slice()).unwrap_or_default();
    let changed = offered.document().policies.iter().filter(|policy| !held.contains(policy));
    Ok(changed.cloned().collect())
}

/// What a rollout is to this member.
enum Begun {
    /// The only one: it may work on it, and nobody else while it holds this.
    New(OwnedSemaphorePermit),
    /// It works on it already.
    Going,
    /// It is known what comes of it.
    Known(Outcome),
}

impl Rollout {
    pub(super) fn handle_abandon(&self, from: NodeId, token: u64) {
        let mut state = self.lock();
        if let Some(current) = state.current.as_mut().filter(|current| current.is(from, token)) {
            current.outcome = Some(Outcome::Refused(ABANDONED.to_owned()));
            state.ready.clear();
            self.abandoned.notify_waiters();
        }
    }

    /// Waits until a rollout is not the one to prepare any more.
    async fn until_abandoned(&self, from: NodeId, token: u64) {
        let goes_on = |current: &Current| current.is(from, token) && current.outcome.is_none();
        loop {
            let abandoned = self.abandoned.notified();
            if !self.lock().current.as_ref().is_some_and(goes_on) {
                return;
            }
            abandoned.await;
        }
    }

    /// What comes of a rollout here, the same however often it is asked; `None` while an earlier call works on it.
    /// A commit is a matter of the document then.
    pub(super) async fn prepare(
        &self,
        node: &NodeHandle,
        from: NodeId,
        token: u64,
        document: SignedDocument,
    ) -> Option<Outcome> {
        let version = document.document().version;
        let policies = match node.inspect(move |core, _| changed(core, &document)).await {
            Ok(Ok(policies)) => policies,
            Ok(Err(ApplyError::Raced { in_force, .. })) if in_force.version + 1 < version => {
                let held = in_force.version;
                return Some(Outcome::NotYet(format!(
                    "it holds version {held} of the cluster document still"
                )));
            }
            Ok(Err(refused)) => return Some(Outcome::Refused(refused.to_string())),
            Err(stopped) => return Some(Outcome::Refused(stopped.to_string())),
        };
        let working = match self.begin(from, token, &policies) {
            Begun::New(working) => working,
            Begun::Going => return None,
            Begun::Known(outcome) => return Some(outcome),
        };
        node.collect_components().await;
        let prepared = tokio::select! {
            prepared = timeout(DEADLINE, self.prepare_all(node, from, version, policies)) => {
                prepared.unwrap_or_else(|_| Err(format!("it was not ready within {} s", DEADLINE.as_secs())))
            }
            () = self.until_abandoned(from, token) => Err(ABANDONED.to_owned()),
        };
        let (outcome, ready) = match prepared {
            Ok((digests, ready)) => (Outcome::Ready(digests), ready),
            Err(why) => (Outcome::Refused(why), Vec::new()),
        };
        let outcome = self.finish(from, token, outcome, ready);
        drop(working);
        Some(outcome)
    }

    fn begin(&self, from: NodeId, token: u64, policies: &[PolicyChoice]) -> Begun {
        let mut state = self.lock();
        let known = state.current.as_ref().filter(|current| current.is(from, token));
        if let Some(outcome) = known.and_then(|current| current.outcome.clone()) {
            return Begun::Known(outcome);
        }
        let Ok(working) = self.preparing.clone().try_acquire_owned() else {
            // Perhaps one that was abandoned; whichever it is, it ends by itself.
            let busy = |other: &Current| {
                let asker = other.from.short();
                Outcome::NotYet(format!(
                    "it prepares another change of the policies still, for member {asker}"
                ))
            };
            return match &state.current {
                Some(other) if !other.is(from, token) => Begun::Known(busy(other)),
                _ => Begun::Going,
            };
        };
        state.current = Some(Current { from, token, outcome: None });
        state.ready.clear();
        state.rolling = policies.iter().map(|policy| policy.sha256).collect();
        Begun::New(working)
    }

    /// What stands: it may have been abandoned meanwhile.
    fn finish(&self, from: NodeId, token: u64, outcome: Outcome, ready: Vec<Ready>) -> Outcome {
        let mut state = self.lock();
        let State { current, ready: place, .. } = &mut *state;
        match current.as_mut().filter(|current| current.is(from, token)) {
            Some(Current { outcome: Some(abandoned), .. }) => abandoned.clone(),
            Some(current) => {
                current.outcome = Some(outcome.clone());
                *place = ready;
                outcome
            }
            None => Outcome::Refused("another change took its place".to_owned()),
        }
    }

    async fn prepare_all(
        &self,
        node: &NodeHandle,
        from: NodeId,
        version: u64,
        policies: Vec<PolicyChoice>,
    ) -> Result<(Vec<(Kind, Digest)>, Vec<Ready>), String> {
        let (mut digests, mut ready) = (Vec::new(), Vec::new());
        for policy in policies {
            let kind = policy.kind;
            if active(node, &policy).is_some() {
                digests.push((kind, node.shared.policies.digest(&policy)));
                continue;
            }
            let candidate = self.candidate(node, &policy, Some(from)).await?;
            let prepared = node.shared.policies.prepare(candidate, Priority::Background).await;
            let prepared = prepared.map_err(|error| format!("policy.{kind} {}: {error}", policy.plugin))?;
            digests.push((kind, prepared.digest()));
            ready.push(Ready { version, policy, prepared });
        }
        Ok((digests, ready))
    }

    pub(super) async fn candidate(
        &self,
        node: &NodeHandle,
        policy: &PolicyChoice,
        first: Option<NodeId>,
    ) -> Result<Candidate, String> {
        let wasm = self.component(node, policy, first).await?;
        let (name, config) = (policy.plugin.clone(), policy.config.clone());
        Ok(Candidate { kind: policy.kind, name, wasm, config, limits: Vec::new() })
    }

    /// What was prepared of a policy, once.
    pub(super) fn take_ready(&self, policy: &PolicyChoice) -> Option<Ready> {
        let mut state = self.lock();
        let at = state.ready.iter().position(|ready| ready.policy == *policy)?;
        Some(state.ready.swap_remove(at))
    }
}

/// The plugin that answers, if it is the one of this policy, with this member's limits.
pub(super) fn active(node: &NodeHandle, policy: &PolicyChoice) -> Option<PolicyStatus> {
    let digest = node.shared.policies.digest(policy).to_string();
    let shown = node.policy_list().into_iter().find(|status| status.kind == policy.kind)?;
    (shown.digest == digest).then_some(shown)
}
