//! What members tell each other to bring components about, on a stream of its own: it takes its turn with the
//! applications' and goes behind membership, plans and documents. `host/wire/WIRE.md` describes the bytes.

use std::borrow::Cow;

use bytes::Bytes;
use overlan_contract::Kind;
use overlan_core::document::SignedDocument;
use overlan_wire::codec::put_text;
use overlan_wire::limits::MAX_DOCUMENT;
use overlan_wire::{DecodeError, Digest, Reader};

/// Bytes of a component in one message.
pub const PIECE: usize = 256 << 10;
/// Longest reason, in bytes.
const MAX_WHY: usize = 250;
/// First byte of every message. Members skip messages of a version that they do not know.
const VERSION: u8 = 1;

/// One message: version (1), kind (1), then its fields; numbers are big-endian, what follows the known fields is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutMessage {
    /// Fetch, compile and test the policies that this document changes, and say so; nothing changes yet. Repeated until
    /// it is answered.
    Prepare {
        /// Names the rollout.
        token: u64,
        /// What is to be in force, signed where the cluster's documents are.
        document: SignedDocument,
    },
    /// What came of it.
    Prepared {
        /// From [`RolloutMessage::Prepare`].
        token: u64,
        /// How far it got.
        outcome: Outcome,
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

/// How far a member got with a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is compiled and tested. Of each policy that the document changes, in their order: the digest of what its
    /// answers depend on (component, configuration, limits), which members compare.
    Ready(Vec<(Kind, Digest)>),
    /// It cannot begin yet, and why; to be asked again.
    NotYet(String),
    /// It will not, and why.
    Refused(String),
}

const KIND_PREPARE: u8 = 1;
const KIND_PREPARED: u8 = 2;
const KIND_ABANDON: u8 = 3;
const KIND_ASK: u8 = 4;
const KIND_PIECE: u8 = 5;

const OUTCOME_READY: u8 = 0;
const OUTCOME_NOT_YET: u8 = 1;
const OUTCOME_REFUSED: u8 = 2;

impl RolloutMessage {
    /// The message's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            RolloutMessage::Prepare { token, document } => {
                out.push(KIND_PREPARE);
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&(document.bytes().len() as u32).to_be_bytes());
                out.extend_from_slice(document.bytes());
            }
            RolloutMessage::Prepared { token, outcome } => {
                out.push(KIND_PREPARED);
                out.extend_from_slice(&token.to_be_bytes());
                outcome.emit(&mut out);
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
    /// Truncated, over a limit, or of an unknown version or kind.
    pub fn parse(message: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let r = &mut reader;
        if r.u8("version")? != VERSION {
            return Err(DecodeError::OutOfRange("version"));
        }
        Ok(match r.u8("kind")? {
            KIND_PREPARE => {
                let (token, bytes) = (r.u64("token")?, taken(r, message, MAX_DOCUMENT, "document")?);
                // On its own, so that it keeps no more than itself in memory.
                let document = SignedDocument::parse(Bytes::copy_from_slice(&bytes))?;
                RolloutMessage::Prepare { token, document }
            }
            KIND_PREPARED => RolloutMessage::Prepared { token: r.u64("token")?, outcome: Outcome::parse(r)? },
            KIND_ABANDON => RolloutMessage::Abandon { token: r.u64("token")? },
            KIND_ASK => RolloutMessage::Ask { sha256: Digest(r.array("sha256")?), offset: r.u32("offset")? },
            KIND_PIECE => RolloutMessage::Piece {
                sha256: Digest(r.array("sha256")?),
                offset: r.u32("offset")?,
                bytes: taken(r, message, PIECE, "bytes")?,
            },
            _ => return Err(DecodeError::OutOfRange("kind")),
        })
    }
}

/// Bytes of the message behind their length (4).
fn taken(
    reader: &mut Reader<'_>,
    message: &Bytes,
    max: usize,
    what: &'static str,
) -> Result<Bytes, DecodeError> {
    let len = reader.u32("length")? as usize;
    if len > max {
        return Err(DecodeError::OutOfRange("length"));
    }
    Ok(message.slice_ref(reader.take(len, what)?))
}

/// A reason of at most [`MAX_WHY`] bytes; one that was longer says so by an ellipsis.
fn cut(why: &str) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if why.len() <= MAX_WHY {
        return Cow::Borrowed(why);
    }
    let end = why.floor_char_boundary(MAX_WHY - ELLIPSIS.len());
    Cow::Owned(why[..end].trim_end().to_owned() + ELLIPSIS)
}

impl Outcome {
    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Outcome::Ready(digests) => {
                out.extend_from_slice(&[OUTCOME_READY, digests.len() as u8]);
                for (kind, digest) in digests {
                    out.push(*kind as u8);
                    out.extend_from_slice(&digest.0);
                }
            }
            Outcome::NotYet(why) => {
                out.push(OUTCOME_NOT_YET);
                put_text(out, &cut(why), MAX_WHY);
            }
            Outcome::Refused(why) => {
                out.push(OUTCOME_REFUSED);
                put_text(out, &cut(why), MAX_WHY);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8("outcome")? {
            OUTCOME_READY => {
                let count = usize::from(reader.u8("digest count")?);
                if count > Kind::ALL.len() {
                    return Err(DecodeError::OutOfRange("digest count"));
                }
                let mut digests = Vec::with_capacity(count);
                for _ in 0..count {
                    let kind = Kind::ALL.get(usize::from(reader.u8("policy kind")?));
                    let kind = *kind.ok_or(DecodeError::OutOfRange("policy kind"))?;
                    digests.push((kind, Digest(reader.array("digest")?)));
                }
                Outcome::Ready(digests)
            }
            OUTCOME_NOT_YET => Outcome::NotYet(reader.text(MAX_WHY, "reason")?),
            OUTCOME_REFUSED => Outcome::Refused(reader.text(MAX_WHY, "reason")?),
            _ => return Err(DecodeError::OutOfRange("outcome")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_is_too_long_says_that_it_was_cut() {
        let arrives = |why: &str| {
            let outcome = Outcome::Refused(why.to_owned());
            match RolloutMessage::parse(&RolloutMessage::Prepared { token: 1, outcome }.emit().into()) {
                Ok(RolloutMessage::Prepared { outcome: Outcome::Refused(why), .. }) => why,
                other => panic!("{other:?}"),
            }
        };
        let fits = "x".repeat(MAX_WHY);
        assert_eq!(arrives(&fits), fits);
        assert_eq!(arrives(&"x".repeat(MAX_WHY + 1)), "x".repeat(MAX_WHY - 3) + "…");
        // Characters of two bytes, one of which lies across the end.
        assert_eq!(arrives(&"ü".repeat(MAX_WHY)), "ü".repeat((MAX_WHY - 3) / 2) + "…");
        assert_eq!(arrives(&("x".repeat(MAX_WHY - 4) + "    y")), "x".repeat(MAX_WHY - 4) + "…");
    }
}
