//! Who takes messages, of which streams, and how much room they have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use overlan_core::{Event, Instant, Message};
use overlan_wire::NodeId;

use super::NodeCore;
use super::mailbox::{ListenerEnd, Room};
use super::streams::Streams;
use crate::app::{Origin, Received};

/// Messages handed out in one turn of the driver.
const MESSAGES_PER_TURN: usize = 4096;
/// Senders and paths remembered.
const MAX_ORIGINS: usize = 1024;

/// Our adapter address and the peer's.
type Ends = (SocketAddr, SocketAddr);

/// All listeners.
#[derive(Default)]
pub(super) struct Listeners {
    ends: Vec<(ListenerEnd, Room)>,
    names: BTreeMap<NodeId, Arc<str>>,
    origins: BTreeMap<(NodeId, Option<Ends>), Arc<Origin>>,
    /// Where the last message came from: the next one mostly does too.
    last: Option<Arc<Origin>>,
    batch: Vec<Received>,
}

impl Listeners {
    pub(super) fn add(&mut self, listener: ListenerEnd) {
        self.ends.push((listener, Room::default()));
    }

    /// Remembers names.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Member { node, name, .. } = event {
            self.names.insert(*node, name.as_str().into());
            self.origins.clear();
            self.last = None;
        }
    }

    /// Hands out what the core has and listeners have room for; whether that was anything.
    pub(super) fn deliver(&mut self, core: &mut NodeCore, now: Instant) -> bool {
        if self.ends.is_empty() {
            return false;
        }
        self.ends.retain_mut(|(end, room)| {
            *room = end.room();
            !end.is_gone()
        });
        let mut open = self.open_streams();
        while self.batch.len() < MESSAGES_PER_TURN && !open.is_empty() {
            let Some(message) = core.poll_message(now, |stream| open.contains(stream)) else { break };
            let mut full = false;
            for (end, room) in &mut self.ends {
                if end.streams().contains(message.stream) {
                    room.take(message.payload.len());
                    full |= !room.is_open();
                }
            }
            let received = self.received(core, now, message);
            self.batch.push(received);
            if full {
                open = self.open_streams();
            }
        }
        if self.batch.is_empty() {
            return false;
        }
        // Once for all: they arrived together.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.batch.iter_mut().for_each(|message| message.time_ns = time);
        let Some(((last, _), others)) = self.ends.split_last() else { return false };
        for (end, _) in others {
            end.put(self.batch.iter().filter(|message| end.streams().contains(message.stream)).cloned());
        }
        last.put(self.batch.drain(..).filter(|message| last.streams().contains(message.stream)));
        true
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

    fn received(&mut self, core: &NodeCore, now: Instant, message: Message) -> Received {
        let origin = match &self.last {
            Some(last) if (last.node, last.path) == (message.from, message.path) => last.clone(),
            _ => self.origin(core, now, message.from, message.path),
        };
        Received {
            origin,
            id: message.id,
            mode: message.mode,
            stream: message.stream,
            redelivered: message.redelivered,
            time_ns: 0,
            payload: message.payload,
        }
    }

    fn origin(
        &mut self,
        core: &NodeCore,
        now: Instant,
        node: NodeId,
        path: Option<(SocketAddr, SocketAddr)>,
    ) -> Arc<Origin> {
        if !self.names.contains_key(&node) {
            let members = core.members(now).into_iter();
            self.names
                .extend(members.filter_map(|member| Some((member.id.parse().ok()?, member.name.into()))));
        }
        if self.origins.len() >= MAX_ORIGINS {
            self.origins.clear();
        }
        let names = &self.names;
        let new = || Arc::new(Origin { node, name: names.get(&node).cloned().unwrap_or_default(), path });
        let origin = self.origins.entry((node, path)).or_insert_with(new).clone();
        self.last = Some(origin.clone());
        origin
    }
}
