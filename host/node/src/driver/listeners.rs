//! Who takes messages, of which streams, and how much room they have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use overlan_core::{Arrivals, Event, Instant};
use overlan_wire::NodeId;

use super::NodeCore;
use super::mailbox::{ListenerEnd, Room};
use super::streams::Streams;
use crate::app::{Origin, ReceivedRun};

/// Messages handed out in one turn of the driver.
const MESSAGES_PER_TURN: usize = 4096;
/// Of these, messages of one sender and stream handed out together.
const MESSAGES_PER_BATCH: usize = 1024;
/// Senders and paths remembered.
const MAX_ORIGINS: usize = 1024;

/// Our adapter address and the peer's.
type Ends = (SocketAddr, SocketAddr);

/// All listeners.
#[derive(Default)]
pub(super) struct Listeners {
    ends: Vec<(ListenerEnd, Room)>,
    origins: Origins,
    batch: Vec<ReceivedRun>,
}

/// Whom messages come from.
#[derive(Default)]
struct Origins {
    names: BTreeMap<NodeId, Arc<str>>,
    known: BTreeMap<(NodeId, Option<Ends>), Arc<Origin>>,
    /// Where the last message came from: the next one mostly does too.
    last: Option<Arc<Origin>>,
}

impl Listeners {
    pub(super) fn add(&mut self, listener: ListenerEnd) {
        self.ends.push((listener, Room::default()));
    }

    /// Remembers names.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Member { node, name, .. } = event {
            self.origins = Origins { names: std::mem::take(&mut self.origins.names), ..Origins::default() };
            self.origins.names.insert(*node, name.as_str().into());
        }
    }

    /// Hands out what the core has and listeners have room for; whether that was anything.
    pub(super) fn deliver(&mut self, core: &mut NodeCore, now: Instant) -> bool {
        if self.ends.is_empty() {
            return false;
        }
        self.ends.retain(|(end, _)| !end.is_closed());
        // Mostly there is nothing: their rooms are behind locks.
        if core.next_sender(|_| true).is_none() {
            return false;
        }
        let mut delivered = 0;
        while delivered < MESSAGES_PER_TURN {
            self.ends.iter_mut().for_each(|(end, room)| *room = end.room());
            let open = self.open_streams();
            match if open.is_empty() { 0 } else { self.deliver_batch(core, now, open) } {
                0 => break,
                more => delivered += more,
            }
        }
        delivered > 0
    }

    /// Hands out messages of one sender and stream; how many.
    fn deliver_batch(&mut self, core: &mut NodeCore, now: Instant, open: Streams) -> usize {
        let takes = |stream| open.contains(stream);
        let Some(from) = core.next_sender(takes) else { return 0 };
        self.origins.learn(core, now, from);
        // Once for all: they arrived together.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let Listeners { ends, origins, batch } = self;
        let (mut stream, mut room) = (None, Room::default());
        let (mut count, mut bytes) = (0, 0);
        core.poll_messages(now, takes, |arrivals| {
            if stream.is_none() {
                stream = Some(arrivals.stream);
                let rooms = listening(ends, arrivals.stream).map(|(_, room)| *room);
                room = rooms.reduce(Room::lesser).unwrap_or_default();
            }
            let &mut Arrivals { mode, stream, redelivered, path, .. } = arrivals;
            let origin = origins.of(from, path);
            let (first, payloads) = arrivals.take_run(room.messages().min(MESSAGES_PER_BATCH - count));
            if payloads.is_empty() {
                return ControlFlow::Break(());
            }
            count += payloads.len();
            bytes += room.take(&payloads);
            batch.push(ReceivedRun { origin, first, mode, stream, redelivered, time_ns, payloads });
            match room.is_open() && count < MESSAGES_PER_BATCH {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        let Some(stream) = stream else { return 0 };
        let mut listening = listening(ends, stream).peekable();
        while let Some((end, _)) = listening.next() {
            match listening.peek() {
                Some(_) => end.put(&mut batch.clone(), count, bytes),
                None => end.put(batch, count, bytes),
            }
        }
        count
    }

    /// Streams with a listener, all of whose listeners have room.
    fn open_streams(&self) -> Streams {
        let mut open = Streams::NONE;
        let mut full = Streams::NONE;
        for (end, room) in &self.ends {
            if room.is_open() { &mut open } else { &mut full }.add(end.streams());
        }
        open.without(&full)
    }
}

/// The listeners to a stream.
fn listening(ends: &[(ListenerEnd, Room)], stream: u16) -> impl Iterator<Item = &(ListenerEnd, Room)> {
    ends.iter().filter(move |(end, _)| end.streams().contains(stream))
}

impl Origins {
    /// Makes sure that the name of a sender is known.
    fn learn(&mut self, core: &NodeCore, now: Instant, node: NodeId) {
        if !self.names.contains_key(&node) {
            let members = core.members(now).into_iter();
            self.names
                .extend(members.filter_map(|member| Some((member.id.parse().ok()?, member.name.into()))));
        }
    }

    fn of(&mut self, node: NodeId, path: Option<Ends>) -> Arc<Origin> {
        if let Some(last) = self.last.as_ref().filter(|last| (last.node, last.path) == (node, path)) {
            return last.clone();
        }
        if self.known.len() >= MAX_ORIGINS {
            self.known.clear();
        }
        let names = &self.names;
        let new = || Arc::new(Origin { node, name: names.get(&node).cloned().unwrap_or_default(), path });
        let origin = self.known.entry((node, path)).or_insert_with(new).clone();
        self.last = Some(origin.clone());
        origin
    }
}
