//! Messages of this node to itself: they wait for a consumer in their streams, as those of others do.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::ops::{ControlFlow, Range};

use bytes::Bytes;
use overlan_wire::{MessageId, MessageMode, NodeId};

use crate::delivery::arrivals::{Arrivals, Consumed, Payloads, Ready};
use crate::delivery::{MESSAGE_COST, SharedQueue};
use crate::time::Instant;

/// The queue. A message's token takes the place of its number: a message to oneself needs no other.
pub(super) struct OwnQueue {
    streams: BTreeMap<u16, Stream>,
    /// The stream that a consumer was served from last.
    served: u16,
    bytes: usize,
    limit: usize,
    /// Streams that refused a message since they had room.
    refused: BTreeSet<u16>,
    /// No message's deadline is earlier.
    earliest: Option<Instant>,
}

#[derive(Default)]
struct Stream {
    messages: VecDeque<Waiting>,
    bytes: usize,
}

/// A message, and how long it may wait.
struct Waiting {
    ready: Ready,
    bytes: usize,
    deadline: Option<Instant>,
}

impl OwnQueue {
    pub(super) fn new(limit: usize) -> Self {
        OwnQueue {
            streams: BTreeMap::new(),
            served: 0,
            bytes: 0,
            limit,
            refused: BTreeSet::new(),
            earliest: None,
        }
    }

    /// Whether the queue, and the stream's share of it, has room; where not, [`take_writable`](Self::take_writable)
    /// tells when.
    pub(super) fn has_room(&mut self, stream: u16) -> bool {
        let held = self.streams.get(&stream).map_or(0, |stream| stream.bytes);
        let has = self.queue().room(held) > 0;
        if !has {
            self.refused.insert(stream);
        }
        has
    }

    /// Queues a message.
    pub(super) fn push(
        &mut self,
        token: u64,
        (mode, stream, redelivered): (MessageMode, u16, bool),
        payload: Bytes,
        deadline: Option<Instant>,
    ) {
        let (id, bytes) = (MessageId(token), payload.len() + MESSAGE_COST as usize);
        let held = self.streams.entry(stream).or_default();
        held.bytes += bytes;
        self.bytes += bytes;
        self.earliest = [self.earliest, deadline].into_iter().flatten().min();
        let payloads = Payloads::one(payload);
        let ready = Ready { id, mode, stream, redelivered, path: None, payloads };
        held.messages.push_back(Waiting { ready, bytes, deadline });
    }

    fn queue(&self) -> SharedQueue {
        SharedQueue { held: self.bytes, limit: self.limit }
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

    /// A consumer takes messages of one stream until `each` wants no more or leaves one; the streams have their turns.
    /// `accepted` gets what it took, and how that was sent.
    pub(super) fn take(
        &mut self,
        own: NodeId,
        takes: impl Fn(u16) -> bool,
        mut each: impl FnMut(&mut Arrivals<'_>) -> ControlFlow<()>,
        mut accepted: impl FnMut(MessageMode, Consumed),
    ) {
        let Some(id) = self.next_stream(takes) else { return };
        self.served = id;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while let Some(waiting) = stream.messages.front_mut() {
            let mut arrivals = Arrivals::new(own, &mut waiting.ready);
            let flow = each(&mut arrivals);
            let (taken, mode) = (arrivals.taken(), arrivals.mode);
            if taken.count == 0 {
                break;
            }
            accepted(mode, taken);
            stream.bytes -= waiting.bytes;
            self.bytes -= waiting.bytes;
            stream.messages.pop_front();
            if flow.is_break() {
                break;
            }
        }
        if stream.messages.is_empty() {
            self.streams.remove(&id);
        }
    }

    /// Drops the messages with these tokens; gives `each` the tokens of the reliable ones.
    pub(super) fn cancel(&mut self, tokens: &[Range<u64>], each: impl FnMut(u64)) {
        let is_in = |token: u64| {
            let next = tokens.partition_point(|range| range.end <= token);
            tokens.get(next).is_some_and(|range| range.contains(&token))
        };
        self.give_up(|waiting| is_in(waiting.ready.id.0), each);
    }

    /// When [`expire`](Self::expire) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Drops the messages whose deadline passed; gives `each` the tokens of the reliable ones.
    pub(super) fn expire(&mut self, now: Instant, each: impl FnMut(u64)) {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.give_up(|waiting| waiting.deadline.is_some_and(|deadline| deadline <= now), each);
        }
    }

    fn give_up(&mut self, which: impl Fn(&Waiting) -> bool, mut each: impl FnMut(u64)) {
        let mut earliest = None;
        for stream in self.streams.values_mut() {
            stream.messages.retain(|waiting| {
                if which(waiting) {
                    stream.bytes -= waiting.bytes;
                    self.bytes -= waiting.bytes;
                    if waiting.ready.mode != MessageMode::Unreliable {
                        each(waiting.ready.id.0);
                    }
                    return false;
                }
                earliest = [earliest, waiting.deadline].into_iter().flatten().min();
                true
            });
        }
        self.streams.retain(|_, stream| !stream.messages.is_empty());
        self.earliest = earliest;
    }

    /// A stream that refused a message and has room again; each once.
    pub(super) fn take_writable(&mut self) -> Option<u16> {
        let queue = self.queue();
        let held = |id| self.streams.get(id).map_or(0, |stream| stream.bytes);
        let id = *self.refused.iter().find(|id| queue.is_writable(held(id)))?;
        self.refused.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three streams that nobody reads hold their shares, and a message more each: the fourth goes on beside them.
    #[test]
    fn streams_that_stand_still_leave_room_to_the_others() {
        for size in [1_000, 100_000] {
            let mut queue = OwnQueue::new(1 << 20);
            let fill = |queue: &mut OwnQueue, stream| {
                let (mut count, payload) = (0, Bytes::from(alloc::vec![0; size]));
                while queue.has_room(stream) {
                    queue.push(count, (MessageMode::Reliable, stream, false), payload.clone(), None);
                    count += 1;
                }
                count
            };
            (1..=3).for_each(|stream| assert!(fill(&mut queue, stream) > 0));
            for _ in 0..10 {
                assert!(fill(&mut queue, 0) > 0, "{size}");
                assert_eq!(queue.take_writable(), None);
                let all = |arrivals: &mut Arrivals<'_>| {
                    arrivals.by_ref().for_each(drop);
                    ControlFlow::Continue(())
                };
                queue.take(NodeId([1; 16]), |stream| stream == 0, all, |_, _| {});
                assert_eq!(queue.take_writable(), Some(0), "{size}");
            }
        }
    }
}
