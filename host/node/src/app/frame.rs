//! The frames of the application stream: `length u32 | type u8 | body`, integers big-endian. `APPSOCKET.md` draws
//! them. Decoding checks everything and never panics.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use overlan_core::Fate;
use overlan_wire::limits::MAX_MESSAGE;
use overlan_wire::{MessageId, MessageMode, NodeId};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::message::{Origin, Received, ReceivedRun};
use crate::driver::MAX_BATCH;

/// What a client sends first: the zero byte tells the stream from HTTP, the last byte is the stream's version.
pub const PREFACE: [u8; 8] = *b"\0OVLAN\0\x01";
/// Largest frame, length field excluded: a message and what goes with it.
pub const MAX_FRAME: usize = MAX_MESSAGE + 1024;
/// Longest text in a frame, in bytes.
pub const MAX_TEXT: usize = 512;

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A member by name, id or the beginning of its id.
    Node(String),
    /// The primary owner of a responsibility.
    Role(String),
    /// Every live member but the sender.
    All,
}

impl Target {
    /// `NODE`, `role:NAME` or `all`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("role:") {
            Some(role) => Target::Role(role.to_owned()),
            None if text == "all" => Target::All,
            None => Target::Node(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Node(node) => f.write_str(node),
            Target::Role(role) => write!(f, "role:{role}"),
            Target::All => f.write_str("all"),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client: send a message.
    Send {
        /// Chosen by the client; answers carry it.
        token: u64,
        /// How.
        mode: MessageMode,
        /// Give up after this many milliseconds; 0: never.
        lifetime_ms: u32,
        /// Whom for.
        to: Target,
        /// The bytes.
        payload: Bytes,
    },
    /// Client: send many messages, which are queued in their order. Answers carry the token of the first; the others
    /// follow one by one.
    SendBatch {
        /// Of the first message.
        token: u64,
        /// How.
        mode: MessageMode,
        /// In which stream.
        stream: u16,
        /// Give up after this many milliseconds; 0: never.
        lifetime_ms: u32,
        /// Whom for.
        to: Target,
        /// The bytes of each.
        payloads: Vec<Bytes>,
    },
    /// Client: listen, with room for this many messages, and take them as [`Frame::Messages`].
    ListenBatch {
        /// Messages.
        credit: u32,
        /// Which streams; none: all.
        streams: Vec<u16>,
    },
    /// Client: listen, with room for this many messages.
    Listen {
        /// Messages.
        credit: u32,
    },
    /// Client: room for this many more messages.
    Credit {
        /// Messages.
        credit: u32,
    },
    /// Node: the message is queued for these members; one [`Frame::Fate`] follows for each, unless it is unreliable.
    Queued {
        /// From [`Frame::Send`].
        token: u64,
        /// The members.
        nodes: Vec<NodeId>,
    },
    /// Node: what became of the message.
    Fate {
        /// From [`Frame::Send`].
        token: u64,
        /// Whom it was for.
        node: NodeId,
        /// What became of it.
        fate: Fate,
    },
    /// Node: what became of several messages of a batch.
    Fates {
        /// Of the first message.
        token: u64,
        /// How many, with tokens one by one.
        count: u32,
        /// Whom they were for.
        node: NodeId,
        /// What became of them.
        fate: Fate,
    },
    /// Node: messages, all of one sender and path.
    Messages(Vec<Received>),
    /// Node: the message was not taken.
    Failed {
        /// From [`Frame::Send`].
        token: u64,
        /// Why, and what to do.
        error: String,
    },
    /// Node: a message.
    Message(Received),
    /// Node: the client broke the rules; the stream closes.
    Error(String),
}

/// Why a frame can't be read. The stream can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke.
    #[error("the stream to the node broke: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

impl Frame {
    /// Appends the frame with its length.
    pub fn emit(&self, out: &mut Vec<u8>) {
        emit_frame(out, |out| self.emit_body(out));
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Send { token, mode, lifetime_ms, to, payload } => {
                out.push(1);
                out.extend_from_slice(&token.to_be_bytes());
                out.push(mode_code(*mode));
                out.extend_from_slice(&lifetime_ms.to_be_bytes());
                put_text(out, &to.to_string());
                out.extend_from_slice(payload);
            }
            Frame::Listen { credit } => put_number(out, 2, *credit),
            Frame::Credit { credit } => put_number(out, 3, *credit),
            Frame::Queued { token, nodes } => {
                out.push(16);
                out.extend_from_slice(&token.to_be_bytes());
                nodes.iter().for_each(|node| out.extend_from_slice(&node.0));
            }
            Frame::Fate { token, node, fate } => {
                out.push(17);
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&node.0);
                out.push(fate_code(*fate));
            }
            Frame::Failed { token, error } => {
                out.push(18);
                out.extend_from_slice(&token.to_be_bytes());
                put_text(out, error);
            }
            Frame::Message(message) => emit_message(message, out),
            Frame::SendBatch { token, mode, stream, lifetime_ms, to, payloads } => {
                out.push(4);
                out.extend_from_slice(&token.to_be_bytes());
                out.push(mode_code(*mode));
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&lifetime_ms.to_be_bytes());
                put_text(out, &to.to_string());
                out.extend_from_slice(&(payloads.len() as u32).to_be_bytes());
                for payload in payloads {
                    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                }
                payloads.iter().for_each(|payload| out.extend_from_slice(payload));
            }
            Frame::ListenBatch { credit, streams } => {
                put_number(out, 5, *credit);
                streams.iter().for_each(|stream| out.extend_from_slice(&stream.to_be_bytes()));
            }
            Frame::Fates { token, count, node, fate } => {
                out.push(21);
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(&node.0);
                out.push(fate_code(*fate));
            }
            Frame::Messages(messages) => emit_messages(messages, out),
            Frame::Error(text) => {
                out.push(20);
                put_text(out, text);
            }
        }
    }

    /// Takes the next frame from what was read; `None` where it is not there wholly. Payloads of large ones are slices of
    /// it.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn split(read: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(FrameError::Malformed("length"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        read.advance(4);
        let frame = match length < SMALL {
            true => {
                let copy = Bytes::copy_from_slice(&read[..length]);
                read.advance(length);
                copy
            }
            false => read.split_to(length).freeze(),
        };
        Self::parse(frame).map(Some)
    }

    /// Reads type and body; payloads are slices of `bytes`.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let mut reader = Fields(bytes);
        let frame = match reader.u8()? {
            1 => Frame::Send {
                token: reader.u64()?,
                mode: mode(reader.u8()?)?,
                lifetime_ms: reader.u32()?,
                to: Target::parse(&reader.text()?),
                payload: reader.rest(),
            },
            4 => Frame::SendBatch {
                token: reader.u64()?,
                mode: mode(reader.u8()?)?,
                stream: reader.u16()?,
                lifetime_ms: reader.u32()?,
                to: Target::parse(&reader.text()?),
                payloads: reader.payloads()?,
            },
            5 => Frame::ListenBatch { credit: reader.u32()?, streams: reader.streams()? },
            21 => Frame::Fates {
                token: reader.u64()?,
                count: reader.u32()?,
                node: NodeId(reader.array()?),
                fate: fate(reader.u8()?)?,
            },
            22 => Frame::Messages(parse_messages(&mut reader)?),
            2 => Frame::Listen { credit: reader.u32()? },
            3 => Frame::Credit { credit: reader.u32()? },
            16 => {
                let token = reader.u64()?;
                let ids = reader.rest();
                let (nodes, rest) = ids.as_chunks::<16>();
                if !rest.is_empty() {
                    return Err(FrameError::Malformed("node ids have 16 bytes"));
                }
                Frame::Queued { token, nodes: nodes.iter().map(|id| NodeId(*id)).collect() }
            }
            17 => {
                Frame::Fate { token: reader.u64()?, node: NodeId(reader.array()?), fate: fate(reader.u8()?)? }
            }
            18 => Frame::Failed { token: reader.u64()?, error: reader.text()? },
            19 => Frame::Message(parse_message(&mut reader)?),
            20 => Frame::Error(reader.text()?),
            _ => return Err(FrameError::Malformed("unknown type")),
        };
        match reader.0.is_empty() {
            true => Ok(frame),
            false => Err(FrameError::Malformed("bytes behind the end")),
        }
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.emit(&mut bytes);
        stream.write_all(&bytes).await
    }
}

