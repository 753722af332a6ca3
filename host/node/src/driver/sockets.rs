//! The node's sockets: one per adapter address, opened and closed as the adapters come and go.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use overlan_core::Transmit;
use overlan_udp::{BindError, Impairment, Options, RecvBatch, SendError, Socket};
use overlan_wire::Adapter;

use crate::adapters::{Selected, Selection};

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a full send buffer may hold datagrams up before they count as lost.
const BLOCKED_LIMIT: Duration = Duration::from_millis(5);
/// Batches that wait for a full send buffer; more are dropped, as by a full queue in the kernel.
const MAX_WAITING: usize = 8;

pub(super) struct Sockets {
    wanted: Selection,
    open: Vec<Open>,
    /// Addresses without a socket, with the reason.
    failures: Vec<(SocketAddr, String)>,
    retry_at: Option<Instant>,
    published: Vec<Adapter>,
    batch: RecvBatch,
}

struct Open {
    selected: Selected,
    local: SocketAddr,
    socket: Socket,
    /// What the kernel gave less than asked for.
    shortfall: Option<String>,
    /// What a full send buffer did not take, and since when.
    waiting: VecDeque<Waiting>,
    since: Instant,
}

struct Waiting {
    remote: SocketAddr,
    segment: usize,
    rest: Vec<u8>,
}

