//! The driver: one thread that owns the core. Nothing slow happens on it: plugins answer, routes are written and
//! clients wait elsewhere, and what they have to say comes by bounded queues.
//!
//! One turn: take what the sockets hold, then commands and policy answers, then (only now, so that a node that was
//! paused accuses nobody) the timers, then hand out what the core wants sent, asked and told.

mod listeners;
mod outbox;
mod sockets;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlan_contract::Kind;
use overlan_core::policy::{Answer, Fault, Ticket};
use overlan_core::{Core, Event, Instant};
use overlan_seal::Seal;
use overlan_udp::Impairment;
use overlan_wire::{Digest, NodeId};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::adapters::Selection;
use crate::policy::Policies;
use crate::state::StateDir;

pub use listeners::Listener;
pub(crate) use listeners::{LISTENER_MESSAGES, ListenerEnd};
pub use outbox::SendFailure;
pub(crate) use outbox::{Outbox, Outgoing};
use sockets::Sockets;

/// Commands that may wait for the driver; a caller beyond that waits.
pub(crate) const MAX_COMMANDS: usize = 1024;
/// Events that a slow watcher may lag behind before it loses the oldest.
pub(crate) const MAX_EVENTS: usize = 1024;
/// Commands taken in one turn, so that the sockets get theirs.
const COMMANDS_PER_TURN: usize = 256;
/// Datagram batches handed out in one turn.
const TRANSMITS_PER_TURN: usize = 64;
/// How long a leaving node goes on, so that its farewell is acknowledged or repeated.
const FAREWELL: Duration = Duration::from_millis(150);

/// The core of a node.
pub(crate) type NodeCore = Core<Seal>;
/// Something to do with the core, between two turns.
pub(crate) type Inspection = Box<dyn FnOnce(&mut NodeCore, Instant) + Send>;

/// What the driver is told.
pub(crate) enum Command {
    /// Send a message to one member.
    Send(Outgoing),
    /// One more listener.
    Listen(ListenerEnd),
    /// The adapters to use.
    Adapters(Selection),
    /// Drop datagrams on purpose on an adapter address.
    Impair(IpAddr, Impairment, oneshot::Sender<bool>),
    /// Another plugin answers.
    PolicyChanged(Kind, Digest),
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
    pub(crate) problems: watch::Sender<Vec<String>>,
    pub(crate) wake: Arc<Notify>,
}

pub(crate) struct Driver {
    core: NodeCore,
    origin: std::time::Instant,
    ports: Ports,
    sockets: Sockets,
    outbox: Outbox,
    listeners: listeners::Listeners,
    state: StateDir,
    buffer: Vec<u8>,
    leaving: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(core: NodeCore, origin: std::time::Instant, state: StateDir, ports: Ports) -> Self {
        Driver {
            sockets: Sockets::new(ports.wake.clone()),
            core,
            origin,
            ports,
            outbox: Outbox::default(),
            listeners: listeners::Listeners::default(),
            state,
            buffer: Vec::with_capacity(1 << 16),
            leaving: None,
        }
    }

    fn now(&self) -> Instant {
        now(self.origin)
    }

