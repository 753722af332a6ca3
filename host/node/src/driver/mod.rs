//! The driver: one task on a thread of its own that owns the core. Nothing slow happens on it: plugins answer, routes
//! are written and clients wait elsewhere, and what they have to say comes by bounded queues. An application may put
//! its own tasks beside it ([`NodeHandle::spawn_beside`](crate::NodeHandle::spawn_beside)).
//!
//! One turn: take commands, policy answers and one batch from each socket, then (once the sockets were seen empty, so
//! that a node that was paused accuses nobody) fire the timers, hand out what arrived, let the tasks beside say what they
//! have to, send some of what the core wants sent, and then all that can wait for that: the messages' fates, and when to
//! come back.

mod listeners;
mod mailbox;
mod outbox;
mod polling;
mod sockets;
mod streams;
mod timer;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use overlan_contract::Kind;
use overlan_contract::failover::PathState;
use overlan_core::document::SignedDocument;
use overlan_core::policy::{Answer, Fault, Ticket};
use overlan_core::{Core, Event, Instant, LastKnown};
use overlan_seal::Seal;
use overlan_udp::Impairment;
use overlan_wire::Digest;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::adapters::Selection;
use crate::config::BusyPoll;
use crate::handle::IdentityTaken;
use crate::policy::Policies;
use crate::state::StateDir;

pub(crate) use mailbox::ListenerEnd;
pub use mailbox::{ListenOptions, Listener};
pub(crate) use outbox::{BatchId, MAX_BATCH, Outbox, Outgoing, Queued};
pub use outbox::{MemberOutcome, SendFailure, SendOptions};
use polling::Polling;
use sockets::{Arrived, Refused, Sockets};
pub use streams::Streams;
use timer::Alarm;

/// Commands that may wait for the driver; a caller beyond that waits.
pub(crate) const MAX_COMMANDS: usize = 1024;
/// Events that a slow watcher may lag behind before it loses the oldest.
pub(crate) const MAX_EVENTS: usize = 1024;
/// Commands taken in one turn, so that the sockets get theirs.
const COMMANDS_PER_TURN: usize = 256;
/// Datagram batches (of 64 KiB) handed out in one turn, so that acknowledgements are seen in between.
const TRANSMITS_PER_TURN: usize = 8;
/// How long timers that are due wait for sockets that always have more; that is longer than it takes to empty full
/// buffers, where the node was paused.
const DRAIN: Duration = Duration::from_millis(1);
const DRAIN_AFTER_PAUSE: Duration = Duration::from_millis(10);
/// A timer this late says that the node was paused.
const PAUSED: Duration = Duration::from_millis(10);
/// What could not be stored is tried again after this long.
const STORE_AGAIN: Duration = Duration::from_secs(3);
/// How long a leaving node goes on, so that its farewell is acknowledged or repeated.
const FAREWELL: Duration = Duration::from_millis(150);

/// The core of a node.
pub(crate) type NodeCore = Core<Seal>;
/// Something to do with the core, between two turns.
pub(crate) type Inspection = Box<dyn FnOnce(&mut NodeCore, Instant) + Send>;

/// What the driver is told.
pub(crate) enum Command {
    /// Send messages.
    Send(Outgoing),
    /// Messages are not wanted any more.
    Cancel(BatchId),
    /// One more listener.
    Listen(ListenerEnd),
    /// The adapters to use.
    Adapters(Selection),
    /// Drop datagrams on purpose on an adapter address.
    Impair(IpAddr, Impairment, oneshot::Sender<bool>),
    /// Another plugin answers.
    PolicyChanged(Kind, Digest),
    /// A policy may answer what it gave no answer to.
    AskAgain(Kind),
    /// Look at the core.
    Inspect(Inspection),
    /// Say farewell and stop.
    Leave,
    /// Stop at once, as a crash would.
    Abort,
}

/// A policy's answer on its way back.
pub(crate) type Answered = (Ticket, Result<Answer, Fault>);

/// The driver's ends of its queues.
pub(crate) struct Ports {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) answers: mpsc::UnboundedReceiver<Answered>,
    pub(crate) policies: Policies,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) remotes: watch::Sender<Vec<IpAddr>>,
    pub(crate) last_known: watch::Sender<Vec<LastKnown>>,
    pub(crate) problems: watch::Sender<Vec<String>>,
    pub(crate) document: watch::Sender<Option<SignedDocument>>,
    pub(crate) wake: Arc<Notify>,
}

/// A version of the own entry that is not on the disk.
struct Unstored {
    version: u64,
    why: String,
    again: Instant,
}

