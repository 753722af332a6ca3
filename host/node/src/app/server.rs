//! The node's end of an application stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use overlan_core::Fate;
use overlan_wire::MessageMode;
use overlan_wire::limits::is_client_stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::Target;
use super::frame::{Frame, FrameError, PREFACE, emit_runs};
use crate::client::StreamReader;
use crate::control::PATIENCE;
use crate::driver::{MemberOutcome, SendFailure, SendOptions};
use crate::receipt::{BatchReceipt, Submitted};
use crate::{ListenOptions, Listener, NodeHandle, ReceivedRun, Streams};

/// Messages of one client whose fate is still open; beyond that the node stops reading from it.
const MAX_OPEN: usize = 262_144;
/// Bytes of messages of one client that wait for room in a queue; beyond that the node stops reading from it.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// Frames that may wait to be written to one client.
const MAX_ANSWERS: usize = 64;
/// How often a client that is not read from is looked after.
const GONE: Duration = Duration::from_secs(1);
/// Bytes written at once.
const CHUNK: usize = 256 << 10;

/// Serves one client until it goes.
pub(crate) async fn serve(stream: UnixStream, node: NodeHandle) {
    let (mut read, write) = stream.into_split();
    let mut preface = [0; PREFACE.len()];
    let (answers, to_write) = mpsc::channel(MAX_ANSWERS);
    let (listens, to_listen) = mpsc::channel(1);
    let came = timeout(PATIENCE, read.read_exact(&mut preface)).await;
    if !matches!(came, Ok(Ok(_))) || preface != PREFACE {
        let text = "the first 8 bytes must be the preface of stream version 1; see APPSOCKET.md".to_owned();
        let _ = timeout(PATIENCE, Frame::Error(text).write(&mut { write })).await;
        return;
    }
    let writer = tokio::spawn(write_frames(write, to_write, to_listen));
    let mut reader = Reader {
        node,
        answers,
        listens,
        listening: false,
        open: Steps::new(),
        messages: 0,
        unqueued: 0,
        waiting: 0,
    };
    if let Err(FrameError::Malformed(why)) = reader.run(read).await {
        let _ = reader.answers.send(vec![Frame::Error(format!("malformed frame ({why}); closing"))]).await;
    }
    drop(reader);
    let _ = writer.await;
}

/// Tells a client that it is not served.
pub(crate) async fn refuse(mut stream: UnixStream, why: &str) {
    let _ = timeout(PATIENCE, Frame::Error(why.to_owned()).write(&mut stream)).await;
}

/// What comes next of messages that were sent.
enum Step {
    Queued(Sent, Result<BatchReceipt, SendFailure>),
    Done(Sent, Vec<MemberOutcome>),
}

/// Messages that the client sent in one frame.
#[derive(Clone, Copy)]
struct Sent {
    token: u64,
    count: usize,
    bytes: usize,
    mode: MessageMode,
    /// In a batch frame, whose fates come in ranges.
    batch: bool,
}

type Steps = FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>;

async fn queued(sent: Sent, submitted: Submitted) -> Step {
    Step::Queued(sent, submitted.queued().await)
}

async fn done(sent: Sent, mut receipt: BatchReceipt) -> Step {
    Step::Done(sent, receipt.outcome().await)
}

struct Reader {
    node: NodeHandle,
    answers: mpsc::Sender<Vec<Frame>>,
    listens: mpsc::Sender<ListenChange>,
    /// Whether the client has asked for messages.
    listening: bool,
    open: Steps,
    /// Messages without a fate.
    messages: usize,
    /// Frames whose messages are not queued yet, and the bytes of these.
    unqueued: usize,
    waiting: usize,
}

impl Reader {
    async fn run(&mut self, read: OwnedReadHalf) -> Result<(), FrameError> {
        let mut frames = StreamReader::new(read);
        let mut look = interval(GONE);
        let commands = self.node.shared.commands.clone();
        // Once the client is done sending, or the node has left, fates may still come.
        let mut done = false;
        while !done || !self.open.is_empty() {
            let room = self.messages < MAX_OPEN && self.waiting < MAX_WAITING_BYTES;
            let goes_on = tokio::select! {
                biased;
                Some(step) = self.open.next() => self.step(step).await,
                frame = frames.next(), if room && !done => match frame? {
                    Some(frame) => self.take(frame).await?,
                    None => {
                        done = true;
                        !frames.is_hung_up()
                    }
                },
                () = commands.closed(), if !done => {
                    done = true;
                    true
                }
                // Where nothing is read, this alone tells that the client is gone.
                _ = look.tick() => !frames.is_hung_up(),
            };
            if !goes_on {
                break;
            }
        }
        // What a client sent that is gone by now goes its way, unless there is no room for it.
        let settle = async {
            while self.unqueued > 0
                && let Some(step) = self.open.next().await
            {
                self.step(step).await;
            }
        };
        let _ = timeout(PATIENCE, settle).await;
        Ok(())
    }

