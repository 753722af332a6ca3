//! Runs of small messages that stand behind each other in one frame.

use alloc::vec::Vec;

use super::emit::mode_code;
use super::{FRAME_HEADER, MessageMode, code};
use crate::codec::Reader;
use crate::ids::MessageId;

/// Whole messages with consecutive numbers, and consecutive places where they are ordered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The stream.
    pub stream: u16,
    /// What the sender asked for.
    pub mode: MessageMode,
    /// They were for a role, and may have reached another owner of it before.
    pub redelivered: bool,
    /// Number of the first.
    pub first: MessageId,
    /// Place of the first among the stream's ordered messages; 0 for other modes.
    pub order: u64,
    /// The messages, each behind its 16-bit length: at least one, checked by the parser.
    pub(super) entries: &'a [u8],
    /// Counted once: for each run that arrives it is asked for.
    pub(super) count: u16,
}

impl core::fmt::Debug for Run<'_> {
    /// What stands in the frame.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Run { stream, mode, redelivered, first, order, entries, count: _ } = self;
        f.debug_struct("Run")
            .field("stream", stream)
            .field("mode", mode)
            .field("redelivered", redelivered)
            .field("first", first)
            .field("order", order)
            .field("entries", entries)
            .finish()
    }
}

impl<'a> Run<'a> {
    /// The payloads.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut entries = Reader::new(self.entries);
        core::iter::from_fn(move || entries.block("message").ok())
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.entries.len() - 2 * usize::from(self.count)
    }

    /// The payloads, each behind its length in 16 bits.
    pub fn entries(&self) -> &'a [u8] {
        self.entries
    }
}

/// Writes a [`Frame::Run`](super::Frame::Run), message by message.
#[derive(Debug)]
pub struct RunWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> RunWriter<'a> {
    /// Begins the frame at the end of `out`; see [`Run`] for the fields.
    pub fn start(
        out: &'a mut Vec<u8>,
        stream: u16,
        mode: MessageMode,
        redelivered: bool,
        first: MessageId,
        order: u64,
    ) -> Self {
        let start = out.len();
        out.extend_from_slice(&[code::RUN, 0, 0]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&[mode_code(mode), u8::from(redelivered)]);
        out.extend_from_slice(&first.0.to_be_bytes());
        out.extend_from_slice(&order.to_be_bytes());
        RunWriter { out, start }
    }

    /// Bytes of the frame so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether there is no frame: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends a message. The caller keeps the frame within a datagram.
    pub fn push(&mut self, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Ends the frame.
    pub fn finish(self) {
        let len = (self.out.len() - self.start - FRAME_HEADER) as u16;
        self.out[self.start + 1..self.start + 3].copy_from_slice(&len.to_be_bytes());
    }
}
