//! Messages arriving from a peer: reassembly, exactly once, order, and acceptance.

mod assembly;
#[cfg(test)]
mod check;
mod stream;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use core::net::SocketAddr;
use core::ops::ControlFlow;
use core::time::Duration;

use bytes::Bytes;
use overlan_wire::frame::{Accepted, Run};
use overlan_wire::limits::{CLUSTER_STREAM, MAX_ACCEPT_BITMAP};
use overlan_wire::{Fragment, MessageId, MessageMode, NodeId};

use super::arrivals::{Arrivals, Payloads, Ready};
use super::pool::Pool;
use super::{MESSAGE_COST, MIN_WINDOW, is_stream};
use crate::time::Instant;
use assembly::{Assembled, Partial, assemble};
use stream::{InStream, Opened, State};

/// Unreliable messages in reassembly; the oldest gives way.
const MAX_UNRELIABLE_PARTIAL: usize = 64;
/// Bytes of unreliable messages that wait for a consumer, or for their fragments; more are dropped.
const MAX_UNRELIABLE_BYTES: usize = 32 << 20;
/// An unreliable message is given up this long after its first fragment.
const UNRELIABLE_LIFETIME: Duration = Duration::from_secs(5);

/// What became of a message's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They were new.
    New,
    /// They were there already.
    Duplicate,
    /// They break a limit or contradict the message's other fragments.
    Refused,
}

/// What became of the messages of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenRun {
    pub(crate) duplicate: u64,
    pub(crate) refused: u64,
}

/// All messages from one boot of a peer.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Boxed: a map has room for eleven values, and most peers have one or two streams.
    streams: BTreeMap<u16, Box<InStream>>,
    /// The stream that a consumer was served from last.
    served: u16,
    /// What waits for a consumer, in runs.
    waiting: usize,
    unreliable: BTreeMap<(u16, u64), Partial>,
    unreliable_partial: usize,
    unreliable_bytes: usize,
    unreliable_dropped: u64,
    /// The cluster's own.
    internal: VecDeque<Bytes>,
    /// Of all streams but the cluster's.
    opened_cost: u64,
    accepted_cost: u64,
    granted: u64,
    window: u64,
    pool: Pool,
}

impl Inbox {
    pub(crate) fn new(window: usize) -> Self {
        let window = (window as u64).max(MIN_WINDOW);
        let mut first = InStream::new(0, window);
        // The sender is to be told from the start what it may open in all.
        first.changed = true;
        Inbox {
            streams: BTreeMap::from([(0, Box::new(first))]),
            served: 0,
            waiting: 0,
            unreliable: BTreeMap::new(),
            unreliable_partial: 0,
            unreliable_bytes: 0,
            unreliable_dropped: 0,
            internal: VecDeque::new(),
            opened_cost: 0,
            accepted_cost: 0,
            // The rest once it is used: peers that come and send nothing bind little.
            granted: MIN_WINDOW,
            window,
            pool: Pool::default(),
        }
    }

    /// From now on the peer may have so much open; what was granted stands.
    pub(crate) fn set_window(&mut self, window: usize) {
        self.window = (window as u64).max(MIN_WINDOW);
        for stream in self.streams.values_mut() {
            stream.set_window(self.window);
        }
    }

    fn stream(&mut self, id: u16) -> Option<&mut InStream> {
        if !is_stream(id) {
            return None;
        }
        let window = self.window;
        Some(self.streams.entry(id).or_insert_with(|| Box::new(InStream::new(id, window))))
    }

    /// Takes a fragment that came by `path`.
    pub(crate) fn handle_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        path: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Taken {
        if fragment.mode == MessageMode::Unreliable {
            return self.handle_unreliable(fragment, path, now);
        }
        let id = fragment.message.0;
        let in_all = self.granted - self.opened_cost;
        if self.stream(fragment.stream).is_none() {
            return Taken::Refused;
        }
        let Some(stream) = self.streams.get_mut(&fragment.stream) else { return Taken::Refused };
        match stream.open(id, fragment.total as usize, in_all) {
            Opened::Known => {}
            Opened::New(cost) => self.opened_cost += cost,
            Opened::Refused => return Taken::Refused,
            Opened::Duplicate => return Taken::Duplicate,
        }
        match assemble(&mut stream.partial, id, fragment, &mut self.pool, now) {
            Assembled::Incomplete => {
                stream.set(id, State::Partial);
                Taken::New
            }
            Assembled::Duplicate => Taken::Duplicate,
            Assembled::Contradiction => Taken::Refused,
            Assembled::Complete(payload) => {
                stream.set(id, State::Complete);
                let ready = Ready {
                    id: fragment.message,
                    mode: fragment.mode,
                    stream: fragment.stream,
                    redelivered: fragment.redelivered,
                    path: Some(path),
                    payloads: Payloads::one(payload),
                };
                let before = stream.ready.len();
                let taken = stream.complete(fragment.order, 1, ready);
                let came = stream.ready.len() - before;
                self.note_ready(fragment.stream, came);
                taken
            }
        }
    }

