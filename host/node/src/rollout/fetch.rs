//! Fetching a component, piece by piece, from whoever has it.

use std::time::Duration;

use bytes::Bytes;
use overlan_core::document::PolicyChoice;
use overlan_wire::{Digest, NodeId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::components::digest;
use super::message::{PIECE, RolloutMessage};
use super::{Awaited, Rollout};
use crate::handle::NodeHandle;

/// A piece must have come by then, else another member is asked.
const PIECE_WAIT: Duration = Duration::from_secs(10);

impl Rollout {
    pub(super) fn handle_piece(&self, from: NodeId, sha256: Digest, offset: u32, bytes: Bytes) {
        let expected =
            |awaited: &mut Awaited| (awaited.from, awaited.sha256, awaited.offset) == (from, sha256, offset);
        if let Some(awaited) = self.lock().awaited.take_if(expected) {
            let _ = awaited.reply.send(bytes);
        }
    }

    /// The component of a policy: from here, else from `first` (a member likely to have it) or any other live member.
    /// The caller sees to it that it is [wanted](Rollout::wanted).
    ///
    /// # Errors
    /// Why it is not to be had, in words.
    pub(super) async fn component(
        &self,
        node: &NodeHandle,
        policy: &PolicyChoice,
        first: Option<NodeId>,
    ) -> Result<Vec<u8>, String> {
        let _alone = self.downloading.lock().await;
        let (components, sha256) = (self.components.clone(), policy.sha256);
        let here = tokio::task::spawn_blocking(move || components.read(sha256)).await;
        if let Some(wasm) = here.ok().flatten() {
            return Ok(wasm);
        }
        let live = node.inspect(|core, _| core.live_peers()).await.map_err(|stopped| stopped.to_string())?;
        if live.is_empty() {
            return Err("its component is not here, and no other member is alive".to_owned());
        }
        let others = live.into_iter().filter(|peer| Some(*peer) != first);
        for source in first.into_iter().filter(|first| *first != node.id()).chain(others) {
            let Some(wasm) = self.download(node, policy, source).await else { continue };
            let components = self.components.clone();
            let stored =
                tokio::task::spawn_blocking(move || components.put(sha256, &wasm).map(|()| wasm)).await;
            return match stored {
                Ok(Ok(wasm)) => Ok(wasm),
                Ok(Err(error)) => Err(format!("the component cannot be stored: {error}")),
                Err(_) => Err("the node stops".to_owned()),
            };
        }
        Err(format!("no live member has the component {} of {}", policy.sha256.short(), policy.plugin))
    }

    /// All of a component from one member, if it is what its digest says.
    async fn download(&self, node: &NodeHandle, policy: &PolicyChoice, from: NodeId) -> Option<Vec<u8>> {
        let size = policy.size as usize;
        let mut wasm = Vec::new();
        while wasm.len() < size {
            let (reply, answer) = oneshot::channel();
            let (sha256, offset) = (policy.sha256, wasm.len() as u32);
            self.lock().awaited = Some(Awaited { from, sha256, offset, reply });
            if !node.tell(from, RolloutMessage::Ask { sha256, offset }.emit()).await {
                return None;
            }
            let piece = timeout(PIECE_WAIT, answer).await.ok()?.ok()?;
            // All pieces but the last are whole: one that gives little each time would hold up this and other rollouts.
            if piece.len() != PIECE.min(size - wasm.len()) {
                return None;
            }
            wasm.extend_from_slice(&piece);
        }
        let genuine = digest(&wasm) == policy.sha256;
        if !genuine {
            tracing::warn!(from = %from.short(), plugin = policy.plugin, "a component is not what its digest says");
        }
        genuine.then_some(wasm)
    }
}