    /// Whether the client is still there.
    async fn take(&mut self, frame: Frame) -> Result<bool, FrameError> {
        match frame {
            Frame::Send { token, mode, lifetime_ms, to, payload } => {
                let sent = Sent { token, count: 1, bytes: payload.len(), mode, batch: false };
                Ok(self.send(sent, to, 0, lifetime_ms, vec![payload]).await)
            }
            Frame::SendBatch { token, mode, stream, lifetime_ms, to, payloads } => {
                let bytes = payloads.iter().map(Bytes::len).sum();
                let sent = Sent { token, count: payloads.len(), bytes, mode, batch: true };
                Ok(self.send(sent, to, stream, lifetime_ms, payloads).await)
            }
            // Two listeners of one client: what is accepted for both would come once or twice.
            Frame::Listen { .. } | Frame::ListenBatch { .. } if self.listening => {
                Err(FrameError::Malformed("a second Listen; open a stream for each"))
            }
            Frame::Listen { credit } => Ok(self.listen(credit, Streams::ALL, false).await),
            Frame::ListenBatch { streams, .. } if !streams.iter().all(|stream| is_client_stream(*stream)) => {
                Err(FrameError::Malformed("a stream above 255"))
            }
            Frame::ListenBatch { credit, streams } => {
                let streams = if streams.is_empty() { Streams::ALL } else { streams.into_iter().collect() };
                Ok(self.listen(credit, streams, true).await)
            }
            Frame::Credit { credit } => Ok(self.listens.send(ListenChange::Credit(credit)).await.is_ok()),
            _ => Err(FrameError::Malformed("only a node sends this type")),
        }
    }

    async fn listen(&mut self, credit: u32, streams: Streams, batch: bool) -> bool {
        self.listening = true;
        let options = ListenOptions { streams, ..ListenOptions::default() };
        let Ok(listener) = self.node.listen_credit(options, Some(u64::from(credit))).await else {
            return false;
        };
        self.listens.send(ListenChange::Start(listener, batch)).await.is_ok()
    }

    async fn send(
        &mut self,
        sent: Sent,
        to: Target,
        stream: u16,
        lifetime_ms: u32,
        payloads: Vec<Bytes>,
    ) -> bool {
        let lifetime = (lifetime_ms > 0).then(|| Duration::from_millis(u64::from(lifetime_ms)));
        let options = SendOptions { mode: sent.mode, stream, lifetime };
        if !is_client_stream(stream) {
            return self.answer(vec![failed(sent, &SendFailure::UnknownStream)]).await;
        }
        match self.node.submit(to, options, payloads).await {
            Ok(submitted) => {
                self.messages += sent.count;
                self.unqueued += 1;
                self.waiting += sent.bytes;
                self.open.push(Box::pin(queued(sent, submitted)));
                true
            }
            Err(failure) => self.answer(vec![failed(sent, &failure)]).await,
        }
    }

    /// Tells what became of messages, and waits for what becomes of them next.
    async fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Queued(sent, Err(failure)) => {
                self.messages -= sent.count;
                self.unqueued -= 1;
                self.waiting -= sent.bytes;
                self.answer(vec![failed(sent, &failure)]).await
            }
            Step::Queued(sent, Ok(receipt)) => {
                self.unqueued -= 1;
                self.waiting -= sent.bytes;
                let queued = Frame::Queued { token: sent.token, nodes: receipt.nodes().to_vec() };
                if sent.mode == MessageMode::Unreliable {
                    self.messages -= sent.count;
                } else {
                    self.open.push(Box::pin(done(sent, receipt)));
                }
                self.answer(vec![queued]).await
            }
            Step::Done(sent, outcomes) => {
                self.messages -= sent.count;
                self.answer(fates(sent, outcomes)).await
            }
        }
    }

    async fn answer(&mut self, frames: Vec<Frame>) -> bool {
        self.answers.send(frames).await.is_ok()
    }
}

