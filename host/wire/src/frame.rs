//! What stands inside the seal: a sequence of frames, each `type(1) length(2) body`; zero bytes between
//! frames are padding. A frame of an unknown type is skipped; what follows the known fields of a body is ignored.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::codec::{DecodeError, Reader, put_block};
use crate::ids::{Ballot, BootId, Digest, DocumentId, MessageId, NodeId, PacketNumber, PathId, SessionId};
use crate::limits::{
    MAX_ACCEPT_BITMAP, MAX_ACK_RANGES, MAX_EPOCH, MAX_HEARD_BITMAP, MAX_MESSAGE, MAX_SUITES, MAX_VERSION,
};

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

/// Whole messages with consecutive numbers, and consecutive places where they are ordered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The stream.
    pub stream: u16,
    /// What the sender asked for.
    pub mode: MessageMode,
    /// They were for a role, and may have reached another owner of it before.
    pub redelivered: bool,
    /// Number of the first.
    pub first: MessageId,
    /// Place of the first among the stream's ordered messages; 0 for other modes.
    pub order: u64,
    /// The messages, each behind its 16-bit length: at least one, checked by the parser.
    entries: &'a [u8],
    /// Counted once: for each run that arrives it is asked for.
    count: u16,
}

impl core::fmt::Debug for Run<'_> {
    /// What stands in the frame.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Run { stream, mode, redelivered, first, order, entries, count: _ } = self;
        f.debug_struct("Run")
            .field("stream", stream)
            .field("mode", mode)
            .field("redelivered", redelivered)
            .field("first", first)
            .field("order", order)
            .field("entries", entries)
            .finish()
    }
}

impl<'a> Run<'a> {
    /// The payloads.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut entries = Reader::new(self.entries);
        core::iter::from_fn(move || entries.block("message").ok())
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.entries.len() - 2 * usize::from(self.count)
    }

    /// The payloads, each behind its length in 16 bits.
    pub fn entries(&self) -> &'a [u8] {
        self.entries
    }
}

