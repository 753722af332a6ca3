//! Messages arriving from a peer: reassembly, exactly once, order, and acceptance.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::frame::Accepted;
use overlan_wire::limits::{MAX_ACCEPT_BITMAP, MESSAGE_WINDOW};
use overlan_wire::{Fragment, MessageId, MessageMode};
use rangemap::RangeSet;

use super::{CLASS_CLUSTER, CLUSTER_BYTES, CLUSTER_FIRST, CLUSTER_WINDOW, INITIAL_CREDIT, MESSAGE_COST};
use crate::time::Instant;

/// Unreliable messages in reassembly; the oldest gives way.
const MAX_UNRELIABLE_PARTIAL: usize = 64;
/// Bytes of unreliable messages that wait for a consumer; more are dropped.
const MAX_UNRELIABLE_BYTES: usize = 32 << 20;
/// An unreliable message is given up this long after its first fragment.
const UNRELIABLE_LIFETIME: Duration = Duration::from_secs(5);
/// Unreliable message numbers this far below the newest are taken for copies.
const UNRELIABLE_WINDOW: u64 = 4_096;
/// A message has at most one gap for each so many of its bytes: no sender cuts fragments that small, and what is
/// remembered of gaps stays in proportion to the message.
const BYTES_FOR_A_GAP: usize = 32;

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was new.
    New,
    /// It was there already, or its message is.
    Duplicate,
    /// It breaks a limit or contradicts the message's other fragments.
    Refused,
}

/// A message that is complete.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: MessageId,
    pub(crate) mode: MessageMode,
    pub(crate) payload: Vec<u8>,
    pub(crate) path: (SocketAddr, SocketAddr),
}

#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    got: RangeSet<u32>,
    mode: MessageMode,
    class: u8,
    order: u64,
    since: Instant,
}

/// All messages from one boot of a peer.
#[derive(Debug)]
pub(crate) struct Inbox {
    partial: BTreeMap<u64, Partial>,
    /// Complete, not yet accepted.
    complete: BTreeSet<u64>,
    /// Accepted, above the floor.
    accepted: BTreeSet<u64>,
    floor: u64,
    next_order: u64,
    /// Complete ordered messages whose predecessors are missing.
    early: BTreeMap<u64, Ready>,
    ready: VecDeque<Ready>,
    internal: VecDeque<Vec<u8>>,
    internal_partial: BTreeMap<u64, Partial>,
    /// The cluster's own messages that are complete: all below the floor, and these.
    internal_floor: u64,
    internal_done: BTreeSet<u64>,
    unreliable: BTreeMap<u64, Partial>,
    unreliable_seen: BTreeSet<u64>,
    unreliable_floor: u64,
    unreliable_bytes: usize,
    unreliable_dropped: u64,
    opened_cost: u64,
    accepted_cost: u64,
    granted: u64,
    window: u64,
    accepted_changed: bool,
}

impl Inbox {
    pub(crate) fn new(window: usize) -> Self {
        let window = (window as u64).max(INITIAL_CREDIT);
        Inbox {
            partial: BTreeMap::new(),
            complete: BTreeSet::new(),
            accepted: BTreeSet::new(),
            floor: 0,
            next_order: 0,
            early: BTreeMap::new(),
            ready: VecDeque::new(),
            internal: VecDeque::new(),
            internal_partial: BTreeMap::new(),
            internal_floor: CLUSTER_FIRST,
            internal_done: BTreeSet::new(),
            unreliable: BTreeMap::new(),
            unreliable_seen: BTreeSet::new(),
            unreliable_floor: 0,
            unreliable_bytes: 0,
            unreliable_dropped: 0,
            opened_cost: 0,
            accepted_cost: 0,
            granted: window,
            window,
            accepted_changed: window > INITIAL_CREDIT,
        }
    }

    /// Takes a fragment that came by `path`.
    pub(crate) fn handle_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        path: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Taken {
        match fragment.mode {
            MessageMode::Unreliable => self.handle_unreliable(fragment, path, now),
            _ if fragment.class == CLASS_CLUSTER => self.handle_internal(fragment, now),
            MessageMode::Reliable | MessageMode::Ordered => self.handle_reliable(fragment, path, now),
        }
    }

    /// The cluster's own: no credit, and accepted when complete.
    fn handle_internal(&mut self, fragment: &Fragment<'_>, now: Instant) -> Taken {
        let id = fragment.message.0;
        let Some(ahead) = id.checked_sub(self.internal_floor) else { return Taken::Duplicate };
        if self.internal_done.contains(&id) {
            return Taken::Duplicate;
        }
        let held: usize = self.internal_partial.values().map(|partial| partial.bytes.len()).sum();
        let opens = !self.internal_partial.contains_key(&id);
        if ahead >= CLUSTER_WINDOW || opens && held + fragment.total as usize > CLUSTER_BYTES {
            return Taken::Refused;
        }
        match assemble(&mut self.internal_partial, fragment, now) {
            Assembled::Incomplete => Taken::New,
            Assembled::Duplicate => Taken::Duplicate,
            Assembled::Contradiction => Taken::Refused,
            Assembled::Complete(payload) => {
                self.internal_done.insert(id);
                while self.internal_done.remove(&self.internal_floor) {
                    self.internal_floor += 1;
                }
                self.internal.push_back(payload);
                Taken::New
            }
        }
    }