fn failed(sent: Sent, failure: &SendFailure) -> Frame {
    Frame::Failed { token: sent.token, error: failure.to_string() }
}

/// The last word on each message, in ranges.
fn fates(sent: Sent, outcomes: Vec<MemberOutcome>) -> Vec<Frame> {
    // Where a role had several owners, nothing says which messages one of them got.
    let moved = outcomes.iter().any(|outcome| !outcome.moved.is_empty());
    let mut frames = Vec::new();
    for outcome in outcomes {
        let node = outcome.node;
        let mut push = |first: usize, count: usize, fate| {
            let token = sent.token.wrapping_add(first as u64);
            match (sent.batch, count) {
                (_, 0) => {}
                (true, _) => frames.push(Frame::Fates { token, count: count as u32, node, fate }),
                (false, _) => frames.push(Frame::Fate { token, node, fate }),
            }
        };
        if moved {
            outcome.got.iter().for_each(|index| push(*index, 1, Fate::Delivered));
            outcome.failed.iter().for_each(|(index, fate)| push(*index, 1, *fate));
            continue;
        }
        let mut failed = outcome.failed;
        failed.sort_unstable_by_key(|(index, _)| *index);
        let mut next = 0;
        for (index, fate) in failed {
            push(next, index - next, Fate::Delivered);
            push(index, 1, fate);
            next = index + 1;
        }
        push(next, sent.count - next, Fate::Delivered);
    }
    frames
}

enum ListenChange {
    /// Whether the client takes many messages in a frame.
    Start(Listener, bool),
    Credit(u32),
}

/// Writes answers and messages. While the client does not read, this waits, and with it everything before it.
async fn write_frames(
    mut write: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Vec<Frame>>,
    mut listens: mpsc::Receiver<ListenChange>,
) {
    let mut listener: Option<(Listener, bool)> = None;
    let mut runs: Vec<ReceivedRun> = Vec::new();
    let mut out = Vec::with_capacity(CHUNK);
    loop {
        tokio::select! {
            biased;
            // First: a client may say nothing more once it listens.
            Some(change) = listens.recv() => match (change, &listener) {
                (ListenChange::Start(new, batch), _) => listener = Some((new, batch)),
                (ListenChange::Credit(credit), Some((listener, _))) => listener.add_credit(credit),
                (ListenChange::Credit(_), None) => {}
            },
            frames = answers.recv() => {
                let Some(frames) = frames else { break };
                frames.iter().for_each(|frame| frame.emit(&mut out));
                while out.len() < CHUNK && let Ok(frames) = answers.try_recv() {
                    frames.iter().for_each(|frame| frame.emit(&mut out));
                }
            }
            count = async {
                match &mut listener {
                    Some((listener, _)) => listener.recv_many(&mut runs).await,
                    None => std::future::pending().await,
                }
            } => {
                if count == 0 {
                    break;
                }
                let batch = listener.as_ref().is_some_and(|(_, batch)| *batch);
                if write_messages(&mut write, &mut out, &mut runs, batch).await.is_err() {
                    return;
                }
            },
            // Nothing to say: what was said must not wait in the buffer.
            else => break,
        }
        if write.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
    // What was accepted for the client is its own, also where it says nothing more.
    if let Some((listener, batch)) = &mut listener {
        listener.close();
        while listener.recv_many(&mut runs).await > 0 {
            if write_messages(&mut write, &mut out, &mut runs, *batch).await.is_err() {
                return;
            }
        }
    }
    let _ = write.write_all(&out).await;
}

/// What is small stays in `out`.
async fn write_messages(
    write: &mut OwnedWriteHalf,
    out: &mut Vec<u8>,
    runs: &mut Vec<ReceivedRun>,
    batch: bool,
) -> std::io::Result<()> {
    let mut rest = &runs[..];
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |run: &&ReceivedRun| {
            bytes += run.payloads.bytes();
            Arc::ptr_eq(&run.origin, &first.origin) && run.time_ns == first.time_ns && bytes < CHUNK
        };
        // At least one: a large one goes alone.
        let count = if batch { rest.iter().take_while(fits).count().max(1) } else { 1 };
        let (now, later) = rest.split_at(count);
        match batch {
            true => emit_runs(now, out),
            false => first.clone().for_each(|message| Frame::Message(message).emit(out)),
        }
        rest = later;
        if out.len() >= CHUNK {
            write.write_all(out).await?;
            out.clear();
        }
    }
    runs.clear();
    Ok(())
}
