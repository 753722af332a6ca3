//! One stream's messages as they arrive.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use overlan_wire::MessageMode;
use overlan_wire::frame::Run;
use overlan_wire::limits::{CLUSTER_STREAM, MESSAGE_WINDOW};

use super::assembly::Partial;
use super::{Ready, Taken};
use crate::delivery::arrivals::Consumed;
use crate::delivery::{INITIAL_CREDIT, MESSAGE_COST, stream_window};

/// Small messages share buffers of this size.
const CHUNK: usize = 16 << 10;

/// Whether a message may come in.
pub(super) enum Opened {
    /// Its first bytes; what it counts for in the credit of all streams.
    New(u64),
    /// Some of it is there.
    Known,
    /// It is there.
    Duplicate,
    /// It breaks a limit.
    Refused,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Missing,
    Partial,
    Complete,
    Accepted,
}

/// One stream from a peer.
#[derive(Debug)]
pub(super) struct InStream {
    id: u16,
    /// All messages below it are accepted.
    pub(super) floor: u64,
    /// States from the floor on; the last is not `Missing`.
    states: VecDeque<State>,
    /// How many of them are accepted.
    accepted: usize,
    pub(super) partial: BTreeMap<u64, Partial>,
    pub(super) next_order: u64,
    /// Complete ordered messages whose predecessors are missing.
    early: BTreeMap<u64, Ready>,
    pub(super) ready: VecDeque<Ready>,
    /// Where the payloads of small messages lie.
    chunk: BytesMut,
    opened_cost: u64,
    accepted_cost: u64,
    pub(super) granted: u64,
    window: u64,
    /// The sender is to be told what was accepted.
    pub(super) changed: bool,
}

impl InStream {
    pub(super) fn new(id: u16, window: u64) -> Self {
        let window = stream_window(id, window);
        InStream {
            id,
            floor: 0,
            states: VecDeque::new(),
            accepted: 0,
            partial: BTreeMap::new(),
            next_order: 0,
            early: BTreeMap::new(),
            ready: VecDeque::new(),
            chunk: BytesMut::new(),
            opened_cost: 0,
            accepted_cost: 0,
            granted: window,
            window,
            changed: window > INITIAL_CREDIT,
        }
    }

    /// How far a message has come; `None` where its number is beyond the window.
    pub(super) fn state(&self, id: u64) -> Option<State> {
        let Some(ahead) = id.checked_sub(self.floor) else { return Some(State::Accepted) };
        if ahead >= MESSAGE_WINDOW {
            return None;
        }
        Some(self.states.get(ahead as usize).copied().unwrap_or(State::Missing))
    }

    /// The number is within the window and not below the floor.
    pub(super) fn set(&mut self, id: u64, state: State) {
        let ahead = (id - self.floor) as usize;
        if ahead >= self.states.len() {
            self.states.resize(ahead + 1, State::Missing);
        }
        self.states[ahead] = state;
    }

    /// Whether a message may come in, where the credit of all streams leaves `in_all`; it is counted if it is the first
    /// of it.
    pub(super) fn open(&mut self, message: u64, len: usize, in_all: u64) -> Opened {
        match self.state(message) {
            None => Opened::Refused,
            Some(State::Partial) => Opened::Known,
            Some(State::Complete) => Opened::Duplicate,
            Some(State::Accepted) => {
                // The sender may not know yet.
                self.changed = true;
                Opened::Duplicate
            }
            Some(State::Missing) => {
                let cost = len as u64 + MESSAGE_COST;
                let own = self.id == CLUSTER_STREAM;
                if (!own && cost > in_all) || self.opened_cost + cost > self.granted {
                    return Opened::Refused;
                }
                self.opened_cost += cost;
                Opened::New(if own { 0 } else { cost })
            }
        }
    }

