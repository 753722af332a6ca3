//! Overlan's wire format: what the bytes of a datagram mean, and nothing else.
//!
//! This crate never does I/O, never allocates on behalf of a length it has not checked, and never
//! panics on input: every decoder returns [`DecodeError`]. All integers are big-endian. Whatever may
//! grow later carries its own length, so that an older member skips what it does not know.
//!
//! Reading order: [`ids`], [`limits`], [`codec`] (the checked reader and the writer), [`packet`] (the
//! clear header of each datagram), [`frame`] (what stands inside the seal), [`entry`] (the canonical
//! encoding of address-table records). `WIRE.md` beside this file draws the layouts.
#![no_std]

extern crate alloc;

pub mod codec;
pub mod entry;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod packet;

pub use codec::{DecodeError, Reader};
pub use entry::{Adapter, AdapterStatus, Entry, Forgotten, Record, SignedRecord};
pub use frame::{Ack, Fragment, Frame, MessageMode, RefusedDocument};
pub use ids::{
    Ballot, BootId, Digest, DocumentId, KeyId, MessageId, NodeId, OperatorId, PacketNumber, PathId, SessionId,
};
pub use packet::{Header, Kind};