pub(crate) struct Driver {
    core: NodeCore,
    origin: std::time::Instant,
    ports: Ports,
    sockets: Sockets,
    alarm: Alarm,
    outbox: Outbox,
    listeners: listeners::Listeners,
    state: StateDir,
    /// Why the adapters were not taken.
    unfit: Option<String>,
    unstored: Option<Unstored>,
    buffer: Vec<u8>,
    /// When the core's next timer is due, as the last turn left it.
    deadline: Option<Instant>,
    /// Since when a timer is due, and until when it waits for the sockets.
    overdue: Option<(Instant, Instant)>,
    polling: Polling,
    /// Datagrams (received and sent), commands and policies' answers of this turn.
    work: usize,
    leaving: Option<Instant>,
    /// Why the node may not stay, where that is so.
    taken: Option<IdentityTaken>,
}

impl Driver {
    /// # Errors
    /// There is no timer.
    pub(crate) fn new(
        core: NodeCore,
        origin: std::time::Instant,
        state: StateDir,
        ports: Ports,
        busy_poll: BusyPoll,
    ) -> std::io::Result<Self> {
        Ok(Driver {
            sockets: Sockets::new(),
            alarm: Alarm::new()?,
            core,
            origin,
            ports,
            outbox: Outbox::default(),
            listeners: listeners::Listeners::default(),
            state,
            unfit: None,
            unstored: None,
            buffer: Vec::with_capacity(1 << 16),
            deadline: None,
            overdue: None,
            polling: Polling::new(busy_poll),
            work: 0,
            leaving: None,
            taken: None,
        })
    }

    fn now(&self) -> Instant {
        now(self.origin)
    }

    /// Runs until the node leaves or all of its handles are gone.
    ///
    /// # Errors
    /// The node must not stay.
    pub(crate) async fn run(mut self) -> Result<(), IdentityTaken> {
        loop {
            let mut busy = self.take_commands();
            let now = self.now();
            let due = self.deadline.filter(|due| *due <= now);
            let arrived = self.receive(now, due.is_some() || self.polling.is_polling());
            busy |= self.fire(now, due, &arrived);
            if self.deliver(now) {
                // Tasks beside this one answer before the acknowledgement leaves, which goes with the answer.
                step_back().await;
                busy |= self.take_commands();
            }
            busy |= self.flush();
            // What came of the commands and the sending, messages to this node itself among it.
            busy |= self.deliver(now);
            busy |= self.conclude();
            self.deadline = self.core.poll_timeout();
            if self.leaving.is_some_and(|end| end <= self.now()) {
                self.outbox.abandon();
                return self.taken.map_or(Ok(()), Err);
            }
            // Those beside have a turn between two of the driver's.
            self.polling.note_work(now, std::mem::take(&mut self.work));
            if busy || self.polling.note_idle(now) || !self.wait().await {
                step_back().await;
            }
        }
    }

    /// Opens sockets that were refused, where it is time to, and fires the timers that are due, unless the sockets have
    /// more that should be heard first; whether they are to be asked again.
    fn fire(&mut self, now: Instant, due: Option<Instant>, arrived: &Arrived) -> bool {
        if self.outbox.poll_timeout().is_some_and(|due| due <= now) {
            self.outbox.handle_timeout(&mut self.core, now);
        }
        if self.sockets.retry_due() {
            self.apply_adapters();
        }
        if let Some(unstored) = self.unstored.as_ref().filter(|unstored| unstored.again <= now) {
            self.store_version(now, unstored.version);
        }
        let Some(due) = due else {
            self.overdue = None;
            return false;
        };
        let patience = if now.since(due) > PAUSED { DRAIN_AFTER_PAUSE } else { DRAIN };
        let (_, until) = *self.overdue.get_or_insert((due, now + patience));
        if matches!(arrived, Arrived::Datagrams) && now < until {
            return true;
        }
        self.overdue = None;
        self.core.handle_timeout(now);
        false
    }

    fn take_commands(&mut self) -> bool {
        while let Ok((ticket, answer)) = self.ports.answers.try_recv() {
            self.hear_answer(ticket, answer);
        }
        for _ in 0..COMMANDS_PER_TURN {
            match self.ports.commands.try_recv() {
                Ok(command) => self.handle(command),
                Err(TryRecvError::Empty) => return false,
                // All handles are gone.
                Err(TryRecvError::Disconnected) => {
                    self.leave();
                    return false;
                }
            }
        }
        true
    }