    /// Runs until the node leaves or all of its handles are gone.
    pub(crate) async fn run(mut self) {
        loop {
            let mut busy = self.take_commands();
            let due = self.core.poll_timeout().is_some_and(|due| due <= self.now());
            busy |= self.receive(due);
            let now = self.now();
            if self.core.poll_timeout().is_some_and(|due| due <= now) {
                self.core.handle_timeout(now);
            }
            busy |= self.flush();
            if self.leaving.is_some_and(|end| end <= self.now()) {
                self.outbox.abandon();
                return;
            }
            if busy {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    fn take_commands(&mut self) -> bool {
        while let Ok((ticket, answer)) = self.ports.answers.try_recv() {
            self.core.handle_answer(now(self.origin), ticket, answer);
        }
        for _ in 0..COMMANDS_PER_TURN {
            match self.ports.commands.try_recv() {
                Ok(command) => self.handle(command),
                Err(_) => return false,
            }
        }
        true
    }

    fn handle(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Send(outgoing) => self.outbox.send(&mut self.core, now, outgoing),
            Command::Listen(listener) => self.listeners.add(listener),
            Command::Adapters(selection) => {
                self.sockets.want(selection);
                self.apply_adapters();
            }
            Command::Impair(address, impairment, reply) => {
                let _ = reply.send(self.sockets.impair(address, impairment));
            }
            Command::PolicyChanged(kind, digest) => self.core.handle_policy_change(now, kind, digest),
            Command::Inspect(look) => look(&mut self.core, now),
            Command::Leave if self.leaving.is_none() => {
                self.core.leave(now);
                self.leaving = Some(now + FAREWELL);
            }
            Command::Leave => {}
            Command::Abort => self.leaving = Some(Instant::ZERO),
        }
    }

    /// Opens and closes sockets and tells the core.
    fn apply_adapters(&mut self) {
        let adapters = self.sockets.apply();
        let mut problems = self.sockets.problems();
        if let Some(adapters) = adapters
            && let Err(error) = self.core.handle_adapters(now(self.origin), adapters)
        {
            problems.push(error.to_string());
        }
        self.ports.problems.send_if_modified(|known| {
            let changed = *known != problems;
            *known = problems;
            changed
        });
    }

    fn receive(&mut self, all: bool) -> bool {
        let core = &mut self.core;
        let origin = self.origin;
        self.sockets.receive(all, |local, remote, bytes| {
            core.handle_datagram(now(origin), local, remote, bytes);
        })
    }

    /// Hands out what the core has; whether there may be more.
    fn flush(&mut self) -> bool {
        self.hand_out();
        let mut more = self.sockets.retry();
        for _ in 0..TRANSMITS_PER_TURN {
            if self.sockets.is_blocked() {
                break;
            }
            let now = now(self.origin);
            let Some(transmit) = self.core.poll_transmit(now, &mut self.buffer) else {
                self.hand_out();
                return more;
            };
            // What the core decided while it made the datagram is on record before the datagram leaves.
            self.tell();
            if !self.sockets.send(&transmit, &self.buffer) {
                self.core.handle_send_failure(now, transmit.local, transmit.remote);
            }
            more = true;
        }
        self.hand_out();
        more && !self.sockets.is_blocked()
    }

    fn hand_out(&mut self) {
        self.tell();
        while let Some((ticket, question)) = self.core.poll_question() {
            self.ports.policies.ask(ticket, question);
        }
        let now = now(self.origin);
        while self.listeners.have_room() {
            let Some(message) = self.core.poll_message(now, |_| true) else { break };
            self.listeners.deliver(&self.core, now, message);
        }
        self.tell();
    }

    fn tell(&mut self) {
        while let Some(report) = self.core.poll_fate() {
            self.outbox.handle_fate(report.token, report.fate);
        }
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Writable { node, .. } => self.writable(node),
                Event::Version(version) => {
                    if let Err(error) = self.state.store_version(version) {
                        tracing::error!(%error, "the version of the table entry could not be stored");
                    }
                }
                Event::Routes => {
                    let addresses = self.core.remote_addresses();
                    self.ports.remotes.send_replace(addresses.iter().map(|address| address.ip()).collect());
                }
                event => {
                    log(&event);
                    self.listeners.note(&event);
                    // Nobody watching is fine.
                    let _ = self.ports.events.send(event);
                }
            }
        }
    }

    fn writable(&mut self, node: NodeId) {
        let now = self.now();
        self.outbox.handle_writable(&mut self.core, now, node);
    }

    async fn wait(&mut self) {
        let due = [self.core.poll_timeout(), self.leaving, self.sockets.retry_at(self.origin)];
        let due = due.into_iter().flatten().min();
        let until = due.map(|due| self.origin + Duration::from_nanos(due.as_nanos()));
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let ports = &mut self.ports;
        tokio::select! {
            biased;
            () = ports.wake.notified() => {}
            command = ports.commands.recv() => match command {
                Some(command) => self.handle(command),
                // All handles are gone.
                None => self.handle(Command::Leave),
            },
            Some((ticket, answer)) = ports.answers.recv() => {
                self.core.handle_answer(now(self.origin), ticket, answer);
            }
            () = sleep => {
                if self.sockets.retry_due() {
                    self.apply_adapters();
                }
            }
        }
    }
}

/// The time as the core counts it.
pub(crate) fn now(origin: std::time::Instant) -> Instant {
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn log(event: &Event) {
    match event {
        Event::Member { name, state, .. } => tracing::info!(member = name, ?state, "member"),
        Event::Agreed { epoch, digest } => tracing::info!(epoch, digest = %digest.short(), "tables agree"),
        Event::Path { local, remote, state, why, .. } => {
            tracing::info!(%local, %remote, ?state, why, "path");
        }
        Event::Moved { node, to, .. } => {
            tracing::info!(node = %node.short(), local = %to.0, remote = %to.1, "traffic moved");
        }
        Event::Plan { epoch } => tracing::info!(epoch, "plan"),
        Event::Refused(why) => tracing::warn!(why, "refused"),
        Event::Table { .. } | Event::Writable { .. } | Event::Version(_) | Event::Routes => {}
    }
}
