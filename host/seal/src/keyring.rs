//! The cluster keys: one seals, all open.

use core::fmt;

use overlan_wire::KeyId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::text;

/// Keys a keyring holds at most. Each accepted key is one more that an outsider's datagram may name.
pub const MAX_KEYS: usize = 16;

/// SHA-256("overlan public lab key"): anybody can know it, which is the point of `security = "none"`.
const PUBLIC_LAB_KEY: [u8; 32] = [
    0xc6, 0xb9, 0x50, 0x07, 0x81, 0x24, 0xd7, 0xa4, 0xca, 0xe4, 0xe7, 0x70, 0x23, 0xb4, 0xf7, 0x40, 0x13,
    0x38, 0x24, 0xd4, 0xef, 0x7d, 0x86, 0x59, 0xc6, 0x80, 0x1d, 0x64, 0xa2, 0x3e, 0xeb, 0xdf,
];

/// The cluster keys of a node, the active one first.
///
/// The file is text: blank lines and `#` comments, and one line per key of three words. The id is a
/// checksum too: a mistyped key does not fit it.
///
/// ```text
/// active 81dc1b32 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
/// accept 5e0c9af1 …64 hexadecimal digits…
/// ```
///
/// Exactly one key is `active`: this node seals with it. It opens with every key listed. To change the
/// key of a running cluster: [`add`](Self::add) the new one everywhere, then [`promote`](Self::promote)
/// it everywhere, then [`retire`](Self::retire) the old one everywhere.
#[derive(Clone)]
pub struct Keyring {
    /// Never empty; the first is active.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: KeyId,
    secret: Zeroizing<[u8; 32]>,
}

/// Why a keyring cannot be read or changed. The keyring is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The first word is neither `active` nor `accept`.
    #[error("line {line}: must start with `active` or `accept`; `overlan keygen` makes a valid file")]
    Word {
        /// In the file, from 1.
        line: usize,
    },
    /// Not three words.
    #[error(
        "line {line}: must be `active` or `accept`, the key's id and the key; was the line broken in copying?"
    )]
    Shape {
        /// In the file, from 1.
        line: usize,
    },
    /// The key is not hexadecimal digits of the right number.
    #[error("line {line}: the key must be 64 hexadecimal digits; copy the file again from a member")]
    Key {
        /// In the file, from 1.
        line: usize,
    },
    /// The id does not belong to the key.
    #[error("line {line}: id and key do not belong together, one is mistyped; copy the file again")]
    Mismatch {
        /// In the file, from 1.
        line: usize,
    },
    /// A second active key.
    #[error("line {line}: a second `active` key; make it `accept`, one key alone seals")]
    SecondActive {
        /// In the file, from 1.
        line: usize,
    },
    /// The same key twice.
    #[error("line {line}: this key id stands above already; remove the line")]
    Repeated {
        /// In the file, from 1.
        line: usize,
    },
    /// A key that is no secret.
    #[error("line {line}: this key is no secret; make one with `overlan keygen`")]
    NotSecret {
        /// In the file, from 1.
        line: usize,
    },
    /// More lines than [`MAX_KEYS`].
    #[error("line {line}: more than {MAX_KEYS} keys; retire those that no member seals with")]
    TooManyLines {
        /// In the file, from 1.
        line: usize,
    },
    /// No active key.
    #[error("no `active` key in the file; make one with `overlan keygen`, or make an `accept` line `active`")]
    NoActive,
    /// [`Keyring::add`] of a key that is there.
    #[error("the keyring has this key already; promote it to seal with it")]
    Present,
    /// [`Keyring::add`] of a key of one repeated byte, or the public lab key.
    #[error("this key is no secret; make one from 32 random bytes")]
    Weak,
    /// [`Keyring::add`] or [`Keyring::add_all`] to a full keyring.
    #[error("the keyring holds {MAX_KEYS} keys; retire one first")]
    Full,
    /// No such key.
    #[error("the keyring has no key {:08x}; add it first", .0.0)]
    Unknown(KeyId),
    /// The active key cannot be retired.
    #[error("key {:08x} is active; promote another key first", .0.0)]
    Active(KeyId),
}

impl Keyring {
    /// A keyring of one key, made of 32 bytes from a cryptographic random source.
    pub fn generate(random: [u8; 32]) -> Self {
        Keyring { keys: vec![Key::new(Zeroizing::new(random))] }
    }

