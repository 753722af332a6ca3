//! What every measured process shares: its options, what it counts, and how it is told when to count.
//!
//! A worker prints `ready`, then obeys lines of standard input: `mark` begins the measured time, `stop` ends it: the
//! worker prints `result {..}` and is gone. The end of standard input ends it too, so that nothing outlives the runner.
//! `knet.c` speaks the same.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use hdrhistogram::Histogram;
use serde_json::{Map, Value};

/// A round trip that takes longer counts as this: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// `key=value` arguments.
#[derive(Debug)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let pair = |argument: &String| match argument.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("{argument:?} is not key=value"),
        };
        Ok(Options(arguments.iter().map(pair).collect::<Result<_, _>>()?))
    }

    /// A value that must be there.
    pub(crate) fn value<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        self.optional(key)?.with_context(|| format!("{key}= is missing"))
    }

    /// A value that may be there.
    pub(crate) fn optional<T: FromStr>(&self, key: &str) -> anyhow::Result<Option<T>> {
        let parse = |text: &String| text.parse().map_err(|_| anyhow!("{key}={text} makes no sense"));
        self.0.get(key).map(parse).transpose()
    }

    /// Whether `key=1` was given.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| value == "1")
    }

    /// The receiver's address.
    pub(crate) fn peer(&self) -> anyhow::Result<SocketAddr> {
        self.value("peer")
    }

    /// Bytes of a message.
    pub(crate) fn size(&self) -> anyhow::Result<usize> {
        self.value("size")
    }

    /// The folder that all processes of a measurement share.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        self.value("folder")
    }
}

/// What a worker counts. Written by one thread, read by the one that obeys.
#[derive(Debug)]
pub(crate) struct Counts {
    bytes: AtomicU64,
    messages: AtomicU64,
    /// One more than the highest sequence number seen.
    expected: AtomicU64,
    nanoseconds: Mutex<Histogram<u64>>,
}

impl Counts {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Counts {
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            nanoseconds: Mutex::new(
                Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits that are allowed"),
            ),
        })
    }

    /// Messages that arrived, of these payload bytes together.
    pub(crate) fn add(&self, messages: u64, bytes: u64) {
        // One writer: no read-modify-write is needed.
        self.messages.store(self.messages.load(Relaxed) + messages, Relaxed);
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
    }

    /// The sequence number of a message that arrived: how many there should be.
    pub(crate) fn see(&self, sequence: u64) {
        self.expected.store(self.expected.load(Relaxed).max(sequence + 1), Relaxed);
    }

    /// A message whose first eight bytes are its sequence number.
    pub(crate) fn message(&self, payload: &[u8]) {
        self.add(1, payload.len() as u64);
        if let Some(sequence) = payload.first_chunk() {
            self.see(u64::from_be_bytes(*sequence));
        }
    }

    /// A round trip.
    pub(crate) fn latency(&self, round_trip: Duration) {
        let nanoseconds = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
        self.histogram().saturating_record(nanoseconds);
    }

    fn histogram(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.nanoseconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> [u64; 3] {
        [&self.messages, &self.bytes, &self.expected].map(|count| count.load(Relaxed))
    }
}

/// Says that all is set up, and obeys from now on, in a thread of its own.
pub(crate) fn ready(counts: &Arc<Counts>) -> anyhow::Result<()> {
    ready_with(counts, |_| Map::new())
}

/// As [`ready`]; `extra` is asked at both ends of the measured time (true: the end), and what it says at the end
/// is part of the result.
pub(crate) fn ready_with(
    counts: &Arc<Counts>,
    mut extra: impl FnMut(bool) -> Map<String, Value> + Send + 'static,
) -> anyhow::Result<()> {
    say("ready")?;
    let counts = counts.clone();
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let mut mark = (Instant::now(), counts.snapshot());
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match line.as_str() {
                "mark" => {
                    extra(false);
                    counts.histogram().reset();
                    mark = (Instant::now(), counts.snapshot());
                }
                "stop" => {
                    let mut result = result(&counts, mark);
                    result.append(&mut extra(true));
                    let said = say(&format!("result {}", Value::Object(result)));
                    std::process::exit(i32::from(said.is_err()));
                }
                _ => break,
            }
        }
        std::process::exit(1);
    })?;
    Ok(())
}

fn result(counts: &Counts, (began, before): (Instant, [u64; 3])) -> Map<String, Value> {
    let seconds = began.elapsed().as_secs_f64();
    let after = counts.snapshot();
    let [messages, bytes, expected] = [0, 1, 2].map(|field| after[field] - before[field]);
    let mut result = Map::new();
    result.insert("seconds".into(), seconds.into());
    result.insert("messages".into(), messages.into());
    result.insert("bytes".into(), bytes.into());
    result.insert("expected".into(), expected.into());
    let histogram = counts.histogram();
    if !histogram.is_empty() {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            result.insert(format!("{name}_us"), (histogram.value_at_quantile(quantile) as f64 / 1e3).into());
        }
    }
    result
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
