//! Policies of the cluster document: brought to every member, tested on each, switched at one version of the document.
//!
//! ```text
//!   the member that is asked                 each other live member
//!     | Prepare: the document ------------->   |   would it take this document? Then:
//!     |  <-------------- Ask, Piece ... ----   |   fetches components that it lacks, from whoever has them
//!     |  <---------------------- Prepared --   |   compiled and tested; nothing changed yet
//!   (all: applies the document)                |
//!     |  . . . . the document . . . . . . .>   |   commits what it prepared
//!   (one will not: Abandon to all)             |
//! ```
//!
//! Prepare is repeated until it is answered, and answered as often as it comes. A member that comes later sees the
//! document, fetches what it names, and commits it then; so does one that restarts. Each policy of a document is committed
//! once: what became of it here later (a roll-back, `policy set`) stands until a document names another, a roll-back over
//! a restart, too.
//!
//! What a peer may claim of a member: one rollout at a time, one download at a time of at most [`MAX_COMPONENT`] bytes,
//! and components on the disk that the document, its predecessor or the rollout names.
//!
//! Reading order: [`message`], `components` (what is at hand), `lead` and `prepare` (the two sides of a rollout), `fetch`,
//! `reconcile`, `memory` (what was rolled back).
//!
//! [`MAX_COMPONENT`]: overlan_core::document::MAX_COMPONENT

mod components;
mod fetch;
mod lead;
mod memory;
pub mod message;
mod prepare;
mod reconcile;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use overlan_contract::Kind;
use overlan_core::document::{MAX_COMPONENT, PolicyChoice, SignedDocument};
use overlan_wire::limits::COMPONENT_STREAM;
use overlan_wire::{Digest, MessageMode, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::driver::{Listener, SendOptions};
use crate::handle::NodeHandle;
use crate::policy::{Policies, PolicyStatus, Prepared};
use components::Components;
use memory::{Memory, RolledBack};
use message::{Outcome, RolloutMessage};
use reconcile::Followed;

pub(crate) use lead::{Undertaking, prepare_everywhere};
pub(crate) use reconcile::keep_policies;

/// All members must have fetched, compiled and tested by then; nobody works on it longer.
const DEADLINE: Duration = Duration::from_secs(180);
/// Components that clients offered and no document names yet.
const MAX_OFFERED: usize = 3;
/// One whose queue is full for longer is passed over.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// Answers to rollouts that may be under way at a time; who gets none asks again.
const MAX_ANSWERS: usize = 8;
/// Pieces that others wait for, one each; who asks when there are more gets none.
const MAX_ASKS: usize = 1_024;
/// Pieces that are read and sent at a time.
const ASKS_AT_A_TIME: usize = 4;

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
    memory: Memory,
    state: Mutex<State>,
    /// One rollout is prepared at a time.
    preparing: Arc<Semaphore>,
    answering: Arc<Semaphore>,
    /// A rollout of another was abandoned.
    abandoned: Notify,
    /// An answer to a rollout of ours came.
    answered: Notify,
    /// One download at a time.
    downloading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The rollout that is being prepared, or was.
    current: Option<Current>,
    ready: Vec<Ready>,
    /// What members answered to rollouts of ours, by token.
    answers: BTreeMap<u64, BTreeMap<NodeId, Outcome>>,
    awaited: Option<Awaited>,
    offered: VecDeque<Digest>,
    /// Of the document and its predecessor; `None` until that is known.
    named: Option<BTreeSet<Digest>>,
    /// Of the rollout that is being prepared, or was.
    rolling: BTreeSet<Digest>,
    /// What documents put in force here.
    followed: BTreeMap<Kind, Followed>,
    /// Kinds that nothing answers yet: at the start the stored document's policies are waited for.
    restoring: BTreeSet<Kind>,
    /// Of these and of the life before: what gave way here.
    rolled_back: BTreeMap<Kind, RolledBack>,
    /// What of that is on the disk, or was tried to be written.
    stored: BTreeMap<Kind, RolledBack>,
    /// Why this member could not follow the document, in sentences.
    failures: Vec<String>,
}

/// A rollout, from this member's view.
struct Current {
    from: NodeId,
    token: u64,
    /// What came of it; `None`: it is not known yet.
    outcome: Option<Outcome>,
}

impl Current {
    fn is(&self, from: NodeId, token: u64) -> bool {
        (self.from, self.token) == (from, token)
    }
}

