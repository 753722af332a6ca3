//! The session between two boots: the keys that seal their datagrams.

use alloc::collections::BTreeMap;

use overlan_wire::{BootId, Header, KeyId, Kind, PacketNumber, PathId, SessionId};

use crate::crypto::{Aead, Crypto};

/// The peer's session: keys for both directions.
pub(super) struct Session<A> {
    send_key: KeyId,
    send_id: SessionId,
    send: A,
    receive: BTreeMap<SessionId, A>,
}

impl<A: Aead> Session<A> {
    pub(super) fn open<C: Crypto<Aead = A>>(crypto: &C, own: BootId, peer: BootId) -> Option<Self> {
        let send_key = crypto.active_key();
        let (send_id, send) = crypto.session_cipher(send_key, own, peer)?;
        let receive =
            crypto.accepted_keys().into_iter().filter_map(|key| crypto.session_cipher(key, peer, own));
        Some(Session { send_key, send_id, send, receive: receive.collect() })
    }

    /// Session ids under which the peer's datagrams arrive.
    pub(super) fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.receive.keys().copied()
    }

    /// The header of the packet that is sent next.
    pub(super) fn header(&self, path: PathId, number: PacketNumber) -> Header {
        Header { key: self.send_key, kind: Kind::Data { session: self.send_id, path, number } }
    }

    /// Encrypts a packet in place, under its header; returns the tag.
    pub(super) fn seal(
        &self,
        path: PathId,
        number: PacketNumber,
        header: &[u8],
        text: &mut [u8],
    ) -> [u8; 16] {
        self.send.seal(nonce(path, number), header, text)
    }

    /// The key of the direction from the peer that a session id names.
    pub(super) fn receiver(&self, id: SessionId) -> Option<&A> {
        self.receive.get(&id)
    }
}

/// The nonce of a packet: path ids and packet numbers are never used twice within a boot.
pub(super) fn nonce(path: PathId, number: PacketNumber) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&path.0.to_be_bytes());
    nonce[4..].copy_from_slice(&number.0.to_be_bytes());
    nonce
}
