//! The node's sockets: one per adapter address, opened and closed as the adapters come and go.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use overlan_core::Transmit;
use overlan_udp::{BindError, Impairment, Options, RecvBatch, SendError, Socket};
use overlan_wire::Adapter;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::adapters::{Selected, Selection};

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long sockets are drained before timers fire: longer than it takes to empty full buffers.
const DRAIN: Duration = Duration::from_millis(5);
/// How long a full send buffer holds up all sending before its datagrams count as lost.
const BLOCKED_LIMIT: Duration = Duration::from_millis(5);

pub(super) struct Sockets {
    wanted: Selection,
    open: Vec<Open>,
    /// Addresses without a socket, with the reason.
    failures: Vec<(SocketAddr, String)>,
    retry_at: Option<Instant>,
    published: Vec<Adapter>,
    batch: RecvBatch,
    wake: Arc<Notify>,
    blocked: Option<Blocked>,
}

struct Open {
    selected: Selected,
    socket: Arc<Socket>,
    readable: Arc<AtomicBool>,
    resume: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a full send buffer did not take.
struct Blocked {
    since: Instant,
    local: SocketAddr,
    remote: SocketAddr,
    segment: usize,
    rest: Vec<u8>,
}

impl Sockets {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Sockets {
            wanted: Selection::default(),
            open: Vec::new(),
            failures: Vec::new(),
            retry_at: None,
            published: Vec::new(),
            batch: RecvBatch::new(),
            wake,
            blocked: None,
        }
    }

    pub(super) fn want(&mut self, selection: Selection) {
        self.wanted = selection;
    }

    /// Makes the open sockets those that are wanted; the adapters to publish if they changed.
    pub(super) fn apply(&mut self) -> Option<Vec<Adapter>> {
        let wanted = std::mem::take(&mut self.wanted.adapters);
        self.open.retain(|open| {
            wanted
                .iter()
                .any(|want| want.local() == open.selected.local() && want.device == open.selected.device)
        });
        self.failures.clear();
        for want in &wanted {
            let local = want.local();
            if let Some(open) = self.open.iter_mut().find(|open| open.selected.local() == local) {
                open.selected = want.clone();
                continue;
            }
            match self.bind(want) {
                Ok(open) => self.open.push(open),
                Err(error) => self.failures.push((local, error)),
            }
        }
        self.retry_at = (!self.failures.is_empty()).then(|| Instant::now() + RETRY);
        let is_open = |want: &&Selected| self.open.iter().any(|open| open.selected.local() == want.local());
        let adapters: Vec<Adapter> = wanted.iter().filter(is_open).map(|want| want.adapter.clone()).collect();
        self.wanted.adapters = wanted;
        if adapters == self.published {
            return None;
        }
        self.published.clone_from(&adapters);
        Some(adapters)
    }

    fn bind(&self, want: &Selected) -> Result<Open, String> {
        let options =
            Options { device: want.device.as_deref(), dscp: want.adapter.dscp, ..Options::default() };
        let socket = Socket::bind(want.local(), &options).map_err(|error| match error {
            BindError::InUse(_) => format!("the address is in use: {error}"),
            _ => error.to_string(),
        })?;
        tracing::info!(local = %socket.local(), device_bound = socket.device_bound(), "socket open");
        let socket = Arc::new(socket);
        let readable = Arc::new(AtomicBool::new(true));
        let resume = Arc::new(Notify::new());
        let watcher = watch(socket.clone(), readable.clone(), resume.clone(), self.wake.clone());
        let task = tokio::spawn(watcher).abort_handle();
        Ok(Open { selected: want.clone(), socket, readable, resume, task })
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|(local, why)| format!("no socket on {local}: {why}"));
        self.wanted.problems.iter().cloned().chain(failures).collect()
    }

    pub(super) fn retry_at(&self, origin: Instant) -> Option<overlan_core::Instant> {
        let blocked = self.blocked.as_ref().map(|blocked| blocked.since + BLOCKED_LIMIT);
        let at = [self.retry_at, blocked].into_iter().flatten().min()?;
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

    /// Takes what the readable sockets (or `all`) hold; whether they may hold more.
    pub(super) fn receive(
        &mut self,
        all: bool,
        mut handle: impl FnMut(SocketAddr, SocketAddr, &mut [u8]),
    ) -> bool {
        let start = Instant::now();
        let mut more = true;
        let mut first = true;
        while more && (first || start.elapsed() < DRAIN) {
            more = false;
            for open in &self.open {
                let flagged = open.readable.load(Ordering::Acquire);
                if !flagged && !(all && first) {
                    continue;
                }
                match open.socket.recv(&mut self.batch) {
                    Ok(_) => {
                        let local = open.socket.local();
                        for datagram in self.batch.datagrams() {
                            handle(local, datagram.remote, datagram.bytes);
                        }
                        open.readable.store(true, Ordering::Release);
                        more = true;
                    }
                    Err(error) => {
                        if error.kind() != std::io::ErrorKind::WouldBlock {
                            tracing::debug!(%error, local = %open.socket.local(), "receiving");
                        }
                        if flagged {
                            open.readable.store(false, Ordering::Release);
                            open.resume.notify_one();
                        }
                    }
                }
            }
            first = false;
        }
        more
    }

    /// Sends; `false` where the path refuses.
    pub(super) fn send(&mut self, transmit: &Transmit, datagrams: &[u8]) -> bool {
        let Some(open) = self.open.iter().find(|open| open.selected.local() == transmit.local) else {
            return false;
        };
        if let Err(error) = open.socket.set_dscp(transmit.dscp) {
            tracing::debug!(%error, "setting the DSCP");
        }
        match send_all(&open.socket, datagrams, transmit.segment, transmit.remote) {
            Ok(()) => true,
            Err(Stop::Blocked(sent)) => {
                self.blocked = Some(Blocked {
                    since: Instant::now(),
                    local: transmit.local,
                    remote: transmit.remote,
                    segment: transmit.segment,
                    rest: datagrams[sent..].to_vec(),
                });
                let (socket, wake) = (open.socket.clone(), self.wake.clone());
                tokio::spawn(async move {
                    if socket.writable().await.is_ok() {
                        wake.notify_one();
                    }
                });
                true
            }
            Err(Stop::Failed(error)) => {
                tracing::debug!(%error, local = %transmit.local, remote = %transmit.remote, "sending");
                // Too large is no word against the path: path MTU discovery sees the probe missing.
                matches!(error, SendError::TooLarge)
            }
        }
    }

    /// Whether a full send buffer holds up sending.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Tries again what a full send buffer did not take; whether sending may go on.
    pub(super) fn retry(&mut self) -> bool {
        let Some(mut blocked) = self.blocked.take() else { return false };
        let Some(open) = self.open.iter().find(|open| open.selected.local() == blocked.local) else {
            return true;
        };
        if let Err(Stop::Blocked(sent)) =
            send_all(&open.socket, &blocked.rest, blocked.segment, blocked.remote)
            && blocked.since.elapsed() < BLOCKED_LIMIT
        {
            blocked.rest.drain(..sent);
            self.blocked = Some(blocked);
            return false;
        }
        true
    }
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

/// Wakes the driver when there is something to receive, once per emptying.
async fn watch(socket: Arc<Socket>, readable: Arc<AtomicBool>, resume: Arc<Notify>, wake: Arc<Notify>) {
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        readable.store(true, Ordering::Release);
        wake.notify_one();
        resume.notified().await;
    }
}
