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

/// The bytes of messages that came together; cheap to clone. Iterating takes them out one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads {
    bytes: Bytes,
    count: usize,
    /// Each stands behind its 16-bit length.
    framed: bool,
}

impl Payloads {
    /// Of one message.
    pub fn one(bytes: Bytes) -> Self {
        Payloads { bytes, count: 1, framed: false }
    }

    /// Of so many small messages, each behind its 16-bit length.
    pub(crate) fn run(bytes: Bytes, count: usize) -> Self {
        Payloads { bytes, count, framed: true }
    }

    /// How many messages are left.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is left of them in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len() - if self.framed { LENGTH * self.count } else { 0 }
    }

    /// The bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let (mut rest, framed) = (&self.bytes[..], self.framed);
        (0..self.count).map(move |_| if framed { split_first(&mut rest) } else { rest })
    }

    /// Takes out the first messages, so many at most.
    fn split_to(&mut self, count: usize) -> Payloads {
        if count >= self.count {
            return core::mem::take(self);
        }
        let bytes = self.iter().take(count).map(|payload| payload.len() + LENGTH).sum();
        self.count -= count;
        Payloads { bytes: self.bytes.split_to(bytes), count, framed: self.framed }
    }
}

impl Iterator for Payloads {
    type Item = Bytes;

    #[inline]
    fn next(&mut self) -> Option<Bytes> {
        self.count = self.count.checked_sub(1)?;
        if self.framed {
            let len = usize::from(self.bytes.get_u16());
            if self.count > 0 {
                return Some(self.bytes.split_to(len));
            }
        }
        Some(core::mem::take(&mut self.bytes))
    }
}

/// Bytes of a length.
const LENGTH: usize = 2;

/// The bytes behind the length that `rest` begins with.
#[inline]
fn split_first<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::from(rest.get_u16());
    let (first, others) = rest.split_at(len);
    *rest = others;
    first
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

    /// The next ones, so many at most: the first one's number, and the bytes.
    pub fn take_run(&mut self, most: usize) -> (MessageId, Payloads) {
        let payloads = self.ready.payloads.split_to(most);
        let id = self.ready.id;
        // A hostile peer gives an unreliable message the highest number.
        self.ready.id.0 = id.0.saturating_add(payloads.len() as u64);
        self.taken.count += payloads.len();
        self.taken.bytes += payloads.bytes();
        (id, payloads)
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let (id, mut payloads) = self.take_run(1);
        let payload = payloads.next()?;
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
        let run = Payloads::run(Bytes::from_static(b"\0\x02ab\0\0\0\x01c"), 3);
        assert_eq!((run.len(), run.bytes()), (3, 3));
        assert_eq!(run.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        assert_eq!(run.clone().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        for count in 0..4 {
            let mut rest = run.clone();
            let taken = rest.split_to(count);
            assert_eq!((taken.len(), rest.len()), (count, 3 - count));
            assert_eq!(taken.bytes() + rest.bytes(), 3);
            assert_eq!(taken.chain(rest).collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        }
        let one = Payloads::one(Bytes::from_static(b"abc"));
        assert_eq!((one.bytes(), one.iter().collect::<Vec<_>>()), (3, [&b"abc"[..]].to_vec()));
        let mut empty = Payloads::one(Bytes::new());
        assert_eq!((empty.next(), empty.next()), (Some(Bytes::new()), None));
    }
}
