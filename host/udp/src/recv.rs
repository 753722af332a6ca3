//! Receiving: many datagrams per call, into buffers made once.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};

/// Buffers of a [`RecvBatch`]: arrivals that one call takes at most. Receive offload makes one arrival of
/// up to 64 datagrams.
pub const RECV_BUFFERS: usize = 16;

/// What receive offload coalesces at most, and more than the largest datagram.
const BUFFER_BYTES: usize = 1 << 16;

/// One call takes about as much at most as stays in the processor's cache until it is handled.
const BATCH_BYTES: usize = 1 << 18;

/// Where datagrams are received to; make one and use it for all sockets of a thread. It takes 1 MiB, of
/// which the system provides what traffic has touched.
pub struct RecvBatch {
    buffers: Box<[u8]>,
    metas: [RecvMeta; RECV_BUFFERS],
    filled: usize,
    /// All that were offered were filled.
    full: bool,
    /// Buffers that the next call offers to the system.
    offered: usize,
}

/// A received datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Its payload, to be decrypted in place.
    pub bytes: &'a mut [u8],
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address it was sent to (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub destination: Option<IpAddr>,
    /// Index of the interface it arrived on: not the adapter's own where another one answers for its
    /// address (Linux takes an address to be the host's).
    pub interface: Option<u32>,
    /// A router on the way marked it: congestion experienced (RFC 3168).
    pub congestion: bool,
}

impl RecvBatch {
    /// Empty buffers.
    pub fn new() -> Self {
        RecvBatch {
            buffers: vec![0; RECV_BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            metas: [RecvMeta::default(); RECV_BUFFERS],
            filled: 0,
            full: false,
            offered: RECV_BUFFERS,
        }
    }

    /// What the last call received, in order of arrival. Empty datagrams are left out.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let buffers = self.buffers.chunks_exact_mut(BUFFER_BYTES);
        buffers.zip(&self.metas[..self.filled]).flat_map(|(buffer, meta)| {
            // Where receive offload coalesced datagrams, all but the last have `stride` bytes.
            buffer[..meta.len].chunks_mut(meta.stride.max(1)).map(|bytes| Datagram {
                bytes,
                remote: meta.addr,
                destination: meta.dst_ip,
                interface: meta.interface_index,
                congestion: meta.ecn == Some(EcnCodepoint::Ce),
            })
        })
    }

    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        (self.filled, self.full) = (0, false);
    }

    /// Whether the last call may have left something behind.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// One `recvmmsg`; the number of datagrams.
    pub(crate) fn fill(&mut self, socket: &socket2::Socket, state: &UdpSocketState) -> io::Result<usize> {
        self.clear();
        let mut buffers = self.buffers.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; RECV_BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        self.filled = state.recv(socket.into(), &mut slices[..self.offered], &mut self.metas)?;
        self.full = self.filled == self.offered;
        let metas = &self.metas[..self.filled];
        // Each one offered costs, used or not.
        let bytes: usize = metas.iter().map(|meta| meta.len).sum();
        let fit = BATCH_BYTES * self.filled / bytes.max(1);
        self.offered = (2 * self.filled).min(fit).clamp(2, RECV_BUFFERS);
        Ok(metas.iter().map(|meta| meta.len.div_ceil(meta.stride.max(1))).sum())
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}