    /// Takes whole messages that came by `path`.
    pub(crate) fn handle_run(&mut self, run: &Run<'_>, path: (SocketAddr, SocketAddr)) -> TakenRun {
        let mut taken = TakenRun::default();
        let unreliable = run.mode == MessageMode::Unreliable;
        if self.stream(run.stream).is_none() || unreliable && run.stream == CLUSTER_STREAM {
            taken.refused = u64::from(run.count());
            self.unreliable_dropped += if unreliable { taken.refused } else { 0 };
            return taken;
        }
        let Some(stream) = self.streams.get_mut(&run.stream) else { return taken };
        let ready = |id: u64, payloads: Payloads| Ready {
            id: MessageId(id),
            mode: run.mode,
            stream: run.stream,
            redelivered: run.redelivered,
            path: Some(path),
            payloads,
        };
        let before = stream.ready.len();
        // Mostly all of it is new, and next.
        let whole = if unreliable {
            has_unreliable_room(&mut self.unreliable_bytes, run.bytes(), u64::from(run.count()))
        } else {
            let opened = stream.open_run(run, self.granted - self.opened_cost);
            self.opened_cost += opened.unwrap_or(0);
            opened.is_some()
        };
        if whole {
            let payloads = Payloads::run(stream.store(run.entries()), usize::from(run.count()));
            stream.complete(run.order, u64::from(run.count()), ready(run.first.0, payloads));
            let came = stream.ready.len() - before;
            self.note_ready(run.stream, came);
            return taken;
        }
        for (index, payload) in (0..).zip(run.payloads()) {
            let id = run.first.0 + index;
            if unreliable {
                if !has_unreliable_room(&mut self.unreliable_bytes, payload.len(), 1) {
                    taken.refused += 1;
                    self.unreliable_dropped += 1;
                    continue;
                }
            } else {
                let in_all = self.granted - self.opened_cost;
                match stream.open(id, payload.len(), in_all) {
                    Opened::New(cost) => self.opened_cost += cost,
                    // Fragments of it came before, by a path with smaller datagrams: they are of no more use. What was
                    // counted is what they said that it has.
                    Opened::Known
                        if stream.partial.get(&id).is_some_and(|held| held.total() == payload.len()) =>
                    {
                        drop(stream.partial.remove(&id));
                    }
                    Opened::Known => {
                        taken.refused += 1;
                        continue;
                    }
                    Opened::Duplicate => {
                        taken.duplicate += 1;
                        continue;
                    }
                    Opened::Refused => {
                        taken.refused += 1;
                        continue;
                    }
                }
                stream.set(id, State::Complete);
            }
            // What waits long for its predecessors keeps no neighbours' bytes.
            let early = run.mode == MessageMode::Ordered && run.order + index > stream.next_order;
            let bytes = if early { Bytes::copy_from_slice(payload) } else { stream.store(payload) };
            let payloads = Payloads::one(bytes);
            if stream.complete(run.order + index, 1, ready(id, payloads)) == Taken::Refused {
                taken.refused += 1;
            }
        }
        let came = stream.ready.len() - before;
        self.note_ready(run.stream, came);
        taken
    }

    /// So many runs became ready in a stream.
    fn note_ready(&mut self, id: u16, came: usize) {
        self.waiting += came;
        if id == CLUSTER_STREAM {
            // The core itself consumes these, at once.
            let mut came = core::mem::take(&mut self.internal);
            self.take_from(CLUSTER_STREAM, NodeId::default(), |arrivals| {
                came.extend(arrivals.map(|message| message.payload));
                ControlFlow::Continue(())
            });
            self.internal = came;
        }
    }

