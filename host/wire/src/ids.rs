//! Identifiers: one type each, so that none is taken for another.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

macro_rules! id_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The first eight hexadecimal digits, for listings and logs.
            pub fn short(&self) -> impl fmt::Display + use<> {
                Hex([self.0[0], self.0[1], self.0[2], self.0[3]])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Hex(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0; $len];
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(NotHex);
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |c: u8| char::from(c).to_digit(16).ok_or(NotHex);
                    *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
                }
                Ok($name(bytes))
            }
        }
    };
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is not the identifier's number of hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier in hexadecimal digits")]
pub struct NotHex;

id_bytes! {
    /// A node: the first 16 bytes of the SHA-256 of its Ed25519 public key.
    NodeId, 16
}
id_bytes! {
    /// One life of a node's process: random at each start. A new boot id, and nothing else, means that
    /// the node lost its message state.
    BootId, 16
}
id_bytes! {
    /// SHA-256 of a canonical encoding.
    Digest, 32
}

id_bytes! {
    /// An operator: the first bytes of the Ed25519 public key that cluster documents are signed with. It only tells
    /// members that are configured alike from others; the whole key checks signatures.
    OperatorId, 8
}

macro_rules! id_number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
    };
}

id_number! {
    /// Names a cluster key: the first bytes of a hash of it. 0 stands for the publicly known key of
    /// `security = "none"`.
    KeyId, u32
}
id_number! {
    /// Names one direction of a session, or its keys; random, chosen by who receives under it.
    SessionId, u64
}
id_number! {
    /// One path of a session, numbered by the sender and never used twice in a session.
    PathId, u32
}
id_number! {
    /// Counts the packets of one path of a session, from 0.
    PacketNumber, u64
}
id_number! {
    /// Counts the reliable and ordered messages (or, apart from these, the unreliable ones) of one
    /// sender to one receiver, from 0.
    MessageId, u64
}

/// Names a cluster document and orders it among all others: the higher version wins; of two with one version the one
/// with the higher digest. The default stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DocumentId {
    /// Counts documents, from 1; 0: none was ever applied.
    pub version: u64,
    /// Of the document's bytes.
    pub digest: Digest,
}

/// Names a plan and orders it among all others: the higher epoch wins; at equal epochs the lower node
/// id; at equal ids (two lives of one node that forgot its epoch) the higher boot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Counts plans, from 1.
    pub epoch: u64,
    /// Who proposed it.
    pub proposer: NodeId,
    /// In which life.
    pub boot: BootId,
}

impl Ord for Ballot {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.epoch, other.proposer, self.boot).cmp(&(other.epoch, self.proposer, other.boot))
    }
}

impl PartialOrd for Ballot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
