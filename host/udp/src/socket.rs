//! The socket of an adapter address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use quinn_udp::UdpSocketState;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

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
    /// For readiness alone: `tokio` sends and receives no batches.
    io: UdpSocket,
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
        let io = UdpSocket::from_std(opened.socket.into()).map_err(|source| BindError::System {
            address,
            call: "epoll_ctl",
            source,
        })?;
        let offload = Offload::new(opened.state.max_gso_segments() > 1);
        Ok(Socket {
            io,
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
        SockRef::from(&self.io).recv_buffer_size()
    }

    /// Bytes of send buffer that the kernel gave; see [`recv_buffer_bytes`](Self::recv_buffer_bytes).
    ///
    /// # Errors
    /// The system call failed.
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        SockRef::from(&self.io).send_buffer_size()
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
        bind::set_dscp(&SockRef::from(&self.io), self.local, dscp)?;
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
        let sent = self.attempt(Interest::WRITABLE, |socket| {
            send::send(socket, &self.offload, datagrams, segment, remote)
        });
        Ok(sent?)
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
        let socket = SockRef::from(&self.io);
        batch.clear();
        let mut called = None;
        let ready = self.io.try_io(Interest::READABLE, || {
            let result = batch.fill(&socket, &self.state);
            // A batch that is not full emptied the socket: the next arrival wakes, and no call in vain is made.
            let emptied = result.is_err() || !batch.is_full();
            called = Some(result);
            if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let received = match (called, ready) {
            (Some(result), _) => result?,
            (None, _) if ask => batch.fill(&socket, &self.state)?,
            (None, ready) => return Err(ready.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())),
        };
        if self.impairment.drops_in() {
            batch.clear();
            return Ok(0);
        }
        Ok(received)
    }

    /// Whether something may be there to receive; else the task is woken when it is. One task alone may ask.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    /// Whether there may be room to send; else the task is woken when there is. One task alone may ask.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(cx)
    }

    /// Waits until something may be there to receive. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Waits until there may be room to send. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Runs the system call so that `WouldBlock` clears the runtime's readiness, and runs it all the same
    /// where the runtime has none recorded.
    fn attempt<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&socket2::Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        let socket = SockRef::from(&self.io);
        let mut called = false;
        let result = self.io.try_io(interest, || {
            called = true;
            call(&socket)
        });
        if called { result } else { call(&socket) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}
