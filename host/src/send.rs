//! `overlan send`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use overlan_node::app::{Frame, Target};
use overlan_node::client::{Stream, StreamReader, StreamWriter, discover};
use overlan_node::{Fate, MessageMode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use crate::args::SendArgs;
use crate::table::{print_json, unread};

/// Messages sent and not yet answered.
const MAX_OPEN: usize = 65_536;
/// Messages, and bytes of them, that are sent in one frame.
const MAX_BATCH: usize = 1024;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// After this long without the last answers, a hint is due.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// What became of what was sent.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    sent: u64,
    delivered: u64,
    failed: u64,
    /// How often each reason came.
    reasons: BTreeMap<String, u64>,
}

pub(crate) async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    let Stream { reader, writer } = Stream::connect(&discover(args.query.socket.socket.as_deref())?).await?;
    let json = args.query.json.json;
    let mode = args.mode.into();
    let total = watch::Sender::new(None);
    let room = Arc::new(Semaphore::new(MAX_OPEN));
    let batches = Batches::default();
    let answers = tokio::spawn(answers(reader, mode, total.subscribe(), room.clone(), batches.clone()));
    let mut sending = tokio::spawn(async move {
        let mut sender = Sender { writer, room, args, sent: 0, batches, batch: Vec::new(), bytes: 0 };
        let sent = sender.all().await?;
        total.send_replace(Some(sent));
        anyhow::Ok((sender, total))
    });
    let mut answers = answers;
    let summary = tokio::select! {
        summary = &mut answers => summary??,
        sender = &mut sending => {
            // The writer stays open until the last answer.
            let _open = sender??;
            with_hint(answers).await??
        }
    };
    report(&summary, json)
}

/// Waits for the last answers, and says once what may hold them up.
async fn with_hint<T>(answers: impl Future<Output = T>) -> T {
    let mut answers = pin!(answers);
    tokio::select! {
        done = &mut answers => return done,
        () = tokio::time::sleep(PATIENCE) => eprintln!(
            "overlan: not all is accepted yet; still waiting. Does a listener (`overlan listen`) run at the \
             receiver, and does `overlan members` show it alive? --lifetime bounds the wait"
        ),
    }
    answers.await
}

fn report(summary: &Summary, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        unread(print_json(summary))?;
    }
    if summary.failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for (reason, count) in &summary.reasons {
        eprintln!("overlan: {count} of {} not delivered: {reason}", summary.sent);
    }
    Ok(ExitCode::FAILURE)
}

/// How many messages each batch on its way has, by its first token.
type Batches = Arc<Mutex<BTreeMap<u64, usize>>>;

struct Sender {
    writer: StreamWriter,
    room: Arc<Semaphore>,
    args: SendArgs,
    sent: u64,
    batches: Batches,
    /// Messages of the batch that is being filled.
    batch: Vec<Bytes>,
    bytes: usize,
}

impl Sender {
    async fn all(&mut self) -> anyhow::Result<u64> {
        if let Some(count) = self.args.count {
            self.count(count).await?;
        } else if self.args.lines {
            let mut input = BufReader::with_capacity(64 << 10, tokio::io::stdin());
            let mut line = Vec::new();
            while input.read_until(b'\n', &mut line).await? > 0 {
                line.pop_if(|last| *last == b'\n');
                self.one(std::mem::take(&mut line).into()).await?;
                // What has come goes on at once, and together.
                if !input.buffer().contains(&b'\n') {
                    self.flush().await?;
                }
            }
        } else {
            let mut payload = Vec::new();
            match self.args.file.as_ref().filter(|path| path.as_os_str() != "-") {
                Some(path) => payload = std::fs::read(path).with_context(|| path.display().to_string())?,
                None => {
                    if std::io::stdin().is_terminal() {
                        eprintln!("overlan: the message comes from standard input; end it with Ctrl-D");
                    }
                    tokio::io::stdin().read_to_end(&mut payload).await?;
                }
            }
            self.one(payload.into()).await?;
        }
        self.flush().await?;
        Ok(self.sent)
    }

