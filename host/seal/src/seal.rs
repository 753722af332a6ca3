//! The node's keys put to use.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use hkdf::Hkdf;
use overlan_core::crypto::{Attempt, Crypto, SessionKeys};
use overlan_wire::frame::{Cookie, SessionAnswer, SessionRequest};
use overlan_wire::{BootId, KeyId, NodeId, SessionId};
use ring::hmac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, Suite};
use crate::handshake::{self, Handshake};
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
/// ```
///
/// Two clusters of different names do not hear each other even with the same key. Whoever holds the
/// cluster key can read membership and table, and no messages: sessions have keys of their own from a
/// Noise handshake, which ends by
///
/// ```text
/// prologue  = "overlan session v1" || wire version (1) || salt || cluster key id (4)
///             || initiator's node id, boot || responder's node id, boot
///             || handshake number (8) || initiator's session id (8) || suites offered
/// direction = HKDF-Expand(Noise split, "overlan data v1" || suite (1), 12 + key length)
///             the nonce mask (12), then the key
/// ```
pub struct Seal {
    identity: Identity,
    keyring: Keyring,
    salt: [u8; 32],
    /// Codes of the suites offered and accepted, the one liked best first.
    suites: Vec<u8>,
    /// One per key of the keyring, in its order: extracted once, so that an outsider's datagram costs
    /// one expansion at most.
    extracted: Vec<(KeyId, Zeroizing<[u8; 32]>)>,
}

impl Seal {
    /// The cryptography of a node in the cluster called `cluster_name`.
    pub fn new(identity: Identity, keyring: Keyring, cluster_name: &str) -> Self {
        let salt = Sha256::new().chain_update(b"overlan cluster name").chain_update(cluster_name).finalize();
        let suites = Suite::fast().into_iter().map(|suite| suite as u8).collect();
        let mut seal = Seal { identity, keyring, salt: salt.into(), suites, extracted: Vec::new() };
        seal.extract();
        seal
    }

    /// Offers and accepts other cipher suites than [`Suite::fast`] for new sessions, the one liked best first. Keep
    /// [`Suite::ChaCha20Poly1305`] among them: it is the one that every node has.
    pub fn set_suites(&mut self, suites: &[Suite]) {
        self.suites = suites.iter().map(|&suite| suite as u8).collect();
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
    type Handshake = Handshake;

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
        let key = self.expand::<32>(key, &[b"overlan cluster v1", &sender.0])?;
        Some(Cipher::new(Suite::Aes256Gcm, &key[..], [0; 12]))
    }

    fn suites(&self) -> &[u8] {
        &self.suites
    }

    fn open(
        &self,
        attempt: &Attempt<'_>,
        peer: &[u8; 32],
        random: [u8; 32],
    ) -> Option<(Handshake, SessionRequest)> {
        Handshake::open(&self.identity, &self.salt, attempt, peer, random)
    }

    fn accept(
        &self,
        attempt: &Attempt<'_>,
        peer: &[u8; 32],
        request: &SessionRequest,
        session: SessionId,
        random: [u8; 32],
    ) -> Option<(SessionAnswer, SessionKeys<Cipher>)> {
        let terms = (&self.salt, &self.suites[..]);
        handshake::accept(&self.identity, terms, attempt, peer, request, session, random)
    }

    fn finish(
        &self,
        handshake: &mut Handshake,
        answer: &SessionAnswer,
    ) -> Option<(SessionId, SessionKeys<Cipher>)> {
        handshake.finish(answer)
    }

    fn cookie(&self, secret: &[u8; 32], boot: BootId, address: SocketAddr) -> Cookie {
        let mut hash = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        hash.update(&boot.0);
        match address.ip() {
            IpAddr::V4(ip) => hash.update(&ip.octets()),
            IpAddr::V6(ip) => hash.update(&ip.octets()),
        }
        hash.update(&address.port().to_be_bytes());
        let tag = hash.sign();
        *tag.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
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
