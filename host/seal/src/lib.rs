//! The cryptography the core asks for: [`Seal`] implements [`overlan_core::crypto::Crypto`].
//!
//! This crate never does I/O, never makes randomness (the caller passes it in), and never prints a
//! secret: `Debug` shows ids and public keys, errors name a line and never its content. Secrets are
//! wiped when dropped, except inside `ring`'s expanded AES keys, which it offers no way to wipe.
//!
//! Choices, all fixed by the wire version rather than negotiated:
//!
//! - **AES-256-GCM** (NIST SP 800-38D) from `ring`, everywhere: both ends must agree, and `ring` falls
//!   back to constant-time software on processors without AES instructions. 256-bit keys rather than
//!   128: nonces and much of the plaintext are predictable and there are many keys (two per pair of
//!   boots), which lets an attacker work on all AES-128 keys at once; the ten rounds against fourteen
//!   cost little beside the system call of sending (see [`Cipher`]).
//! - **HKDF-SHA256** (RFC 5869) from the cluster key, salted with the cluster's name: see [`Seal`].
//! - **Ed25519** (RFC 8032) with strict verification, **X25519** (RFC 7748).
//!
//! Limits a caller must keep: a nonce once per key, and below 2^48 blocks of 16 bytes (4 PiB) per
//! direction and key, where GCM's distinguishing advantage reaches 2^-33. A new boot or another cluster
//! key starts anew.
//!
//! Reading order: [`Keyring`], [`Identity`], [`Seal`], [`Cipher`].

mod cipher;
mod identity;
mod keyring;
mod seal;
mod text;

pub use cipher::Cipher;
pub use identity::{Identity, IdentityError};
pub use keyring::{Keyring, KeyringError, MAX_KEYS};
pub use seal::Seal;