/// Puts the length before what `body` appends.
fn emit_frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn emit_message(message: &Received, out: &mut Vec<u8>) {
    out.push(19);
    out.extend_from_slice(&message.origin.node.0);
    out.extend_from_slice(&message.id.0.to_be_bytes());
    out.push(mode_code(message.mode));
    out.extend_from_slice(&message.time_ns.to_be_bytes());
    put_text(out, &message.origin.name);
    put_text(out, &message.origin.path_text());
    out.extend_from_slice(&message.payload);
}

fn parse_message(reader: &mut Fields) -> Result<Received, FrameError> {
    let node = NodeId(reader.array()?);
    let (id, mode, time_ns) = (MessageId(reader.u64()?), mode(reader.u8()?)?, reader.u64()?);
    let (name, path) = (reader.text()?.into(), reader.path()?);
    let origin = Arc::new(Origin { node, name, path });
    Ok(Received { origin, id, mode, stream: 0, redelivered: false, time_ns, payload: reader.rest() })
}

/// Bytes of one message in [`Frame::Messages`] beside its payload.
const MESSAGE_FIELDS: usize = 16;
const REDELIVERED: u8 = 1;
/// Smaller frames get memory of their own: one message that waits for long would keep all that was read with it.
const SMALL: usize = 16 << 10;

