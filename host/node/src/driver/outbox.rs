//! Messages on their way out: waiting for room, or for their fate.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use overlan_core::{Fate, Instant, Outgoing as Message, SendError};
use overlan_wire::{MessageMode, NodeId};
use tokio::sync::oneshot;

use super::NodeCore;
use crate::app::Target;

/// Why a message was not taken. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// No such member.
    #[error("no member is called `{0}`; `overlan members` lists names and ids")]
    UnknownNode(String),
    /// Nobody owns the responsibility.
    #[error("nobody owns `{0}` now; `overlan plan` lists the responsibilities and their owners")]
    NoOwner(String),
    /// Nobody else is alive.
    #[error("no other member is alive; `overlan members` lists them")]
    NoPeers,
    /// Over 16 MiB.
    #[error("the message is larger than 16 MiB; split it")]
    TooLarge,
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// A message to one member.
pub(crate) struct Outgoing {
    pub(crate) to: Target,
    pub(crate) mode: MessageMode,
    pub(crate) payload: Bytes,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) queued: oneshot::Sender<Result<Queued, SendFailure>>,
}

/// Whom a message was queued for, and where its fate arrives.
pub(crate) struct Queued {
    pub(crate) node: NodeId,
    pub(crate) fate: oneshot::Receiver<Fate>,
}

#[derive(Default)]
pub(crate) struct Outbox {
    last_token: u64,
    fates: BTreeMap<u64, oneshot::Sender<Fate>>,
    /// Callers that wait for room at a member, in the order they came. Each holds its own message, and goes when it
    /// stops waiting.
    parked: BTreeMap<NodeId, VecDeque<Outgoing>>,
}

impl Outbox {
    pub(super) fn send(&mut self, core: &mut NodeCore, now: Instant, outgoing: Outgoing) {
        let node = match resolve(core, &outgoing.to) {
            Ok(node) => node,
            Err(failure) => {
                let _ = outgoing.queued.send(Err(failure));
                return;
            }
        };
        match self.parked.get_mut(&node) {
            Some(waiting) => waiting.push_back(outgoing),
            None => {
                if let Some(outgoing) = self.queue(core, now, node, outgoing) {
                    self.parked.entry(node).or_default().push_back(outgoing);
                }
            }
        }
    }

    /// Gives the message to the core; back where there is no room.
    fn queue(
        &mut self,
        core: &mut NodeCore,
        now: Instant,
        node: NodeId,
        mut outgoing: Outgoing,
    ) -> Option<Outgoing> {
        if outgoing.queued.is_closed() {
            return None;
        }
        self.last_token += 1;
        let token = self.last_token;
        let payload = std::mem::take(&mut outgoing.payload);
        let message = Message { lifetime: outgoing.lifetime, ..Message::new(outgoing.mode, payload, token) };
        match core.send(now, node, message) {
            Ok(()) => {
                let (sender, fate) = oneshot::channel();
                if outgoing.mode != MessageMode::Unreliable {
                    self.fates.insert(token, sender);
                }
                let _ = outgoing.queued.send(Ok(Queued { node, fate }));
                None
            }
            Err((SendError::QueueFull, message)) => {
                outgoing.payload = message.payload;
                Some(outgoing)
            }
            Err((error, _)) => {
                let failure = match error {
                    SendError::TooLarge => SendFailure::TooLarge,
                    SendError::UnknownNode | SendError::QueueFull | SendError::UnknownStream => {
                        SendFailure::UnknownNode(outgoing.to.to_string())
                    }
                };
                let _ = outgoing.queued.send(Err(failure));
                None
            }
        }
    }

    pub(super) fn handle_writable(&mut self, core: &mut NodeCore, now: Instant, node: NodeId) {
        let Some(mut waiting) = self.parked.remove(&node) else { return };
        while let Some(outgoing) = waiting.pop_front() {
            if let Some(outgoing) = self.queue(core, now, node, outgoing) {
                waiting.push_front(outgoing);
                self.parked.insert(node, waiting);
                return;
            }
        }
    }

    pub(super) fn handle_fate(&mut self, token: u64, fate: Fate) {
        if let Some(waiting) = self.fates.remove(&token) {
            // Nobody waiting for it is fine.
            let _ = waiting.send(fate);
        }
    }

    /// The node stops.
    pub(super) fn abandon(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.fates) {
            let _ = waiting.send(Fate::Abandoned);
        }
        self.parked.clear();
    }
}

fn resolve(core: &NodeCore, to: &Target) -> Result<NodeId, SendFailure> {
    match to {
        Target::Node(name) => core.find(name).ok_or_else(|| SendFailure::UnknownNode(name.clone())),
        Target::Role(role) => core.owner(role).ok_or_else(|| SendFailure::NoOwner(role.clone())),
        Target::All => Err(SendFailure::NoPeers),
    }
}
