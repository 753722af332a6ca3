//! `overlan bench`: what the way from this node to another member carries, as an application sees it: through the
//! node's application socket, to the far node itself, which counts or sends back.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use overlan_node::app::{Frame, Target};
use overlan_node::bench::{BENCH_STREAMS, Header, Kind, Report};
use overlan_node::client::{Control, Stream, StreamReader, StreamWriter, discover};
use overlan_node::{Fate, MessageMode, NodeStatus};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::args::BenchArgs;
use crate::table::out;

/// Bytes sent and not yet answered, of each of the `--parallel` senders.
const MAX_OPEN_BYTES: usize = 16 << 20;
/// Messages sent and not yet answered, of each.
const MAX_OPEN: usize = 8192;
/// Messages and bytes in one frame at most.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 << 10;
/// How long the last answers and the report may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long unreliable messages may still be on their way.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// A longer latency counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// What was measured; the names are stable.
#[derive(Debug, Serialize)]
struct Outcome {
    to: String,
    mode: &'static str,
    bytes: usize,
    parallel: usize,
    streams: usize,
    /// Of the sending; rates are of the time that the receiver saw.
    seconds: f64,
    sent: u64,
    received: u64,
    /// By sequence number, at the receiver.
    lost: u64,
    gbit_per_second: f64,
    messages_per_second: f64,
    /// Of this node.
    cpu_cores: Option<f64>,
    /// Of this node, to all members.
    retransmissions: u64,
    /// From sending to acceptance by the far node, or with `--round-trip` to the answer's arrival. Unreliable messages
    /// are not accepted, and have none.
    latency_us: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    p99_99: f64,
    max: f64,
}

/// What all senders share.
struct Shared {
    run: u64,
    next: AtomicU64,
    answered: AtomicU64,
    until: Instant,
    latency: Mutex<Histogram<u64>>,
    args: BenchArgs,
}

impl Shared {
    /// So many messages in one frame; the first one's sequence number is their token.
    fn messages(&self, kind: Kind, count: u64) -> (u64, Frame) {
        let first = self.next.fetch_add(count, Relaxed);
        let payload = |sequence| Header { kind, run: self.run, sequence }.emit(self.args.size as usize);
        let payloads = (first..first + count).map(|sequence| payload(sequence).into()).collect();
        (first, send_frame(&self.args, first / count, first, payloads))
    }

    fn record(&self, latency: Duration, count: u64) {
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(latency, count);
    }
}

/// The streams take turns.
fn send_frame(args: &BenchArgs, turn: u64, token: u64, payloads: Vec<Bytes>) -> Frame {
    Frame::SendBatch {
        token,
        mode: args.mode.into(),
        // From the last one on: it is the one that members of before have, too.
        stream: BENCH_STREAMS.end() - (turn % u64::from(args.streams)) as u16,
        lifetime_ms: 0,
        to: Target::parse(&args.to),
        payloads,
    }
}

fn listen_frame() -> Frame {
    Frame::ListenBatch { credit: u32::MAX, streams: BENCH_STREAMS.collect() }
}

pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let socket = discover(args.query.socket.socket.as_deref())?;
    let control = Control::new(&socket);
    let process = process_of(&socket).await;
    let before: NodeStatus = control.get("/v1/status").await?;
    let (began, busy) = (Instant::now(), process.and_then(processor_time));
    let shared = Arc::new(Shared {
        run: u64::from_be_bytes(overlan_node::random()),
        next: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        until: began + args.seconds,
        latency: Mutex::new(Histogram::new_with_bounds(1, LONGEST_NS, 3)?),
        args,
    });
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..shared.args.parallel {
        let (stream, shared) = (Stream::connect(&socket).await?, shared.clone());
        senders.spawn(async move {
            match shared.args.round_trip {
                true => round_trips(stream, &shared).await,
                false => one_way(stream, &shared).await,
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_cores = busy.and_then(|busy| Some((processor_time(process?)? - busy).as_secs_f64() / seconds));
    let after: NodeStatus = control.get("/v1/status").await?;
    let retransmissions = after.core.counters.retransmissions - before.core.counters.retransmissions;
    let report = if shared.args.round_trip {
        let (messages, expected) = (shared.answered.load(Relaxed), shared.next.load(Relaxed));
        let bytes = messages * u64::from(shared.args.size);
        Report { messages, bytes, expected, nanoseconds: (seconds * 1e9) as u64 }
    } else {
        finish(Stream::connect(&socket).await?, &shared).await?
    };
    print(&outcome(&shared, seconds, report, cpu_cores, retransmissions), shared.args.query.json.json)?;
    Ok(ExitCode::SUCCESS)
}

fn outcome(
    shared: &Shared,
    seconds: f64,
    report: Report,
    cpu_cores: Option<f64>,
    retransmissions: u64,
) -> Outcome {
    let Shared { args, .. } = shared;
    let sent = shared.next.load(Relaxed);
    let time = (report.nanoseconds as f64 / 1e9).max(1e-9);
    let histogram = shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let latency = Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        p99_99: at(0.9999),
        max: histogram.max() as f64 / 1e3,
    };
    Outcome {
        to: args.to.clone(),
        mode: match args.mode.into() {
            MessageMode::Unreliable => "unreliable",
            MessageMode::Reliable => "reliable",
            MessageMode::Ordered => "ordered",
        },
        bytes: args.size as usize,
        parallel: args.parallel as usize,
        streams: args.streams as usize,
        seconds,
        sent,
        received: report.messages,
        lost: sent.saturating_sub(report.messages),
        gbit_per_second: 8e-9 * report.bytes as f64 / time,
        messages_per_second: report.messages as f64 / time,
        cpu_cores,
        retransmissions,
        latency_us: (!histogram.is_empty()).then_some(latency),
    }
}

fn print(outcome: &Outcome, json: bool) -> anyhow::Result<()> {
    if json {
        return crate::table::print_json(outcome);
    }
    let Outcome { to, mode, bytes, seconds, sent, received, lost, .. } = outcome;
    out!("{mode} messages of {bytes} bytes to {to}, {seconds:.1} s");
    out!(
        "  rate             {:.3} Gbit/s, {:.0} messages/s",
        outcome.gbit_per_second,
        outcome.messages_per_second
    );
    out!("  messages         {sent} sent, {received} received, {lost} lost");
    out!("  retransmissions  {}", outcome.retransmissions);
    if let Some(cores) = outcome.cpu_cores {
        out!("  this node        {:.0}% of a core", 100.0 * cores);
    }
    if let Some(latency) = &outcome.latency_us {
        let Latency { p50, p90, p99, p99_9, p99_99, max } = latency;
        out!(
            "  latency, us      p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p99_9:.0}  p99.99 {p99_99:.0}  max {max:.0}"
        );
    }
    Ok(())
}

/// Batches sent and not wholly answered, by the token of the first message.
type Open = Mutex<BTreeMap<u64, OpenBatch>>;

struct OpenBatch {
    sent: Instant,
    left: u64,
}

/// Sends until the time is over, then waits for the last answers.
async fn one_way(stream: Stream, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let Stream { reader, mut writer } = stream;
    let size = shared.args.size as usize;
    let room = (MAX_OPEN_BYTES / size).clamp(2, MAX_OPEN);
    let batch = (BATCH_BYTES / size).clamp(1, BATCH.min(room));
    let (permits, open) = (Arc::new(Semaphore::new(room)), Arc::new(Open::default()));
    let answers = tokio::spawn(answers(reader, shared.clone(), permits.clone(), open.clone()));
    let sending = async {
        while Instant::now() < shared.until {
            // Given back with the answers.
            permits.acquire_many(batch as u32).await?.forget();
            let (first, frame) = shared.messages(Kind::Data, batch as u64);
            let sent = OpenBatch { sent: Instant::now(), left: batch as u64 };
            open.lock().unwrap_or_else(PoisonError::into_inner).insert(first, sent);
            writer.write(&frame).await?;
            writer.flush().await?;
        }
        let last = permits.acquire_many(room as u32);
        let last = tokio::time::timeout(PATIENCE, last).await;
        last.context("the last messages were not accepted in time")??.forget();
        anyhow::Ok(())
    };
    tokio::select! {
        answers = answers => answers?,
        sent = sending => sent,
    }
}

async fn answers(
    mut reader: StreamReader,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    open: Arc<Open>,
) -> anyhow::Result<()> {
    let unreliable = MessageMode::from(shared.args.mode) == MessageMode::Unreliable;
    loop {
        let (token, count, accepted) = match next(&mut reader).await? {
            Frame::Queued { token, .. } if unreliable => (token, u64::MAX, false),
            Frame::Fate { token, fate, .. } => (token, 1, fate == Fate::Delivered),
            Frame::Fates { token, count, fate, .. } => (token, u64::from(count), fate == Fate::Delivered),
            _ => continue,
        };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((&first, batch)) = open.range_mut(..=token).next_back() else { continue };
        let count = count.min(batch.left);
        batch.left -= count;
        if accepted {
            shared.record(batch.sent.elapsed(), count);
        }
        if batch.left == 0 {
            open.remove(&first);
        }
        permits.add_permits(count as usize);
    }
}

/// Asks, waits for the answer, asks again.
async fn round_trips(stream: Stream, shared: &Shared) -> anyhow::Result<()> {
    let Stream { mut reader, mut writer } = stream;
    writer.write(&listen_frame()).await?;
    while Instant::now() < shared.until {
        let sent = Instant::now();
        let (token, frame) = shared.messages(Kind::Ask, 1);
        let wanted = Header { kind: Kind::Answer, run: shared.run, sequence: token };
        exchange(&mut reader, &mut writer, &frame, |header| header == wanted).await?;
        shared.record(sent.elapsed(), 1);
        shared.answered.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Asks the receiver what it counted.
async fn finish(stream: Stream, shared: &Shared) -> anyhow::Result<Report> {
    if MessageMode::from(shared.args.mode) == MessageMode::Unreliable {
        tokio::time::sleep(STRAGGLERS).await;
    }
    let Stream { mut reader, mut writer } = stream;
    writer.write(&listen_frame()).await?;
    let finish = Header { kind: Kind::Finish, run: shared.run, sequence: 0 }.emit(0);
    let mut frame = send_frame(&shared.args, 0, u64::MAX, vec![finish.into()]);
    if let Frame::SendBatch { mode, .. } = &mut frame {
        *mode = MessageMode::Reliable;
    }
    let ours = |header: Header| header.kind == Kind::Report && header.run == shared.run;
    let report = exchange(&mut reader, &mut writer, &frame, ours).await?;
    Report::parse(&report).context("the far node's report makes no sense; are both of one version?")
}

/// Sends a frame and gives the message that is wanted in answer.
async fn exchange(
    reader: &mut StreamReader,
    writer: &mut StreamWriter,
    frame: &Frame,
    wanted: impl Fn(Header) -> bool,
) -> anyhow::Result<Vec<u8>> {
    writer.write(frame).await?;
    writer.flush().await?;
    let answer = async {
        loop {
            let Frame::Messages(messages) = next(reader).await? else { continue };
            let answer = messages.iter().find(|message| Header::parse(&message.payload).is_some_and(&wanted));
            if let Some(answer) = answer {
                return anyhow::Ok(answer.payload.to_vec());
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.context(
        "the far node does not answer; is it alive (`overlan members`), and of a version that measures?",
    )?
}

async fn next(reader: &mut StreamReader) -> anyhow::Result<Frame> {
    match reader.next().await?.context("the node stopped")? {
        Frame::Failed { error, .. } | Frame::Error(error) => bail!(error),
        frame => Ok(frame),
    }
}

/// The process that serves this socket.
async fn process_of(socket: &std::path::Path) -> Option<i32> {
    tokio::net::UnixStream::connect(socket).await.ok()?.peer_cred().ok()?.pid()
}

/// Time that its threads had a core (proc(5), `schedstat`); `None` where it can't be seen from here.
fn processor_time(process: i32) -> Option<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let ran = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(ran.sum()))
}
