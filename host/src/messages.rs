//! `overlan send` and `overlan listen`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use overlan_node::app::{Frame, FrameError, Received, Target};
use overlan_node::client::{Stream, StreamReader, StreamWriter, discover};
use overlan_node::{Fate, MessageMode};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::args::{ListenArgs, SendArgs};

/// Messages sent and not yet answered.
const MAX_OPEN: usize = 4096;
/// After this long without the last answers, a hint is due.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
/// Messages the node may send ahead of what is printed.
const CREDIT: u32 = 256;

/// What became of what was sent.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    sent: u64,
    delivered: u64,
    failed: u64,
    /// How often each reason came.
    reasons: BTreeMap<String, u64>,
}

pub(crate) async fn send(args: SendArgs) -> anyhow::Result<ExitCode> {
    let Stream { reader, writer } = Stream::connect(&discover(args.query.socket.socket.as_deref())?).await?;
    let json = args.query.json.json;
    let mode = args.mode.into();
    let total = watch::Sender::new(None);
    let room = Arc::new(Semaphore::new(MAX_OPEN));
    let answers = tokio::spawn(answers(reader, mode, total.subscribe(), room.clone()));
    let mut sending = tokio::spawn(async move {
        let mut sender = Sender { writer, room, args, sent: 0 };
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
    let mut answers = std::pin::pin!(answers);
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
        crate::table::print_json(summary)?;
    }
    if summary.failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for (reason, count) in &summary.reasons {
        eprintln!("overlan: {count} of {} not delivered: {reason}", summary.sent);
    }
    Ok(ExitCode::FAILURE)
}

struct Sender {
    writer: StreamWriter,
    room: Arc<Semaphore>,
    args: SendArgs,
    sent: u64,
}

impl Sender {
    async fn all(&mut self) -> anyhow::Result<u64> {
        if let Some(count) = self.args.count {
            self.count(count).await?;
        } else if self.args.lines {
            let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
            while let Some(line) = lines.next_segment().await? {
                self.one(line).await?;
                self.writer.flush().await?;
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
            if payload.len() > 16 << 20 {
                bail!("the message is larger than 16 MiB; split it");
            }
            self.one(payload).await?;
            self.writer.flush().await?;
        }
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
            self.one(payload).await?;
            if ticks.is_some() {
                self.writer.flush().await?;
            }
        }
        Ok(self.writer.flush().await?)
    }

    async fn one(&mut self, payload: Vec<u8>) -> anyhow::Result<()> {
        if self.room.available_permits() == 0 {
            self.writer.flush().await?;
        }
        // Given back with the last answer.
        self.room.acquire().await?.forget();
        let lifetime =
            self.args.lifetime.map_or(0, |lifetime| lifetime.as_millis().clamp(1, u128::from(u32::MAX)));
        let frame = Frame::Send {
            token: self.sent,
            mode: self.args.mode.into(),
            lifetime_ms: u32::try_from(lifetime).unwrap_or(u32::MAX),
            to: Target::parse(&self.args.to),
            payload,
        };
        self.writer.write(&frame).await?;
        self.sent += 1;
        Ok(())
    }
}

async fn answers(
    reader: StreamReader,
    mode: MessageMode,
    mut total: watch::Receiver<Option<u64>>,
    room: Arc<Semaphore>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut done = 0;
    let mut frames = frames(reader);
    while total.borrow_and_update().is_none_or(|total| done < total) {
        let frame = tokio::select! {
            frame = frames.recv() => frame.ok_or_else(|| anyhow!("the node closed the stream"))??,
            _ = total.changed(), if total.borrow().is_none() => continue,
        };
        let mut failed = |reason: String| {
            summary.failed += 1;
            *summary.reasons.entry(reason).or_default() += 1;
        };
        let finished = match frame {
            Frame::Queued { token, nodes } => {
                summary.sent += nodes.len() as u64;
                let waits = mode != MessageMode::Unreliable && !nodes.is_empty();
                if waits {
                    open.insert(token, nodes.len());
                }
                !waits
            }
            Frame::Fate { token, node, fate } => {
                match fate {
                    Fate::Delivered => summary.delivered += 1,
                    Fate::Expired => failed(format!("{node} did not accept it in time")),
                    Fate::PeerLostState => {
                        failed(format!("{node} restarted; it may have been delivered before"))
                    }
                    Fate::Abandoned => failed(format!("{node} was forgotten, or this node left")),
                }
                let left = open.get_mut(&token).map(|left| {
                    *left -= 1;
                    *left
                });
                if left == Some(0) {
                    open.remove(&token);
                }
                left == Some(0)
            }
            Frame::Failed { error, .. } => {
                summary.sent += 1;
                failed(error);
                true
            }
            Frame::Error(error) => bail!("the node closed the stream: {error}"),
            Frame::Send { .. } | Frame::Listen { .. } | Frame::Credit { .. } | Frame::Message(_) => {
                bail!("the node answered out of turn; are both of one version?")
            }
        };
        if finished {
            done += 1;
            room.add_permits(1);
        }
    }
    Ok(summary)
}

/// Reads frames in a task of its own, as reading is not cancel-safe.
fn frames(mut reader: StreamReader) -> mpsc::Receiver<Result<Frame, FrameError>> {
    let (sender, frames) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(frame) = reader.next().await.transpose() {
            let broken = frame.is_err();
            if sender.send(frame).await.is_err() || broken {
                return;
            }
        }
    });
    frames
}

pub(crate) async fn listen(args: &ListenArgs) -> anyhow::Result<()> {
    let Stream { mut reader, mut writer } =
        Stream::connect(&discover(args.query.socket.socket.as_deref())?).await?;
    let wanted = args.count.unwrap_or(u64::MAX);
    // Never asks for more than it prints: what is asked for counts as delivered.
    let mut granted = wanted.min(u64::from(CREDIT));
    writer.write(&Frame::Listen { credit: granted as u32 }).await?;
    writer.flush().await?;
    let mut printed = 0;
    while printed < wanted {
        match reader.next().await? {
            Some(Frame::Message(message)) => print_message(&message, args.query.json.json)?,
            Some(Frame::Error(error)) => bail!("the node closed the stream: {error}"),
            Some(_) => bail!("the node answered out of turn; are both of one version?"),
            None => bail!("the node stopped"),
        }
        printed += 1;
        let more = wanted.min(printed + u64::from(CREDIT)) - granted;
        if more >= u64::from(CREDIT / 2) || more > 0 && granted == printed {
            writer.write(&Frame::Credit { credit: more as u32 }).await?;
            writer.flush().await?;
            granted += more;
        }
    }
    Ok(())
}

fn print_message(message: &Received, as_json: bool) -> anyhow::Result<()> {
    let payload = &message.payload;
    let sequence = payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let mut out = std::io::stdout().lock();
    if !as_json {
        let sequence = sequence.map(|sequence| sequence.to_string()).unwrap_or_else(|| "-".to_owned());
        let path = if message.path.is_empty() { "-" } else { &message.path };
        writeln!(
            out,
            "{} id={} seq={sequence} bytes={} path={path} t={}",
            message.name,
            message.id.0,
            payload.len(),
            message.time_ns
        )?;
        return Ok(out.flush()?);
    }
    let mut line = json!({
        "from": message.name,
        "node": message.from.to_string(),
        "id": message.id.0,
        "seq": sequence,
        "bytes": payload.len(),
        "path": message.path,
        "t": message.time_ns,
    });
    match str::from_utf8(payload) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = base64::engine::general_purpose::STANDARD.encode(payload).into(),
    }
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
