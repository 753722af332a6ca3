//! The policies that answer here follow the document: each is committed once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use overlan_contract::Kind;
use overlan_core::document::{Document, PolicyChoice};
use overlan_core::status::MemberState;
use overlan_core::{DocumentId, Event};
use overlan_wire::Digest;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::memory::RolledBack;
use super::prepare::active;
use super::{Rollout, State};
use crate::handle::NodeHandle;
use crate::node::configured_plugin;
use crate::policy::{PolicyStatus, Priority};

/// What could not be had is tried again after this long, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(3);
const MAX_RETRY: Duration = Duration::from_secs(48);
/// A member that starts and lacks a component asks those it meets for so long, before what it is configured with answers.
const RESTORE_WAIT: Duration = Duration::from_secs(10);
/// How often, if it meets nobody new.
const RESTORE_LOOK: Duration = Duration::from_secs(1);
/// Longer than any node runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A policy that a document put in force here. Whether it still answers is another matter.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) policy: PolicyChoice,
    /// The first version that named it.
    version: u64,
    /// Of the plugin with its configuration and limits.
    digest: String,
    /// Roll-backs of its kind before.
    rollbacks: u64,
}

impl Followed {
    /// Whether it gave way, since it was put in force, to what answered before it.
    fn has_failed(&self, shown: &PolicyStatus) -> bool {
        shown.rollbacks > self.rollbacks && shown.last_rollback_digest.as_ref() == Some(&self.digest)
    }

    /// What answers in its place, in a sentence.
    pub(super) fn stray(&self, shown: &[PolicyStatus], failed: Option<&RolledBack>) -> Option<String> {
        let kind = self.policy.kind;
        let status = shown.iter().find(|status| status.kind == kind && status.digest != self.digest)?;
        let plugin = &self.policy.plugin;
        if let Some(RolledBack { version, why, .. }) = failed {
            return Some(format!(
                "policy.{kind} {plugin} of cluster document {version} was rolled back here and {} answers ({why}); \
                 `overlan policy push {kind}` brings another to all members",
                status.plugin
            ));
        }
        Some(format!(
            "policy.{kind}: {} answers on this member instead of {plugin} of cluster document {}; \
             `overlan policy push {kind}` brings one to all members",
            status.plugin, self.version
        ))
    }
}

/// Commits the policies of each document that comes in force, until the node stops.
pub(crate) async fn keep_policies(node: NodeHandle, mut events: broadcast::Receiver<Event>) {
    let rollout = &node.shared.rollout;
    let mut seen: Option<DocumentId> = None;
    // Components of the document and of its predecessor.
    let mut names: [BTreeSet<Digest>; 2] = Default::default();
    let mut pause = RETRY;
    let begun = Instant::now();
    loop {
        let look = node.inspect(|core, _| (core.document_id(), core.document().cloned()));
        let Ok((id, held)) = look.await else { return };
        if seen != Some(id) {
            names.rotate_right(1);
            names[0] =
                held.iter().flat_map(|held| &held.document().policies).map(|policy| policy.sha256).collect();
            rollout.lock().named = Some(names.iter().flatten().copied().collect());
            (seen, pause) = (Some(id), RETRY);
        }
        match &held {
            Some(held) => rollout.follow(&node, held.document(), begun.elapsed() < RESTORE_WAIT).await,
            None => {
                join_all(Kind::ALL.map(|kind| rollout.give_up_restoring(&node, kind))).await;
                end_pending(&node, None).await;
            }
        }
        node.collect_components().await;
        let (settled, restores) = {
            let state = rollout.lock();
            (state.failures.is_empty(), !state.restoring.is_empty())
        };
        let wait = match (settled, restores) {
            (true, _) => FOREVER,
            (false, true) => RESTORE_LOOK,
            (false, false) => {
                let next = (pause * 2).min(MAX_RETRY);
                std::mem::replace(&mut pause, next)
            }
        };
        let until = Instant::now() + wait;
        loop {
            rollout.remember(&node).await;
            match timeout_at(until, news(&mut events)).await {
                Ok(Some(News::Policy)) => {}
                Ok(Some(News::Member)) if settled => {}
                Ok(Some(News::Document | News::Member)) | Err(_) => break,
                Ok(None) => return,
            }
        }
    }
}