    fn handle_reliable(
        &mut self,
        fragment: &Fragment<'_>,
        path: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Taken {
        let id = fragment.message.0;
        if id < self.floor || self.accepted.contains(&id) || self.complete.contains(&id) {
            // The sender may not know yet.
            self.accepted_changed |= !self.complete.contains(&id);
            return Taken::Duplicate;
        }
        if id >= self.floor + MESSAGE_WINDOW {
            return Taken::Refused;
        }
        if !self.partial.contains_key(&id) {
            let cost = u64::from(fragment.total) + MESSAGE_COST;
            if self.opened_cost + cost > self.granted {
                return Taken::Refused;
            }
            self.opened_cost += cost;
        }
        match assemble(&mut self.partial, fragment, now) {
            Assembled::Incomplete => Taken::New,
            Assembled::Duplicate => Taken::Duplicate,
            Assembled::Contradiction => Taken::Refused,
            Assembled::Complete(payload) => {
                self.complete.insert(id);
                let ready = Ready { id: fragment.message, mode: fragment.mode, payload, path };
                if fragment.mode == MessageMode::Ordered {
                    return self.queue_ordered(fragment.order, ready);
                }
                self.ready.push_back(ready);
                Taken::New
            }
        }
    }

    fn queue_ordered(&mut self, order: u64, ready: Ready) -> Taken {
        // Two messages in one place: the sender contradicts itself.
        if order < self.next_order || self.early.contains_key(&order) {
            return Taken::Refused;
        }
        self.early.insert(order, ready);
        while let Some(next) = self.early.remove(&self.next_order) {
            self.next_order += 1;
            self.ready.push_back(next);
        }
        Taken::New
    }

    fn handle_unreliable(
        &mut self,
        fragment: &Fragment<'_>,
        path: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Taken {
        let id = fragment.message.0;
        if id < self.unreliable_floor || self.unreliable_seen.contains(&id) {
            return Taken::Duplicate;
        }
        while let Some((_, oldest)) = self.unreliable.first_key_value() {
            let held: usize = self.unreliable.values().map(|partial| partial.bytes.len()).sum();
            let full = !self.unreliable.contains_key(&id)
                && (self.unreliable.len() >= MAX_UNRELIABLE_PARTIAL
                    || held + fragment.total as usize > MAX_UNRELIABLE_BYTES);
            if !full && now.since(oldest.since) < UNRELIABLE_LIFETIME {
                break;
            }
            self.unreliable.pop_first();
            self.unreliable_dropped += 1;
        }
        match assemble(&mut self.unreliable, fragment, now) {
            Assembled::Incomplete => Taken::New,
            Assembled::Duplicate => Taken::Duplicate,
            Assembled::Contradiction => Taken::Refused,
            Assembled::Complete(payload) => {
                self.note_unreliable(id);
                if self.unreliable_bytes + payload.len() > MAX_UNRELIABLE_BYTES {
                    self.unreliable_dropped += 1;
                    return Taken::Refused;
                }
                self.unreliable_bytes += payload.len() + MESSAGE_COST as usize;
                self.ready.push_back(Ready { id: fragment.message, mode: fragment.mode, payload, path });
                Taken::New
            }
        }
    }

    fn note_unreliable(&mut self, id: u64) {
        self.unreliable_seen.insert(id);
        let floor = id.saturating_sub(UNRELIABLE_WINDOW);
        self.unreliable_floor = self.unreliable_floor.max(floor);
        while self.unreliable_seen.first().is_some_and(|&seen| seen < self.unreliable_floor) {
            self.unreliable_seen.pop_first();
        }
    }

    /// Whether a message waits for a consumer.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A consumer takes, and thereby accepts, the next message.
    pub(crate) fn pop_ready(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front()?;
        match ready.mode {
            MessageMode::Unreliable => self.unreliable_bytes -= ready.payload.len() + MESSAGE_COST as usize,
            MessageMode::Reliable | MessageMode::Ordered => self.accept(ready.id, ready.payload.len()),
        }
        Some(ready)
    }

    /// The cluster's own next message.
    pub(crate) fn pop_internal(&mut self) -> Option<Vec<u8>> {
        self.internal.pop_front()
    }

    /// Unreliable messages dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.unreliable_dropped)
    }

    fn accept(&mut self, id: MessageId, len: usize) {
        self.complete.remove(&id.0);
        self.accepted.insert(id.0);
        while self.accepted.remove(&self.floor) {
            self.floor += 1;
        }
        self.accepted_cost += len as u64 + MESSAGE_COST;
        self.granted = self.accepted_cost + self.window;
        self.accepted_changed = true;
    }

    /// Whether the sender is to be told what was accepted.
    pub(crate) fn accepted_changed(&self) -> bool {
        self.accepted_changed
    }

    /// The report got lost: it is owed again.
    pub(crate) fn owe_accepted(&mut self) {
        self.accepted_changed = true;
    }

    /// What to tell the sender now.
    pub(crate) fn take_accepted(&mut self) -> Accepted {
        self.accepted_changed = false;
        let mut bitmap = Vec::new();
        for &id in &self.accepted {
            let index = (id - self.floor) as usize;
            if index / 8 >= MAX_ACCEPT_BITMAP {
                break;
            }
            if bitmap.len() <= index / 8 {
                bitmap.resize(index / 8 + 1, 0u8);
            }
            bitmap[index / 8] |= 1 << (index % 8);
        }
        Accepted { floor: MessageId(self.floor), bitmap, credit: self.granted }
    }
}

enum Assembled {
    Incomplete,
    Duplicate,
    Contradiction,
    Complete(Vec<u8>),
}

/// Puts a fragment where it belongs. The parser has checked that it lies within the message.
fn assemble(partials: &mut BTreeMap<u64, Partial>, fragment: &Fragment<'_>, now: Instant) -> Assembled {
    let id = fragment.message.0;
    let len = fragment.payload.len() as u32;
    if len == fragment.total && !partials.contains_key(&id) {
        return Assembled::Complete(fragment.payload.to_vec());
    }
    let partial = partials.entry(id).or_insert_with(|| Partial {
        bytes: vec![0; fragment.total as usize],
        got: RangeSet::new(),
        mode: fragment.mode,
        class: fragment.class,
        order: fragment.order,
        since: now,
    });
    let same = partial.bytes.len() == fragment.total as usize
        && (partial.mode, partial.class, partial.order) == (fragment.mode, fragment.class, fragment.order);
    if !same {
        return Assembled::Contradiction;
    }
    let range = fragment.offset..fragment.offset + len;
    if range.is_empty() || partial.got.gaps(&range).next().is_none() {
        return Assembled::Duplicate;
    }
    if partial.got.len() > partial.bytes.len() / BYTES_FOR_A_GAP + 1 {
        return Assembled::Contradiction;
    }
    partial.bytes[range.start as usize..range.end as usize].copy_from_slice(fragment.payload);
    partial.got.insert(range);
    if partial.got.iter().next() == Some(&(0..fragment.total)) {
        let partial = partials.remove(&id).expect("just filled");
        return Assembled::Complete(partial.bytes);
    }
    Assembled::Incomplete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(message: u64, total: u32, offset: u32) -> Fragment<'static> {
        let (mode, message) = (MessageMode::Ordered, MessageId(message));
        Fragment { message, mode, class: 0, stream: 0, order: 0, total, offset, payload: b"x" }
    }