    fn handle(&mut self, command: Command) {
        let now = self.now();
        self.work += 1;
        match command {
            Command::Send(outgoing) => self.outbox.send(&mut self.core, now, outgoing),
            Command::Cancel(batch) => self.outbox.cancel(&mut self.core, now, batch),
            Command::Listen(listener) => self.listeners.add(listener),
            Command::Adapters(selection) => {
                self.sockets.want(selection);
                self.apply_adapters();
            }
            Command::Impair(address, impairment, reply) => {
                let _ = reply.send(self.sockets.impair(address, impairment));
            }
            Command::PolicyChanged(kind, digest) => self.core.handle_policy_change(now, kind, digest),
            Command::AskAgain(kind) => self.core.ask_again(now, kind),
            Command::Inspect(look) => look(&mut self.core, now),
            Command::Leave => self.leave(),
            Command::Abort => self.leaving = Some(Instant::ZERO),
        }
    }

    fn hear_answer(&mut self, ticket: Ticket, answer: Result<Answer, Fault>) {
        self.work += 1;
        let now = self.now();
        self.core.handle_answer(now, ticket, answer);
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            let now = self.now();
            self.core.leave(now);
            self.leaving = Some(now + FAREWELL);
        }
    }

    /// Opens and closes sockets and tells the core.
    fn apply_adapters(&mut self) {
        if let Some(adapters) = self.sockets.apply() {
            let taken = self.core.handle_adapters(now(self.origin), adapters);
            self.unfit = taken.err().map(|error| error.to_string());
        }
        self.tell_problems();
    }

    /// Keeps the version of the own entry for the next start.
    fn store_version(&mut self, now: Instant, version: u64) {
        let unstored = self.state.store_version(version).err().map(|error| Unstored {
            version,
            why: format!(
                "the table entry's version is not kept for the next start: {error}; make room, or the folder writable; \
                 trying again"
            ),
            again: now + STORE_AGAIN,
        });
        let changed = self.unstored.is_some() != unstored.is_some();
        self.unstored = unstored;
        if changed {
            self.tell_problems();
        }
    }

    fn tell_problems(&self) {
        let mut problems = self.sockets.problems();
        problems.extend(self.unfit.clone());
        problems.extend(self.unstored.as_ref().map(|unstored| unstored.why.clone()));
        publish(&self.ports.problems, problems);
    }

    fn receive(&mut self, now: Instant, ask: bool) -> Arrived {
        let (core, work) = (&mut self.core, &mut self.work);
        self.sockets.receive(ask, |local, remote, marked, bytes| {
            *work += 1;
            core.handle_arrival(now, (local, remote), marked, bytes);
        })
    }

    /// Sends some of what the core has; whether there may be more.
    fn flush(&mut self) -> bool {
        let retried = self.sockets.retry();
        for _ in 0..TRANSMITS_PER_TURN {
            if self.sockets.are_blocked() {
                return retried;
            }
            let now = self.now();
            let transmit = self.core.poll_transmit(now, &mut self.buffer);
            // What the core decided while it made the datagram is on record before the datagram leaves.
            self.tell(now);
            let Some(transmit) = transmit else { return retried };
            self.work += self.buffer.len().div_ceil(transmit.segment);
            let (local, remote) = (transmit.local, transmit.remote);
            match self.sockets.send(&transmit, &self.buffer) {
                Ok(()) => {}
                Err(Refused::Path) => self.core.handle_send_failure(now, local, remote),
                Err(Refused::Size) => self.core.handle_too_large(now, local, remote, transmit.segment),
            }
        }
        true
    }

    /// Hands out questions, events and messages; whether there were any.
    fn deliver(&mut self, now: Instant) -> bool {
        while let Some((ticket, question)) = self.core.poll_question() {
            self.ports.policies.ask(ticket, question);
        }
        self.tell(now) | self.listeners.deliver(&mut self.core, now)
    }

    /// Tells the messages' fates, and gives those that lost their owner to another; whether the core may have more to
    /// send.
    fn conclude(&mut self) -> bool {
        self.hear_fates();
        let now = self.now();
        self.outbox.take_early(&mut self.core, now) | self.outbox.rehome(&mut self.core, now)
    }

    fn hear_fates(&mut self) {
        self.outbox.hear_fates(&mut self.core);
    }

    /// Tells events; whether there were any.
    fn tell(&mut self, now: Instant) -> bool {
        let mut told = false;
        while let Some(event) = self.core.poll_event() {
            told = true;
            match event {
                Event::Writable { node, stream } => {
                    self.outbox.handle_writable(&mut self.core, now, node, stream);
                }
                Event::Version(version) => {
                    self.store_version(now, version);
                }
                Event::Routes => {
                    let addresses = self.core.remote_addresses();
                    self.ports.remotes.send_replace(addresses.iter().map(|address| address.ip()).collect());
                    publish(&self.ports.last_known, self.core.last_known());
                }
                Event::IdentityTaken { evidence } => {
                    self.taken = Some(IdentityTaken { evidence });
                    self.leaving = Some(Instant::ZERO);
                }
                event => {
                    if let Event::Document(_) = event {
                        self.ports.document.send_replace(self.core.document().cloned());
                        self.await_assignment(now);
                    }
                    log(&event);
                    if let Event::Plan { .. } = event {
                        // What an owner of before has accepted stays with it.
                        self.hear_fates();
                        self.outbox.handle_plan(&mut self.core, now);
                    }
                    self.listeners.note(&event);
                    // Nobody watching is fine.
                    let _ = self.ports.events.send(event);
                }
            }
        }
        told
    }

    /// Where the document names another assignment policy than the one that answers, that one makes no plan for it: the other
    /// is made ready.
    fn await_assignment(&mut self, now: Instant) {
        let named = self.core.document().and_then(|held| held.document().policy(Kind::Assignment));
        let answers = self.core.policy_digest(Kind::Assignment);
        if named.is_some_and(|named| self.ports.policies.digest(named) != answers) {
            self.core.set_assignment_pending(now, true);
        }
    }

    /// Waits for something to do; `false` where there was some at once.
    async fn wait(&mut self) -> bool {
        let due =
            [self.deadline, self.outbox.poll_timeout(), self.leaving, self.sockets.poll_timeout(self.origin)];
        let due = due.into_iter().flatten().min();
        let until = due.map(|due| self.origin + Duration::from_nanos(due.as_nanos()));
        let alarm = &mut self.alarm;
        let sleep = async {
            match until {
                Some(until) => alarm.wait(until).await,
                None => std::future::pending().await,
            }
        };
        let (ports, sockets) = (&mut self.ports, &self.sockets);
        let mut asked = 0;
        tokio::select! {
            biased;
            () = std::future::poll_fn(|cx| { asked += 1; sockets.poll_ready(cx) }) => {}
            command = ports.commands.recv() => match command {
                Some(command) => self.handle(command),
                None => self.leave(),
            },
            () = ports.wake.notified() => {}
            Some((ticket, answer)) = ports.answers.recv() => self.hear_answer(ticket, answer),
            () = sleep => {}
        }
        asked > 1
    }
}

