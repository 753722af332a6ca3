//! A node's own keys.

use core::fmt;

use ed25519_dalek::SigningKey;
use overlan_wire::NodeId;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::text;

/// Who a node is, across restarts: an Ed25519 and an X25519 key. The node id is a hash of the first.
///
/// The file in the state directory is text: `#` comments and three lines of two words. `node` is a
/// checksum: a damaged file must not turn a member into another one.
///
/// ```text
/// node     6f0b…32 hexadecimal digits…
/// sign     …64 hexadecimal digits: the Ed25519 seed (RFC 8032 section 5.1.5)…
/// exchange …64 hexadecimal digits: the X25519 scalar (RFC 7748)…
/// ```
pub struct Identity {
    pub(crate) sign: SigningKey,
    exchange: StaticSecret,
    exchange_public: PublicKey,
}

/// Why an identity file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not one of the three lines, or one of them twice.
    #[error(
        "line {line}: must be one each of `node`, `sign` and `exchange` with hexadecimal digits; restore the \
         file from a backup, or remove it to start as a new node"
    )]
    Line {
        /// In the file, from 1.
        line: usize,
    },
    /// A line is missing.
    #[error(
        "there is no `{0}` line; restore the file from a backup, or remove it to start as a new node (then \
         `overlan forget` the old one)"
    )]
    Missing(&'static str),
    /// The keys are not those of the node named.
    #[error(
        "the file is damaged: its keys are those of {actual}, it names {named}; restore it from a backup, or \
         remove it to start as a new node (then `overlan forget` the old one)"
    )]
    Mismatch {
        /// On the `node` line.
        named: NodeId,
        /// From the `sign` line.
        actual: NodeId,
    },
}

impl Identity {
    /// A new identity made of 64 bytes from a cryptographic random source.
    pub fn generate(random: [u8; 64]) -> Self {
        let random = Zeroizing::new(random);
        let mut seeds = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        for (seed, half) in seeds.iter_mut().zip(random.chunks_exact(32)) {
            seed.copy_from_slice(half);
        }
        Self::from_seeds(&seeds[0], &seeds[1])
    }

    /// The identity of an Ed25519 seed and an X25519 scalar; the same seeds give the same node.
    pub fn from_seeds(sign: &[u8; 32], exchange: &[u8; 32]) -> Self {
        let exchange = StaticSecret::from(*exchange);
        let exchange_public = PublicKey::from(&exchange);
        Identity { sign: SigningKey::from_bytes(sign), exchange, exchange_public }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong and what to do about it; never a secret.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let (mut node, mut sign, mut exchange) = (None, None, None);
        for (line, words) in text::lines(text) {
            let wrong = IdentityError::Line { line };
            let fresh = match words[..] {
                ["node", id] => node.replace(id.parse::<NodeId>().map_err(|_| wrong.clone())?).is_none(),
                ["sign", seed] => sign.replace(text::secret(seed).ok_or(wrong.clone())?).is_none(),
                ["exchange", scalar] => {
                    exchange.replace(text::secret(scalar).ok_or(wrong.clone())?).is_none()
                }
                _ => false,
            };
            if !fresh {
                return Err(wrong);
            }
        }
        let sign = sign.ok_or(IdentityError::Missing("sign"))?;
        let exchange = exchange.ok_or(IdentityError::Missing("exchange"))?;
        let named = node.ok_or(IdentityError::Missing("node"))?;
        let identity = Self::from_seeds(&sign, &exchange);
        match identity.node_id() {
            actual if actual == named => Ok(identity),
            actual => Err(IdentityError::Mismatch { named, actual }),
        }
    }

    /// The file's text. It holds the secrets: write it with mode 0600.
    pub fn to_text(&self) -> Zeroizing<String> {
        const HEAD: &str =
            "# Overlan node identity: never copy it to another node, keep it readable by the node alone.\n";
        let mut out = Zeroizing::new(String::with_capacity(HEAD.len() + 256));
        out.push_str(HEAD);
        let node = self.node_id();
        for (word, bytes) in
            [("node", &node.0[..]), ("sign", self.sign.as_bytes()), ("exchange", self.exchange.as_bytes())]
        {
            out.push_str(word);
            out.push(' ');
            text::push_hex(&mut out, bytes);
            out.push('\n');
        }
        out
    }

    /// The node id: the first 16 bytes of the SHA-256 of the Ed25519 public key.
    pub fn node_id(&self) -> NodeId {
        node_id(&self.sign_key())
    }

    /// The X25519 scalar.
    pub(crate) fn exchange_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.exchange.to_bytes())
    }

    /// The Ed25519 public key.
    pub fn sign_key(&self) -> [u8; 32] {
        self.sign.verifying_key().to_bytes()
    }

    /// The X25519 public key.
    pub fn exchange_key(&self) -> [u8; 32] {
        self.exchange_public.to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node_id())
    }
}

/// The node id that belongs to an Ed25519 public key.
pub(crate) fn node_id(key: &[u8; 32]) -> NodeId {
    let mut id = NodeId::default();
    id.0.copy_from_slice(&Sha256::digest(key)[..16]);
    id
}
