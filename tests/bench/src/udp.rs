//! A UDP socket with offload and nothing else, for the bare loops.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Socket, Type};

/// Bytes of buffer asked for each way, as Overlan's own sockets do.
const SOCKET_BYTES: usize = 8 << 20;
/// What receive offload makes of one arrival at most.
const ARRIVAL_BYTES: usize = 1 << 16;
/// Bytes of a segmented send at most.
const SEND_BYTES: usize = 65_507;
/// Segments of a segmented send at most.
const SEND_SEGMENTS: usize = 64;

/// What one segmented send carries at most, in segments of this size.
pub(crate) fn segments_per_send(segment: usize) -> usize {
    (SEND_BYTES / segment).min(SEND_SEGMENTS)
}

/// A bound socket. Sending and receiving wait.
pub(crate) struct Udp {
    socket: Socket,
    state: UdpSocketState,
}

/// A socket bound to this address, with large buffers.
pub(crate) fn socket(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    // Root alone; the runner is root.
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BYTES)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BYTES)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

impl Udp {
    pub(crate) fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = socket(local)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Udp { socket, state })
    }

    /// Sends datagrams of `segment` bytes that lie one behind the other, in one call.
    pub(crate) fn send(&self, contents: &[u8], segment: usize, destination: SocketAddr) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        loop {
            match self.state.try_send((&self.socket).into(), &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, 1000)?;
                }
                result => return result,
            }
        }
    }

    /// Whether something arrives before the time is over.
    pub(crate) fn readable(&self, milliseconds: u16) -> io::Result<bool> {
        self.wait(PollFlags::POLLIN, milliseconds)
    }

    fn wait(&self, what: PollFlags, milliseconds: u16) -> io::Result<bool> {
        Ok(poll(&mut [PollFd::new(self.socket.as_fd(), what)], PollTimeout::from(milliseconds))? > 0)
    }
}

/// Where datagrams arrive.
pub(crate) struct Arrivals {
    buffers: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
    filled: usize,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        let buffers = vec![0; BATCH_SIZE * ARRIVAL_BYTES].into_boxed_slice();
        Arrivals { buffers, metas: [RecvMeta::default(); BATCH_SIZE], filled: 0 }
    }

    /// Takes what is there, in one call, without waiting: whether there was anything.
    pub(crate) fn try_fill(&mut self, udp: &Udp) -> io::Result<bool> {
        self.filled = 0;
        let mut buffers = self.buffers.chunks_exact_mut(ARRIVAL_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        match udp.state.recv((&udp.socket).into(), &mut slices, &mut self.metas) {
            Ok(filled) => self.filled = filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Takes what is there, waiting for something.
    pub(crate) fn fill(&mut self, udp: &Udp) -> io::Result<()> {
        while !self.try_fill(udp)? {
            udp.readable(1000)?;
        }
        Ok(())
    }

    /// The datagrams, and who sent them.
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = (&mut [u8], SocketAddr)> {
        let buffers = self.buffers.chunks_exact_mut(ARRIVAL_BYTES).zip(&self.metas[..self.filled]);
        buffers.flat_map(|(buffer, meta)| {
            buffer[..meta.len].chunks_mut(meta.stride.max(1)).map(|datagram| (datagram, meta.addr))
        })
    }
}

/// Many datagrams in one call without offload: `sendmmsg`.
pub(crate) struct Mmsg {
    socket: Socket,
    headers: MultiHeaders<SockaddrStorage>,
    addresses: Vec<Option<SockaddrStorage>>,
}

impl Mmsg {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, datagrams: usize) -> io::Result<Self> {
        Ok(Mmsg {
            socket: socket(local)?,
            headers: MultiHeaders::preallocate(datagrams, None),
            addresses: vec![Some(SockaddrStorage::from(remote)); datagrams],
        })
    }

    /// Sends each as a datagram.
    pub(crate) fn send(&mut self, datagrams: &[[io::IoSlice<'_>; 1]]) -> io::Result<()> {
        let flags = MsgFlags::empty();
        sendmmsg(self.socket.as_raw_fd(), &mut self.headers, datagrams, &self.addresses, [], flags)?;
        Ok(())
    }
}
