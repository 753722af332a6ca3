//! What the core asks of cryptography. `overlan-seal` answers it; the core never sees a key's bytes.

use overlan_wire::{BootId, KeyId, NodeId, SessionId};

/// One direction's authenticated encryption. The key is used with each nonce once.
pub trait Aead {
    /// Encrypts `text` in place and returns the tag over it and `associated`.
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16];

    /// Checks the tag at the end of `sealed` and decrypts in place; returns the text's length,
    /// `sealed.len() - 16`, or `None` (and `sealed` is garbage) where the tag does not fit.
    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Option<usize>;
}

/// The node's own keys and the cluster keyring.
pub trait Crypto {
    /// The cipher under derived keys.
    type Aead: Aead;

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

    /// Name and key of the direction from one boot to another under a cluster key; `None` where the
    /// keyring lacks it.
    fn session_cipher(&self, key: KeyId, from: BootId, to: BootId) -> Option<(SessionId, Self::Aead)>;

    /// All cluster keys that are accepted, the active one first.
    fn accepted_keys(&self) -> alloc::vec::Vec<KeyId>;
}
