//! The session between two boots: the keys that seal their datagrams.
//!
//! A handshake makes a pair of keys, one per direction; the next handshake replaces them. Packet numbers, replay
//! windows and messages know nothing of it:
//!
//! ```text
//!                 initiator                          responder
//!   open    ->                                                       receives under old and new keys
//!           <-                                       accept
//!           sends under the new key,
//!           receives under both
//!   data    ->                                       the peer is proven: sends under the new key,
//!           <-                                       drops the old one after the grace time
//!           drops the old key after the grace time
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::{Header, KeyId, Kind, NodeId, PacketNumber, PathId, SessionId};

use crate::config::Config;
use crate::crypto::{Aead, SessionKeys};
use crate::time::Instant;

/// An old key of the peer's direction is kept this long after the new one came into use: datagrams overtake each
/// other.
const GRACE: Duration = Duration::from_secs(10);
/// A peer that has opened a handshake is left this long to show that it has the keys: a round trip of 2 s, and half as
/// much again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Keys of the peer's direction that are kept at most; the oldest gives way.
const MAX_RECEIVING: usize = 4;
/// Packets sealed with one key at most, whatever the configuration says and though no handshake succeeds: 2^47 blocks
/// of the largest datagrams, half of what `overlan-seal` states as the limit.
const MAX_PACKETS: u64 = 1 << 35;

/// The peer's session: keys for both directions.
pub(super) struct Session<A> {
    /// Boxed, as keys are large: a peer that needs no session has none.
    sending: Option<Box<Sending<A>>>,
    /// From a handshake that the peer opened, with what it receives under: in use once the peer is proven.
    pending: Option<(SessionId, Box<Sending<A>>)>,
    /// The latest last.
    receiving: Vec<Receiving<A>>,
    /// Something arrived under the latest key: the peer has it.
    proven: bool,
    /// A new session is wanted before its time.
    pub(super) due: bool,
}

/// The direction to the peer.
struct Sending<A> {
    key: KeyId,
    id: SessionId,
    aead: A,
    packets: u64,
    since: Instant,
}

/// The direction from the peer.
struct Receiving<A> {
    key: KeyId,
    id: SessionId,
    aead: A,
    expires: Option<Instant>,
}

/// A handshake's outcome.
pub(crate) struct Agreed<A> {
    /// The cluster key that the handshake ran under.
    pub(crate) key: KeyId,
    /// Names of the directions to and from the peer.
    pub(crate) ids: (SessionId, SessionId),
    /// Their keys.
    pub(crate) keys: SessionKeys<A>,
    /// Whether the peer opened it.
    pub(crate) theirs: bool,
}

impl<A: Aead> Session<A> {
    pub(super) fn new() -> Self {
        Session { sending: None, pending: None, receiving: Vec::new(), proven: false, due: false }
    }

    /// Session ids under which the peer's datagrams arrive.
    pub(super) fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.receiving.iter().map(|receiving| receiving.id)
    }

    /// Whether datagrams can be sealed.
    pub(super) fn is_open(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.packets < MAX_PACKETS)
    }

    /// Whether something arrived under the latest key.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Takes the keys of a handshake.
    pub(super) fn replace(&mut self, agreed: Agreed<A>, now: Instant) {
        let Agreed { key, ids: (to, from), keys, theirs } = agreed;
        if let Some((unproven, _)) = self.pending.take() {
            self.receiving.retain(|receiving| receiving.id != unproven);
        }
        // Keys are large: a vector that grows by itself has room for four.
        self.receiving.reserve_exact(1);
        self.receiving.push(Receiving { key, id: from, aead: keys.receive, expires: None });
        if self.receiving.len() > MAX_RECEIVING {
            self.receiving.remove(0);
        }
        let sending = Box::new(Sending { key, id: to, aead: keys.send, packets: 0, since: now });
        if theirs {
            self.pending = Some((from, sending));
        } else {
            self.sending = Some(sending);
        }
        self.proven = false;
        self.due = false;
    }

    /// A datagram under this key was authentic. Returns whether it proves the peer.
    pub(super) fn note_received(&mut self, id: SessionId, now: Instant) -> bool {
        if self.proven || self.receiving.last().is_none_or(|latest| latest.id != id) {
            return false;
        }
        self.proven = true;
        if let Some((_, mut sending)) = self.pending.take() {
            sending.since = now;
            self.sending = Some(sending);
        }
        for old in self.receiving.iter_mut().filter(|receiving| receiving.id != id) {
            old.expires.get_or_insert(now + GRACE);
        }
        true
    }

    /// Drops old keys whose grace time is over. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.receiving.len();
        self.receiving.retain(|receiving| receiving.expires.is_none_or(|at| at > now));
        self.receiving.shrink_to_fit();
        self.receiving.len() != before
    }

    /// The cluster keys changed: what depends on others is dropped, and what does not depend on the active one is
    /// replaced soon.
    pub(super) fn retain(&mut self, active_changed: bool, accepted: &[KeyId]) {
        self.sending.take_if(|sending| !accepted.contains(&sending.key));
        self.pending.take_if(|(_, sending)| !accepted.contains(&sending.key));
        self.receiving.retain(|receiving| accepted.contains(&receiving.key));
        let stale = |sending: &Sending<A>| Some(&sending.key) != accepted.first();
        self.due |= active_changed && self.sending.as_deref().is_some_and(stale);
    }

    /// When an old key goes.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.receiving.iter().filter_map(|receiving| receiving.expires).min()
    }

    /// When the next handshake is to be opened by this end. `patient`: it leaves the other end some time to do so.
    pub(super) fn rekey_at(&self, config: &Config, patient: bool) -> Option<Instant> {
        let sending = self.sending.as_ref()?;
        if self.due || sending.packets >= config.rekey_packets {
            return Some(Instant::ZERO);
        }
        let patience = if patient { config.rekey_after / 8 } else { Duration::ZERO };
        Some(sending.since + config.rekey_after + patience)
    }

    /// The header of the packet that is sent next.
    pub(super) fn header(&self, path: PathId, number: PacketNumber) -> Header {
        let sending = self.sending.as_ref().expect("nothing is built unless the session is open");
        Header { key: sending.key, kind: Kind::Data { session: sending.id, path, number } }
    }

    /// Encrypts a packet in place, under its header; returns the tag.
    pub(super) fn seal(
        &mut self,
        path: PathId,
        number: PacketNumber,
        header: &[u8],
        text: &mut [u8],
    ) -> [u8; 16] {
        let sending = self.sending.as_mut().expect("nothing is built unless the session is open");
        sending.packets += 1;
        sending.aead.seal(nonce(path, number), header, text)
    }

    /// The key of the direction from the peer that a session id names.
    pub(super) fn receiver(&self, id: SessionId) -> Option<&A> {
        self.receiving.iter().find(|receiving| receiving.id == id).map(|receiving| &receiving.aead)
    }
}

