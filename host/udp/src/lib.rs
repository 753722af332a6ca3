//! UDP sockets, one per adapter address: [`Socket`].
//!
//! This crate moves datagrams and decides nothing: which path, when to retry and how large are the
//! core's affairs. It never fragments (DF is always set), never allocates per datagram, and never logs
//! per datagram. No `unsafe`: `quinn-udp`, `nix` and `socket2` hold it.
//!
//! Receiving is `quinn-udp`'s: `recvmmsg` with receive offload (GRO), the destination address and the
//! arrival interface. Sending is our own: `quinn-udp` puts a control message with the ECN bits on each
//! send, which overwrites the socket's DSCP. Here DSCP and ECN are the socket's (`IP_TOS`, `IPV6_TCLASS`; see
//! ip(7), ipv6(7)), and so is the size of segments that go in one call (`UDP_SEGMENT`; see udp(7)).
//!
//! Linux is the platform in mind; elsewhere there is no segmentation offload and no device binding, and
//! everything says so.
//!
//! Reading order: [`Socket`] with [`Options`] and [`BindError`], then sending ([`SendError`]), receiving
//! ([`RecvBatch`], [`Datagram`]), and [`Impairment`] for tests and the demo.

mod bind;
mod impairment;
mod recv;
mod send;
mod socket;

pub use bind::{BUFFER_BYTES, BindError, Options};
pub use impairment::Impairment;
pub use recv::{Datagram, RECV_BUFFERS, RecvBatch};
pub use send::{MAX_BATCH_BYTES, MAX_BATCH_SEGMENTS, SendError};
pub use socket::Socket;