    /// Whether all messages of a run may come in, where the credit of all streams leaves `in_all`, and have not come
    /// before: then they are counted, and complete; what they count for in the credit of all streams. `None`: some may
    /// not, or the order lacks others before them.
    pub(super) fn open_run(&mut self, run: &Run<'_>, in_all: u64) -> Option<u64> {
        let count = u64::from(run.count());
        let ahead = run.first.0.checked_sub(self.floor).filter(|ahead| ahead + count <= MESSAGE_WINDOW)?;
        let cost = run.bytes() as u64 + count * MESSAGE_COST;
        let own = self.id == CLUSTER_STREAM;
        if (!own && cost > in_all) || self.opened_cost + cost > self.granted {
            return None;
        }
        if run.mode == MessageMode::Ordered
            && (run.order != self.next_order || self.early.range(..run.order + count).next().is_some())
        {
            return None;
        }
        let (start, end) = (ahead as usize, (ahead + count) as usize);
        let known = start.min(self.states.len())..end.min(self.states.len());
        if self.states.range(known.clone()).any(|state| *state != State::Missing) {
            return None;
        }
        self.states.range_mut(known).for_each(|state| *state = State::Complete);
        if self.states.len() < start {
            self.states.resize(start, State::Missing);
        }
        if self.states.len() < end {
            self.states.resize(end, State::Complete);
        }
        self.opened_cost += cost;
        Some(if own { 0 } else { cost })
    }

    /// A copy of a few bytes that shares a buffer with its neighbours.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < bytes.len() {
            self.chunk.reserve(bytes.len().max(CHUNK));
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }

    /// So many complete messages go to the consumers. One may wait for its predecessors; several have them.
    pub(super) fn complete(&mut self, order: u64, count: u64, ready: Ready) -> Taken {
        if ready.mode != MessageMode::Ordered {
            self.ready.push_back(ready);
            return Taken::New;
        }
        // Two messages in one place: the sender contradicts itself.
        if order < self.next_order || self.early.contains_key(&order) {
            return Taken::Refused;
        }
        if order > self.next_order {
            self.early.insert(order, ready);
            return Taken::New;
        }
        self.next_order += count;
        self.ready.push_back(ready);
        while let Some(next) = self.early.remove(&self.next_order) {
            self.next_order += 1;
            self.ready.push_back(next);
        }
        Taken::New
    }

    /// A consumer took messages; returns their cost.
    pub(super) fn accept(&mut self, taken: Consumed) -> u64 {
        let ahead = (taken.first.0 - self.floor) as usize;
        if ahead == 0 {
            self.states.drain(..taken.count);
            self.floor += taken.count as u64;
            while self.states.front() == Some(&State::Accepted) {
                self.states.pop_front();
                self.accepted -= 1;
                self.floor += 1;
            }
        } else {
            let states = self.states.range_mut(ahead..ahead + taken.count);
            states.for_each(|state| *state = State::Accepted);
            self.accepted += taken.count;
        }
        let cost = taken.bytes as u64 + taken.count as u64 * MESSAGE_COST;
        self.accepted_cost += cost;
        self.granted = self.granted.max(self.accepted_cost + self.window);
        self.changed = true;
        cost
    }

    /// From now on the stream may hold this part of the peer's window.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = stream_window(self.id, window);
    }

    /// Which messages above the floor were accepted, as the wire has it.
    pub(super) fn bitmap<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        if self.accepted == 0 {
            return &[];
        }
        let mut len = 0;
        for (index, _) in self
            .states
            .iter()
            .take(8 * buffer.len())
            .enumerate()
            .filter(|(_, state)| **state == State::Accepted)
        {
            buffer[index / 8] |= 1 << (index % 8);
            len = index / 8 + 1;
        }
        &buffer[..len]
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(super) fn shrink(&mut self) {
        self.states.shrink_to(0);
        self.ready.shrink_to(0);
        self.chunk = BytesMut::new();
    }

    /// What must hold between any two calls.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let count = |state| self.states.iter().filter(|held| **held == state).count();
        assert_eq!(self.accepted, count(State::Accepted));
        assert_eq!(self.partial.len(), count(State::Partial));
        assert_ne!(self.states.front(), Some(&State::Accepted));
        assert_ne!(self.states.back(), Some(&State::Missing));
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.partial.values().map(Partial::total).sum()
    }
}
