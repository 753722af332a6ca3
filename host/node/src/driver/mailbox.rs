//! Between the driver and one listener: what arrived and was not taken yet. Batches pass it whole, without an allocation
//! in the steady state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::streams::Streams;
use crate::app::Received;

/// Messages that an embedded listener may hold unread.
pub(crate) const LISTENER_MESSAGES: usize = 4096;
/// Bytes of messages a listener may hold unread; a message is let in while less is held.
const LISTENER_BYTES: usize = 16 << 20;
/// What an empty message counts for.
const MESSAGE_COST: usize = 64;

/// What to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Messages of these streams. A stream that nobody listens to is held up, alone.
    pub streams: Streams,
    /// Messages to accept ahead of what is taken: they count as delivered.
    pub capacity: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { streams: Streams::ALL, capacity: LISTENER_MESSAGES }
    }
}

#[derive(Debug, Default)]
struct Held {
    messages: Vec<Received>,
    bytes: usize,
    /// Messages that may still come; `None`: as many as the capacity leaves.
    credit: Option<u64>,
    /// The driver saw no room: it is to be woken.
    starved: bool,
    /// The listener takes no more.
    closed: bool,
    /// The node is gone.
    ended: bool,
}

#[derive(Debug)]
struct Mailbox {
    held: Mutex<Held>,
    options: ListenOptions,
    arrived: Notify,
    /// Wakes the driver.
    driver: Arc<Notify>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, held: &mut Held) -> Room {
        let capacity = self.options.capacity.saturating_sub(held.messages.len()) as u64;
        let room = Room {
            messages: held.credit.unwrap_or(capacity),
            bytes: LISTENER_BYTES.saturating_sub(held.bytes),
        };
        held.starved = !room.is_open();
        room
    }
}

impl Mailbox {
    /// Takes what is there; `None` where nothing is, `false` where nothing will be.
    fn try_take(&self, take: &mut impl FnMut(&mut Vec<Received>)) -> Option<bool> {
        let mut held = self.lock();
        if held.messages.is_empty() {
            return held.ended.then_some(false);
        }
        take(&mut held.messages);
        held.bytes = 0;
        let starved = held.starved && held.credit != Some(0);
        held.starved &= !starved;
        drop(held);
        if starved {
            self.driver.notify_one();
        }
        Some(true)
    }
}

/// What a listener may still take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    messages: u64,
    bytes: usize,
}

impl Room {
    pub(super) fn is_open(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// One message of so many bytes comes; what it counts for.
    pub(super) fn take(&mut self, bytes: usize) -> usize {
        let cost = bytes + MESSAGE_COST;
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(cost);
        cost
    }

    /// What both leave.
    pub(super) fn lesser(self, other: Self) -> Self {
        Room { messages: self.messages.min(other.messages), bytes: self.bytes.min(other.bytes) }
    }
}

/// The driver's end of a listener.
pub(crate) struct ListenerEnd(Arc<Mailbox>);

impl ListenerEnd {
    pub(super) fn streams(&self) -> &Streams {
        &self.0.options.streams
    }

    /// Whether it is to be dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// What room there is; where there is none, the driver is woken once there is.
    pub(super) fn room(&self) -> Room {
        self.0.room(&mut self.0.lock())
    }

    /// Moves messages in, which count for so many bytes.
    pub(super) fn put(&self, messages: &mut Vec<Received>, bytes: usize) {
        let mut held = self.0.lock();
        let (before, count) = (held.messages.len(), messages.len());
        if before == 0 {
            std::mem::swap(&mut held.messages, messages);
        } else {
            held.messages.append(messages);
        }
        held.bytes += bytes;
        if let Some(credit) = &mut held.credit {
            *credit = credit.saturating_sub(count as u64);
        }
        self.0.room(&mut held);
        drop(held);
        if before == 0 && count > 0 {
            self.0.arrived.notify_one();
        }
    }
}

impl Drop for ListenerEnd {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.arrived.notify_one();
    }
}

/// Takes messages. Every listener to a stream gets each message of it; while one of them has no room, none is accepted,
/// and the senders to that stream feel it.
#[derive(Debug)]
pub struct Listener {
    mailbox: Arc<Mailbox>,
    /// Taken from the mailbox and not handed out yet.
    taken: VecDeque<Received>,
}

impl Listener {
    /// A listener and the driver's end. With `credit`, room is only what [`add_credit`](Self::add_credit) gives.
    pub(crate) fn pair(
        options: ListenOptions,
        credit: Option<u64>,
        driver: Arc<Notify>,
    ) -> (Self, ListenerEnd) {
        let held = Mutex::new(Held { credit, ..Held::default() });
        let mailbox = Arc::new(Mailbox { held, options, arrived: Notify::new(), driver });
        (Listener { mailbox: mailbox.clone(), taken: VecDeque::new() }, ListenerEnd(mailbox))
    }

    /// Has no more messages accepted. Those that were are still handed out, and after them what says that the node has
    /// stopped.
    pub fn close(&mut self) {
        self.mailbox.lock().closed = true;
        self.mailbox.driver.notify_one();
    }

    /// The next message; `None` once the node has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Received> {
        while self.taken.is_empty() {
            let taken = &mut self.taken;
            if !Self::wait(&self.mailbox, |messages| taken.extend(messages.drain(..))).await {
                return None;
            }
        }
        self.taken.pop_front()
    }

    /// Appends all messages that are there to `messages`, waiting for the first; how many. 0: the node has stopped.
    /// Cancel-safe. It costs less than one [`recv`](Self::recv) each, and nothing is allocated where the same vector is
    /// given, emptied, again and again.
    pub async fn recv_many(&mut self, messages: &mut Vec<Received>) -> usize {
        let before = messages.len();
        messages.extend(self.taken.drain(..));
        if messages.len() == before {
            let into = &mut *messages;
            Self::wait(&self.mailbox, |held| match into.is_empty() {
                true => std::mem::swap(held, into),
                false => into.append(held),
            })
            .await;
        }
        messages.len() - before
    }

    /// All messages that are there, waiting for the first; `None` once the node has stopped. Cancel-safe.
    pub async fn recv_batch(&mut self) -> Option<Vec<Received>> {
        let mut messages = Vec::new();
        (self.recv_many(&mut messages).await > 0).then_some(messages)
    }

    /// Waits until something is there and takes it; `false` once the node has stopped.
    async fn wait(mailbox: &Mailbox, mut take: impl FnMut(&mut Vec<Received>)) -> bool {
        loop {
            if let Some(went_on) = mailbox.try_take(&mut take) {
                return went_on;
            }
            mailbox.arrived.notified().await;
        }
    }

    /// Makes room for more messages.
    pub(crate) fn add_credit(&self, messages: u32) {
        let mut held = self.mailbox.lock();
        if let Some(credit) = &mut held.credit {
            *credit += u64::from(messages);
        }
        let starved = std::mem::take(&mut held.starved);
        drop(held);
        if starved {
            self.mailbox.driver.notify_one();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
        self.mailbox.lock().messages = Vec::new();
    }
}
