//! Between the driver and one listener: what arrived and was not taken yet. Batches pass it whole, without an allocation
//! in the steady state.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlan_core::Payloads;
use tokio::sync::Notify;

use super::streams::Streams;
use crate::app::{Received, ReceivedRun};

/// Messages that an embedded listener may hold unread.
pub(crate) const LISTENER_MESSAGES: usize = 4096;
/// Bytes of messages a listener may hold unread; messages that arrived together are let in while less is held.
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
    runs: Vec<ReceivedRun>,
    messages: usize,
    bytes: usize,
    /// Messages that may still come; `None`: as many as the capacity leaves.
    credit: Option<u64>,
    /// The driver saw no room: it is to be woken.
    starved: bool,
    /// The node is gone.
    ended: bool,
}

#[derive(Debug)]
struct Mailbox {
    held: Mutex<Held>,
    /// The listener takes no more. Beside the lock: the driver asks each time round.
    closed: AtomicBool,
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
        let capacity = self.options.capacity.saturating_sub(held.messages) as u64;
        let room = Room {
            messages: held.credit.unwrap_or(capacity),
            bytes: LISTENER_BYTES.saturating_sub(held.bytes),
        };
        held.starved = !room.is_open();
        room
    }
}

impl Mailbox {
    /// Takes what is there, and how many messages that is; `None` where nothing is, 0 where nothing will be.
    fn try_take(&self, take: &mut impl FnMut(&mut Vec<ReceivedRun>)) -> Option<usize> {
        let mut held = self.lock();
        if held.runs.is_empty() {
            return held.ended.then_some(0);
        }
        take(&mut held.runs);
        let messages = std::mem::take(&mut held.messages);
        held.bytes = 0;
        let starved = held.starved && held.credit != Some(0);
        held.starved &= !starved;
        drop(held);
        if starved {
            self.driver.notify_one();
        }
        Some(messages)
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

    /// How many messages may come.
    pub(super) fn messages(&self) -> usize {
        usize::try_from(self.messages).unwrap_or(usize::MAX)
    }

    /// Messages come; what they count for.
    pub(super) fn take(&mut self, payloads: &Payloads) -> usize {
        let cost = payloads.bytes() + MESSAGE_COST * payloads.len();
        self.messages = self.messages.saturating_sub(payloads.len() as u64);
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
        self.0.closed.load(Ordering::Acquire)
    }

    /// What room there is; where there is none, the driver is woken once there is.
    pub(super) fn room(&self) -> Room {
        self.0.room(&mut self.0.lock())
    }

    /// Moves so many messages in, which count for so many bytes.
    pub(super) fn put(&self, runs: &mut Vec<ReceivedRun>, count: usize, bytes: usize) {
        let mut held = self.0.lock();
        let before = held.messages;
        if before == 0 {
            std::mem::swap(&mut held.runs, runs);
        } else {
            held.runs.append(runs);
        }
        held.messages += count;
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
    taken: VecDeque<ReceivedRun>,
}

impl Listener {
    /// A listener and the driver's end. With `credit`, room is only what [`add_credit`](Self::add_credit) gives.
    pub(crate) fn pair(
        options: ListenOptions,
        credit: Option<u64>,
        driver: Arc<Notify>,
    ) -> (Self, ListenerEnd) {
        let held = Mutex::new(Held { credit, ..Held::default() });
        let mailbox = Arc::new(Mailbox {
            held,
            closed: AtomicBool::new(false),
            options,
            arrived: Notify::new(),
            driver,
        });
        (Listener { mailbox: mailbox.clone(), taken: VecDeque::new() }, ListenerEnd(mailbox))
    }

    /// Has no more messages accepted. Those that were are still handed out, and after them what says that the node has
    /// stopped.
    pub fn close(&mut self) {
        self.mailbox.closed.store(true, Ordering::Release);
        self.mailbox.driver.notify_one();
    }

    /// The next message; `None` once the node has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Received> {
        loop {
            while let Some(run) = self.taken.front_mut() {
                let message = run.next();
                if run.payloads.is_empty() {
                    self.taken.pop_front();
                }
                if message.is_some() {
                    return message;
                }
            }
            let taken = &mut self.taken;
            if Self::wait(&self.mailbox, |runs| taken.extend(runs.drain(..))).await == 0 {
                return None;
            }
        }
    }

    /// Appends all messages that are there to `runs`, waiting for the first; how many. 0: the node has stopped.
    /// Cancel-safe. It costs much less than one [`recv`](Self::recv) each, and nothing is allocated where the same vector
    /// is given, emptied, again and again.
    pub async fn recv_many(&mut self, runs: &mut Vec<ReceivedRun>) -> usize {
        let before = self.taken.iter().map(|run| run.payloads.len()).sum();
        runs.extend(self.taken.drain(..));
        if before > 0 {
            return before;
        }
        Self::wait(&self.mailbox, |held| match runs.is_empty() {
            true => std::mem::swap(held, runs),
            false => runs.append(held),
        })
        .await
    }

    /// Waits until something is there and takes it; how many messages, 0 once the node has stopped.
    async fn wait(mailbox: &Mailbox, mut take: impl FnMut(&mut Vec<ReceivedRun>)) -> usize {
        loop {
            if let Some(messages) = mailbox.try_take(&mut take) {
                return messages;
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
        self.mailbox.lock().runs = Vec::new();
    }
}
