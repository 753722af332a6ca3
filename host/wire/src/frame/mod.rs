//! What stands inside the seal: a sequence of frames, each `type(1) length(2) body`; zero bytes between
//! frames are padding. A frame of an unknown type is skipped; what follows the known fields of a body is ignored.

mod emit;
mod parse;
mod run;

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::ids::{Ballot, Digest, DocumentId, MessageId, NodeId, PacketNumber, PathId, SessionId};
use crate::limits::MAX_ACK_RANGES;
pub use parse::Frames;
pub use run::{Run, RunWriter};

/// A zero byte between frames is padding.
pub const PADDING: u8 = 0;
/// Bytes of a frame before its body.
pub const FRAME_HEADER: usize = 3;
/// Bytes of a [`Fragment`] frame before its payload, frame header included.
pub const FRAGMENT_HEADER: usize = FRAME_HEADER + 8 + 1 + 1 + 2 + 8 + 4 + 4;

/// Bytes of a [`Run`] frame before its first message, frame header included.
pub const RUN_HEADER: usize = FRAME_HEADER + 2 + 1 + 1 + 8 + 8;
/// Bytes of a message in a [`Run`] before its payload.
pub const RUN_ENTRY: usize = 2;
/// Bytes of an [`Accepted`] frame before its bitmap, frame header included.
pub const ACCEPTED_HEADER: usize = FRAME_HEADER + 2 + 8 + 8 + 8;
/// First message of a handshake: an ephemeral X25519 key (32) and a tag (16).
pub type SessionRequest = [u8; 48];
/// Second message of a handshake: an ephemeral X25519 key (32), encrypted the responder's session id (8) and the suite
/// it chose (1), and a tag (16).
pub type SessionAnswer = [u8; 57];
/// What proves that the sender of a handshake receives at its address.
pub type Cookie = [u8; 16];

/// What the sender asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageMode {
    /// At most once, any order.
    Unreliable,
    /// Exactly once, any order.
    Reliable,
    /// Exactly once, first in, first out per sender.
    Ordered,
}

/// Bytes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The message. In each stream, reliable and ordered ones share one count, unreliable ones have another.
    pub message: MessageId,
    /// What the sender asked for.
    pub mode: MessageMode,
    /// It was for a role, and may have reached another owner of it before.
    pub redelivered: bool,
    /// The stream.
    pub stream: u16,
    /// Place among the stream's ordered messages, from 0; 0 for other modes.
    pub order: u64,
    /// Bytes of the whole message.
    pub total: u32,
    /// Where `payload` belongs: `offset + payload.len() <= total`, checked by the parser.
    pub offset: u32,
    /// The bytes.
    pub payload: &'a [u8],
}

/// Packets of one path that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The path they were sent on, in the count of their sender.
    pub path: PathId,
    /// Microseconds between the arrival of the largest and this acknowledgement (RFC 9002).
    pub delay_us: u32,
    /// Packets of this path that arrived marked CE, since the first (RFC 3168).
    pub ce: u64,
    /// Inclusive ranges of packet numbers, descending, disjoint: at least one.
    pub ranges: ArrayVec<(PacketNumber, PacketNumber), MAX_ACK_RANGES>,
}

impl Ack {
    /// Bytes of the frame, frame header included.
    pub fn encoded_len(&self) -> usize {
        Self::HEADER + Self::RANGE * self.ranges.len()
    }

    /// Ranges that so many bytes have room for, at least one.
    pub fn ranges_in(bytes: usize) -> usize {
        (bytes.saturating_sub(Self::HEADER) / Self::RANGE).max(1)
    }

    const HEADER: usize = FRAME_HEADER + 4 + 4 + 8;
    const RANGE: usize = 16;
}

/// Reliable messages of a stream that a consumer accepted, and room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The stream.
    pub stream: u16,
    /// All messages below it are accepted.
    pub floor: MessageId,
    /// Total cost of reliable messages (bytes, and 64 for each message) that the sender may have opened in the stream
    /// since the session began.
    pub credit: u64,
    /// The same for all streams but the cluster's own together.
    pub credit_in_all: u64,
    /// Bit `i` (least significant first): message `floor + i` is accepted. At most [`MAX_ACCEPT_BITMAP`](crate::limits::MAX_ACCEPT_BITMAP) bytes.
    pub bitmap: &'a [u8],
}

