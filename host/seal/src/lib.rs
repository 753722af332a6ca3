//! The cryptography the core asks for: [`Seal`] implements [`overlan_core::crypto::Crypto`].
//!
//! This crate never does I/O, never makes randomness (the caller passes it in), and never prints a
//! secret: `Debug` shows ids and public keys, errors name a line and never its content. Secrets are
//! wiped when dropped, except inside `ring`'s expanded keys and in `snow`'s chaining keys, which they
//! offer no way to wipe; a handshake's ephemeral scalar is ours, and is wiped.
//!
//! Choices:
//!
//! - **AES-256-GCM** (NIST SP 800-38D) from `ring` for stateless cluster datagrams, fixed by the wire version: `ring`
//!   falls back to constant-time software on processors without AES instructions.
//! - **Noise KK** from `snow` for sessions, with X25519, ChaCha20-Poly1305 and SHA-256: see [`Handshake`]. Mutual
//!   authentication in two messages, and forward secrecy from the first datagram that the initiator sends.
//! - For a session's datagrams the initiator offers the **suites** that are fast on its processor and the responder
//!   takes the one that it likes best: see [`Suite`]. AES-128 comes first: each direction has a secret nonce mask, so
//!   that an attacker cannot work on the keys of all sessions at once.
//! - **HKDF-SHA256** (RFC 5869) from the cluster key, salted with the cluster's name: see [`Seal`].
//! - **Ed25519** (RFC 8032) with strict verification, **X25519** (RFC 7748) with small-order keys refused.
//!
//! `ring` rather than `aws-lc-rs`: the figures stand at [`Suite`].
//!
//! Limits a caller must keep: a nonce once per key, and below 2^48 blocks of 16 bytes (4 PiB) per
//! direction and key, where GCM's distinguishing advantage reaches 2^-33. The core opens a new session long before.
//!
//! Reading order: [`Keyring`], [`Identity`], [`OperatorKey`], [`Seal`], [`Handshake`], [`Cipher`].

mod cipher;
mod handshake;
mod identity;
mod keyring;
mod noise;
mod operator;
mod seal;
mod text;

pub use cipher::{Cipher, Suite};
pub use handshake::Handshake;
pub use identity::{Identity, IdentityError};
pub use keyring::{Keyring, KeyringError, MAX_KEYS};
pub use operator::{NoOperatorKey, OperatorKey};
pub use seal::Seal;
