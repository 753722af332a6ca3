//! The node's end of an application stream.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use overlan_core::Fate;
use overlan_wire::{MessageMode, NodeId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::{Frame, FrameError, PREFACE};
use crate::control::PATIENCE;
use crate::{Listener, NodeHandle};

/// Messages of one client whose fate is still open; beyond that the node stops reading from it.
const MAX_OPEN: usize = 65_536;
/// Frames that may wait to be written to one client.
const MAX_WAITING: usize = 64;
/// Bytes read at once.
const READ_AHEAD: usize = 64 << 10;

/// Serves one client until it goes.
pub(crate) async fn serve(stream: UnixStream, node: NodeHandle) {
    let (mut read, write) = stream.into_split();
    let mut preface = [0; PREFACE.len()];
    let (answers, to_write) = mpsc::channel(MAX_WAITING);
    let (listens, to_listen) = mpsc::channel(1);
    let came = timeout(PATIENCE, read.read_exact(&mut preface)).await;
    if !matches!(came, Ok(Ok(_))) || preface != PREFACE {
        let text = "the first 8 bytes must be the preface of stream version 1; see APPSOCKET.md".to_owned();
        let _ = Frame::Error(text).write(&mut { write }).await;
        return;
    }
    let writer = tokio::spawn(write_frames(write, to_write, to_listen));
    if let Err(FrameError::Malformed(why)) = read_frames(&mut read, &node, &answers, &listens).await {
        let _ = answers.send(Frame::Error(format!("malformed frame ({why}); closing"))).await;
    }
    drop((answers, listens));
    let _ = writer.await;
}

type OpenFates = FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Frame> + Send>>>;

async fn read_frames(
    read: &mut OwnedReadHalf,
    node: &NodeHandle,
    answers: &mpsc::Sender<Frame>,
    listens: &mpsc::Sender<ListenChange>,
) -> Result<(), FrameError> {
    let mut frames = FrameReader::start(read);
    let mut open = OpenFates::new();
    loop {
        tokio::select! {
            Some(fate) = open.next() => {
                if answers.send(fate).await.is_err() {
                    return Ok(());
                }
            }
            frame = frames.next(), if open.len() < MAX_OPEN => match frame? {
                Some(Frame::Send { token, mode, lifetime_ms, to, payload }) => {
                    let lifetime =
                        (lifetime_ms > 0).then(|| Duration::from_millis(u64::from(lifetime_ms)));
                    let sending = send(node, token, to, mode, payload, lifetime, &mut open);
                    if answers.send(sending.await).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Frame::Listen { credit }) => {
                    let listener = node.listen_with(credit, false).await;
                    let Ok(listener) = listener else { return Ok(()) };
                    let _ = listens.send(ListenChange::Start(listener)).await;
                }
                Some(Frame::Credit { credit }) => {
                    let _ = listens.send(ListenChange::Credit(credit)).await;
                }
                Some(_) => return Err(FrameError::Malformed("only a node sends this type")),
                // The client is done sending, but may wait for fates or messages.
                None if open.is_empty() => return Ok(()),
                None => {
                    while let Some(fate) = open.next().await {
                        if answers.send(fate).await.is_err() {
                            break;
                        }
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// Queues a message and gives the frame that says so.
async fn send(
    node: &NodeHandle,
    token: u64,
    to: super::Target,
    mode: MessageMode,
    payload: Vec<u8>,
    lifetime: Option<Duration>,
    open: &mut OpenFates,
) -> Frame {
    match node.send_to(to, mode, payload, lifetime).await {
        Err(failure) => Frame::Failed { token, error: failure.to_string() },
        Ok(receipt) => {
            let nodes: Vec<NodeId> = receipt.nodes().collect();
            if mode != MessageMode::Unreliable {
                for (node, fate) in receipt.into_fates() {
                    open.push(Box::pin(async move {
                        Frame::Fate { token, node, fate: fate.await.unwrap_or(Fate::Abandoned) }
                    }));
                }
            }
            Frame::Queued { token, nodes }
        }
    }
}

enum ListenChange {
    Start(Listener),
    Credit(u32),
}

/// Writes answers and messages. While the client does not read, this waits, and with it everything before it.
async fn write_frames(
    write: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Frame>,
    mut listens: mpsc::Receiver<ListenChange>,
) {
    let mut write = BufWriter::with_capacity(64 << 10, write);
    let mut listener: Option<Listener> = None;
    loop {
        let frame = tokio::select! {
            biased;
            frame = answers.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
            Some(change) = listens.recv() => {
                match (change, &listener) {
                    (ListenChange::Start(new), _) => listener = Some(new),
                    (ListenChange::Credit(credit), Some(listener)) => listener.add_credit(credit),
                    (ListenChange::Credit(_), None) => {}
                }
                continue;
            }
            message = async {
                match &mut listener {
                    Some(listener) => listener.recv().await,
                    None => std::future::pending().await,
                }
            } => match message {
                Some(message) => Frame::Message((*message).clone()),
                None => break,
            },
            // Nothing to say: what was said must not wait in the buffer.
            else => break,
        };
        if frame.write(&mut write).await.is_err() {
            return;
        }
        if answers.is_empty() && write.flush().await.is_err() {
            return;
        }
    }
    let _ = write.flush().await;
}

/// Reads frames so that one half read is never lost to a cancelled future.
struct FrameReader<'a> {
    read: &'a mut OwnedReadHalf,
    buffer: BytesMut,
}

impl<'a> FrameReader<'a> {
    fn start(read: &'a mut OwnedReadHalf) -> Self {
        FrameReader { read, buffer: BytesMut::with_capacity(READ_AHEAD) }
    }

    /// Cancel-safe: what was read stays in the buffer.
    async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_AHEAD);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::Malformed("truncated")),
                };
            }
        }
    }

    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > super::frame::MAX_FRAME {
            return Err(FrameError::Malformed("length"));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::parse(body)?;
        self.buffer.advance(length + 4);
        Ok(Some(frame))
    }
}
