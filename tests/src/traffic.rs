//! Streams of messages between members, and the gap a fault leaves in them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::binary::{Ran, overlan, wait_child};
use crate::node::Node;
use crate::wait::{wait_for, wait_until, within};

/// What a listener printed for one message.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Sender by name.
    pub from: String,
    /// Sequence number that `send --count` put in front.
    pub seq: u64,
    /// Arrival in nanoseconds since the epoch.
    pub t: u64,
    /// The whole line.
    pub line: Value,
}

/// `overlan listen --json`, running.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Listener {
    /// Starts to listen at a member.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn start(node: &Node) -> Listener {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(overlan());
        command.args(["listen", "--json", "--socket"]).arg(node.config.control());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("setpriv can be run");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&arrivals);
        // It ends with the process, whose pipe closes.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<Value>(&line) {
                    kept.lock().expect("nobody panics with it").push(arrival(line));
                }
            }
        });
        Listener { child, arrivals }
    }

    /// Starts to listen at a member and waits until a first message of another has come through:
    /// unreliable messages find no listener before.
    ///
    /// # Panics
    /// Where none comes through.
    pub fn connected(node: &Node, from: &Node) -> Listener {
        let listener = Listener::start(node);
        let what = format!("the listener at {} to hear", node.config.name);
        // What is accepted before this listener is connected is not repeated for it.
        wait_for(&what, Duration::from_secs(20), || {
            let to = node.config.name.as_str();
            from.run(&["send", "--to", to, "--mode", "reliable", "--count", "1", "--size", "8"]).ok();
            within(Duration::from_millis(500), || listener.arrivals().first().map(|_| ()))
        });
        listener
    }

    /// What came so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().expect("nobody panics with it").clone()
    }

    /// Waits until so many messages came.
    ///
    /// # Panics
    /// Where they do not.
    pub fn wait_count(&self, count: usize, limit: Duration) -> Vec<Arrival> {
        let what = format!("{count} messages at the listener");
        wait_until(&what, limit, || self.arrivals().len(), |&seen| seen >= count);
        self.arrivals()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arrival(line: Value) -> Arrival {
    let number = |field: &str| line[field].as_u64().unwrap_or_default();
    let from = line["from"].as_str().unwrap_or_default().to_owned();
    Arrival { from, seq: number("seq"), t: number("t"), line }
}

/// A stream to send.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// `--mode`.
    pub mode: &'static str,
    /// `--count`.
    pub count: usize,
    /// `--interval` in milliseconds.
    pub interval_ms: u64,
    /// `--size` in bytes.
    pub size: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Stream { mode: "reliable", count: 600, interval_ms: 5, size: 64 }
    }
}

/// `overlan send`, running.
#[derive(Debug)]
pub struct Sending {
    child: Child,
    stream: Stream,
}

impl Sending {
    /// Starts to send from a member.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn start(from: &Node, to: &str, stream: Stream) -> Sending {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(overlan());
        command.args(["send", "--to", to, "--mode", stream.mode, "--count", &stream.count.to_string()]);
        command.args(["--interval", &format!("{}ms", stream.interval_ms)]);
        command.args(["--size", &stream.size.to_string(), "--socket"]).arg(from.config.control());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("setpriv can be run");
        Sending { child, stream }
    }

    /// Waits until the command ends, which must be well.
    ///
    /// # Panics
    /// Where it fails or does not end in time.
    pub fn finish(mut self) {
        let sending = Duration::from_millis(self.stream.interval_ms * self.stream.count as u64);
        let status = wait_child(&mut self.child, sending + Duration::from_secs(60));
        assert!(status.is_some_and(|status| status.success()), "send ended with {status:?}");
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stream went through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Sequence numbers that never arrived.
    pub lost: usize,
    /// Arrivals beyond the first of a sequence number.
    pub doubled: usize,
    /// Arrivals with a lower sequence number than the one before.
    pub out_of_order: usize,
    /// Longest silence at the receiver from just before the fault on, in milliseconds.
    pub gap_ms: f64,
}

/// Sends a stream and brings the fault about in the middle of it.
///
/// # Panics
/// Where the stream does not start, or reliable messages do not arrive in the end.
pub fn measure(from: &Node, to: &Node, stream: Stream, fault: impl FnOnce()) -> Outcome {
    let listener = Listener::connected(to, from);
    let of_stream = || -> Vec<Arrival> {
        let mut arrivals = listener.arrivals();
        arrivals.retain(|arrival| arrival.line["bytes"] == stream.size);
        arrivals
    };
    let arrived = |count: usize| {
        let what = format!("{count} messages of the stream");
        wait_until(&what, Duration::from_secs(60), || of_stream().len(), |&seen| seen >= count);
    };
    let sending = Sending::start(from, &to.config.name, stream);
    arrived(stream.count / 3);
    let fault_at = since_epoch_ns();
    fault();
    sending.finish();
    if stream.mode == "unreliable" {
        // What is under way still may come; nothing tells when there is no more.
        thread::sleep(Duration::from_millis(500));
    } else {
        arrived(stream.count);
    }
    outcome(&of_stream(), stream.count, fault_at)
}

fn outcome(arrivals: &[Arrival], count: usize, fault_at: u64) -> Outcome {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    arrivals.iter().for_each(|arrival| *times.entry(arrival.seq).or_default() += 1);
    let mut at: Vec<u64> = arrivals.iter().map(|arrival| arrival.t).collect();
    at.sort_unstable();
    let before = at.partition_point(|&t| t <= fault_at).saturating_sub(1);
    let gap = at[before..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX);
    Outcome {
        lost: count - times.len().min(count),
        doubled: arrivals.len() - times.len(),
        out_of_order: arrivals.windows(2).filter(|pair| pair[1].seq < pair[0].seq).count(),
        gap_ms: gap as f64 / 1e6,
    }
}

fn since_epoch_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_nanos()).expect("until the year 2554")
}

/// Sends one text and checks that it arrives, once.
///
/// # Panics
/// Where it does not.
pub fn assert_delivers(from: &Node, to: &Node, mode: &str) {
    let listener = Listener::connected(to, from);
    let text = format!("{} to {} {mode}", from.config.name, to.config.name);
    send_text(from, &to.config.name, mode, &text).ok();
    let is_it = |arrival: &Arrival| arrival.line["text"] == text.as_str();
    wait_for(&format!("{text:?} to arrive"), Duration::from_secs(15), || {
        listener.arrivals().iter().any(is_it).then_some(())
    });
    let copies: Vec<Arrival> = listener.arrivals().into_iter().filter(is_it).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].from, from.config.name);
}

/// Sends one text with `overlan send`.
///
/// # Panics
/// Where the text cannot be put into a file.
pub fn send_text(from: &Node, to: &str, mode: &str, text: &str) -> Ran {
    let file = from.config.folder.join("message");
    std::fs::write(&file, text).expect("a file with the message");
    let file = file.to_str().expect("temporary folders have plain names");
    from.run(&["send", "--to", to, "--mode", mode, file])
}