/// Writes a [`Frame::Run`], message by message.
#[derive(Debug)]
pub struct RunWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> RunWriter<'a> {
    /// Begins the frame at the end of `out`; see [`Run`] for the fields.
    pub fn start(
        out: &'a mut Vec<u8>,
        stream: u16,
        mode: MessageMode,
        redelivered: bool,
        first: MessageId,
        order: u64,
    ) -> Self {
        let start = out.len();
        out.extend_from_slice(&[code::RUN, 0, 0]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&[mode_code(mode), u8::from(redelivered)]);
        out.extend_from_slice(&first.0.to_be_bytes());
        out.extend_from_slice(&order.to_be_bytes());
        RunWriter { out, start }
    }

    /// Bytes of the frame so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether there is no frame: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends a message. The caller keeps the frame within a datagram.
    pub fn push(&mut self, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Ends the frame.
    pub fn finish(self) {
        let len = (self.out.len() - self.start - FRAME_HEADER) as u16;
        self.out[self.start + 1..self.start + 3].copy_from_slice(&len.to_be_bytes());
    }
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
    /// Bit `i` (least significant first): message `floor + i` is accepted. At most [`MAX_ACCEPT_BITMAP`] bytes.
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
        /// Who holds the sender's table; at most [`MAX_HEARD_BITMAP`] bytes.
        tables: &'a [u8],
        /// Who holds the sender's cluster document; at most [`MAX_HEARD_BITMAP`] bytes.
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
        /// Codes of the cipher suites offered, the one the sender likes best first; at most [`MAX_SUITES`].
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

impl Frame<'_> {
    /// Appends the frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        put_block(out, |out| self.emit_body(out));
    }

    fn code(&self) -> u8 {
        match self {
            Frame::Hello { .. } => code::HELLO,
            Frame::HelloReply { .. } => code::HELLO_REPLY,
            Frame::HelloDone { .. } => code::HELLO_DONE,
            Frame::Refused { .. } => code::REFUSED,
            Frame::Membership(_) => code::MEMBERSHIP,
            Frame::Summary { .. } => code::SUMMARY,
            Frame::Plans { .. } => code::PLANS,
            Frame::Heard { .. } => code::HEARD,
            Frame::Buckets { .. } => code::BUCKETS,
            Frame::Leaves { .. } => code::LEAVES,
            Frame::Want(_) => code::WANT,
            Frame::Record(_) => code::RECORD,
            Frame::SessionOpen { .. } => code::SESSION_OPEN,
            Frame::SessionAccept { .. } => code::SESSION_ACCEPT,
            Frame::SessionCookie { .. } => code::SESSION_COOKIE,
            Frame::Ping { .. } => code::PING,
            Frame::Pong { .. } => code::PONG,
            Frame::Ack(_) => code::ACK,
            Frame::Fragment(_) => code::FRAGMENT,
            Frame::Run(_) => code::RUN,
            Frame::Accepted(_) => code::ACCEPTED,
            Frame::CountAsked { .. } => code::COUNT_ASKED,
            Frame::Count { .. } => code::COUNT,
        }
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Hello { token, digest, record } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&digest.0);
                put_block(out, |out| out.extend_from_slice(record));
            }
            Frame::HelloReply { echo, token, digest, record } => {
                out.extend_from_slice(&echo.to_be_bytes());
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&digest.0);
                put_block(out, |out| out.extend_from_slice(record));
            }
            Frame::HelloDone { echo } => out.extend_from_slice(&echo.to_be_bytes()),
            Frame::Refused { echo, code } => {
                out.extend_from_slice(&echo.to_be_bytes());
                out.push(*code);
            }
            Frame::Membership(bytes) | Frame::Record(bytes) => out.extend_from_slice(bytes),
            Frame::Summary { digest, epoch, agreed, documents, refused } => {
                out.extend_from_slice(&digest.0);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&agreed.0);
                if *documents != <[DocumentId; 2]>::default() || refused.is_some() {
                    documents.iter().for_each(|document| emit_document(document, out));
                }
                if let Some(RefusedDocument { document, code }) = refused {
                    emit_document(document, out);
                    out.push(*code);
                }
            }
            Frame::Plans { in_force, above } => {
                [in_force, above].into_iter().for_each(|ballot| emit_ballot(*ballot, out));
            }
            Frame::Heard { agreed_by, contested, tables, documents } => {
                out.extend_from_slice(&agreed_by.unwrap_or_default().0);
                out.push(u8::from(*contested));
                for bitmap in [tables, documents] {
                    put_block(out, |out| {
                        out.extend_from_slice(&bitmap[..bitmap.len().min(MAX_HEARD_BITMAP)])
                    });
                }
            }
            Frame::Buckets { first, hashes } => {
                out.push(*first);
                hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_be_bytes()));
            }
            Frame::Leaves { bucket, leaves } => {
                out.push(*bucket);
                for (node, version, forgotten) in leaves {
                    out.extend_from_slice(&node.0);
                    out.extend_from_slice(&version.to_be_bytes());
                    out.push(u8::from(*forgotten));
                }
            }
            Frame::Want(nodes) => nodes.iter().for_each(|node| out.extend_from_slice(&node.0)),
            Frame::SessionOpen { number, session, cookie, suites, request } => {
                let suites = &suites[..suites.len().min(MAX_SUITES)];
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&session.0.to_be_bytes());
                out.extend_from_slice(cookie);
                out.push(suites.len() as u8);
                out.extend_from_slice(suites);
                out.extend_from_slice(request);
            }
            Frame::SessionAccept { echo, answer } => {
                out.extend_from_slice(&echo.0.to_be_bytes());
                out.extend_from_slice(answer);
            }
            Frame::SessionCookie { echo, cookie } => {
                out.extend_from_slice(&echo.0.to_be_bytes());
                out.extend_from_slice(cookie);
            }
            Frame::Ping { token, padding } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.resize(out.len() + usize::from(*padding), 0);
            }
            Frame::Pong { token } => out.extend_from_slice(&token.to_be_bytes()),
            Frame::Ack(ack) => emit_ack(ack, out),
            Frame::Fragment(fragment) => emit_fragment(fragment, out),
            Frame::Run(run) => {
                out.extend_from_slice(&run.stream.to_be_bytes());
                out.extend_from_slice(&[mode_code(run.mode), u8::from(run.redelivered)]);
                out.extend_from_slice(&run.first.0.to_be_bytes());
                out.extend_from_slice(&run.order.to_be_bytes());
                out.extend_from_slice(run.entries);
            }
            Frame::Accepted(accepted) => {
                out.extend_from_slice(&accepted.stream.to_be_bytes());
                out.extend_from_slice(&accepted.floor.0.to_be_bytes());
                out.extend_from_slice(&accepted.credit.to_be_bytes());
                out.extend_from_slice(&accepted.credit_in_all.to_be_bytes());
                out.extend_from_slice(accepted.bitmap);
            }
            Frame::CountAsked { seen } => out.extend_from_slice(&seen.to_be_bytes()),
            Frame::Count { seen, next } => {
                [seen, next].into_iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            }
        }
    }
}

