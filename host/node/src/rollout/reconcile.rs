//! The policies that answer here follow the document.

use std::time::Duration;

use overlan_contract::Kind;
use overlan_core::Event;
use overlan_core::document::{Document, PolicyChoice};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::Rollout;
use crate::handle::NodeHandle;
use crate::node::configured_plugin;
use crate::policy::Priority;

/// What could not be had is tried again after this long.
const RETRY: Duration = Duration::from_secs(3);

/// Commits the policies of each document that comes in force, until the node stops.
pub(crate) async fn keep_policies(node: NodeHandle, mut events: broadcast::Receiver<Event>) {
    let rollout = &node.shared.rollout;
    let mut before: Option<Document> = None;
    loop {
        let held = node.inspect(|core, _| core.document().map(|held| held.document().clone())).await;
        let Ok(held) = held else { return };
        if let Some(document) = &held {
            rollout.follow(&node, before.as_ref(), document).await;
        }
        if held != before {
            let documents = before.iter().chain(&held);
            let named =
                documents.flat_map(|document| &document.policies).map(|policy| policy.sha256).collect();
            rollout.lock().named = Some(named);
            rollout.collect();
        }
        let settled = rollout.lock().problems.is_empty();
        if settled {
            before = held;
        }
        let patience = if settled { Duration::MAX } else { RETRY };
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
    async fn follow(&self, node: &NodeHandle, before: Option<&Document>, document: &Document) {
        let mut problems = Vec::new();
        for kind in Kind::ALL {
            let followed = match document.policy(kind) {
                Some(policy) => self.commit(node, policy).await,
                None if before.is_some_and(|before| before.policy(kind).is_some()) => {
                    configured(node, kind).await
                }
                None => Ok(()),
            };
            if let Err(why) = followed {
                problems.push(format!("policy.{kind} of the cluster document: {why}; trying again"));
            }
        }
        let mut state = self.lock();
        if !state.working {
            state.ready.clear();
        }
        state.problems = problems;
    }

    async fn commit(&self, node: &NodeHandle, policy: &PolicyChoice) -> Result<(), String> {
        if Self::is_active(node, policy) {
            return Ok(());
        }
        let prepared = match self.take_ready(policy) {
            Some(ready) => ready.prepared,
            None => {
                let candidate = self.candidate(node, policy, None).await?;
                let prepared = node.shared.policies.prepare(candidate, Priority::Background).await;
                prepared.map_err(|error| error.to_string())?
            }
        };
        node.shared.policies.commit(prepared).await.map(drop).map_err(|error| error.to_string())
    }
}

/// The plugin that this member is configured with answers again.
async fn configured(node: &NodeHandle, kind: Kind) -> Result<(), String> {
    let candidate = configured_plugin(node.config(), kind)?;
    let set = node.shared.policies.set(candidate, Priority::Background).await;
    set.map(drop).map_err(|error| error.to_string())
}
