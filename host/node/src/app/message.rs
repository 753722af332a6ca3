//! Messages as listeners get them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use overlan_core::Payloads;
use overlan_wire::{MessageId, MessageMode, NodeId};

/// Where messages come from; those of one sender and path share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who sent them.
    pub node: NodeId,
    /// That member's name.
    pub name: Arc<str>,
    /// The path they came by: our adapter address and the peer's; `None` from this node itself.
    pub path: Option<(SocketAddr, SocketAddr)>,
}

impl Origin {
    /// The path as `LOCAL<-REMOTE`; empty from this node itself.
    pub fn path_text(&self) -> String {
        self.path.map(|(local, remote)| format!("{local}<-{remote}")).unwrap_or_default()
    }
}

/// A message as a listener gets it; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// The sender's count of messages to this node in the stream: one for unreliable messages, one for the others.
    pub id: MessageId,
    /// How it was sent.
    pub mode: MessageMode,
    /// In which stream.
    pub stream: u16,
    /// It was for a role, and may have been delivered to another owner of it before.
    pub redelivered: bool,
    /// When it was accepted here, in nanoseconds since 1970: one time for all that arrived together.
    pub time_ns: u64,
    /// The bytes.
    pub payload: Bytes,
}

/// Messages as they arrived together: alike but for their bytes, with ids one by one. Iterating takes them out; cheap to
/// clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRun {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The first one's [`Received::id`].
    pub first: MessageId,
    /// How they were sent.
    pub mode: MessageMode,
    /// In which stream.
    pub stream: u16,
    /// See [`Received::redelivered`].
    pub redelivered: bool,
    /// When they were accepted here, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The bytes of each.
    pub payloads: Payloads,
}

impl Iterator for ReceivedRun {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        let payload = self.payloads.next()?;
        let &mut ReceivedRun { ref origin, first: id, mode, stream, redelivered, time_ns, .. } = self;
        // A hostile peer gives an unreliable message the highest number.
        self.first.0 = id.0.saturating_add(1);
        Some(Received { origin: origin.clone(), id, mode, stream, redelivered, time_ns, payload })
    }
}