/// All are of one origin and time.
fn emit_messages(messages: &[Received], out: &mut Vec<u8>) {
    let Some(Received { origin, time_ns, .. }) = messages.first() else { return out.push(22) };
    emit_head(origin, *time_ns, messages.len(), out);
    for message in messages {
        let &Received { id, mode, redelivered, stream, .. } = message;
        emit_fields(id, mode, redelivered, stream, message.payload.len(), out);
    }
    messages.iter().for_each(|message| out.extend_from_slice(&message.payload));
}

/// The same as a [`Frame::Messages`] of what the runs hold, which are of one origin and time; at least one.
pub(super) fn emit_runs(runs: &[ReceivedRun], out: &mut Vec<u8>) {
    let Some(ReceivedRun { origin, time_ns, .. }) = runs.first() else { return };
    emit_frame(out, |out| {
        emit_head(origin, *time_ns, runs.iter().map(|run| run.payloads.len()).sum(), out);
        for run in runs {
            let &ReceivedRun { first, mode, redelivered, stream, .. } = run;
            for (index, payload) in (0..).zip(run.payloads.iter()) {
                let id = MessageId(first.0.saturating_add(index));
                emit_fields(id, mode, redelivered, stream, payload.len(), out);
            }
        }
        runs.iter().flat_map(|run| run.payloads.iter()).for_each(|payload| out.extend_from_slice(payload));
    });
}

/// What so many messages share.
fn emit_head(origin: &Origin, time_ns: u64, count: usize, out: &mut Vec<u8>) {
    out.push(22);
    out.extend_from_slice(&origin.node.0);
    out.extend_from_slice(&time_ns.to_be_bytes());
    put_text(out, &origin.name);
    put_text(out, &origin.path_text());
    out.extend_from_slice(&(count as u32).to_be_bytes());
}

fn emit_fields(
    id: MessageId,
    mode: MessageMode,
    redelivered: bool,
    stream: u16,
    len: usize,
    out: &mut Vec<u8>,
) {
    let mut fields = [0; MESSAGE_FIELDS];
    fields[..8].copy_from_slice(&id.0.to_be_bytes());
    fields[8] = mode_code(mode);
    fields[9] = if redelivered { REDELIVERED } else { 0 };
    fields[10..12].copy_from_slice(&stream.to_be_bytes());
    fields[12..].copy_from_slice(&(len as u32).to_be_bytes());
    out.extend_from_slice(&fields);
}