    fn handle_unreliable(
        &mut self,
        fragment: &Fragment<'_>,
        path: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Taken {
        let key = (fragment.stream, fragment.message.0);
        let total = fragment.total as usize;
        if fragment.stream == CLUSTER_STREAM || self.stream(fragment.stream).is_none() {
            return Taken::Refused;
        }
        self.drop_old_partials(key, total, now);
        let known = self.unreliable.contains_key(&key);
        let assembled = assemble(&mut self.unreliable, key, fragment, &mut self.pool, now);
        match assembled {
            Assembled::Incomplete => {
                self.unreliable_partial += if known { 0 } else { total };
                Taken::New
            }
            Assembled::Duplicate => Taken::Duplicate,
            Assembled::Contradiction => Taken::Refused,
            Assembled::Complete(payload) => {
                self.unreliable_partial -= if known { total } else { 0 };
                if !has_unreliable_room(&mut self.unreliable_bytes, payload.len(), 1) {
                    self.unreliable_dropped += 1;
                    return Taken::Refused;
                }
                let Fragment { message, mode, stream, redelivered, .. } = *fragment;
                if let Some(held) = self.streams.get_mut(&stream) {
                    let (path, payloads) = (Some(path), Payloads::one(payload));
                    held.ready.push_back(Ready { id: message, mode, stream, redelivered, path, payloads });
                    self.waiting += 1;
                }
                Taken::New
            }
        }
    }

    /// Makes room for an unreliable message in pieces, if it is another one.
    fn drop_old_partials(&mut self, key: (u16, u64), total: usize, now: Instant) {
        while let Some((&oldest, partial)) = self.unreliable.iter().min_by_key(|(_, partial)| partial.since) {
            let full = !self.unreliable.contains_key(&key)
                && (self.unreliable.len() >= MAX_UNRELIABLE_PARTIAL
                    || self.unreliable_partial + total > MAX_UNRELIABLE_BYTES);
            if !full && now.since(partial.since) < UNRELIABLE_LIFETIME {
                break;
            }
            self.unreliable_partial -= partial.total();
            self.unreliable.remove(&oldest);
            self.unreliable_dropped += 1;
        }
    }

    /// Whether a message waits for a consumer in a stream that `takes` holds for.
    pub(crate) fn has_ready(&self, takes: impl Fn(u16) -> bool) -> bool {
        self.waiting > 0 && self.streams.iter().any(|(&id, stream)| !stream.ready.is_empty() && takes(id))
    }

    /// A consumer takes, and thereby accepts, messages of one stream until `each` wants no more or leaves some; the
    /// streams have their turns.
    pub(crate) fn take_ready(
        &mut self,
        from: NodeId,
        takes: impl Fn(u16) -> bool,
        each: impl FnMut(&mut Arrivals<'_>) -> ControlFlow<()>,
    ) {
        let ready = |id: u16, stream: &InStream| (!stream.ready.is_empty() && takes(id)).then_some(id);
        let later = self.streams.range(self.served.saturating_add(1)..);
        let id = later.chain(self.streams.range(..=self.served)).find_map(|(&id, stream)| ready(id, stream));
        let Some(id) = id else { return };
        self.served = id;
        self.take_from(id, from, each);
    }

    fn take_from(
        &mut self,
        id: u16,
        from: NodeId,
        mut each: impl FnMut(&mut Arrivals<'_>) -> ControlFlow<()>,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while let Some(ready) = stream.ready.front_mut() {
            let mut arrivals = Arrivals::new(from, ready);
            let flow = each(&mut arrivals);
            let (taken, unreliable) = (arrivals.taken(), arrivals.mode == MessageMode::Unreliable);
            let done = ready.payloads.is_empty();
            if done {
                stream.ready.pop_front();
                self.waiting -= 1;
            }
            if taken.count == 0 {
                break;
            }
            if unreliable {
                self.unreliable_bytes -= taken.bytes + taken.count * MESSAGE_COST as usize;
            } else {
                let cost = stream.accept(taken);
                self.accepted_cost += if id == CLUSTER_STREAM { 0 } else { cost };
            }
            if flow.is_break() || !done {
                break;
            }
        }
        self.granted = self.granted.max(self.accepted_cost + self.window);
    }

    /// One message of a stream that `takes` holds for.
    #[cfg(test)]
    pub(crate) fn pop_ready(&mut self, takes: impl Fn(u16) -> bool) -> Option<crate::Message> {
        let mut next = None;
        self.take_ready(NodeId::default(), takes, |arrivals| {
            next = arrivals.next();
            ControlFlow::Break(())
        });
        next
    }

    /// The cluster's own next message.
    pub(crate) fn pop_internal(&mut self) -> Option<Bytes> {
        self.internal.pop_front()
    }

    /// Unreliable messages dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.unreliable_dropped)
    }

    /// A stream whose sender is to be told what was accepted.
    pub(crate) fn changed(&mut self) -> Option<u16> {
        // It makes use of what was granted at first: the rest is granted, too, and told with any stream.
        let all = self.accepted_cost + self.window;
        if self.granted < all && self.opened_cost > self.accepted_cost + MIN_WINDOW / 2 {
            self.granted = all;
            if let Some(stream) = self.streams.values_mut().next() {
                stream.changed = true;
            }
        }
        self.streams.iter().find(|(_, stream)| stream.changed).map(|(&id, _)| id)
    }

    /// The report of a stream got lost: it is owed again.
    pub(crate) fn owe_accepted(&mut self, stream: u16) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.changed = true;
        }
    }

    /// Gives what to tell the sender of a stream to `tell`, which says whether it did.
    /// `most`: bytes of the bitmap at most.
    pub(crate) fn tell_accepted(
        &mut self,
        id: u16,
        most: usize,
        tell: impl FnOnce(Accepted<'_>) -> bool,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let mut buffer = [0; MAX_ACCEPT_BITMAP];
        let told = tell(Accepted {
            stream: id,
            floor: MessageId(stream.floor),
            credit: stream.granted,
            credit_in_all: self.granted,
            bitmap: stream.bitmap(&mut buffer[..most.min(MAX_ACCEPT_BITMAP)]),
        });
        stream.changed &= !told;
        told
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        self.streams.values_mut().for_each(|stream| stream.shrink());
        self.pool.shrink();
    }
}