    /// The keyring of `security = "none"`: one publicly known key of id 0. Anybody can join, read and
    /// forge. It exists so that unsecured labs run the same code; a keyed node lacks key 0 and drops
    /// what it seals, and the other way round.
    pub fn public_lab() -> Self {
        Keyring { keys: vec![Key { id: KeyId(0), secret: Zeroizing::new(PUBLIC_LAB_KEY) }] }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The first line that is wrong, and what to do about it; never its content.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<Key> = Vec::new();
        let mut active = None;
        for (line, words) in text::lines(text) {
            let is_active = match words[0] {
                "active" => true,
                "accept" => false,
                _ => return Err(KeyringError::Word { line }),
            };
            let [_, id, secret] = words[..] else { return Err(KeyringError::Shape { line }) };
            let key = Key::new(text::secret(secret).ok_or(KeyringError::Key { line })?);
            if key.is_weak() {
                return Err(KeyringError::NotSecret { line });
            }
            if id.len() != 8 || u32::from_str_radix(id, 16) != Ok(key.id.0) {
                return Err(KeyringError::Mismatch { line });
            }
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyringError::Repeated { line });
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyringError::TooManyLines { line });
            }
            if is_active && active.replace(keys.len()).is_some() {
                return Err(KeyringError::SecondActive { line });
            }
            keys.push(key);
        }
        let active = active.ok_or(KeyringError::NoActive)?;
        keys[..=active].rotate_right(1);
        Ok(Keyring { keys })
    }

    /// The file's text. It holds the secrets: write it with mode 0600.
    pub fn to_text(&self) -> Zeroizing<String> {
        const HEAD: &str = "# Overlan cluster keys. Whoever holds one can join the cluster and read its traffic:\n\
                            # keep this file readable by the node alone (mode 0600).\n";
        let mut out = Zeroizing::new(String::with_capacity(HEAD.len() + self.keys.len() * 96));
        out.push_str(HEAD);
        for (index, key) in self.keys.iter().enumerate() {
            out.push_str(if index == 0 { "active " } else { "accept " });
            text::push_hex(&mut out, &key.id.0.to_be_bytes());
            out.push(' ');
            text::push_hex(&mut out, &key.secret[..]);
            out.push('\n');
        }
        out
    }

    /// The key that this node seals with.
    pub fn active(&self) -> KeyId {
        self.keys[0].id
    }

    /// All keys that this node opens with, the active one first.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = KeyId> + '_ {
        self.keys.iter().map(|key| key.id)
    }

    /// Whether this is [`Keyring::public_lab`]: no security at all, which a node says loudly.
    pub fn is_public(&self) -> bool {
        self.active() == KeyId(0)
    }

    /// Accepts one more key, without sealing with it.
    ///
    /// # Errors
    /// The key is there already or no secret, or the keyring is full.
    pub fn add(&mut self, secret: [u8; 32]) -> Result<KeyId, KeyringError> {
        let key = Key::new(Zeroizing::new(secret));
        if key.is_weak() {
            return Err(KeyringError::Weak);
        }
        if self.position(key.id).is_ok() {
            return Err(KeyringError::Present);
        }
        if self.keys.len() == MAX_KEYS {
            return Err(KeyringError::Full);
        }
        let id = key.id;
        self.keys.push(key);
        Ok(id)
    }

    /// Accepts all keys of another keyring, without sealing with them; those that are there stay as they are.
    ///
    /// # Errors
    /// There is no room for all.
    pub fn add_all(&mut self, other: &Keyring) -> Result<(), KeyringError> {
        let new: Vec<Key> = other.keys.iter().filter(|key| self.position(key.id).is_err()).cloned().collect();
        if self.keys.len() + new.len() > MAX_KEYS {
            return Err(KeyringError::Full);
        }
        self.keys.extend(new);
        Ok(())
    }

    /// Seals with `id` from now on; the key before it stays accepted.
    ///
    /// # Errors
    /// No such key.
    pub fn promote(&mut self, id: KeyId) -> Result<(), KeyringError> {
        let position = self.position(id)?;
        self.keys[..=position].rotate_right(1);
        Ok(())
    }

    /// Accepts `id` no longer.
    ///
    /// # Errors
    /// No such key, or the active one.
    pub fn retire(&mut self, id: KeyId) -> Result<(), KeyringError> {
        match self.position(id)? {
            0 => Err(KeyringError::Active(id)),
            position => {
                self.keys.remove(position);
                Ok(())
            }
        }
    }

    /// Ids and secrets, the active one first.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (KeyId, &[u8; 32])> {
        self.keys.iter().map(|key| (key.id, &*key.secret))
    }

    fn position(&self, id: KeyId) -> Result<usize, KeyringError> {
        self.keys.iter().position(|key| key.id == id).ok_or(KeyringError::Unknown(id))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids().map(|id| format!("{:08x}", id.0))).finish()
    }
}

impl Key {
    fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        let hash = Sha256::new().chain_update(b"overlan key id").chain_update(&secret[..]).finalize();
        let id = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        // 0 names the public lab key.
        Key { id: KeyId(id.max(1)), secret }
    }

    /// Nothing random, or known to everybody.
    fn is_weak(&self) -> bool {
        self.secret.iter().all(|&byte| byte == self.secret[0]) || *self.secret == PUBLIC_LAB_KEY
    }
}