fn parse_messages(reader: &mut Fields) -> Result<Vec<Received>, FrameError> {
    if reader.0.is_empty() {
        return Ok(Vec::new());
    }
    let (node, time_ns) = (NodeId(reader.array()?), reader.u64()?);
    let (name, path) = (reader.text()?.into(), reader.path()?);
    let origin = Arc::new(Origin { node, name, path });
    let mut fields = reader.table(MESSAGE_FIELDS)?;
    let mut messages = Vec::with_capacity(fields.len() / MESSAGE_FIELDS);
    while !fields.is_empty() {
        let (id, code, flags) = (MessageId(fields.get_u64()), fields.get_u8(), fields.get_u8());
        let (stream, length) = (fields.get_u16(), fields.get_u32() as usize);
        messages.push(Received {
            origin: origin.clone(),
            id,
            mode: mode(code)?,
            stream,
            redelivered: flags & REDELIVERED != 0,
            time_ns,
            payload: reader.take(length)?,
        });
    }
    Ok(messages)
}

fn put_number(out: &mut Vec<u8>, kind: u8, number: u32) {
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Longer text is cut at a character.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn mode_code(mode: MessageMode) -> u8 {
    match mode {
        MessageMode::Unreliable => 0,
        MessageMode::Reliable => 1,
        MessageMode::Ordered => 2,
    }
}

fn mode(code: u8) -> Result<MessageMode, FrameError> {
    match code {
        0 => Ok(MessageMode::Unreliable),
        1 => Ok(MessageMode::Reliable),
        2 => Ok(MessageMode::Ordered),
        _ => Err(FrameError::Malformed("mode")),
    }
}

fn fate_code(fate: Fate) -> u8 {
    match fate {
        Fate::Delivered => 0,
        Fate::Expired => 1,
        Fate::PeerLostState => 2,
        Fate::Abandoned => 3,
    }
}

fn fate(code: u8) -> Result<Fate, FrameError> {
    match code {
        0 => Ok(Fate::Delivered),
        1 => Ok(Fate::Expired),
        2 => Ok(Fate::PeerLostState),
        3 => Ok(Fate::Abandoned),
        _ => Err(FrameError::Malformed("fate")),
    }
}

struct Fields(Bytes);

impl Fields {
    fn take(&mut self, length: usize) -> Result<Bytes, FrameError> {
        (length <= self.0.len()).then(|| self.0.split_to(length)).ok_or(FrameError::Malformed("truncated"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let head = *self.0.first_chunk().ok_or(FrameError::Malformed("truncated"))?;
        self.0.advance(N);
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return Err(FrameError::Malformed("text too long"));
        }
        let text = self.take(length)?;
        str::from_utf8(&text).map(str::to_owned).map_err(|_| FrameError::Malformed("text is not UTF-8"))
    }

    fn path(&mut self) -> Result<Option<(SocketAddr, SocketAddr)>, FrameError> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let ends = text
            .split_once("<-")
            .and_then(|(local, remote)| Some((local.parse().ok()?, remote.parse().ok()?)));
        ends.map(Some).ok_or(FrameError::Malformed("path"))
    }

    /// A count, and that many rows: what is not there takes no memory.
    fn table(&mut self, row: usize) -> Result<Bytes, FrameError> {
        let count = self.u32()? as usize;
        self.take(count.checked_mul(row).ok_or(FrameError::Malformed("truncated"))?)
    }

    fn payloads(&mut self) -> Result<Vec<Bytes>, FrameError> {
        let mut lengths = self.table(4)?;
        if lengths.len() / 4 > MAX_BATCH {
            return Err(FrameError::Malformed("too many messages"));
        }
        let mut payloads = Vec::with_capacity(lengths.len() / 4);
        while !lengths.is_empty() {
            payloads.push(self.take(lengths.get_u32() as usize)?);
        }
        Ok(payloads)
    }

    fn streams(&mut self) -> Result<Vec<u16>, FrameError> {
        let rest = self.rest();
        let (streams, odd) = rest.as_chunks::<2>();
        match odd {
            [] => Ok(streams.iter().map(|stream| u16::from_be_bytes(*stream)).collect()),
            _ => Err(FrameError::Malformed("streams have 2 bytes")),
        }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests;