fn emit_ack(ack: &Ack, out: &mut Vec<u8>) {
    out.extend_from_slice(&ack.path.0.to_be_bytes());
    out.extend_from_slice(&ack.delay_us.to_be_bytes());
    out.extend_from_slice(&ack.ce.to_be_bytes());
    for (low, high) in &ack.ranges {
        out.extend_from_slice(&low.0.to_be_bytes());
        out.extend_from_slice(&high.0.to_be_bytes());
    }
}

fn emit_fragment(fragment: &Fragment<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&fragment.message.0.to_be_bytes());
    out.extend_from_slice(&[mode_code(fragment.mode), u8::from(fragment.redelivered)]);
    out.extend_from_slice(&fragment.stream.to_be_bytes());
    out.extend_from_slice(&fragment.order.to_be_bytes());
    out.extend_from_slice(&fragment.total.to_be_bytes());
    out.extend_from_slice(&fragment.offset.to_be_bytes());
    out.extend_from_slice(fragment.payload);
}

/// Reads the frames of an opened packet one by one; unknown ones are passed over. It ends at the
/// first error, which it returns.
#[derive(Clone, Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    /// Starts at the front of an opened packet.
    pub fn new(packet: &'a [u8]) -> Self {
        Frames(Reader::new(packet))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match parse_frame(&mut self.0) {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.0 = Reader::new(&[]);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn parse_frame<'a>(packet: &mut Reader<'a>) -> Result<Option<Frame<'a>>, DecodeError> {
    let code = packet.u8("frame type")?;
    if code == PADDING {
        return Ok(None);
    }
    let mut body = Reader::new(packet.block("frame")?);
    let frame = match code {
        code::HELLO => Frame::Hello {
            token: body.u64("token")?,
            digest: Digest(body.array("digest")?),
            record: body.block("record")?,
        },
        code::HELLO_REPLY => Frame::HelloReply {
            echo: body.u64("echo")?,
            token: body.u64("token")?,
            digest: Digest(body.array("digest")?),
            record: body.block("record")?,
        },
        code::HELLO_DONE => Frame::HelloDone { echo: body.u64("echo")? },
        code::REFUSED => Frame::Refused { echo: body.u64("echo")?, code: body.u8("code")? },
        code::MEMBERSHIP => Frame::Membership(body.rest()),
        code::SUMMARY => Frame::Summary {
            digest: Digest(body.array("digest")?),
            epoch: body.u64("epoch")?,
            agreed: Digest(body.array("agreed digest")?),
            documents: match body.is_empty() {
                true => Default::default(),
                false => [parse_document(&mut body)?, parse_document(&mut body)?],
            },
            refused: match body.is_empty() {
                true => None,
                false => Some(RefusedDocument {
                    document: parse_document(&mut body)?,
                    code: body.u8("refusal code")?,
                }),
            },
        },
        code::PLANS => Frame::Plans { in_force: parse_ballot(&mut body)?, above: parse_ballot(&mut body)? },
        code::HEARD => parse_heard(&mut body)?,
        code::BUCKETS => parse_buckets(&mut body)?,
        code::LEAVES => parse_leaves(&mut body)?,
        code::WANT => Frame::Want(parse_all(&mut body, |body| Ok(NodeId(body.array("node id")?)))?),
        code::RECORD => Frame::Record(body.rest()),
        code::SESSION_OPEN => parse_session_open(&mut body)?,
        code::SESSION_ACCEPT => Frame::SessionAccept {
            echo: SessionId(body.u64("session")?),
            answer: body.array("handshake answer")?,
        },
        code::SESSION_COOKIE => {
            Frame::SessionCookie { echo: SessionId(body.u64("session")?), cookie: body.array("cookie")? }
        }
        code::PING => Frame::Ping {
            token: body.u32("token")?,
            padding: u16::try_from(body.rest().len()).expect("a frame's length is 16 bits"),
        },
        code::PONG => Frame::Pong { token: body.u32("token")? },
        code::ACK => Frame::Ack(parse_ack(&mut body)?),
        code::FRAGMENT => Frame::Fragment(parse_fragment(&mut body)?),
        code::RUN => Frame::Run(parse_run(&mut body)?),
        code::COUNT_ASKED => Frame::CountAsked { seen: body.u64("number")? },
        code::COUNT => Frame::Count { seen: body.u64("number")?, next: body.u64("next number")? },
        code::ACCEPTED => Frame::Accepted(parse_accepted(&mut body)?),
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

/// Items of a fixed size up to the end of the body; their count is bounded by the frame's length.
fn parse_all<'a, T>(
    body: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    while !body.is_empty() {
        items.push(item(body)?);
    }
    Ok(items)
}

/// A member that knows no documents, or has none, ends here.
fn emit_document(document: &DocumentId, out: &mut Vec<u8>) {
    out.extend_from_slice(&document.version.to_be_bytes());
    out.extend_from_slice(&document.digest.0);
}

fn parse_document(body: &mut Reader<'_>) -> Result<DocumentId, DecodeError> {
    let document =
        DocumentId { version: body.u64("document version")?, digest: Digest(body.array("document digest")?) };
    let none = document.version == 0 && document.digest != Digest::default();
    if document.version > MAX_VERSION || none {
        return Err(DecodeError::OutOfRange("document version"));
    }
    Ok(document)
}

/// Epoch 0 stands for none and ends it.
fn emit_ballot(ballot: Option<Ballot>, out: &mut Vec<u8>) {
    out.extend_from_slice(&ballot.map_or(0, |ballot| ballot.epoch).to_be_bytes());
    if let Some(Ballot { proposer, boot, .. }) = ballot {
        out.extend_from_slice(&proposer.0);
        out.extend_from_slice(&boot.0);
    }
}

fn parse_ballot(body: &mut Reader<'_>) -> Result<Option<Ballot>, DecodeError> {
    let epoch = body.u64("epoch")?;
    if epoch > MAX_EPOCH {
        return Err(DecodeError::OutOfRange("epoch"));
    }
    if epoch == 0 {
        return Ok(None);
    }
    let (proposer, boot) = (NodeId(body.array("proposer")?), BootId(body.array("proposer's boot")?));
    Ok(Some(Ballot { epoch, proposer, boot }))
}

fn parse_heard<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    let agreed_by = Some(NodeId(body.array("leader")?)).filter(|leader| *leader != NodeId::default());
    let contested = body.u8("heard flags")? & 1 != 0;
    let (tables, documents) = (body.block("heard bitmap")?, body.block("heard bitmap")?);
    if tables.len().max(documents.len()) > MAX_HEARD_BITMAP {
        return Err(DecodeError::OutOfRange("heard bitmap"));
    }
    Ok(Frame::Heard { agreed_by, contested, tables, documents })
}