/// What came of receiving once from each socket.
pub(super) enum Arrived {
    Nothing,
    Datagrams,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Sockets {
            wanted: Selection::default(),
            open: Vec::new(),
            failures: Vec::new(),
            retry_at: None,
            published: Vec::new(),
            batch: RecvBatch::new(),
        }
    }

    pub(super) fn want(&mut self, selection: Selection) {
        self.wanted = selection;
    }

    /// Makes the open sockets those that are wanted; the adapters to publish if they changed.
    pub(super) fn apply(&mut self) -> Option<Vec<Adapter>> {
        let wanted = std::mem::take(&mut self.wanted.adapters);
        self.open.retain(|open| {
            wanted.iter().any(|want| want.local() == open.local && want.device == open.selected.device)
        });
        self.failures.clear();
        for want in &wanted {
            let local = want.local();
            if let Some(open) = self.open.iter_mut().find(|open| open.local == local) {
                open.selected = want.clone();
                continue;
            }
            match Self::bind(want) {
                Ok(open) => self.open.push(open),
                Err(error) => self.failures.push((local, error)),
            }
        }
        self.retry_at = (!self.failures.is_empty()).then(|| Instant::now() + RETRY);
        let is_open = |want: &&Selected| self.open.iter().any(|open| open.local == want.local());
        let adapters: Vec<Adapter> = wanted.iter().filter(is_open).map(|want| want.adapter.clone()).collect();
        self.wanted.adapters = wanted;
        if adapters == self.published {
            return None;
        }
        self.published.clone_from(&adapters);
        Some(adapters)
    }

    fn bind(want: &Selected) -> Result<Open, String> {
        let device = want.device.as_ref().map(|device| device.name.as_str());
        let options = Options { device, dscp: want.adapter.dscp, ..Options::default() };
        let socket = Socket::bind(want.local(), &options).map_err(|error| match error {
            BindError::InUse(_) => format!("the address is in use: {error}"),
            _ => error.to_string(),
        })?;
        tracing::info!(local = %socket.local(), device_bound = socket.device_bound(), "socket open");
        let shortfall = socket.buffer_shortfall();
        Ok(Open {
            selected: want.clone(),
            local: want.local(),
            socket,
            shortfall,
            waiting: VecDeque::new(),
            since: Instant::now(),
        })
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|(local, why)| format!("no socket on {local}: {why}"));
        let shortfalls = self.open.iter().filter_map(|open| {
            open.shortfall.as_ref().map(|shortfall| format!("{}: {shortfall}", open.local))
        });
        self.wanted.problems.iter().cloned().chain(failures).chain(shortfalls).collect()
    }

    /// When to come back even if nothing happens.
    pub(super) fn poll_timeout(&self, origin: Instant) -> Option<overlan_core::Instant> {
        let blocked =
            self.open.iter().filter(|open| open.is_blocked()).map(|open| open.since + BLOCKED_LIMIT);
        let at = blocked.chain(self.retry_at).min()?;
        Some(overlan_core::Instant::ZERO + at.saturating_duration_since(origin))
    }

    pub(super) fn retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn impair(&self, address: IpAddr, impairment: Impairment) -> bool {
        let mut found = false;
        for open in self.open.iter().filter(|open| open.selected.adapter.address == address) {
            open.socket.set_impairment(impairment);
            found = true;
        }
        found
    }

    /// Takes one batch from each socket that the runtime saw to be readable; with `ask`, from each that is.
    pub(super) fn receive(
        &mut self,
        ask: bool,
        mut handle: impl FnMut(SocketAddr, SocketAddr, bool, &mut [u8]),
    ) -> Arrived {
        let mut arrived = Arrived::Nothing;
        for open in &self.open {
            let received =
                if ask { open.socket.recv(&mut self.batch) } else { open.socket.try_recv(&mut self.batch) };
            match received {
                Ok(_) => {
                    for datagram in self.batch.datagrams() {
                        handle(open.local, datagram.remote, datagram.congestion, datagram.bytes);
                    }
                    arrived = Arrived::Datagrams;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::debug!(%error, local = %open.local, "receiving"),
            }
        }
        arrived
    }

    /// Ready once a socket has something to receive, or room for what waits to be sent.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Pending;
        for open in &self.open {
            // All are asked, so that each wakes. An error means that the runtime shuts down.
            if open.socket.poll_readable(cx).is_ready()
                || open.is_blocked() && open.socket.poll_writable(cx).is_ready()
            {
                ready = Poll::Ready(());
            }
        }
        ready
    }

    /// Sends, now or once there is room.
    pub(super) fn send(&mut self, transmit: &Transmit, datagrams: &[u8]) -> Result<(), Refused> {
        let open = self.open.iter_mut().find(|open| open.local == transmit.local).ok_or(Refused::Path)?;
        if let Err(error) = open.socket.set_dscp(transmit.dscp) {
            tracing::debug!(%error, "setting the DSCP");
        }
        let sent = if open.is_blocked() {
            Err(Stop::Blocked(0))
        } else {
            send_all(&open.socket, datagrams, transmit.segment, transmit.remote)
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Stop::Blocked(sent)) => {
                if !open.is_blocked() {
                    open.since = Instant::now();
                }
                if open.waiting.len() < MAX_WAITING {
                    let (remote, segment) = (transmit.remote, transmit.segment);
                    open.waiting.push_back(Waiting { remote, segment, rest: datagrams[sent..].to_vec() });
                }
                Ok(())
            }
            Err(Stop::Failed(error)) => {
                tracing::debug!(%error, local = %transmit.local, remote = %transmit.remote, "sending");
                Err(if matches!(error, SendError::TooLarge) { Refused::Size } else { Refused::Path })
            }
        }
    }

    /// Whether full send buffers hold up all sending: where only some are full, the others go on.
    pub(super) fn are_blocked(&self) -> bool {
        !self.open.is_empty() && self.open.iter().all(Open::is_blocked)
    }

    /// Tries again what full send buffers did not take; whether any of it went.
    pub(super) fn retry(&mut self) -> bool {
        let mut went = false;
        for open in &mut self.open {
            while let Some(waiting) = open.waiting.front_mut() {
                match send_all(&open.socket, &waiting.rest, waiting.segment, waiting.remote) {
                    Err(Stop::Blocked(sent)) if open.since.elapsed() < BLOCKED_LIMIT => {
                        if sent > 0 {
                            waiting.rest.drain(..sent);
                            open.since = Instant::now();
                        }
                        break;
                    }
                    Err(Stop::Blocked(_)) => open.waiting.clear(),
                    Ok(()) | Err(Stop::Failed(_)) => {
                        open.waiting.pop_front();
                        open.since = Instant::now();
                    }
                }
                went = true;
            }
        }
        went
    }
}

impl Open {
    fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Why the kernel did not take a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no way there from here.
    Path,
    /// The link carries none as large: no word against the path.
    Size,
}

enum Stop {
    /// The buffer is full after so many bytes.
    Blocked(usize),
    Failed(SendError),
}

fn send_all(socket: &Socket, datagrams: &[u8], segment: usize, remote: SocketAddr) -> Result<(), Stop> {
    let mut sent = 0;
    while sent < datagrams.len() {
        match socket.send(&datagrams[sent..], segment, remote) {
            Ok(bytes) => sent += bytes,
            Err(SendError::WouldBlock) => return Err(Stop::Blocked(sent)),
            Err(error) => return Err(Stop::Failed(error)),
        }
    }
    Ok(())
}
