//! Who takes messages, and how much room they have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use overlan_core::{Event, Instant, Message};
use overlan_wire::NodeId;
use tokio::sync::{Notify, mpsc};

use super::NodeCore;
use crate::app::Received;

/// Messages that an embedded listener may hold unread.
pub(crate) const LISTENER_MESSAGES: u32 = 256;
/// Bytes of messages a listener may hold unread; a message is let in while less is held.
const LISTENER_BYTES: i64 = 16 << 20;

/// What one listener may still take.
#[derive(Debug)]
struct Room {
    messages: AtomicI64,
    bytes: AtomicI64,
    wake: Arc<Notify>,
}

impl Room {
    fn is_open(&self) -> bool {
        self.messages.load(Ordering::Acquire) > 0 && self.bytes.load(Ordering::Acquire) > 0
    }
}

/// The driver's end of a listener.
pub(crate) struct ListenerEnd {
    sender: mpsc::UnboundedSender<Arc<Received>>,
    room: Arc<Room>,
}

/// Takes messages. Every listener gets each message; while one of them has no room, none is accepted, and the senders
/// feel it.
#[derive(Debug)]
pub struct Listener {
    receiver: mpsc::UnboundedReceiver<Arc<Received>>,
    room: Arc<Room>,
    /// Whether taking a message makes room for another.
    refill: bool,
}

impl Listener {
    pub(crate) fn pair(messages: u32, refill: bool, wake: Arc<Notify>) -> (Self, ListenerEnd) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Room {
            messages: AtomicI64::new(i64::from(messages)),
            bytes: AtomicI64::new(LISTENER_BYTES),
            wake,
        });
        (Listener { receiver, room: room.clone(), refill }, ListenerEnd { sender, room })
    }

    /// The next message; `None` once the node has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Arc<Received>> {
        let message = self.receiver.recv().await?;
        self.room.bytes.fetch_add(size(&message), Ordering::AcqRel);
        if self.refill {
            self.add_credit(1);
        } else {
            self.room.wake.notify_one();
        }
        Some(message)
    }

    /// Makes room for more messages.
    pub(crate) fn add_credit(&self, messages: u32) {
        self.room.messages.fetch_add(i64::from(messages), Ordering::AcqRel);
        self.room.wake.notify_one();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.receiver.close();
        self.room.wake.notify_one();
    }
}

/// Empty messages take room too.
fn size(message: &Received) -> i64 {
    message.payload.len() as i64 + 64
}

/// All listeners.
#[derive(Default)]
pub(super) struct Listeners {
    ends: Vec<ListenerEnd>,
    names: BTreeMap<NodeId, String>,
}

impl Listeners {
    pub(super) fn add(&mut self, listener: ListenerEnd) {
        self.ends.push(listener);
    }

    /// Whether there is a listener, and all have room.
    pub(super) fn have_room(&mut self) -> bool {
        self.ends.retain(|end| !end.sender.is_closed());
        !self.ends.is_empty() && self.ends.iter().all(|end| end.room.is_open())
    }

    /// Remembers names.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Member { node, name, .. } = event {
            self.names.insert(*node, name.clone());
        }
    }

    pub(super) fn deliver(&mut self, core: &NodeCore, now: Instant, message: Message) {
        let message = Arc::new(self.received(core, now, message));
        for end in &self.ends {
            end.room.messages.fetch_sub(1, Ordering::AcqRel);
            end.room.bytes.fetch_sub(size(&message), Ordering::AcqRel);
            // A listener that has just gone loses nothing that others would miss.
            let _ = end.sender.send(message.clone());
        }
    }

    fn received(&mut self, core: &NodeCore, now: Instant, message: Message) -> Received {
        if !self.names.contains_key(&message.from) {
            let members = core.members(now).into_iter();
            self.names.extend(members.filter_map(|member| Some((member.id.parse().ok()?, member.name))));
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Received {
            from: message.from,
            name: self.names.get(&message.from).cloned().unwrap_or_default(),
            id: message.id,
            mode: message.mode,
            time_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            path: message.path.map(|(local, remote)| format!("{local}<-{remote}")).unwrap_or_default(),
            payload: message.payload.into(),
        }
    }
}