    fn take(inbox: &mut Inbox, fragment: &Fragment<'_>) -> Taken {
        let end = SocketAddr::from(([10, 0, 0, 1], 7400));
        inbox.handle_fragment(fragment, (end, end), Instant::ZERO)
    }

    #[test]
    fn endless_partial_messages_stay_within_the_window() {
        let mut inbox = Inbox::new(0);
        let taken =
            (0..1_000).filter(|&id| take(&mut inbox, &fragment(id, 1 << 20, 0)) == Taken::New).count();
        assert_eq!(taken, 15, "INITIAL_CREDIT holds no more of this size");
        assert!(inbox.partial.values().map(|partial| partial.bytes.len()).sum::<usize>() <= 16 << 20);
        for id in 0..1_000 {
            let unreliable = Fragment { mode: MessageMode::Unreliable, ..fragment(id, 1 << 20, 0) };
            take(&mut inbox, &unreliable);
        }
        assert!(inbox.unreliable.len() <= 32);
    }

    #[test]
    fn gaps_stay_in_proportion_to_the_message() {
        let mut inbox = Inbox::new(0);
        for offset in (0..100_000).step_by(2) {
            take(&mut inbox, &fragment(0, 100_000, offset));
        }
        assert!(inbox.partial[&0].got.len() <= 100_000 / BYTES_FOR_A_GAP + 2);
    }

    #[test]
    fn two_messages_in_one_place_of_the_order_are_refused() {
        let mut inbox = Inbox::new(0);
        assert_eq!(take(&mut inbox, &fragment(0, 1, 0)), Taken::New);
        assert_eq!(take(&mut inbox, &fragment(1, 1, 0)), Taken::Refused);
    }
}
