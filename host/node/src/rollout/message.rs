//! What members tell each other to bring components about, on a stream of its own: it takes its turn with the
//! applications' and goes behind membership, plans and documents.

use bytes::Bytes;
use overlan_core::document::{PolicyChoice, emit_policies, parse_policies};
use overlan_wire::codec::put_text;
use overlan_wire::{DecodeError, Digest, Reader};

/// Bytes of a component in one message.
pub const PIECE: usize = 256 << 10;
/// Longest reason, in bytes.
const MAX_WHY: usize = 250;

/// One message: its kind (1), then its fields; numbers are big-endian, what follows the known fields is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutMessage {
    /// Fetch, compile and test these, and say so; nothing changes yet.
    Prepare {
        /// Names the rollout.
        token: u64,
        /// What is to be in force.
        policies: Vec<PolicyChoice>,
    },
    /// What came of it.
    Prepared {
        /// From [`RolloutMessage::Prepare`].
        token: u64,
        /// Why not; empty: all is ready.
        why: String,
    },
    /// It will not be; what was prepared is dropped.
    Abandon {
        /// From [`RolloutMessage::Prepare`].
        token: u64,
    },
    /// Wants bytes of a component.
    Ask {
        /// SHA-256 of the component.
        sha256: Digest,
        /// From where on.
        offset: u32,
    },
    /// Bytes of a component, at most [`PIECE`]; none where the sender has none.
    Piece {
        /// SHA-256 of the component.
        sha256: Digest,
        /// From where on.
        offset: u32,
        /// The bytes.
        bytes: Bytes,
    },
}

const KIND_PREPARE: u8 = 1;
const KIND_PREPARED: u8 = 2;
const KIND_ABANDON: u8 = 3;
const KIND_ASK: u8 = 4;
const KIND_PIECE: u8 = 5;

impl RolloutMessage {
    /// The message's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            RolloutMessage::Prepare { token, policies } => {
                out.push(KIND_PREPARE);
                out.extend_from_slice(&token.to_be_bytes());
                emit_policies(policies, &mut out);
            }
            RolloutMessage::Prepared { token, why } => {
                out.push(KIND_PREPARED);
                out.extend_from_slice(&token.to_be_bytes());
                put_text(&mut out, why, MAX_WHY);
            }
            RolloutMessage::Abandon { token } => {
                out.push(KIND_ABANDON);
                out.extend_from_slice(&token.to_be_bytes());
            }
            RolloutMessage::Ask { sha256, offset } => {
                out.push(KIND_ASK);
                out.extend_from_slice(&sha256.0);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            RolloutMessage::Piece { sha256, offset, bytes } => {
                out.push(KIND_PIECE);
                out.extend_from_slice(&sha256.0);
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Truncated, over a limit, or of an unknown kind.
    pub fn parse(message: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let r = &mut reader;
        Ok(match r.u8("kind")? {
            KIND_PREPARE => RolloutMessage::Prepare { token: r.u64("token")?, policies: parse_policies(r)? },
            KIND_PREPARED => {
                RolloutMessage::Prepared { token: r.u64("token")?, why: r.text(MAX_WHY, "reason")? }
            }
            KIND_ABANDON => RolloutMessage::Abandon { token: r.u64("token")? },
            KIND_ASK => RolloutMessage::Ask { sha256: Digest(r.array("sha256")?), offset: r.u32("offset")? },
            KIND_PIECE => {
                let (sha256, offset) = (Digest(r.array("sha256")?), r.u32("offset")?);
                let len = r.u32("length")? as usize;
                if len > PIECE {
                    return Err(DecodeError::OutOfRange("length"));
                }
                RolloutMessage::Piece { sha256, offset, bytes: message.slice_ref(r.take(len, "bytes")?) }
            }
            _ => return Err(DecodeError::OutOfRange("kind")),
        })
    }
}
