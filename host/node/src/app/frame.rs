//! The frames of the application stream: `length u32 | type u8 | body`, integers big-endian. `APPSOCKET.md` draws
//! them. Decoding checks everything and never panics.

use std::io;

use overlan_core::Fate;
use overlan_wire::limits::MAX_MESSAGE;
use overlan_wire::{MessageId, MessageMode, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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

/// A message as a listener gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: NodeId,
    /// That member's name.
    pub name: String,
    /// The sender's count of messages.
    pub id: MessageId,
    /// How it was sent.
    pub mode: MessageMode,
    /// When it was accepted here, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The path it came by: our adapter address and the peer's, as `LOCAL<-REMOTE`; empty from this node itself.
    pub path: String,
    /// The bytes.
    pub payload: Vec<u8>,
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
        payload: Vec<u8>,
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
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
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
            Frame::Error(text) => {
                out.push(20);
                put_text(out, text);
            }
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Reads type and body.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Fields(bytes);
        let frame = match reader.u8()? {
            1 => Frame::Send {
                token: reader.u64()?,
                mode: mode(reader.u8()?)?,
                lifetime_ms: reader.u32()?,
                to: Target::parse(&reader.text()?),
                payload: reader.rest(),
            },
            2 => Frame::Listen { credit: reader.u32()? },
            3 => Frame::Credit { credit: reader.u32()? },
            16 => {
                let token = reader.u64()?;
                let (nodes, rest) = std::mem::take(&mut reader.0).as_chunks::<16>();
                if !rest.is_empty() {
                    return Err(FrameError::Malformed("node ids have 16 bytes"));
                }
                Frame::Queued { token, nodes: nodes.iter().map(|id| NodeId(*id)).collect() }
            }
            17 => {
                Frame::Fate { token: reader.u64()?, node: NodeId(reader.array()?), fate: fate(reader.u8()?)? }
            }
            18 => Frame::Failed { token: reader.u64()?, error: reader.text()? },
            19 => Frame::Message(Received {
                from: NodeId(reader.array()?),
                id: MessageId(reader.u64()?),
                mode: mode(reader.u8()?)?,
                time_ns: reader.u64()?,
                name: reader.text()?,
                path: reader.text()?,
                payload: reader.rest(),
            }),
            20 => Frame::Error(reader.text()?),
            _ => return Err(FrameError::Malformed("unknown type")),
        };
        match reader.0 {
            [] => Ok(frame),
            _ => Err(FrameError::Malformed("bytes behind the end")),
        }
    }

    /// Reads the next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>, FrameError> {
        let length = match stream.read_u32().await {
            Ok(length) => length as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if length == 0 || length > MAX_FRAME {
            return Err(FrameError::Malformed("length"));
        }
        // Grows with what arrives: a length alone takes no memory.
        let mut body = Vec::with_capacity(length.min(64 << 10));
        if (&mut *stream).take(length as u64).read_to_end(&mut body).await? < length {
            return Err(FrameError::Malformed("truncated"));
        }
        Self::parse(&body).map(Some)
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

fn emit_message(message: &Received, out: &mut Vec<u8>) {
    out.push(19);
    out.extend_from_slice(&message.from.0);
    out.extend_from_slice(&message.id.0.to_be_bytes());
    out.push(mode_code(message.mode));
    out.extend_from_slice(&message.time_ns.to_be_bytes());
    put_text(out, &message.name);
    put_text(out, &message.path);
    out.extend_from_slice(&message.payload);
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

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(FrameError::Malformed("truncated"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let length = usize::from(self.array().map(u16::from_be_bytes)?);
        if length > MAX_TEXT {
            return Err(FrameError::Malformed("text too long"));
        }
        let (text, rest) = self.0.split_at_checked(length).ok_or(FrameError::Malformed("truncated"))?;
        self.0 = rest;
        str::from_utf8(text).map(str::to_owned).map_err(|_| FrameError::Malformed("text is not UTF-8"))
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}

#[cfg(test)]
mod tests;
