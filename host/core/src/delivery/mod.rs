//! Message state of one peer: it belongs to no path, so that any path may carry any fragment.
//!
//! Messages travel in streams. Each stream has numbers, order and credit of its own, so that neither a lost message
//! nor a slow consumer of one holds up the others. The cluster's own stream goes before the applications', and the
//! core itself accepts what it brings: no consumer can hold up plans.

pub(crate) mod arrivals;
#[cfg(test)]
mod fuzz;
pub(crate) mod inbox;
pub(crate) mod marks;
pub(crate) mod outbox;
pub(crate) mod pool;
#[cfg(test)]
mod tests;

use overlan_wire::MessageId;
use overlan_wire::limits::{CLUSTER_STREAM, MAX_MESSAGE, is_open_stream};

/// Flow control counts this many bytes for each message beside its payload, so that empty messages
/// are bounded as well.
pub(crate) const MESSAGE_COST: u64 = 64;
/// What a sender may open, in all and in each stream, before the receiver has said anything: the largest message
/// fits.
pub(crate) const INITIAL_CREDIT: u64 = MAX_MESSAGE as u64 + MESSAGE_COST;
/// What a peer may have open in all, at the least: one stream that nobody reads leaves as much to the others.
const MIN_WINDOW: u64 = 2 * INITIAL_CREDIT;
/// What the cluster's own stream may have open.
const CLUSTER_CREDIT: u64 = 2 * INITIAL_CREDIT;
/// One stream may hold this part of a peer's window, and of its send queue: a consumer that stands still leaves the
/// rest to the other streams.
const STREAM_SHARE: u64 = 4;

/// A send queue that streams share, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedQueue {
    /// Of all streams.
    pub(crate) held: usize,
    pub(crate) limit: usize,
}

impl SharedQueue {
    fn share(self) -> usize {
        (self.limit / STREAM_SHARE as usize).max(1)
    }

    /// What a stream that holds so much may take; its last message may exceed it.
    pub(crate) fn room(self, held: usize) -> usize {
        self.share().saturating_sub(held).min(self.limit.saturating_sub(self.held))
    }

    /// Whether a stream that was refused has room again, for more than a message now and then. Where streams that stand
    /// still leave little to the others, these wait until they hold less.
    pub(crate) fn is_writable(self, held: usize) -> bool {
        let part = if self.held <= self.limit / 4 * 3 { 2 } else { 4 };
        held <= self.share() / part && self.held < self.limit
    }
}

/// What a packet carried that must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes of a reliable message.
    Fragment { stream: u16, message: MessageId, offset: u32, len: u32 },
    /// Whole reliable messages with consecutive numbers.
    Run { stream: u16, first: MessageId, count: u16 },
    /// A stream's state of acceptance at the time.
    Accepted { stream: u16 },
}

/// Whether peers may use the stream.
fn is_stream(stream: u16) -> bool {
    is_open_stream(stream) || stream == CLUSTER_STREAM
}

/// What a stream may hold of a peer's window.
fn stream_window(stream: u16, window: u64) -> u64 {
    if stream == CLUSTER_STREAM { CLUSTER_CREDIT } else { (window / STREAM_SHARE).max(INITIAL_CREDIT) }
}
