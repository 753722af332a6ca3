//! Bytes as frames.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use super::run::Run;
use super::{Accepted, Ack, Fragment, Frame, MessageMode, PADDING, RefusedDocument, code};
use crate::codec::{DecodeError, Reader};
use crate::ids::{Ballot, BootId, Digest, DocumentId, MessageId, NodeId, PacketNumber, PathId, SessionId};
use crate::limits::{
    MAX_ACCEPT_BITMAP, MAX_ACK_RANGES, MAX_EPOCH, MAX_HEARD_BITMAP, MAX_MESSAGE, MAX_SUITES, MAX_VERSION,
};

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
        code::REFUSED => Frame::Refused {
            echo: body.u64("echo")?,
            code: body.u8("code")?,
            others: !body.is_empty() && body.u8("others")? != 0,
        },
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

fn parse_document(body: &mut Reader<'_>) -> Result<DocumentId, DecodeError> {
    let document =
        DocumentId { version: body.u64("document version")?, digest: Digest(body.array("document digest")?) };
    let none = document.version == 0 && document.digest != Digest::default();
    if document.version > MAX_VERSION || none {
        return Err(DecodeError::OutOfRange("document version"));
    }
    Ok(document)
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
