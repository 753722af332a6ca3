//! Messages of this node to itself: they wait for a consumer in their streams, as those of others do.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::ops::ControlFlow;

use bytes::Bytes;
use overlan_wire::{MessageId, MessageMode, NodeId};

use crate::delivery::arrivals::{Arrivals, Payloads, Ready, Taken};
use crate::delivery::{MESSAGE_COST, STREAM_SHARE};

/// The queue. A message's token takes the place of its number: a message to oneself needs no other.
pub(super) struct OwnQueue {
    streams: BTreeMap<u16, Stream>,
    /// The stream that a consumer was served from last.
    served: u16,
    bytes: usize,
    limit: usize,
    /// Streams that refused a message since they had room.
    refused: BTreeSet<u16>,
}

#[derive(Default)]
struct Stream {
    messages: VecDeque<Ready>,
    bytes: usize,
}

impl OwnQueue {
    pub(super) fn new(limit: usize) -> Self {
        OwnQueue { streams: BTreeMap::new(), served: 0, bytes: 0, limit, refused: BTreeSet::new() }
    }

    /// Whether the queue, and the stream's share of it, has room; where not, [`take_writable`](Self::take_writable)
    /// tells when.
    pub(super) fn has_room(&mut self, stream: u16) -> bool {
        let held = self.streams.get(&stream).map_or(0, |stream| stream.bytes);
        let has = self.bytes < self.limit && held < self.share();
        if !has {
            self.refused.insert(stream);
        }
        has
    }

    /// Queues a message.
    pub(super) fn push(
        &mut self,
        token: u64,
        mode: MessageMode,
        stream: u16,
        redelivered: bool,
        payload: Bytes,
    ) {
        let (id, cost) = (MessageId(token), payload.len() + MESSAGE_COST as usize);
        let held = self.streams.entry(stream).or_default();
        held.bytes += cost;
        self.bytes += cost;
        let payloads = Payloads::One(payload);
        held.messages.push_back(Ready { id, mode, stream, redelivered, path: None, payloads });
    }

    fn share(&self) -> usize {
        (self.limit / STREAM_SHARE as usize).max(1)
    }

    /// Whether a message waits in a stream that `takes` holds for.
    pub(super) fn has_ready(&self, takes: impl Fn(u16) -> bool) -> bool {
        self.next_stream(takes).is_some()
    }

    fn next_stream(&self, takes: impl Fn(u16) -> bool) -> Option<u16> {
        let later = self.streams.range(self.served.saturating_add(1)..);
        let mut all = later.chain(self.streams.range(..=self.served));
        all.find(|(id, stream)| !stream.messages.is_empty() && takes(**id)).map(|(&id, _)| id)
    }

    /// A consumer takes messages of one stream until `each` wants no more; the streams have their turns. Each gets what
    /// it took, and how that was sent.
    pub(super) fn take(
        &mut self,
        own: NodeId,
        takes: impl Fn(u16) -> bool,
        mut each: impl FnMut(&mut Arrivals<'_>) -> ControlFlow<()>,
        mut accepted: impl FnMut(MessageMode, Taken),
    ) {
        let Some(id) = self.next_stream(takes) else { return };
        self.served = id;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while let Some(ready) = stream.messages.front_mut() {
            let mut arrivals = Arrivals::new(own, ready);
            let flow = each(&mut arrivals);
            let (taken, mode) = (arrivals.taken(), arrivals.mode);
            let cost = taken.bytes + taken.count * MESSAGE_COST as usize;
            stream.bytes -= cost;
            self.bytes -= cost;
            accepted(mode, taken);
            let done = ready.payloads.is_empty();
            if done {
                stream.messages.pop_front();
            }
            if flow.is_break() || !done {
                break;
            }
        }
        if stream.messages.is_empty() {
            self.streams.remove(&id);
        }
    }

    /// Drops the reliable message of this token; whether it was there.
    pub(super) fn cancel(&mut self, token: u64) -> bool {
        for stream in self.streams.values_mut() {
            let wanted = |ready: &Ready| ready.id.0 == token && ready.mode != MessageMode::Unreliable;
            if let Some(at) = stream.messages.iter().position(wanted)
                && let Some(mut ready) = stream.messages.remove(at)
            {
                let payloads = Arrivals::new(NodeId::default(), &mut ready);
                let cost: usize = payloads.map(|message| message.payload.len() + MESSAGE_COST as usize).sum();
                stream.bytes -= cost;
                self.bytes -= cost;
                return true;
            }
        }
        false
    }

    /// A stream that refused a message and has room again; each once.
    pub(super) fn take_writable(&mut self) -> Option<u16> {
        if self.refused.is_empty() || self.bytes > self.limit / 4 * 3 {
            return None;
        }
        let half = self.share() / 2;
        let room = |id: &&u16| self.streams.get(id).is_none_or(|stream| stream.bytes <= half);
        let id = *self.refused.iter().find(room)?;
        self.refused.remove(&id);
        Some(id)
    }
}
