//! What comes out of the core.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;
use overlan_contract::Kind;
use overlan_contract::failover::PathState;
use overlan_wire::limits::MAX_STREAM;
use overlan_wire::{Digest, DocumentId, MessageId, MessageMode, NodeId};
use serde::Serialize;

use crate::status::Ownership;

/// Datagrams to send: the buffer given to [`Core::poll_transmit`](crate::Core::poll_transmit) holds
/// their bytes one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The adapter address to send from.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Bytes of each datagram; the last may be shorter.
    pub segment: usize,
}

/// Messages to send, alike but for their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// How.
    pub mode: MessageMode,
    /// In which stream: each is numbered, ordered and held up for itself. Up to
    /// [`MAX_STREAM`](overlan_wire::limits::MAX_STREAM) for applications.
    pub stream: u16,
    /// They may have been delivered to another owner of their role before.
    pub redelivered: bool,
    /// The bytes of each, at most [`MAX_MESSAGE`](overlan_wire::limits::MAX_MESSAGE).
    pub payloads: Vec<Bytes>,
    /// Names the first message in [`FateReport`]; the others' tokens follow one by one.
    pub token: u64,
    /// Bounds the wait for delivery.
    pub lifetime: Option<Duration>,
}

impl Outgoing {
    /// One message in stream 0, for as long as it takes.
    pub fn new(mode: MessageMode, payload: impl Into<Bytes>, token: u64) -> Self {
        let payloads = vec![payload.into()];
        Outgoing { mode, stream: 0, redelivered: false, payloads, token, lifetime: None }
    }
}

/// What became of reliable or ordered messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FateReport {
    /// Which; see [`Outgoing::token`].
    pub tokens: Range<u64>,
    /// Whom they were for.
    pub node: NodeId,
    /// What became of them.
    pub fate: Fate,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: NodeId,
    /// The sender's count of messages to this node in this stream: one for unreliable messages, one for the others.
    pub id: MessageId,
    /// How it was sent.
    pub mode: MessageMode,
    /// In which stream.
    pub stream: u16,
    /// It was for a role, and may have been delivered to another owner of it before.
    pub redelivered: bool,
    /// The bytes.
    pub payload: Bytes,
    /// The path its last fragment came by: our adapter address, the peer's. `None`: from this node.
    pub path: Option<(SocketAddr, SocketAddr)>,
}

/// What became of a reliable or ordered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A consumer at the peer accepted it.
    Delivered,
    /// Its deadline passed first. It may have been delivered all the same.
    Expired,
    /// The peer restarted and lost its message state. It may have been delivered before.
    PeerLostState,
    /// The peer was forgotten, or this node left.
    Abandoned,
}

/// Why messages were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendError {
    /// The table has no entry for the node.
    #[error("no member of that name or id; `overlan members` lists them")]
    UnknownNode,
    /// The message exceeds 16 MiB.
    #[error("the message is larger than 16 MiB; split it")]
    TooLarge,
    /// The stream's send queue is full, and took those before; try again after [`Event::Writable`].
    #[error("the send queue to that member is full; try again when it drains")]
    QueueFull,
    /// There is no such stream.
    #[error("streams are numbered 0 to {MAX_STREAM}")]
    UnknownStream,
}

/// What this member is now to a responsibility, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnershipChange {
    /// The responsibility.
    pub name: String,
    /// Until now.
    pub before: Ownership,
    /// From now on.
    pub now: Ownership,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A member's state changed; see [`Core::members`](crate::Core::members).
    Member {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
        /// The new state.
        state: crate::status::MemberState,
    },
    /// The table changed.
    Table {
        /// Digest of its canonical encoding.
        digest: Digest,
    },
    /// All live members hold the table with this digest.
    Agreed {
        /// Counts agreements.
        epoch: u64,
        /// The table.
        digest: Digest,
    },
    /// A path's state changed.
    Path {
        /// The peer.
        node: NodeId,
        /// Our adapter address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// The state before.
        before: PathState,
        /// The new state.
        state: PathState,
        /// In a few words.
        why: &'static str,
    },
    /// Traffic to a peer moved to another path.
    Moved {
        /// The peer.
        node: NodeId,
        /// The path it left.
        from: Option<(SocketAddr, SocketAddr)>,
        /// The path it is on now.
        to: (SocketAddr, SocketAddr),
    },
    /// Another plan is in force.
    Plan {
        /// Its epoch.
        epoch: u64,
    },
    /// This member gained or lost responsibilities.
    Responsibilities {
        /// The plan's epoch.
        epoch: u64,
        /// By name.
        changes: Vec<OwnershipChange>,
    },
    /// Another cluster document is held: store [`Core::document`](crate::Core::document) and give it as
    /// [`Config::document`](crate::Config::document) at the next start.
    Document(DocumentId),
    /// All live members hold this cluster document.
    DocumentAgreed(DocumentId),
    /// This cluster document was held, and gave way to one that was not made from it: what only it said is undone.
    DocumentDisplaced(DocumentId),
    /// Another policy answers this kind.
    Policy {
        /// Which decision.
        kind: Kind,
        /// Of the plugin and what its answers depend on; zero for the native fallback.
        digest: Digest,
    },
    /// A full send queue has room again.
    Writable {
        /// The peer.
        node: NodeId,
        /// The stream.
        stream: u16,
    },
    /// The own entry is published under this version: store it and give it as
    /// [`Config::last_version`](crate::Config::last_version) at the next start.
    Version(u64),
    /// The addresses that host routes are wanted for changed, and those to remember; see
    /// [`Core::remote_addresses`](crate::Core::remote_addresses) and [`Core::last_known`](crate::Core::last_known).
    Routes,
    /// Another node runs with this node's identity, and this one has not run for long: stop it. Nothing but a copied
    /// state directory does that.
    IdentityTaken {
        /// Where the other is, or who knows it.
        evidence: String,
    },
    /// A member refused this node, or another reason not to be in the cluster; the text says what to do.
    Refused(&'static str),
}