/// One frame. Frames up to [`SessionCookie`](Frame::SessionCookie) travel in cluster datagrams, the rest in data datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "frames live on the stack, one at a time; a box would be an allocation"
)]
pub enum Frame<'a> {
    /// First contact, padded so that the reply is never longer.
    Hello {
        /// To be echoed.
        token: u64,
        /// The sender's table.
        digest: Digest,
        /// The sender's signed entry.
        record: &'a [u8],
    },
    /// Answers a hello.
    HelloReply {
        /// The hello's token.
        echo: u64,
        /// To be echoed.
        token: u64,
        /// The sender's table.
        digest: Digest,
        /// The sender's signed entry.
        record: &'a [u8],
    },
    /// Answers a hello reply: both ends know now that the other lives.
    HelloDone {
        /// The reply's token.
        echo: u64,
    },
    /// The hello is not accepted.
    Refused {
        /// The hello's token.
        echo: u64,
        /// One of [`refusal`]; see [`refusal_text`].
        code: u8,
        /// The sender sees other members alive; on the wire only where it does.
        others: bool,
    },
    /// A datagram of the membership protocol (foca).
    Membership(&'a [u8]),
    /// The sender's table and where the agreement stands.
    Summary {
        /// Digest of the sender's table.
        digest: Digest,
        /// Latest agreement it knows of.
        epoch: u64,
        /// What was agreed then.
        agreed: Digest,
        /// The sender's cluster document, and the latest that it knows all live members to hold.
        documents: [DocumentId; 2],
        /// A cluster document above its own that it will not take.
        refused: Option<RefusedDocument>,
    },
    /// Which plans the sender knows of, for members that their leader can't reach. Goes with a summary.
    Plans {
        /// The plan in force with the sender, which gives it to whoever asks; none while it may own nothing.
        in_force: Option<Ballot>,
        /// The highest one that its leader has to outbid: a member follows a leader that did not propose it.
        above: Option<Ballot>,
    },
    /// Whom the sender heard itself lately, for members that don't hear those. Goes with a summary, behind it. Bit `i` (least
    /// significant first) is for the record at place `i` of the table: it says something where the receiver's is the same.
    Heard {
        /// The member with the lowest live id that says that all live members hold the sender's cluster document.
        agreed_by: Option<NodeId>,
        /// The sender knows live members that will not take each other's document.
        contested: bool,
        /// Who holds the sender's table; at most [`MAX_HEARD_BITMAP`](crate::limits::MAX_HEARD_BITMAP) bytes.
        tables: &'a [u8],
        /// Who holds the sender's cluster document; at most [`MAX_HEARD_BITMAP`](crate::limits::MAX_HEARD_BITMAP) bytes.
        documents: &'a [u8],
    },
    /// Hashes of consecutive buckets of the sender's table.
    Buckets {
        /// The first bucket.
        first: u8,
        /// Eight bytes of each bucket's hash.
        hashes: Vec<u64>,
    },
    /// All records of one bucket by version.
    Leaves {
        /// The bucket.
        bucket: u8,
        /// Node, version, and whether it is forgotten.
        leaves: Vec<(NodeId, u64, bool)>,
    },
    /// Asks for the records of these nodes.
    Want(Vec<NodeId>),
    /// One signed record.
    Record(&'a [u8]),
    /// Opens a session. Longer than its answers.
    SessionOpen {
        /// The sender's count of handshakes in this boot: what is not above the last one answered is a replay.
        number: u64,
        /// Chosen by the sender: it will receive under it.
        session: SessionId,
        /// As the receiver gave it; zero without.
        cookie: Cookie,
        /// Codes of the cipher suites offered, the one the sender likes best first; at most [`MAX_SUITES`](crate::limits::MAX_SUITES).
        suites: &'a [u8],
        /// The handshake's first message.
        request: SessionRequest,
    },
    /// Answers an opening: the session's keys.
    SessionAccept {
        /// The opening's session.
        echo: SessionId,
        /// The handshake's second message.
        answer: SessionAnswer,
    },
    /// Answers an opening: come again with this cookie.
    SessionCookie {
        /// The opening's session.
        echo: SessionId,
        /// To be echoed, from the same address.
        cookie: Cookie,
    },
    /// Wants a [`Frame::Pong`] on the same path; padded when it probes the path's MTU.
    Ping {
        /// To be echoed.
        token: u32,
        /// Zero bytes behind the token.
        padding: u16,
    },
    /// Answers a ping.
    Pong {
        /// The ping's token.
        token: u32,
    },
    /// Packets that arrived.
    Ack(Ack),
    /// Bytes of a message.
    Fragment(Fragment<'a>),
    /// Whole messages.
    Run(Run<'a>),
    /// Messages that were accepted.
    Accepted(Accepted<'a>),
    /// Asks whether the receiver sent a cluster datagram of this number: what came in its name is refused.
    CountAsked {
        /// The highest number that came in its name.
        seen: u64,
    },
    /// Answers it, where the sender did not.
    Count {
        /// The number that was asked about.
        seen: u64,
        /// The next that the sender will use.
        next: u64,
    },
}

mod code {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const HELLO_REPLY: u8 = 0x02;
    pub(super) const HELLO_DONE: u8 = 0x03;
    pub(super) const REFUSED: u8 = 0x04;
    pub(super) const MEMBERSHIP: u8 = 0x05;
    pub(super) const SUMMARY: u8 = 0x06;
    pub(super) const BUCKETS: u8 = 0x07;
    pub(super) const LEAVES: u8 = 0x08;
    pub(super) const WANT: u8 = 0x09;
    pub(super) const RECORD: u8 = 0x0a;
    pub(super) const SESSION_OPEN: u8 = 0x0b;
    pub(super) const SESSION_ACCEPT: u8 = 0x0c;
    pub(super) const SESSION_COOKIE: u8 = 0x0d;
    pub(super) const PLANS: u8 = 0x0e;
    pub(super) const HEARD: u8 = 0x0f;
    pub(super) const PING: u8 = 0x20;
    pub(super) const PONG: u8 = 0x21;
    pub(super) const ACK: u8 = 0x22;
    pub(super) const FRAGMENT: u8 = 0x23;
    pub(super) const ACCEPTED: u8 = 0x24;
    pub(super) const RUN: u8 = 0x25;
    pub(super) const COUNT_ASKED: u8 = 0x26;
    pub(super) const COUNT: u8 = 0x27;
}

/// A cluster document that a member will not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedDocument {
    /// Which.
    pub document: DocumentId,
    /// See [`RefusedDocument::UNSIGNED`] and the codes below it.
    pub code: u8,
}

impl RefusedDocument {
    /// The operator whose key the member is configured with did not sign it.
    pub const UNSIGNED: u8 = 1;
    /// It bears another cluster's name.
    pub const OTHER_CLUSTER: u8 = 2;
    /// The member cannot read it.
    pub const UNREADABLE: u8 = 3;
    /// Its version is too far above the one that the member holds.
    pub const TOO_FAR: u8 = 4;

    /// Why, in words; codes travel.
    pub fn why(&self) -> &'static str {
        match self.code {
            Self::UNSIGNED => {
                "the operator whose key is configured there ([cluster] operator_key) did not sign it"
            }
            Self::OTHER_CLUSTER => "it is for a cluster of another name ([cluster] name)",
            Self::UNREADABLE => "that member's release cannot read it",
            Self::TOO_FAR => "its version is too far above the one held there: nobody made as many changes",
            _ => "for a reason that this release does not know",
        }
    }
}

/// Why a hello is refused.
pub mod refusal {
    /// A live member of another id has the name.
    pub const NAME_TAKEN: u8 = 1;
    /// The id is not on the allow-list.
    pub const NOT_ALLOWED: u8 = 2;
    /// A live member elsewhere has the id.
    pub const IDENTITY_TAKEN: u8 = 3;
    /// The id was elsewhere when the member that was asked last ran, which started a moment ago and waits for it there.
    pub const AWAITED_ELSEWHERE: u8 = 4;
    /// The table has no room for another entry.
    pub const TABLE_FULL: u8 = 5;
}

/// What a refusal code means and what to do. Codes travel instead of text, so that nobody's text
/// reaches another's log.
pub fn refusal_text(code: u8) -> &'static str {
    match code {
        refusal::NAME_TAKEN => "the name is taken by another member: choose another [node] name",
        refusal::NOT_ALLOWED => "this node is not on the cluster's allow-list: have its node id added",
        refusal::IDENTITY_TAKEN => {
            "a node with this node's identity is a live member: give each node a state_dir of its own; a copied one \
             brings the identity with it"
        }
        refusal::AWAITED_ELSEWHERE => {
            "members that have just started wait some seconds for this node where it was when they last ran: nothing is to be \
             done if it moved; a copied state_dir brings another's identity with it"
        }
        refusal::TABLE_FULL => {
            "the cluster's table has no room for another member: have those that are gone for good removed \
             (`overlan forget` at a member)"
        }
        _ => "refused for a reason this version does not know",
    }
}
