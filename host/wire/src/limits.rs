//! Limits that both ends rely on. Each is checked where the bytes are parsed.

/// Wire version, the first byte of every datagram.
pub const VERSION: u8 = 1;
/// Largest UDP payload, in bytes: 65,535 less the IPv4 and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;
/// The datagram that every path is assumed to carry, in bytes of UDP payload (RFC 8899 BASE_PLPMTU).
pub const BASE_DATAGRAM: usize = 1_200;
/// What is sent where a path turned out not to carry that, in bytes of UDP payload: with headers less than the 576 that every
/// IPv4 host takes (RFC 791 section 3.1; RFC 8899 MIN_PLPMTU).
pub const LEAST_DATAGRAM: usize = 512;
/// Bytes of authentication tag at the end of every datagram.
pub const TAG: usize = 16;
/// Largest encoded table record, in bytes, signature included: it must fit a membership broadcast.
pub const MAX_RECORD: usize = 1_024;
/// Most adapter addresses in one entry.
pub const MAX_ADAPTERS: usize = 8;
/// Most gateways listed for one adapter.
pub const MAX_GATEWAYS: usize = 2;
/// Most attribute pairs in one entry.
pub const MAX_ATTRIBUTES: usize = 16;
/// Longest node name, in bytes.
pub const MAX_NODE_NAME: usize = 63;
/// Longest other short text (adapter name, kind, class of service, attribute), in bytes.
pub const MAX_TEXT: usize = 64;
/// Highest version of an entry or a cluster document: no member gets there, and it leaves room to count on.
pub const MAX_VERSION: u64 = u64::MAX >> 1;
/// Highest epoch of a plan that is believed: no cluster gets there, and it leaves room to count on.
pub const MAX_EPOCH: u64 = u64::MAX >> 1;
/// Highest version that a removal may end of a member that is alive, or not known. Any member may sign a removal, so that above
/// this an owner can always outrank it: there a removal ends exactly its own version, of a member that is gone.
pub const MAX_REMOVED_VERSION: u64 = MAX_VERSION >> 1;
/// Largest cluster document, in bytes, signature included.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Highest stream of applications' messages.
pub const MAX_STREAM: u16 = 255;
/// The stream of the cluster's own messages (plans).
pub const CLUSTER_STREAM: u16 = u16::MAX;
/// The streams of measurements, which the node itself answers.
pub const BENCH_STREAMS: core::ops::RangeInclusive<u16> = u16::MAX - 64..=u16::MAX - 1;
/// The stream of policies' components on their way to members: it takes its turn with the applications'.
pub const COMPONENT_STREAM: u16 = u16::MAX - 65;
/// Whether it is a stream of applications' messages, of measurements or of components: any but the cluster's own.
pub fn is_open_stream(stream: u16) -> bool {
    is_client_stream(stream) || stream == COMPONENT_STREAM
}
/// Whether clients of a node may use the stream: it is one of applications' messages or of measurements.
pub fn is_client_stream(stream: u16) -> bool {
    stream <= MAX_STREAM || BENCH_STREAMS.contains(&stream)
}

/// Largest message, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Most ranges in one acknowledgement.
pub const MAX_ACK_RANGES: usize = 32;
/// Reliable messages of one sender that may be open at once: ids run at most this far past the
/// receiver's floor.
pub const MESSAGE_WINDOW: u64 = 65_536;
/// Most cipher suites that a handshake offers.
pub const MAX_SUITES: usize = 8;
/// Most bytes of the bitmap in an [`Accepted`](crate::frame::Accepted) frame.
pub const MAX_ACCEPT_BITMAP: usize = 512;
/// Most bytes of each bitmap in a [`Heard`](crate::Frame::Heard) frame: both fit a datagram of [`BASE_DATAGRAM`] beside a
/// summary. Of a table with more than 3,200 records, nothing is said of those behind these.
pub const MAX_HEARD_BITMAP: usize = 400;