enum News {
    /// Another document is held, or that may be.
    Document,
    /// Another policy answers some kind.
    Policy,
    /// A member came, who may have what is missing.
    Member,
}

/// Waits for what changes policies; `None` once the node has stopped.
async fn news(events: &mut broadcast::Receiver<Event>) -> Option<News> {
    loop {
        match events.recv().await {
            Ok(Event::Document(_)) | Err(RecvError::Lagged(_)) => return Some(News::Document),
            Ok(Event::Policy { .. }) => return Some(News::Policy),
            Ok(Event::Member { state: MemberState::Alive, .. }) => return Some(News::Member),
            Ok(_) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

impl Rollout {
    /// Changes the kinds for which the document says something else than the one that was followed last.
    /// `patient`: at the start, what it is configured with does not answer yet where others may have the component.
    async fn follow(&self, node: &NodeHandle, document: &Document, patient: bool) {
        let failures = join_all(Kind::ALL.map(async |kind| {
            let followed = self.follow_kind(node, kind, document).await;
            let lacks = |policy: &PolicyChoice| !self.components.has(policy.sha256);
            if followed.is_ok() || !patient || !document.policy(kind).is_some_and(lacks) {
                self.give_up_restoring(node, kind).await;
                if kind == Kind::Assignment {
                    end_pending(node, Some(document.version)).await;
                }
            }
            followed.err().map(|why| {
                format!(
                    "policy.{kind} of cluster document {} is not in force here: {why}; trying again",
                    document.version
                )
            })
        }));
        let failures = failures.await.into_iter().flatten().collect();
        let mut state = self.lock();
        state.ready.retain(|ready| ready.version > document.version);
        state.failures = failures;
    }

    async fn follow_kind(&self, node: &NodeHandle, kind: Kind, document: &Document) -> Result<(), String> {
        let before = self.lock().followed.get(&kind).map(|followed| followed.policy.clone());
        let wanted = document.policy(kind);
        if wanted == before.as_ref() {
            return Ok(());
        }
        let Some(policy) = wanted else {
            configured(node, kind).await?;
            let mut state = self.lock();
            state.followed.remove(&kind);
            state.rolled_back.remove(&kind);
            return Ok(());
        };
        let digest = node.shared.policies.digest(policy).to_string();
        let failed = self.lock().rolled_back.get(&kind).filter(|failed| failed.digest == digest).cloned();
        let (version, rollbacks) = match failed {
            // It was tried in the life before.
            Some(failed) if before.is_none() => (failed.version, 0),
            _ => (document.version, self.commit(node, policy).await?.rollbacks),
        };
        let followed = Followed { policy: policy.clone(), version, digest, rollbacks };
        self.lock().followed.insert(kind, followed);
        Ok(())
    }

    async fn commit(&self, node: &NodeHandle, policy: &PolicyChoice) -> Result<PolicyStatus, String> {
        let policies = &node.shared.policies;
        let (components, sha256) = (self.components.clone(), policy.sha256);
        let kept = tokio::task::spawn_blocking(move || components.put_shipped(sha256)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, plugin = policy.plugin,
                "a policy of the cluster document is not stored; another release may not ship it");
        }
        if let Some(status) = active(node, policy) {
            return Ok(status);
        }
        let prepared = match self.take_ready(policy) {
            Some(ready) => ready.prepared,
            None => {
                let candidate = self.candidate(node, policy, None).await?;
                let prepared = policies.prepare(candidate, urgency(node, policy.kind)).await;
                prepared.map_err(|error| error.to_string())?
            }
        };
        policies.commit(prepared).await.map_err(|error| error.to_string())
    }

    /// At the start: where the document's policy does not answer after all, the configured one does.
    async fn give_up_restoring(&self, node: &NodeHandle, kind: Kind) {
        if self.lock().restoring.remove(&kind) && is_native(node, kind) {
            configured_or_native(node, kind).await;
        }
    }

    /// Notes which of the document's policies were rolled back here and which answer again, for the next start, too.
    async fn remember(&self, node: &NodeHandle) {
        let failed = self.note_failures(&node.policy_list());
        for &kind in &failed {
            // At the start there was nothing before it.
            if is_native(node, kind) {
                configured_or_native(node, kind).await;
            }
        }
        let Some(rolled_back) = self.lock().take_unstored() else { return };
        let node = node.clone();
        let stored =
            tokio::task::spawn_blocking(move || node.shared.rollout.memory.store(&rolled_back)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(%error, "what was rolled back is not stored: a restart tries it once more");
        }
    }

    /// The kinds whose policy has failed since this was last asked.
    fn note_failures(&self, shown: &[PolicyStatus]) -> Vec<Kind> {
        let mut state = self.lock();
        let State { followed, rolled_back, .. } = &mut *state;
        let mut failed = Vec::new();
        for status in shown {
            let kind = status.kind;
            let Some(followed) = followed.get(&kind) else { continue };
            if status.digest == followed.digest {
                rolled_back.remove(&kind);
                continue;
            }
            let known = rolled_back.get(&kind).is_some_and(|known| known.digest == followed.digest);
            if !known && followed.has_failed(status) {
                let why = status.last_rollback.clone().unwrap_or_default();
                let (digest, version) = (followed.digest.clone(), followed.version);
                rolled_back.insert(kind, RolledBack { digest, version, why });
                failed.push(kind);
            }
        }
        failed
    }
}

impl State {
    /// What was rolled back, if that is not what is stored.
    fn take_unstored(&mut self) -> Option<BTreeMap<Kind, RolledBack>> {
        if self.rolled_back == self.stored {
            return None;
        }
        self.stored.clone_from(&self.rolled_back);
        Some(self.stored.clone())
    }
}

/// The assignment policy of the document of this version answers now, or does not for the time being: what answers makes plans.
async fn end_pending(node: &NodeHandle, version: Option<u64>) {
    let end = node.inspect(move |core, now| {
        if core.document().map(|held| held.document().version) == version {
            core.set_assignment_pending(now, false);
        }
    });
    // It fails only as the node stops.
    let _ = end.await;
}

/// How urgent it is that the wanted plugin of a kind answers: plans wait for it, and where nothing but the native fallback
/// answers, all else does.
fn urgency(node: &NodeHandle, kind: Kind) -> Priority {
    if kind == Kind::Assignment || is_native(node, kind) { Priority::Urgent } else { Priority::Background }
}

fn is_native(node: &NodeHandle, kind: Kind) -> bool {
    node.policy_list().iter().any(|status| status.kind == kind && status.digest.is_empty())
}

/// The plugin that this member is configured with answers again.
async fn configured(node: &NodeHandle, kind: Kind) -> Result<(), String> {
    let candidate = configured_plugin(node.config(), kind).map_err(|error| error.to_string())?;
    let set = node.shared.policies.set(candidate, urgency(node, kind)).await;
    set.map(drop).map_err(|error| error.to_string())
}

/// As [`configured`]; where that fails, the core is told that the native fallback answers.
async fn configured_or_native(node: &NodeHandle, kind: Kind) {
    if let Err(error) = configured(node, kind).await {
        tracing::error!(%kind, error, "the configured policy cannot be loaded: the native fallback answers");
        // It fails only as the node stops.
        let _ = node.shared.policies.unset(kind).await;
    }
}