/// Tells those that watch, where it is something else than before.
fn publish<T: PartialEq>(watched: &watch::Sender<T>, value: T) {
    watched.send_if_modified(|known| {
        let changed = *known != value;
        *known = value;
        changed
    });
}

/// Lets the other tasks of the thread run, without a look at what the kernel has: the runtime does that now and then.
async fn step_back() {
    let mut stepped = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The time as the core counts it.
pub(crate) fn now(origin: std::time::Instant) -> Instant {
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn log(event: &Event) {
    match event {
        Event::Member { name, state, .. } => tracing::info!(member = name, ?state, "member"),
        Event::Agreed { epoch, digest } => tracing::info!(epoch, digest = %digest.short(), "tables agree"),
        // A bad path answers late many times a second, and in time again.
        Event::Path {
            local,
            remote,
            before: PathState::Up | PathState::Suspect,
            state: state @ (PathState::Up | PathState::Suspect),
            why,
            ..
        } => tracing::debug!(%local, %remote, ?state, why, "path"),
        Event::Path { local, remote, state, why, .. } => {
            tracing::info!(%local, %remote, ?state, why, "path");
        }
        Event::Moved { node, to, .. } => {
            tracing::info!(node = %node.short(), local = %to.0, remote = %to.1, "traffic moved");
        }
        Event::Plan { epoch } => tracing::info!(epoch, "plan"),
        Event::Responsibilities { epoch, changes } => {
            tracing::info!(epoch, changes = changes.len(), "own responsibilities changed");
        }
        Event::Document(id) => {
            tracing::info!(version = id.version, digest = %id.digest.short(), "cluster document");
        }
        Event::DocumentAgreed(id) => tracing::info!(version = id.version, "all hold the cluster document"),
        Event::DocumentDisplaced(id) => {
            tracing::warn!(version = id.version, digest = %id.digest.short(),
                "the cluster document held here gave way to one that was not made from it; what only it said is undone");
        }
        Event::Refused(why) => tracing::warn!(why, "refused"),
        // Policies are told where they change.
        Event::Policy { .. }
        | Event::Table { .. }
        | Event::Writable { .. }
        | Event::Version(_)
        | Event::IdentityTaken { .. }
        | Event::Routes => {}
    }
}
