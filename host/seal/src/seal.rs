//! The node's keys put to use.

use core::fmt;

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use hkdf::Hkdf;
use overlan_core::crypto::Crypto;
use overlan_wire::{BootId, KeyId, NodeId, SessionId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cipher::Cipher;
use crate::identity::{self, Identity};
use crate::keyring::Keyring;

/// What the core asks of cryptography, with this node's identity and the cluster's keys.
///
/// Derivation, by HKDF-SHA256 (RFC 5869); part of the wire format:
///
/// ```text
/// salt    = SHA-256("overlan cluster name" || name)
/// prk     = HKDF-Extract(salt, cluster key)
/// cluster = HKDF-Expand(prk, "overlan cluster v1" || sender boot, 32)
/// session = HKDF-Expand(prk, "overlan session v1" || from boot || to boot, 40)
///           the direction's key (32), then the session id (8, big-endian)
/// ```
///
/// Two clusters of different names do not hear each other even with the same key. Whoever holds the
/// cluster key can read recorded traffic: sessions are separate, not forward-secret.
pub struct Seal {
    identity: Identity,
    keyring: Keyring,
    salt: [u8; 32],
    /// One per key of the keyring, in its order: extracted once, so that an outsider's datagram costs
    /// one expansion at most.
    extracted: Vec<(KeyId, Zeroizing<[u8; 32]>)>,
}

impl Seal {
    /// The cryptography of a node in the cluster called `cluster_name`.
    pub fn new(identity: Identity, keyring: Keyring, cluster_name: &str) -> Self {
        let salt = Sha256::new().chain_update(b"overlan cluster name").chain_update(cluster_name).finalize();
        let mut seal = Seal { identity, keyring, salt: salt.into(), extracted: Vec::new() };
        seal.extract();
        seal
    }

    /// The node's identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Takes other cluster keys, after [`Keyring::add`], [`promote`](Keyring::promote) or
    /// [`retire`](Keyring::retire). Ciphers already given out stay valid: whoever keeps them drops those
    /// of keys no longer in [`Crypto::accepted_keys`].
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.keyring = keyring;
        self.extract();
    }

    fn extract(&mut self) {
        let salt = &self.salt;
        self.extracted = self
            .keyring
            .secrets()
            .map(|(id, secret)| {
                let (prk, _) = Hkdf::<Sha256>::extract(Some(salt), secret);
                (id, Zeroizing::new(prk.into()))
            })
            .collect();
    }

    fn expand<const N: usize>(&self, key: KeyId, info: &[&[u8]]) -> Option<Zeroizing<[u8; N]>> {
        let (_, prk) = self.extracted.iter().find(|(id, _)| *id == key)?;
        let hkdf = Hkdf::<Sha256>::from_prk(&prk[..]).expect("an extracted key has a hash's 32 bytes");
        let mut out = Zeroizing::new([0; N]);
        hkdf.expand_multi_info(info, &mut out[..]).expect("RFC 5869 allows 8,160 bytes");
        Some(out)
    }
}

impl Crypto for Seal {
    type Aead = Cipher;

    fn sign_key(&self) -> [u8; 32] {
        self.identity.sign_key()
    }

    fn exchange_key(&self) -> [u8; 32] {
        self.identity.exchange_key()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.identity.sign.sign(message).to_bytes()
    }

    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    fn node_id(&self, key: &[u8; 32]) -> NodeId {
        identity::node_id(key)
    }

    fn active_key(&self) -> KeyId {
        self.keyring.active()
    }

    fn cluster_cipher(&self, key: KeyId, sender: BootId) -> Option<Cipher> {
        self.expand(key, &[b"overlan cluster v1", &sender.0]).map(|key| Cipher::new(&key))
    }

    fn session_cipher(&self, key: KeyId, from: BootId, to: BootId) -> Option<(SessionId, Cipher)> {
        let okm = self.expand::<40>(key, &[b"overlan session v1", &from.0, &to.0])?;
        let (key, id) = okm.split_first_chunk::<32>().expect("32 of 40 bytes");
        let id = id.try_into().expect("40 bytes less 32 are 8");
        Some((SessionId(u64::from_be_bytes(id)), Cipher::new(key)))
    }

    fn accepted_keys(&self) -> Vec<KeyId> {
        self.keyring.ids().collect()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("identity", &self.identity).field("keyring", &self.keyring).finish()
    }
}