fn parse_buckets<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    let first = body.u8("bucket")?;
    let hashes = parse_all(body, |body| body.u64("bucket hash"))?;
    if usize::from(first) + hashes.len() > 256 {
        return Err(DecodeError::OutOfRange("bucket"));
    }
    Ok(Frame::Buckets { first, hashes })
}

fn parse_leaves<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    let bucket = body.u8("bucket")?;
    let leaves = parse_all(body, |body| {
        Ok((NodeId(body.array("node id")?), body.u64("version")?, body.u8("forgotten")? & 1 == 1))
    })?;
    Ok(Frame::Leaves { bucket, leaves })
}

fn parse_session_open<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    let number = body.u64("handshake number")?;
    let session = SessionId(body.u64("session")?);
    let cookie = body.array("cookie")?;
    let count = usize::from(body.u8("suites")?);
    if count > MAX_SUITES {
        return Err(DecodeError::OutOfRange("suites"));
    }
    let suites = body.take(count, "suites")?;
    Ok(Frame::SessionOpen { number, session, cookie, suites, request: body.array("handshake request")? })
}

fn parse_ack(body: &mut Reader<'_>) -> Result<Ack, DecodeError> {
    let path = PathId(body.u32("path")?);
    let delay_us = body.u32("ack delay")?;
    let ce = body.u64("marked packets")?;
    let mut ranges = ArrayVec::<_, MAX_ACK_RANGES>::new();
    while !body.is_empty() {
        let (low, high) = (PacketNumber(body.u64("range")?), PacketNumber(body.u64("range")?));
        let descending = ranges.last().is_none_or(|&(above, _)| high < above);
        if low > high || !descending || ranges.try_push((low, high)).is_err() {
            return Err(DecodeError::OutOfRange("ack range"));
        }
    }
    if ranges.is_empty() {
        return Err(DecodeError::OutOfRange("ack range"));
    }
    Ok(Ack { path, delay_us, ce, ranges })
}