/// The nonce of a packet: path ids and packet numbers are never used twice within a boot.
pub(super) fn nonce(path: PathId, number: PacketNumber) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&path.0.to_be_bytes());
    nonce[4..].copy_from_slice(&number.0.to_be_bytes());
    nonce
}

/// What the engine asks of a peer's session.
impl<A: Aead> super::Peer<A> {
    /// Session ids under which this peer's datagrams arrive.
    pub(crate) fn session_ids(&self) -> impl Iterator<Item = SessionId> {
        self.session.ids()
    }

    /// Whether datagrams can be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Whether the peer has shown that it has the latest key.
    pub(crate) fn is_proven(&self) -> bool {
        self.session.is_proven()
    }

    /// Whether it was answered an opening so long ago and has not shown since that it has the keys.
    pub(crate) fn is_unheard(&self, now: Instant, after: Duration) -> bool {
        let pending = self.session.pending.as_ref();
        pending.is_some_and(|(_, sending)| now.since(sending.since) >= after)
    }

    /// Takes the keys of a handshake. What waited for a first session goes out.
    pub(crate) fn handle_agreed(&mut self, agreed: Agreed<A>, now: Instant) {
        let ours = !agreed.theirs;
        let first = !self.session.is_open();
        self.session.replace(agreed, now);
        if ours {
            self.prove(now);
        }
        if first && self.session.is_open() {
            self.opened(now);
        }
    }

    /// Datagrams can be sent now: the paths are probed at once.
    pub(super) fn opened(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.next_probe = path.next_probe.min(now);
        }
    }

    /// Sends something that shows the peer that this end has the latest key, and wants an answer that shows the same.
    pub(crate) fn prove(&mut self, now: Instant) {
        for at in self.cluster_routes(now) {
            self.paths[at].ping_due = true;
        }
    }

    /// Drops keys that are too old. Returns whether session ids went away.
    pub(crate) fn expire_session(&mut self, now: Instant) -> bool {
        self.session.expire(now)
    }

    /// The cluster keys changed.
    pub(crate) fn handle_cluster_keys(&mut self, active_changed: bool, accepted: &[KeyId]) {
        self.session.retain(active_changed, accepted);
    }

    /// When an old key goes.
    pub(crate) fn next_key_expiry(&self) -> Option<Instant> {
        self.session.next_expiry()
    }

    /// When this end opens the next handshake; `None`: not before something changes.
    pub(crate) fn handshake_at(&self, config: &Config, own: NodeId, probed: bool) -> Option<Instant> {
        let due = if self.session.is_open() {
            self.session.rekey_at(config, own > self.id)
        } else {
            (probed || self.session.due).then_some(Instant::ZERO)
        };
        let theirs = self.session.pending.as_ref().map(|(_, sending)| sending.since + PATIENCE);
        due.max(due.and(theirs))
    }
}
