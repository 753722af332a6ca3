//! `overlan listen`.

use std::convert::Infallible;
use std::io::{ErrorKind, Stdout};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::bail;
use base64::Engine as _;
use overlan_node::app::{Frame, Received};
use overlan_node::client::{Stream, StreamReader, StreamWriter, discover};
use serde_json::json;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::args::ListenArgs;

/// Messages the node may send ahead of what is printed: no more than a pipe holds, since both are lost where its reader
/// goes away.
const CREDIT: u32 = 256;

/// Why no more messages are printed.
enum Ended {
    /// As many were as are wanted.
    Complete,
    /// The node has nothing more to say.
    Closed,
    /// Nobody reads standard output any more; so many messages went unread at most.
    Unread(u64),
}

pub(crate) async fn run(args: &ListenArgs) -> anyhow::Result<ExitCode> {
    let Stream { mut reader, mut writer } =
        Stream::connect(&discover(args.query.socket.socket.as_deref())?).await?;
    let mut stop = Stop::new()?;
    let wanted = args.count.unwrap_or(u64::MAX);
    let printed = watch::Sender::new(0);
    let mut ask = Ask { granted: wanted.min(u64::from(CREDIT)), wanted, printed: printed.subscribe() };
    let streams = args.streams.iter().copied().map(u16::from).collect();
    writer.write(&Frame::ListenBatch { credit: ask.granted as u32, streams }).await?;
    writer.flush().await?;
    let mut stopped = None;
    let ended = {
        let mut print = pin!(print(&mut reader, wanted, args.query.json.json, &printed));
        tokio::select! {
            ended = &mut print => ended?,
            // A node that takes no more requests has left: what it gave is printed still.
            _ = ask.more(&mut writer) => print.await?,
            status = stop.asked() => {
                stopped = Some(status);
                // What was accepted for this command is printed still, however often it is told to stop: `timeout` does
                // so twice.
                let _ = writer.close().await;
                print.await?
            }
        }
    };
    match (ended, stopped) {
        (Ended::Complete, _) => Ok(ExitCode::SUCCESS),
        (Ended::Closed, Some(status)) => Ok(ExitCode::from(status)),
        (Ended::Closed, None) => bail!("the node stopped"),
        (Ended::Unread(mut unread), _) => {
            let _ = writer.close().await;
            while let Some(messages) = next_messages(&mut reader).await? {
                unread += messages.len() as u64;
            }
            // `overlan listen | head`: whoever read has had enough.
            if unread == 0 {
                return Ok(stopped.map_or(ExitCode::SUCCESS, ExitCode::from));
            }
            bail!(
                "nobody reads standard output any more: of what was accepted, and told its senders as delivered, the \
                 last {unread} messages may be lost; --count N accepts no more than it prints"
            )
        }
    }
}

/// Signals that end a command in good order.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one; the exit status that shells give a command it ended.
    async fn asked(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        128 + kind.as_raw_value() as u8
    }
}

/// Asks for messages: never for more than are printed, since what is asked for counts as delivered.
struct Ask {
    granted: u64,
    wanted: u64,
    printed: watch::Receiver<u64>,
}

impl Ask {
    /// Asks for more as they are printed.
    async fn more(&mut self, writer: &mut StreamWriter) -> anyhow::Result<Infallible> {
        loop {
            self.printed.changed().await?;
            let printed = *self.printed.borrow_and_update();
            let more = self.wanted.min(printed + u64::from(CREDIT)).saturating_sub(self.granted);
            if more >= u64::from(CREDIT / 2) || more > 0 && self.granted == printed {
                writer.write(&Frame::Credit { credit: more as u32 }).await?;
                writer.flush().await?;
                self.granted += more;
            }
        }
    }
}

/// Prints messages as they come, and tells how many it printed.
async fn print(
    reader: &mut StreamReader,
    wanted: u64,
    json: bool,
    printed: &watch::Sender<u64>,
) -> anyhow::Result<Ended> {
    let mut stdout = tokio::io::stdout();
    let mut lines = Vec::new();
    let mut closed = pin!(closed(std::io::stdout()));
    while *printed.borrow() < wanted {
        let messages = tokio::select! {
            biased;
            () = &mut closed => return Ok(Ended::Unread(0)),
            messages = next_messages(reader) => match messages? {
                Some(messages) => messages,
                None => return Ok(Ended::Closed),
            },
        };
        for message in &messages {
            print_message(&mut lines, message, json)?;
        }
        // By a thread of its own: a slow reader keeps no signal waiting.
        let written = async {
            stdout.write_all(&lines).await?;
            stdout.flush().await
        };
        match written.await {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                return Ok(Ended::Unread(messages.len() as u64));
            }
            written => written?,
        }
        lines.clear();
        printed.send_modify(|printed| *printed += messages.len() as u64);
    }
    Ok(Ended::Complete)
}

/// The next messages; `None` once the node closes.
async fn next_messages(reader: &mut StreamReader) -> anyhow::Result<Option<Vec<Received>>> {
    match reader.next().await? {
        Some(Frame::Messages(messages)) => Ok(Some(messages)),
        Some(Frame::Error(error)) => bail!("the node closed the stream: {error}"),
        Some(_) => bail!("the node answered out of turn; are both of one version?"),
        None => Ok(None),
    }
}

/// Waits until nobody can read any more what is written there: then nothing more is to be accepted for it.
async fn closed(output: Stdout) {
    #[expect(deprecated, reason = "its successor is unsafe for all types; standard output stays open")]
    let watched = AsyncFd::with_interest(output, Interest::ERROR);
    // A file has nobody who could go, and cannot be watched.
    if let Ok(output) = watched
        && output.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn print_message(out: &mut impl std::io::Write, message: &Received, as_json: bool) -> anyhow::Result<()> {
    let payload = &message.payload;
    let sequence = payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let path = message.origin.path_text();
    if !as_json {
        let sequence = sequence.map(|sequence| sequence.to_string()).unwrap_or_else(|| "-".to_owned());
        let path = if path.is_empty() { "-" } else { &path };
        writeln!(
            out,
            "{} id={} seq={sequence} bytes={} path={path} t={}",
            message.origin.name,
            message.id.0,
            payload.len(),
            message.time_ns
        )?;
        return Ok(());
    }
    let mut line = json!({
        "from": &*message.origin.name,
        "node": message.origin.node.to_string(),
        "id": message.id.0,
        "seq": sequence,
        "bytes": payload.len(),
        "path": path,
        "stream": message.stream,
        "redelivered": message.redelivered,
        "t": message.time_ns,
    });
    match str::from_utf8(payload) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = base64::engine::general_purpose::STANDARD.encode(payload).into(),
    }
    Ok(writeln!(out, "{line}")?)
}
