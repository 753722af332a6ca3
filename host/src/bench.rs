//! `overlan bench`: what the way from this node to another member carries, as an application sees it: through the
//! node's application socket, to the far node itself, which counts or sends back.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use overlan_node::app::{Frame, Target};
use overlan_node::bench::{BENCH_STREAMS, Header, Kind, Report, patience};
use overlan_node::client::{Control, Stream, StreamReader, StreamWriter, discover};
use overlan_node::{Fate, MessageMode, NodeStatus};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};

use crate::args::BenchArgs;
use crate::table::out;

/// Bytes sent and not yet answered, of each of the `--parallel` senders: at first, and at most, where answers are prompt.
/// What is open when the time is over is waited for, and a slow way should not take long to carry it.
const OPEN_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=16 << 20;
/// Messages sent and not yet answered, of each.
const MAX_OPEN: usize = 8192;
/// An answer that comes so soon is prompt, and one that takes no more than twice as long as the fastest.
const PROMPT: Duration = Duration::from_millis(500);
/// Messages and bytes in one frame at most.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 << 10;
/// An unreliable message that can't leave for so long is lost: a way that carries less than what is sent has a queue that
/// would take long to empty.
const LIFETIME_MS: u32 = 1_000;
/// How long unreliable messages may still be on their way.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// With more messages, it matters little when the first and the last arrive.
const FEW: u64 = 16;
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
    /// Of the sending, until the last answer; rates are of the time that the receiver saw.
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
    /// Messages that were waited for in vain.
    unanswered: AtomicU64,
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
        (first, send_frame(&self.args, self.args.mode.into(), first / count, first, payloads))
    }

    fn record(&self, latency: Duration, count: u64) {
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(latency, count);
    }
}