/// A policy that is ready to be committed.
struct Ready {
    /// Version of the document that will.
    version: u64,
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
        let memory = Memory::new(state_dir);
        let rolled_back = memory.load();
        let state = State { stored: rolled_back.clone(), rolled_back, ..State::default() };
        Rollout {
            components: Components::new(state_dir),
            memory,
            state: Mutex::new(state),
            preparing: Arc::new(Semaphore::new(1)),
            answering: Arc::new(Semaphore::new(MAX_ANSWERS)),
            abandoned: Notify::new(),
            answered: Notify::new(),
            downloading: tokio::sync::Mutex::default(),
        }
    }

    /// The kinds for which the document of the life before names a policy that did not fail here: the configured ones
    /// answer only where those cannot.
    pub(crate) fn restore(&self, stored: Option<&SignedDocument>, policies: &Policies) -> BTreeSet<Kind> {
        let mut state = self.lock();
        let failed = |policy: &&PolicyChoice| {
            let digest = policies.digest(policy).to_string();
            state.rolled_back.get(&policy.kind).is_some_and(|failed| failed.digest == digest)
        };
        let named = stored.into_iter().flat_map(|stored| &stored.document().policies);
        let restoring: BTreeSet<Kind> =
            named.filter(|policy| !failed(policy)).map(|policy| policy.kind).collect();
        state.restoring.clone_from(&restoring);
        restoring
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this member is at odds with the policies of the document: it could not follow, or was led away since.
    pub(crate) fn problems(&self, shown: &[PolicyStatus]) -> Vec<String> {
        let state = self.lock();
        let stray = |(kind, followed): (&Kind, &Followed)| followed.stray(shown, state.rolled_back.get(kind));
        let strays = state.followed.iter().filter_map(stray);
        state.failures.iter().cloned().chain(strays).collect()
    }

    /// Components that have to stay on the disk.
    fn wanted(&self) -> Option<BTreeSet<Digest>> {
        let state = self.lock();
        let followed = state.followed.values().map(|followed| &followed.policy.sha256);
        let others = state.rolling.iter().chain(&state.offered).chain(followed);
        Some(state.named.as_ref()?.iter().chain(others).copied().collect())
    }

    /// Removes components that nothing names, once it is known what the document names. Waits for the disk.
    fn collect(&self) {
        if self.lock().named.is_some() {
            self.components.keep(|| self.wanted().unwrap_or_default());
        }
    }

    /// A component that comes in now is wanted, for as long as few others are offered after it.
    fn offer(&self, sha256: Digest) {
        let mut state = self.lock();
        state.offered.retain(|offered| *offered != sha256);
        state.offered.push_back(sha256);
        if state.offered.len() > MAX_OFFERED {
            state.offered.pop_front();
        }
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
        let node = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let rollout = &node.shared.rollout;
            let sha256 = components::digest(&bytes);
            rollout.offer(sha256);
            rollout.components.put(sha256, &bytes)?;
            rollout.collect();
            Ok(ComponentView { sha256: sha256.to_string(), size: bytes.len() as u32 })
        });
        stored.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::Other).into()))
    }

    /// Queues a message to a member; whether there was room for it in time.
    async fn tell(&self, to: NodeId, message: impl Into<Bytes>) -> bool {
        let options = SendOptions { stream: COMPONENT_STREAM, ..SendOptions::new(MessageMode::Reliable) };
        let to = to.to_string();
        let queued = self.send_with(&to, options, message);
        matches!(timeout(QUEUE_WAIT, queued).await, Ok(Ok(_)))
    }

    /// Removes components that nothing names.
    async fn collect_components(&self) {
        let node = self.clone();
        // It fails only as the node stops.
        let _ = tokio::task::spawn_blocking(move || node.shared.rollout.collect()).await;
    }
}

/// Serves the others until the node stops.
pub(crate) async fn serve(node: NodeHandle, mut listener: Listener) {
    let (asks, waiting) = mpsc::channel(MAX_ASKS);
    let answering = answer_asks(&node, waiting);
    let reading = async {
        // Dropped in the end, which ends the answers too.
        let asks = asks;
        while let Some(received) = listener.recv().await {
            let from = received.origin.node;
            let Ok(message) = RolloutMessage::parse(&received.payload) else { continue };
            let rollout = &node.shared.rollout;
            match message {
                RolloutMessage::Prepare { token, document } => {
                    prepare::handle_prepare(&node, from, token, document);
                }
                RolloutMessage::Prepared { token, outcome } => rollout.handle_prepared(from, token, outcome),
                RolloutMessage::Abandon { token } => rollout.handle_abandon(from, token),
                RolloutMessage::Ask { sha256, offset } => drop(asks.try_send((from, sha256, offset))),
                RolloutMessage::Piece { sha256, offset, bytes } => {
                    rollout.handle_piece(from, sha256, offset, bytes);
                }
            }
        }
    };
    tokio::join!(reading, answering);
}

/// Sends pieces of components, few at a time: one that cannot be sent to holds up few others.
async fn answer_asks(node: &NodeHandle, mut waiting: mpsc::Receiver<(NodeId, Digest, u32)>) {
    let answer = async |(from, sha256, offset): (NodeId, Digest, u32)| {
        let components = node.shared.rollout.components.clone();
        let piece = tokio::task::spawn_blocking(move || components.piece(sha256, offset)).await;
        let piece = RolloutMessage::Piece { sha256, offset, bytes: piece.unwrap_or_default() };
        node.tell(from, piece.emit()).await;
    };
    stream::poll_fn(|context| waiting.poll_recv(context)).for_each_concurrent(ASKS_AT_A_TIME, answer).await;
}