fn parse_fragment<'a>(body: &mut Reader<'a>) -> Result<Fragment<'a>, DecodeError> {
    let message = MessageId(body.u64("message")?);
    let mode = parse_mode(body)?;
    let redelivered = body.u8("flags")? & 1 == 1;
    let stream = body.u16("stream")?;
    let order = body.u64("order")?;
    let total = body.u32("total")?;
    let offset = body.u32("offset")?;
    let payload = body.rest();
    if total as usize > MAX_MESSAGE {
        return Err(DecodeError::OutOfRange("message length"));
    }
    let end = u64::from(offset) + payload.len() as u64;
    if end > u64::from(total) || (payload.is_empty() && total > 0) {
        return Err(DecodeError::OutOfRange("fragment offset"));
    }
    Ok(Fragment { message, mode, redelivered, stream, order, total, offset, payload })
}

fn parse_mode(body: &mut Reader<'_>) -> Result<MessageMode, DecodeError> {
    match body.u8("mode")? {
        0 => Ok(MessageMode::Unreliable),
        1 => Ok(MessageMode::Reliable),
        2 => Ok(MessageMode::Ordered),
        _ => Err(DecodeError::OutOfRange("mode")),
    }
}

fn mode_code(mode: MessageMode) -> u8 {
    match mode {
        MessageMode::Unreliable => 0,
        MessageMode::Reliable => 1,
        MessageMode::Ordered => 2,
    }
}

fn parse_run<'a>(body: &mut Reader<'a>) -> Result<Run<'a>, DecodeError> {
    let stream = body.u16("stream")?;
    let mode = parse_mode(body)?;
    let redelivered = body.u8("flags")? & 1 == 1;
    let first = MessageId(body.u64("message")?);
    let order = body.u64("order")?;
    let entries = body.rest();
    let mut rest = Reader::new(entries);
    // A datagram's 65,535 bytes hold no more.
    let mut count: u16 = 0;
    while !rest.is_empty() {
        rest.block("message")?;
        count += 1;
    }
    let messages = u64::from(count);
    if count == 0 || first.0.checked_add(messages).is_none() || order.checked_add(messages).is_none() {
        return Err(DecodeError::OutOfRange("run of messages"));
    }
    Ok(Run { stream, mode, redelivered, first, order, entries, count })
}

fn parse_accepted<'a>(body: &mut Reader<'a>) -> Result<Accepted<'a>, DecodeError> {
    let stream = body.u16("stream")?;
    let floor = MessageId(body.u64("floor")?);
    let credit = body.u64("credit")?;
    let credit_in_all = body.u64("credit")?;
    let bitmap = body.rest();
    if bitmap.len() > MAX_ACCEPT_BITMAP {
        return Err(DecodeError::OutOfRange("accepted bitmap"));
    }
    Ok(Accepted { stream, floor, credit, credit_in_all, bitmap })
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
