//! The policies that answer here follow the document: each is committed once.

use std::collections::BTreeSet;
use std::time::Duration;

use overlan_contract::Kind;
use overlan_core::document::{Document, PolicyChoice};
use overlan_core::{DocumentId, Event};
use overlan_wire::Digest;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::Rollout;
use super::prepare::active;
use crate::handle::NodeHandle;
use crate::node::configured_plugin;
use crate::policy::{PolicyStatus, Priority};

/// What could not be had is tried again after this long, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(3);
const MAX_RETRY: Duration = Duration::from_secs(48);

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
    /// What answers in its place, in a sentence.
    pub(super) fn stray(&self, shown: &[PolicyStatus]) -> Option<String> {
        let (kind, version) = (self.policy.kind, self.version);
        let status = shown.iter().find(|status| status.kind == kind && status.digest != self.digest)?;
        let plugin = &self.policy.plugin;
        if status.rollbacks > self.rollbacks {
            let why = status.last_rollback.as_deref().unwrap_or_default();
            return Some(format!(
                "policy.{kind} {plugin} of cluster document {version} was rolled back here: {why}; \
                 `overlan policy push {kind}` brings another to all members"
            ));
        }
        Some(format!(
            "policy.{kind}: {} answers on this member instead of {plugin} of cluster document {version}; \
             `overlan policy push {kind}` brings one to all members",
            status.plugin
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
    loop {
        let look =
            node.inspect(|core, _| (core.document_id(), core.document().map(|held| held.document().clone())));
        let Ok((id, held)) = look.await else { return };
        if seen != Some(id) {
            names.rotate_right(1);
            names[0] =
                held.iter().flat_map(|document| &document.policies).map(|policy| policy.sha256).collect();
            rollout.lock().named = Some(names.iter().flatten().copied().collect());
            (seen, pause) = (Some(id), RETRY);
        }
        if let Some(document) = &held {
            rollout.follow(&node, document).await;
        }
        node.collect_components().await;
        let settled = rollout.lock().failures.is_empty();
        let patience = if settled { Duration::MAX } else { pause };
        pause = (pause * 2).min(MAX_RETRY);
        if let Ok(false) = timeout(patience, wait_for_document(&mut events)).await {
            return;
        }
    }
}

/// Waits for another document; `false` once the node has stopped.
async fn wait_for_document(events: &mut broadcast::Receiver<Event>) -> bool {
    loop {
        match events.recv().await {
            Ok(Event::Document(_)) | Err(RecvError::Lagged(_)) => return true,
            Ok(_) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}

impl Rollout {
    /// Changes the kinds for which the document says something else than the one that was followed last.
    async fn follow(&self, node: &NodeHandle, document: &Document) {
        let mut failures = Vec::new();
        for kind in Kind::ALL {
            let before = self.lock().followed.get(&kind).map(|followed| followed.policy.clone());
            let wanted = document.policy(kind);
            if wanted == before.as_ref() {
                continue;
            }
            let changed = match wanted {
                Some(policy) => self.commit(node, policy, document.version).await.map(Some),
                None => configured(node, kind).await.map(|()| None),
            };
            match changed {
                Ok(Some(followed)) => drop(self.lock().followed.insert(kind, followed)),
                Ok(None) => drop(self.lock().followed.remove(&kind)),
                Err(why) => failures.push(format!(
                    "policy.{kind} of cluster document {} is not in force here: {why}; trying again",
                    document.version
                )),
            }
        }
        let mut state = self.lock();
        state.ready.retain(|ready| ready.version > document.version);
        state.failures = failures;
    }

    async fn commit(
        &self,
        node: &NodeHandle,
        policy: &PolicyChoice,
        version: u64,
    ) -> Result<Followed, String> {
        let policies = &node.shared.policies;
        let (components, sha256) = (self.components.clone(), policy.sha256);
        let kept = tokio::task::spawn_blocking(move || components.put_shipped(sha256)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, plugin = policy.plugin,
                "a policy of the cluster document is not stored; another release may not ship it");
        }
        let status = match active(node, policy) {
            Some(status) => status,
            None => {
                let prepared = match self.take_ready(policy) {
                    Some(ready) => ready.prepared,
                    None => {
                        let candidate = self.candidate(node, policy, None).await?;
                        let prepared = policies.prepare(candidate, Priority::Background).await;
                        prepared.map_err(|error| error.to_string())?
                    }
                };
                policies.commit(prepared).await.map_err(|error| error.to_string())?
            }
        };
        let digest = policies.digest(policy).to_string();
        Ok(Followed { policy: policy.clone(), version, digest, rollbacks: status.rollbacks })
    }
}

/// The plugin that this member is configured with answers again.
async fn configured(node: &NodeHandle, kind: Kind) -> Result<(), String> {
    let candidate = configured_plugin(node.config(), kind)?;
    let set = node.shared.policies.set(candidate, Priority::Background).await;
    set.map(drop).map_err(|error| error.to_string())
}
