//! What the core asks of cryptography. `overlan-seal` answers it; the core never sees a key's bytes.

use core::net::SocketAddr;

use overlan_wire::frame::{Cookie, SessionAnswer, SessionRequest};
use overlan_wire::{BootId, KeyId, NodeId, SessionId};

/// One direction's authenticated encryption. The key is used with each nonce once.
pub trait Aead {
    /// Encrypts `text` in place and returns the tag over it and `associated`.
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16];

    /// Checks the tag at the end of `sealed` and decrypts in place; returns the text's length,
    /// `sealed.len() - 16`, or `None` (and `sealed` is garbage) where the tag does not fit.
    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Option<usize>;
}

/// What both ends of a handshake know beforehand: it is bound into the keys, so that they agree on it or get none.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The cluster key it runs under.
    pub key: KeyId,
    /// Who opens.
    pub initiator: (NodeId, BootId),
    /// Who answers.
    pub responder: (NodeId, BootId),
    /// The initiator's count of handshakes in this boot.
    pub number: u64,
    /// The direction to the initiator, who chose it.
    pub session: SessionId,
    /// Codes of the cipher suites that the initiator offers, the one it likes best first.
    pub suites: &'a [u8],
}

/// What comes of a handshake.
#[derive(Debug)]
pub struct SessionKeys<A> {
    /// The direction to the peer.
    pub send: A,
    /// The direction from the peer.
    pub receive: A,
}

/// The node's own keys and the cluster keyring.
pub trait Crypto {
    /// The cipher under derived keys.
    type Aead: Aead;

    /// A handshake that this node has opened.
    type Handshake;

    /// Ed25519 public key of this node.
    fn sign_key(&self) -> [u8; 32];

    /// X25519 public key of this node.
    fn exchange_key(&self) -> [u8; 32];

    /// Signs with this node's Ed25519 key.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Checks an Ed25519 signature strictly (RFC 8032; small-order keys refused).
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;

    /// The node id that belongs to an Ed25519 public key: the first 16 bytes of its SHA-256.
    fn node_id(&self, key: &[u8; 32]) -> NodeId;

    /// The cluster key that this node seals with.
    fn active_key(&self) -> KeyId;

    /// The key for `sender`'s stateless datagrams under a cluster key; `None` where the keyring lacks it.
    fn cluster_cipher(&self, key: KeyId, sender: BootId) -> Option<Self::Aead>;

    /// Codes of the cipher suites that this node offers, the one it likes best first; at most
    /// [`MAX_SUITES`](overlan_wire::limits::MAX_SUITES).
    fn suites(&self) -> &[u8];

    /// Opens a handshake with the owner of an X25519 key. `random` is used for nothing else and kept nowhere.
    fn open(
        &self,
        attempt: &Attempt<'_>,
        peer: &[u8; 32],
        random: [u8; 32],
    ) -> Option<(Self::Handshake, SessionRequest)>;

    /// Answers the handshake of the owner of an X25519 key; `session` names the direction to this node. `None` where
    /// the request is not genuine, or no offered suite is known.
    ///
    /// A request may be an old one repeated: the keys prove the peer only when something arrives under them.
    fn accept(
        &self,
        attempt: &Attempt<'_>,
        peer: &[u8; 32],
        request: &SessionRequest,
        session: SessionId,
        random: [u8; 32],
    ) -> Option<(SessionAnswer, SessionKeys<Self::Aead>)>;

    /// Ends a handshake: the session id of the direction to the peer, and the keys. `None` where the answer is not
    /// genuine; another may still be.
    fn finish(
        &self,
        handshake: &mut Self::Handshake,
        answer: &SessionAnswer,
    ) -> Option<(SessionId, SessionKeys<Self::Aead>)>;

    /// What proves that a boot receives at an address: a hash of both under a secret.
    fn cookie(&self, secret: &[u8; 32], boot: BootId, address: SocketAddr) -> Cookie;

    /// All cluster keys that are accepted, the active one first.
    fn accepted_keys(&self) -> alloc::vec::Vec<KeyId>;
}
