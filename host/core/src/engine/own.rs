//! Messages of this node to itself: they wait for a consumer in their streams, as those of others do.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::ops::ControlFlow;

use overlan_wire::MessageMode;

use crate::delivery::{MESSAGE_COST, STREAM_SHARE};
use crate::event::Message;

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
    messages: VecDeque<Message>,
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
    pub(super) fn push(&mut self, message: Message) {
        let stream = self.streams.entry(message.stream).or_default();
        stream.bytes += cost(&message);
        self.bytes += cost(&message);
        stream.messages.push_back(message);
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

    /// A consumer takes messages of one stream until `each` wants no more; the streams have their turns.
    pub(super) fn take(
        &mut self,
        takes: impl Fn(u16) -> bool,
        mut each: impl FnMut(Message) -> ControlFlow<()>,
    ) {
        let Some(id) = self.next_stream(takes) else { return };
        self.served = id;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while let Some(message) = stream.messages.pop_front() {
            stream.bytes -= cost(&message);
            self.bytes -= cost(&message);
            if each(message).is_break() {
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
            if let Some(at) = stream
                .messages
                .iter()
                .position(|message| message.id.0 == token && message.mode != MessageMode::Unreliable)
                && let Some(message) = stream.messages.remove(at)
            {
                stream.bytes -= cost(&message);
                self.bytes -= cost(&message);
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

fn cost(message: &Message) -> usize {
    message.payload.len() + MESSAGE_COST as usize
}
