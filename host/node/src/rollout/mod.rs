//! Policies of the cluster document: brought to every member, tested on each, switched at one version of the document.
//!
//! ```text
//!   the member that is asked                 each other live member
//!     | Prepare: the policies ------------->   |
//!     |  <-------------- Ask, Piece ... ----   |   fetches components that it lacks, from whoever has them
//!     |  <---------------------- Prepared --   |   compiled and tested; nothing changed yet
//!   (all: applies the document)                |
//!     |  . . . . the document . . . . . . .>   |   commits what it prepared
//!   (one will not: Abandon to all)             |
//! ```
//!
//! A member that comes later sees the document, fetches what it names, and commits it then; so does one that restarts.
//! What a peer may claim of a member: one rollout at a time, one download at a time of at most [`MAX_COMPONENT`] bytes,
//! and components on the disk that the document, its predecessor or the rollout names.
//!
//! Reading order: [`message`], `components` (what is at hand), `prepare` (both halves of a rollout), `fetch`, `reconcile`.
//!
//! [`MAX_COMPONENT`]: overlan_core::document::MAX_COMPONENT

mod components;
mod fetch;
pub mod message;
mod prepare;
mod reconcile;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use overlan_core::document::{MAX_COMPONENT, PolicyChoice};
use overlan_wire::limits::COMPONENT_STREAM;
use overlan_wire::{Digest, MessageMode, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;

use crate::driver::{Listener, SendOptions};
use crate::handle::NodeHandle;
use crate::policy::Prepared;
use components::Components;
use message::RolloutMessage;

/// Components that clients offered and no document names yet.
const MAX_OFFERED: usize = 3;

/// One whose queue is full for longer is passed over: others wait for their turn.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// Answers to rollouts that may be under way at a time; more are dropped.
const MAX_ANSWERS: usize = 8;

/// A component that a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentView {
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Bytes.
    pub size: u32,
}

/// Why a component was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Its size.
    #[error("the component has {0} bytes; from 1 to {MAX_COMPONENT} can be distributed")]
    Size(usize),
    /// The disk.
    #[error("the component cannot be stored in the state directory: {0}")]
    Io(#[from] std::io::Error),
}

/// One member's part in rollouts.
pub(crate) struct Rollout {
    components: Components,
    state: Mutex<State>,
    answering: Arc<Semaphore>,
    /// An answer to a rollout of ours came.
    answered: Notify,
    /// One download at a time.
    downloading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The rollout that is being prepared, or was: who asked, under which token.
    current: Option<(NodeId, u64)>,
    /// Whether work on it goes on.
    working: bool,
    ready: Vec<Ready>,
    /// What members answered to a rollout of ours: why not, or nothing.
    answers: BTreeMap<u64, BTreeMap<NodeId, String>>,
    awaited: Option<Awaited>,
    offered: VecDeque<Digest>,
    /// Of the document and its predecessor; `None` until that is known.
    named: Option<BTreeSet<Digest>>,
    /// Of the rollout that is being prepared, or was.
    rolling: BTreeSet<Digest>,
    problems: Vec<String>,
}

/// A policy that is ready to be committed.
struct Ready {
    policy: PolicyChoice,
    prepared: Prepared,
}

/// The piece that a download waits for.
struct Awaited {
    from: NodeId,
    sha256: Digest,
    offset: u32,
    reply: oneshot::Sender<Bytes>,
}

impl Rollout {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Rollout {
            components: Components::new(state_dir),
            state: Mutex::default(),
            answering: Arc::new(Semaphore::new(MAX_ANSWERS)),
            answered: Notify::new(),
            downloading: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps this member from the policies of the document.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }
}

impl NodeHandle {
    /// Takes a component for a document that will name it.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub async fn offer_component(&self, bytes: Bytes) -> Result<ComponentView, OfferError> {
        if bytes.is_empty() || bytes.len() > MAX_COMPONENT {
            return Err(OfferError::Size(bytes.len()));
        }
        let size = bytes.len() as u32;
        let components = self.shared.rollout.components.clone();
        let stored = tokio::task::spawn_blocking(move || components.put(&bytes)).await;
        let sha256 = stored.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
        self.shared.rollout.offer(sha256);
        Ok(ComponentView { sha256: sha256.to_string(), size })
    }

    /// Queues a message to a member; whether there was room for it in time.
    async fn tell(&self, to: NodeId, message: &RolloutMessage) -> bool {
        let options = SendOptions { stream: COMPONENT_STREAM, ..SendOptions::new(MessageMode::Reliable) };
        let to = to.to_string();
        let queued = self.send_with(&to, options, message.emit());
        matches!(timeout(QUEUE_WAIT, queued).await, Ok(Ok(_)))
    }
}

impl Rollout {
    /// Removes components that nothing names.
    fn collect(&self) {
        let state = self.lock();
        if let Some(named) = &state.named {
            let others = state.rolling.iter().chain(&state.offered);
            self.components.keep(&named.iter().chain(others).copied().collect());
        }
    }

    fn offer(&self, sha256: Digest) {
        let mut state = self.lock();
        state.offered.retain(|offered| *offered != sha256);
        state.offered.push_back(sha256);
        if state.offered.len() > MAX_OFFERED {
            state.offered.pop_front();
        }
    }
}

/// Serves the others until the node stops.
pub(crate) async fn serve(node: NodeHandle, mut listener: Listener) {
    while let Some(received) = listener.recv().await {
        let from = received.origin.node;
        let Ok(message) = RolloutMessage::parse(&received.payload) else { continue };
        let rollout = &node.shared.rollout;
        match message {
            RolloutMessage::Prepare { token, policies } => {
                prepare::handle_prepare(&node, from, token, policies)
            }
            RolloutMessage::Prepared { token, why } => rollout.handle_prepared(from, token, why),
            RolloutMessage::Abandon { token } => rollout.handle_abandon(from, token),
            RolloutMessage::Ask { sha256, offset } => {
                let bytes = rollout.components.piece(sha256, offset);
                // Where the queue to the asker is full, whoever else asks waits: it is bounded by that.
                node.tell(from, &RolloutMessage::Piece { sha256, offset, bytes }).await;
            }
            RolloutMessage::Piece { sha256, offset, bytes } => {
                rollout.handle_piece(from, sha256, offset, bytes)
            }
        }
    }
}

pub(crate) use reconcile::keep_policies;
