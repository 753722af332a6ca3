//! Messages that wait for a consumer.

use core::net::SocketAddr;

use bytes::{Buf as _, Bytes};
use overlan_wire::{MessageId, MessageMode, NodeId};

use crate::event::Message;

/// Complete messages that came together: alike but for their bytes, with numbers one by one.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Of the first.
    pub(crate) id: MessageId,
    pub(crate) mode: MessageMode,
    pub(crate) stream: u16,
    pub(crate) redelivered: bool,
    /// `None`: from this node.
    pub(crate) path: Option<(SocketAddr, SocketAddr)>,
    pub(crate) payloads: Payloads,
}

/// The bytes of messages.
#[derive(Debug)]
pub(crate) enum Payloads {
    /// None are left.
    Empty,
    /// Of one message.
    One(Bytes),
    /// Of small messages, at least one, each behind its 16-bit length.
    Run(Bytes),
}

impl Payloads {
    #[inline]
    fn next(&mut self) -> Option<Bytes> {
        if let Payloads::Run(entries) = self {
            let len = usize::from(entries.try_get_u16().ok()?);
            if len < entries.len() {
                return Some(entries.split_to(len));
            }
        }
        match core::mem::replace(self, Payloads::Empty) {
            Payloads::Empty => None,
            Payloads::One(payload) | Payloads::Run(payload) => Some(payload),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Payloads::Empty)
    }
}

/// Messages that arrived together: alike but for their bytes, with numbers one by one. What is taken is accepted.
#[derive(Debug)]
pub struct Arrivals<'a> {
    /// Who sent them.
    pub from: NodeId,
    /// How they were sent.
    pub mode: MessageMode,
    /// In which stream.
    pub stream: u16,
    /// They were for a role, and may have been delivered to another owner of it before.
    pub redelivered: bool,
    /// The path their last bytes came by: our adapter address, the peer's. `None`: from this node.
    pub path: Option<(SocketAddr, SocketAddr)>,
    ready: &'a mut Ready,
    /// What was taken.
    taken: Consumed,
}

/// What a consumer took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumed {
    pub(crate) first: MessageId,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(from: NodeId, ready: &'a mut Ready) -> Self {
        let &mut Ready { id, mode, stream, redelivered, path, .. } = ready;
        let taken = Consumed { first: id, count: 0, bytes: 0 };
        Arrivals { from, mode, stream, redelivered, path, ready, taken }
    }

    pub(crate) fn taken(&self) -> Consumed {
        self.taken
    }

    /// The next one's number and bytes.
    #[inline]
    pub fn next_payload(&mut self) -> Option<(MessageId, Bytes)> {
        let payload = self.ready.payloads.next()?;
        let id = self.ready.id;
        // A hostile peer gives an unreliable message the highest number.
        self.ready.id.0 = id.0.saturating_add(1);
        self.taken.count += 1;
        self.taken.bytes += payload.len();
        Some((id, payload))
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let (id, payload) = self.next_payload()?;
        let &mut Arrivals { from, mode, stream, redelivered, path, .. } = self;
        Some(Message { from, id, mode, stream, redelivered, payload, path })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_run_is_taken_message_by_message() {
        let mut run = Payloads::Run(Bytes::from_static(b"\0\x02ab\0\0\0\x01c"));
        let mut taken = Vec::new();
        while let Some(payload) = run.next() {
            taken.push(payload);
        }
        assert_eq!(taken, [&b"ab"[..], b"", b"c"]);
        assert!(run.is_empty());
        let mut empty = Payloads::Run(Bytes::from_static(b"\0\0"));
        assert_eq!((empty.next(), empty.next()), (Some(Bytes::new()), None));
    }
}