    async fn count(&mut self, count: u64) -> anyhow::Result<()> {
        let size = self.args.size.unwrap_or(8) as usize;
        let mut ticks = self.args.interval.filter(|interval| !interval.is_zero()).map(|interval| {
            let mut ticks = tokio::time::interval(interval);
            // A stream that was held up goes on at its pace.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        for sequence in 0..count {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let mut payload = vec![0; size];
            payload[..8].copy_from_slice(&sequence.to_be_bytes());
            self.one(payload.into()).await?;
            if ticks.is_some() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn one(&mut self, payload: Bytes) -> anyhow::Result<()> {
        if payload.len() > 16 << 20 {
            bail!("the message is larger than 16 MiB; split it");
        }
        if self.room.available_permits() == 0 {
            self.flush().await?;
        }
        // Given back with the last answer.
        self.room.acquire().await?.forget();
        self.bytes += payload.len();
        self.batch.push(payload);
        if self.batch.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    /// Queues the batch.
    async fn write(&mut self) -> anyhow::Result<()> {
        let payloads = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if payloads.is_empty() {
            return Ok(());
        }
        let lifetime =
            self.args.lifetime.map_or(0, |lifetime| lifetime.as_millis().clamp(1, u128::from(u32::MAX)));
        let (token, count) = (self.sent, payloads.len());
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).insert(token, count);
        self.sent += count as u64;
        let frame = Frame::SendBatch {
            token,
            mode: self.args.mode.into(),
            stream: self.args.stream.into(),
            lifetime_ms: u32::try_from(lifetime).unwrap_or(u32::MAX),
            to: Target::parse(&self.args.to),
            payloads,
        };
        Ok(self.writer.write(&frame).await?)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.write().await?;
        Ok(self.writer.flush().await?)
    }
}

async fn answers(
    mut reader: StreamReader,
    mode: MessageMode,
    mut total: watch::Receiver<Option<u64>>,
    room: Arc<Semaphore>,
    batches: Batches,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    // By its first token: messages of a batch, and fates of it that are not known yet.
    let mut open: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let mut done = 0;
    while total.borrow_and_update().is_none_or(|total| done < total) {
        let frame = tokio::select! {
            frame = reader.next() => frame?.ok_or_else(|| anyhow!("the node closed the stream"))?,
            _ = total.changed(), if total.borrow().is_none() => continue,
        };
        let size = |token| batches.lock().unwrap_or_else(PoisonError::into_inner).remove(&token).unwrap_or(1);
        let mut failed = |count: usize, reason: String| {
            summary.failed += count as u64;
            *summary.reasons.entry(reason).or_default() += count as u64;
        };
        let finished = match frame {
            Frame::Queued { token, nodes } => {
                let count = size(token);
                summary.sent += (nodes.len() * count) as u64;
                let waits = mode != MessageMode::Unreliable && !nodes.is_empty();
                if waits {
                    open.insert(token, (count, nodes.len() * count));
                }
                if waits { 0 } else { count }
            }
            Frame::Fates { token, count, node, fate } => {
                let count = count as usize;
                match fate {
                    Fate::Delivered => summary.delivered += count as u64,
                    Fate::Expired => {
                        failed(count, format!("{node} did not accept it in time; it may still arrive"))
                    }
                    Fate::PeerLostState => {
                        failed(count, format!("{node} restarted; it may have been delivered before"));
                    }
                    Fate::Abandoned => failed(count, format!("{node} was forgotten, or this node left")),
                }
                match open.range_mut(..=token).next_back() {
                    Some((&first, (size, left))) => {
                        *left = left.saturating_sub(count);
                        let finished = if *left == 0 { *size } else { 0 };
                        if finished > 0 {
                            open.remove(&first);
                        }
                        finished
                    }
                    None => 0,
                }
            }
            Frame::Failed { token, error } => {
                let count = size(token);
                summary.sent += count as u64;
                failed(count, error);
                count
            }
            Frame::Error(error) => bail!("the node closed the stream: {error}"),
            _ => bail!("the node answered out of turn; are both of one version?"),
        };
        done += finished as u64;
        room.add_permits(finished);
    }
    Ok(summary)
}