/// The streams take turns.
fn send_frame(args: &BenchArgs, mode: MessageMode, turn: u64, token: u64, payloads: Vec<Bytes>) -> Frame {
    Frame::SendBatch {
        token,
        mode,
        // From the last one on: it is the one that members of before have, too.
        stream: BENCH_STREAMS.end() - (turn % u64::from(args.streams)) as u16,
        lifetime_ms: if mode == MessageMode::Unreliable { LIFETIME_MS } else { 0 },
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
        unanswered: AtomicU64::new(0),
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
    let unanswered = shared.unanswered.load(Relaxed);
    let in_vain = if unanswered > 0 { patience(shared.args.size as usize) } else { Duration::ZERO };
    let seconds = began.elapsed().saturating_sub(in_vain).as_secs_f64();
    if unanswered > 0 {
        eprintln!(
            "overlan: {unanswered} messages were not accepted within {} s of the others; look at `overlan paths`",
            in_vain.as_secs()
        );
    }
    let cpu_cores = busy.and_then(|busy| Some((processor_time(process?)? - busy).as_secs_f64() / seconds));
    let after: NodeStatus = control.get("/v1/status").await?;
    let retransmissions = after.core.counters.retransmissions - before.core.counters.retransmissions;
    let report = if shared.args.round_trip {
        Report { messages: shared.answered.load(Relaxed), ..Report::default() }
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
    // By the receiver's clock, which starts when the first has arrived; of a few, and of round trips, by this node's.
    let time = report.nanoseconds as f64 / 1e9;
    let rate = match report.messages {
        messages if messages <= FEW || args.round_trip => messages as f64 / seconds.max(time),
        messages => (messages - 1) as f64 / time.max(1e-9),
    };
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
        gbit_per_second: rate * 8e-9 * f64::from(args.size),
        messages_per_second: rate,
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
    let (gbit, messages) = (outcome.gbit_per_second, outcome.messages_per_second);
    let (rate, unit) = if gbit < 0.1 { (1e3 * gbit, "Mbit/s") } else { (gbit, "Gbit/s") };
    // Few messages a second may be long ones.
    let places = if messages < 10.0 { 2 } else { 0 };
    out!("  rate             {rate:.3} {unit}, {messages:.places$} messages/s");
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

/// What one sender has sent and has no answer to yet, and how much of it there may be.
struct Window {
    permits: Semaphore,
    open: Mutex<Open>,
    answered: Notify,
}

struct Open {
    /// Not wholly answered, by the token of the first message.
    batches: BTreeMap<u64, OpenBatch>,
    /// Messages by which the window may still grow.
    growth: u64,
    /// The shortest time to an answer.
    fastest: Duration,
}

struct OpenBatch {
    sent: Instant,
    left: u64,
}

impl Window {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes so many messages of a batch, by the token of one of them; how many, and how long they took.
    fn close(&self, token: u64, count: u64) -> Option<(u64, Duration)> {
        let mut open = self.open();
        let (&first, batch) = open.batches.range_mut(..=token).next_back()?;
        let (count, taken) = (count.min(batch.left), batch.sent.elapsed());
        batch.left -= count;
        if batch.left == 0 {
            open.batches.remove(&first);
        }
        open.fastest = open.fastest.min(taken);
        let more = if taken <= PROMPT.max(2 * open.fastest) { count.min(open.growth) } else { 0 };
        open.growth -= more;
        self.permits.add_permits((count + more) as usize);
        self.answered.notify_one();
        Some((count, taken))
    }

    /// Waits until all is answered, as long as one answer follows the other; how many messages are not.
    async fn drain(&self, patience: Duration) -> u64 {
        loop {
            let left = self.open().batches.values().map(|batch| batch.left).sum();
            let answered = self.answered.notified();
            if left == 0 || tokio::time::timeout(patience, answered).await.is_err() {
                return left;
            }
        }
    }
}

/// Sends until the time is over, then waits for the last answers.
async fn one_way(stream: Stream, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let Stream { reader, mut writer } = stream;
    let size = shared.args.size as usize;
    let room = |bytes: usize| (bytes / size).clamp(2, MAX_OPEN);
    let (first, most) = (room(*OPEN_BYTES.start()), room(*OPEN_BYTES.end()));
    let batch = (BATCH_BYTES / size).clamp(1, BATCH.min(first));
    let window = Arc::new(Window {
        permits: Semaphore::new(first),
        open: Mutex::new(Open {
            batches: BTreeMap::new(),
            growth: (most - first) as u64,
            fastest: Duration::MAX / 2,
        }),
        answered: Notify::new(),
    });
    let answers = tokio::spawn(answers(reader, shared.clone(), window.clone()));
    let sending = async {
        while Instant::now() < shared.until {
            // Given back with the answers.
            let permits = window.permits.acquire_many(batch as u32);
            match tokio::time::timeout_at(shared.until.into(), permits).await {
                Ok(permits) => permits?.forget(),
                Err(_) => break,
            }
            let (first, frame) = shared.messages(Kind::Data, batch as u64);
            let sent = OpenBatch { sent: Instant::now(), left: batch as u64 };
            window.open().batches.insert(first, sent);
            writer.write(&frame).await?;
            writer.flush().await?;
        }
        shared.unanswered.fetch_add(window.drain(patience(size)).await, Relaxed);
        anyhow::Ok(())
    };
    tokio::select! {
        answers = answers => answers?,
        sent = sending => sent,
    }
}

async fn answers(mut reader: StreamReader, shared: Arc<Shared>, window: Arc<Window>) -> anyhow::Result<()> {
    let unreliable = MessageMode::from(shared.args.mode) == MessageMode::Unreliable;
    loop {
        let (token, count, accepted) = match next(&mut reader).await? {
            Frame::Queued { token, .. } if unreliable => (token, u64::MAX, false),
            Frame::Fate { token, fate, .. } => (token, 1, fate == Fate::Delivered),
            Frame::Fates { token, count, fate, .. } => (token, u64::from(count), fate == Fate::Delivered),
            _ => continue,
        };
        if let Some((count, taken)) = window.close(token, count)
            && accepted
        {
            shared.record(taken, count);
        }
    }
}

/// Asks, waits for the answer, asks again.
async fn round_trips(stream: Stream, shared: &Shared) -> anyhow::Result<()> {
    let Stream { mut reader, mut writer } = stream;
    writer.write(&listen_frame()).await?;
    let patience = patience(2 * shared.args.size as usize);
    while Instant::now() < shared.until {
        let sent = Instant::now();
        let (token, frame) = shared.messages(Kind::Ask, 1);
        let wanted = Header { kind: Kind::Answer, run: shared.run, sequence: token };
        exchange(&mut reader, &mut writer, &frame, patience, |header| header == wanted).await?;
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
    let frame = send_frame(&shared.args, MessageMode::Reliable, 0, u64::MAX, vec![finish.into()]);
    let ours = |header: Header| header.kind == Kind::Report && header.run == shared.run;
    let report =
        exchange(&mut reader, &mut writer, &frame, patience(shared.args.size as usize), ours).await?;
    Report::parse(&report).context("the far node's report makes no sense; are both of one version?")
}

/// Sends a frame and gives the message that is wanted in answer.
async fn exchange(
    reader: &mut StreamReader,
    writer: &mut StreamWriter,
    frame: &Frame,
    patience: Duration,
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
    let answer = tokio::time::timeout(patience, answer).await;
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
