//! The clear header of each datagram. It is authenticated with the rest, never encrypted.
//!
//! ```text
//! all:      version(1) kind(1) reserved(2) key(4)
//! cluster:  ... sender boot(16) counter(8)                 sealed frames, tag(16)
//! data:     ... session(8) path(4) packet number(8)        sealed frames, tag(16)
//! ```

use alloc::vec::Vec;

use crate::codec::{DecodeError, Reader};
use crate::ids::{BootId, KeyId, PacketNumber, PathId, SessionId};
use crate::limits::VERSION;

/// Bytes of a cluster datagram's header.
pub const CLUSTER_HEADER: usize = 32;
/// Bytes of a data datagram's header.
pub const DATA_HEADER: usize = 28;

/// How a datagram is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stateless, and the receiver's boot id is not known yet: membership's first contact.
    Hello {
        /// The sender's boot: selects the key.
        boot: BootId,
        /// The sender's count of stateless datagrams: the nonce.
        counter: u64,
    },
    /// Stateless: membership and table.
    Cluster {
        /// The sender's boot: selects the key.
        boot: BootId,
        /// The sender's count of stateless datagrams: the nonce.
        counter: u64,
    },
    /// Between two boots: probes, acknowledgements, messages.
    Data {
        /// The direction: selects the key.
        session: SessionId,
        /// The sender's path.
        path: PathId,
        /// The packet on that path; with it, the nonce.
        number: PacketNumber,
    },
}

/// The header of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster key that the seal derives from.
    pub key: KeyId,
    /// How it is sealed.
    pub kind: Kind,
}

impl Header {
    /// Reads the header from the front of a datagram; the rest of the reader is the sealed part.
    ///
    /// # Errors
    /// Another version, an unknown kind, or truncated.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Header, DecodeError> {
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = reader.u8("kind")?;
        reader.u16("reserved")?;
        let key = KeyId(reader.u32("key id")?);
        let kind = match kind {
            1 => Kind::Hello { boot: BootId(reader.array("boot")?), counter: reader.u64("counter")? },
            2 => Kind::Cluster { boot: BootId(reader.array("boot")?), counter: reader.u64("counter")? },
            3 => Kind::Data {
                session: SessionId(reader.u64("session")?),
                path: PathId(reader.u32("path")?),
                number: PacketNumber(reader.u64("packet number")?),
            },
            _ => return Err(DecodeError::OutOfRange("kind")),
        };
        Ok(Header { key, kind })
    }

    /// Appends the header.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let (code, boot_counter) = match self.kind {
            Kind::Hello { boot, counter } => (1, Some((boot, counter))),
            Kind::Cluster { boot, counter } => (2, Some((boot, counter))),
            Kind::Data { .. } => (3, None),
        };
        out.extend_from_slice(&[VERSION, code, 0, 0]);
        out.extend_from_slice(&self.key.0.to_be_bytes());
        if let Some((boot, counter)) = boot_counter {
            out.extend_from_slice(&boot.0);
            out.extend_from_slice(&counter.to_be_bytes());
        }
        if let Kind::Data { session, path, number } = self.kind {
            out.extend_from_slice(&session.0.to_be_bytes());
            out.extend_from_slice(&path.0.to_be_bytes());
            out.extend_from_slice(&number.0.to_be_bytes());
        }
    }
}
