//! The socket of an adapter address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn_udp::UdpSocketState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::bind::{self, BindError, Options};
use crate::impairment::{AtomicImpairment, Impairment};
use crate::recv::RecvBatch;
use crate::send::{self, Offload, SendError};

/// A non-blocking UDP socket bound to one adapter address.
///
/// Loop: await [`readable`](Self::readable), call [`recv`](Self::recv) until `WouldBlock` (or until it is
/// another socket's turn); [`send`](Self::send) at any time, and where it says `WouldBlock` await
/// [`writable`](Self::writable). All methods take `&self`; two tasks may share it.
#[derive(Debug)]
pub struct Socket {
    /// For readiness to receive alone: were room to send of interest too, each datagram sent would wake its sender.
    io: AsyncFd<socket2::Socket>,
    /// For room to send: a second descriptor of the socket, while somebody waits for it.
    room: Mutex<Option<AsyncFd<OwnedFd>>>,
    state: UdpSocketState,
    local: SocketAddr,
    device_bound: bool,
    asked_bytes: usize,
    dscp: AtomicU8,
    offload: Offload,
    impairment: AtomicImpairment,
}

impl Socket {
    /// Opens a socket on `address`; port 0 takes a free one. A link-local IPv6 address needs its scope id.
    ///
    /// # Errors
    /// See [`BindError`]; nothing stays open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn bind(address: SocketAddr, options: &Options<'_>) -> Result<Socket, BindError> {
        let opened = bind::open(address, options)?;
        let system = |source| BindError::System { address, call: "epoll_ctl", source };
        let io = watch(opened.socket, Interest::READABLE).map_err(system)?;
        let offload = Offload::new(opened.state.max_gso_segments() > 1);
        Ok(Socket {
            io,
            room: Mutex::new(None),
            state: opened.state,
            local: opened.local,
            device_bound: opened.device_bound,
            asked_bytes: options.buffer_bytes,
            dscp: AtomicU8::new(options.dscp),
            offload,
            impairment: AtomicImpairment::default(),
        })
    }

    /// The address and port bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the socket is bound to the device asked for; `false` where none was asked for or the kernel
    /// forbade it, and the routing table alone decides how datagrams leave.
    pub fn device_bound(&self) -> bool {
        self.device_bound
    }

    /// Bytes of receive buffer that the kernel gave. Linux says twice what was granted, for its own
    /// bookkeeping: expect half to hold payload.
    ///
    /// # Errors
    /// The system call failed.
    pub fn recv_buffer_bytes(&self) -> io::Result<usize> {
        self.io.get_ref().recv_buffer_size()
    }

    /// Bytes of send buffer that the kernel gave; see [`recv_buffer_bytes`](Self::recv_buffer_bytes).
    ///
    /// # Errors
    /// The system call failed.
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        self.io.get_ref().send_buffer_size()
    }

    /// What the kernel refused of the buffers asked for, in words; `None` where it gave all.
    pub fn buffer_shortfall(&self) -> Option<String> {
        // Linux says twice what it granted.
        let doubled = if cfg!(target_os = "linux") { 2 } else { 1 };
        let given = self.recv_buffer_bytes().ok()?.min(self.send_buffer_bytes().ok()?) / doubled;
        (given < self.asked_bytes).then(|| {
            format!(
                "the kernel gives socket buffers of {} KiB instead of {}; raise net.core.rmem_max and wmem_max \
                 (sysctl) or grant CAP_NET_ADMIN, else bursts get lost",
                given >> 10,
                self.asked_bytes >> 10
            )
        })
    }

    /// The DSCP of what is sent.
    pub fn dscp(&self) -> u8 {
        self.dscp.load(Ordering::Relaxed)
    }

    /// Sets the DSCP, 0 to 63, of what is sent from now on. Free when it is that already, so it may stand
    /// before each send; a system call otherwise. One task alone should set it.
    ///
    /// # Errors
    /// The system call failed, or `InvalidInput` above 63; the DSCP is unchanged.
    pub fn set_dscp(&self, dscp: u8) -> io::Result<()> {
        if dscp == self.dscp() {
            return Ok(());
        }
        if dscp > 63 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, BindError::Dscp(dscp)));
        }
        bind::set_dscp(self.io.get_ref(), self.local, dscp)?;
        self.dscp.store(dscp, Ordering::Relaxed);
        Ok(())
    }

    /// Whether batches go in one call; false once the kernel or the adapter refused.
    pub fn segmentation_offload(&self) -> bool {
        self.offload.is_on()
    }

    /// Switches segmentation offload, for measurements and for adapters that do it wrong.
    pub fn set_segmentation_offload(&self, on: bool) {
        self.offload.set(on);
    }

    /// Drops datagrams from now on, or no longer.
    pub fn set_impairment(&self, impairment: Impairment) {
        self.impairment.set(impairment);
    }

    /// Sends datagrams that lie one behind the other: each `segment` bytes, the last may be shorter (or the
    /// only one). Returns the bytes accepted, whole datagrams: fewer than given where the kernel took no
    /// more; call again with the rest, which tells why.
    ///
    /// # Errors
    /// See [`SendError`]; then nothing was accepted.
    pub fn send(&self, datagrams: &[u8], segment: usize, remote: SocketAddr) -> Result<usize, SendError> {
        if self.impairment.drops_out() {
            return Ok(datagrams.len());
        }
        Ok(send::send(self.io.get_ref(), &self.offload, datagrams, segment, remote)?)
    }

    /// Receives what is there, into `batch`, without waiting; the number of datagrams. It may be 0 (they
    /// were empty, or dropped by an [`Impairment`]): call again until `WouldBlock`. Asks the kernel even if
    /// the runtime has seen no readiness yet, so that sockets can be drained before timers fire.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; else the system call failed. `batch` is empty then.
    pub fn recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        self.receive(batch, true)
    }

    /// As [`recv`](Self::recv), but asks the kernel only where the runtime has seen readiness: it costs
    /// nothing where nothing came.
    ///
    /// # Errors
    /// See [`recv`](Self::recv).
    pub fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        self.receive(batch, false)
    }

    fn receive(&self, batch: &mut RecvBatch, ask: bool) -> io::Result<usize> {
        batch.clear();
        let mut called = None;
        let ready = self.io.try_io(Interest::READABLE, |socket| {
            let result = batch.fill(socket, &self.state);
            // A batch that is not full emptied the socket: the next arrival wakes, and no call in vain is made.
            let emptied = result.is_err() || !batch.is_full();
            called = Some(result);
            if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let received = match (called, ready) {
            (Some(result), _) => result?,
            (None, _) if ask => batch.fill(self.io.get_ref(), &self.state)?,
            (None, ready) => return Err(ready.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())),
        };
        if self.impairment.drops_in() {
            batch.clear();
            return Ok(0);
        }
        Ok(received)
    }

    /// Whether something may be there to receive; else the task is woken when it is. One task alone may ask.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_read_ready(cx).map_ok(drop)
    }

    /// Whether there is room to send; else the task is woken when there is. One task alone may ask.
    ///
    /// # Errors
    /// No descriptor was left to wait with, or the runtime is shutting down.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if room.is_none() {
            *room = Some(watch(self.io.get_ref().as_fd().try_clone_to_owned()?, Interest::WRITABLE)?);
        }
        let waiting = room.as_ref().map(|room| room.poll_write_ready(cx).map_ok(drop));
        let ready = ready!(waiting.unwrap_or(Poll::Ready(Ok(()))));
        *room = None;
        Poll::Ready(ready)
    }

    /// Waits until something may be there to receive. Cancel-safe.
    ///
    /// # Errors
    /// See [`poll_readable`](Self::poll_readable).
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Waits until there is room to send. Cancel-safe.
    ///
    /// # Errors
    /// See [`poll_writable`](Self::poll_writable).
    pub async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_writable(cx)).await
    }
}

/// Has the runtime watch a descriptor.
fn watch<T: std::os::fd::AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for all types; both used here own their descriptor"
    )]
    AsyncFd::with_interest(descriptor, interest)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