/// Whether unreliable messages may wait for a consumer; if so they are counted.
fn has_unreliable_room(held: &mut usize, len: usize, count: u64) -> bool {
    let has = *held + len <= MAX_UNRELIABLE_BYTES;
    *held += if has { len + (count * MESSAGE_COST) as usize } else { 0 };
    has
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(message: u64, total: u32, offset: u32) -> Fragment<'static> {
        let (mode, message) = (MessageMode::Ordered, MessageId(message));
        Fragment { message, mode, redelivered: false, stream: 0, order: 0, total, offset, payload: b"x" }
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
        assert!(inbox.streams[&0].held() <= 16 << 20);
        for id in 0..1_000 {
            let unreliable = Fragment { mode: MessageMode::Unreliable, ..fragment(id, 1 << 20, 0) };
            take(&mut inbox, &unreliable);
        }
        assert!(inbox.unreliable.len() <= 32);
    }

    #[test]
    fn a_stream_that_nobody_reads_leaves_room_to_others() {
        let mut inbox = Inbox::new(0);
        let other = |id| Fragment { stream: 1, ..fragment(id, 1 << 20, 0) };
        assert!((0..100).any(|id| take(&mut inbox, &other(id)) == Taken::Refused));
        for id in 0..15 {
            assert_eq!(take(&mut inbox, &fragment(id, 1 << 20, 0)), Taken::New);
        }
    }

    /// Of a window of four shares, three streams that nobody reads leave one.
    #[test]
    fn what_is_used_is_granted_in_full() {
        let mut inbox = Inbox::new(64 << 20);
        for stream in 1..=3 {
            for id in 0..15 {
                let other = Fragment { stream, ..fragment(id, 1 << 20, 0) };
                assert_eq!(take(&mut inbox, &other), Taken::New, "stream {stream}, message {id}");
                inbox.changed();
            }
        }
        assert_eq!(take(&mut inbox, &fragment(0, 1 << 20, 0)), Taken::New);
    }

    #[test]
    fn gaps_stay_in_proportion_to_the_message() {
        let mut inbox = Inbox::new(0);
        for offset in (0..100_000).step_by(2) {
            take(&mut inbox, &fragment(0, 100_000, offset));
        }
        assert!(inbox.streams[&0].partial[&0].gaps() <= 100_000 / assembly::BYTES_FOR_A_GAP + 2);
    }

    #[test]
    fn two_messages_in_one_place_of_the_order_are_refused() {
        let mut inbox = Inbox::new(0);
        assert_eq!(take(&mut inbox, &fragment(0, 1, 0)), Taken::New);
        assert_eq!(take(&mut inbox, &fragment(1, 1, 0)), Taken::Refused);
    }
}
