//! Ties the parts together.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::Kind;
use overlan_wire::{Adapter, Digest, MessageMode, NodeId};

use crate::config::Config;
use crate::crypto::Crypto;
use crate::event::{Event, Message, SendError, Transmit};
use crate::policy::{Answer, Fault, Question, Ticket};
use crate::status::{CoreStatus, MemberStatus, PathStatus, PlanStatus, TableStatus};
use crate::time::Instant;

/// One member's protocol state.
///
/// Inputs are the `handle_*` and command methods; after any of them, and when
/// [`poll_timeout`](Self::poll_timeout) has come, drain the `poll_*` methods until they return `None`.
pub struct Core<C: Crypto> {
    crypto: C,
    config: Config,
}

#[expect(clippy::todo, unused_variables, reason = "being written")]
impl<C: Crypto> Core<C> {
    /// A core that knows nobody yet.
    ///
    /// # Errors
    /// The own entry is too large (see [`overlan_wire::entry::RecordTooLarge`]).
    pub fn new(
        config: Config,
        crypto: C,
        adapters: Vec<Adapter>,
        now: Instant,
    ) -> Result<Self, overlan_wire::entry::RecordTooLarge> {
        todo!()
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        todo!()
    }

    /// Takes the node's adapters in order of preference, each with the address and port a socket is bound to.
    /// Adapters that went away or down move their traffic at once.
    ///
    /// # Errors
    /// The own entry would be too large; nothing changed.
    pub fn handle_adapters(
        &mut self,
        now: Instant,
        adapters: Vec<Adapter>,
    ) -> Result<(), overlan_wire::entry::RecordTooLarge> {
        todo!()
    }

    /// Takes one received datagram; it is decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &mut [u8],
    ) {
        todo!()
    }

    /// The socket refused to send on this path (for example ENETUNREACH or EPERM): counts as a late reply.
    pub fn handle_send_failure(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        todo!()
    }

    /// Call when [`poll_timeout`](Self::poll_timeout) has come, after the sockets were drained.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        todo!()
    }

    /// Appends datagrams for one destination to `buffer` (cleared first).
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        todo!()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// The next message for a consumer. Taking it is accepting it: the sender learns `delivered`. Do not call
    /// while there is no consumer with room: that is the back-pressure.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        todo!()
    }

    /// The next policy question.
    pub fn poll_question(&mut self) -> Option<(Ticket, Question)> {
        todo!()
    }

    /// Takes a policy's answer. Late or invalid ones are counted; what stands is the last good decision or the
    /// native fallback.
    pub fn handle_answer(&mut self, now: Instant, ticket: Ticket, answer: Result<Answer, Fault>) {
        todo!()
    }

    /// Another plugin (by the digest of its bytes and configuration) answers this kind from now on: all questions of the kind are asked again.
    pub fn handle_policy_change(&mut self, now: Instant, kind: Kind, digest: Digest) {
        todo!()
    }

    /// Queues a message. Unreliable messages get no fate. `lifetime` bounds the wait for delivery.
    ///
    /// # Errors
    /// The payload comes back; nothing was queued.
    pub fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        mode: MessageMode,
        payload: Vec<u8>,
        token: u64,
        lifetime: Option<Duration>,
    ) -> Result<(), (SendError, Vec<u8>)> {
        todo!()
    }

    /// Removes a member's entry for good.
    ///
    /// # Errors
    /// In words: unknown, or still alive.
    pub fn forget(&mut self, now: Instant, node: NodeId) -> Result<(), &'static str> {
        todo!()
    }

    /// Announces that this node leaves; transmit what it gives, then stop.
    pub fn leave(&mut self, now: Instant) {
        todo!()
    }

    /// The member of this name, or whose id's hexadecimal digits start so (at least 4).
    pub fn find(&self, name_or_id: &str) -> Option<NodeId> {
        todo!()
    }

    /// Primary owner of a responsibility in the plan in force.
    pub fn owner(&self, responsibility: &str) -> Option<NodeId> {
        todo!()
    }

    /// Live members other than this node.
    pub fn live_peers(&self) -> Vec<NodeId> {
        todo!()
    }

    /// Every address of every other member: host routes are wanted for these.
    pub fn remote_addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }

    /// At a glance.
    pub fn status(&self, now: Instant) -> CoreStatus {
        todo!()
    }

    /// All members.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        todo!()
    }

    /// The table.
    pub fn table(&self) -> TableStatus {
        todo!()
    }

    /// All paths.
    pub fn paths(&self, now: Instant) -> Vec<PathStatus> {
        todo!()
    }

    /// The plan in force.
    pub fn plan(&self) -> PlanStatus {
        todo!()
    }
}
