//! Measurements between members (`overlan bench`): what they say to each other, and the end that answers.
//!
//! Every node answers them by itself, on the streams [`BENCH_STREAMS`], so that nothing has to be set up at the far end
//! and no application sees them.
//!
//! ```text
//! kind u8 | run u64 | body          integers are big-endian
//! 0 Data    sequence u64, any bytes       counted
//! 1 Ask     sequence u64, any bytes       answered by 2 with the same body, in the same mode
//! 2 Answer  sequence u64, any bytes
//! 3 Finish                                answered by 4, and the run is forgotten
//! 4 Report  messages u64, bytes u64, expected u64, nanoseconds u64
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overlan_wire::NodeId;
pub use overlan_wire::limits::BENCH_STREAMS;

use crate::{Listener, NodeHandle, SendOptions};

/// Bytes before what fills a message: the smallest that can be measured.
pub const HEADER: usize = 17;
/// Runs that a node counts at a time; another one makes it forget the oldest.
const MAX_RUNS: usize = 64;
/// How long the answer to a short message may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes a second of the slowest way whose answers are waited for: 100 kbit/s.
const SLOWEST: f64 = 12_500.0;
/// No answer is waited for longer.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait for so many bytes to arrive, on the slowest of ways.
pub fn patience(bytes: usize) -> Duration {
    (PATIENCE + Duration::from_secs_f64(bytes as f64 / SLOWEST)).min(LONGEST_PATIENCE)
}

/// What a message of a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counted by the receiver.
    Data,
    /// Sent back by the receiver.
    Ask,
    /// What was sent back.
    Answer,
    /// The sender asks what was counted.
    Finish,
    /// What was counted; see [`Report`].
    Report,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Data, Kind::Ask, Kind::Answer, Kind::Finish, Kind::Report];
}

/// What a message of a measurement says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Chosen at random by the sender, for each measurement.
    pub run: u64,
    /// Of [`Kind::Data`], [`Kind::Ask`] and [`Kind::Answer`]; 0 else.
    pub sequence: u64,
}

impl Header {
    /// A message of `size` bytes, at least [`HEADER`].
    pub fn emit(&self, size: usize) -> Vec<u8> {
        let mut message = vec![0; size.max(HEADER)];
        message[0] = self.kind as u8;
        message[1..9].copy_from_slice(&self.run.to_be_bytes());
        message[9..HEADER].copy_from_slice(&self.sequence.to_be_bytes());
        message
    }

    /// Reads the beginning of a message; `None`: it is none of a measurement.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (&kind, rest) = message.split_first()?;
        let (run, rest) = rest.split_first_chunk()?;
        let sequence = rest.first_chunk().map_or(0, |sequence| u64::from_be_bytes(*sequence));
        let kind = *Kind::ALL.get(usize::from(kind))?;
        Some(Header { kind, run: u64::from_be_bytes(*run), sequence })
    }
}

/// What the receiver counted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages that arrived.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// One more than the highest sequence number: what should have arrived.
    pub expected: u64,
    /// From the first arrival to the last.
    pub nanoseconds: u64,
}

impl Report {
    /// The message that carries it.
    pub fn emit(&self, run: u64) -> Vec<u8> {
        let mut message = Header { kind: Kind::Report, run, sequence: 0 }.emit(HEADER);
        message.truncate(9);
        for number in [self.messages, self.bytes, self.expected, self.nanoseconds] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message
    }

    /// Reads it, of a message of [`Kind::Report`].
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (numbers, []) = message.get(9..)?.as_chunks::<8>() else { return None };
        let [messages, bytes, expected, nanoseconds] = <[[u8; 8]; 4]>::try_from(numbers).ok()?;
        let number = u64::from_be_bytes;
        Some(Report {
            messages: number(messages),
            bytes: number(bytes),
            expected: number(expected),
            nanoseconds: number(nanoseconds),
        })
    }
}

#[derive(Debug)]
struct Run {
    from: NodeId,
    id: u64,
    began: Instant,
    report: Report,
}

/// The end that counts and answers. Bounded: it holds [`MAX_RUNS`] runs of some 80 bytes.
#[derive(Debug, Default)]
pub struct Responder {
    /// The latest used first.
    runs: VecDeque<Run>,
}

impl Responder {
    /// Takes a message of a measurement that arrived at `now`; the answer to send back, if there is one.
    pub fn handle(&mut self, now: Instant, from: NodeId, message: &[u8]) -> Option<Vec<u8>> {
        let Header { kind, run, sequence } = Header::parse(message)?;
        match kind {
            Kind::Data => {
                let run = self.run(now, from, run);
                run.report.messages += 1;
                run.report.bytes += message.len() as u64;
                run.report.expected = run.report.expected.max(sequence.saturating_add(1));
                run.report.nanoseconds =
                    u64::try_from(now.saturating_duration_since(run.began).as_nanos()).unwrap_or(u64::MAX);
                None
            }
            Kind::Ask => {
                let mut answer = message.to_vec();
                answer[0] = Kind::Answer as u8;
                Some(answer)
            }
            Kind::Finish => {
                let at = self.runs.iter().position(|known| (known.from, known.id) == (from, run));
                let report = at.and_then(|at| self.runs.remove(at)).map(|run| run.report);
                Some(report.unwrap_or_default().emit(run))
            }
            // For a client of this node.
            Kind::Answer | Kind::Report => None,
        }
    }

    fn run(&mut self, now: Instant, from: NodeId, id: u64) -> &mut Run {
        let at = self.runs.iter().position(|run| (run.from, run.id) == (from, id));
        match at {
            Some(0) => {}
            Some(at) => self.runs.swap(0, at),
            None => {
                self.runs.truncate(MAX_RUNS - 1);
                self.runs.push_front(Run { from, id, began: now, report: Report::default() });
            }
        }
        &mut self.runs[0]
    }
}

/// Answers what `listener` hears, until the node stops. While an answer waits for room, measurements wait, and nothing
/// else.
pub(crate) async fn respond(node: NodeHandle, mut listener: Listener) {
    let mut responder = Responder::default();
    while let Some(message) = listener.recv().await {
        let answer = responder.handle(Instant::now(), message.origin.node, &message.payload);
        let Some(answer) = answer else { continue };
        let options = SendOptions {
            stream: message.stream,
            lifetime: Some(patience(answer.len())),
            ..SendOptions::new(message.mode)
        };
        // Who asked and is gone since misses nothing.
        let _ = node.send_with(&message.origin.node.to_string(), options, answer).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: NodeId = NodeId([7; 16]);

    fn data(run: u64, sequence: u64) -> Vec<u8> {
        Header { kind: Kind::Data, run, sequence }.emit(64)
    }

    #[test]
    fn counts_and_reports_once() {
        let mut responder = Responder::default();
        let start = Instant::now();
        for (delay, sequence) in [(0, 0), (1, 2), (2, 1), (5, 9)] {
            let now = start + Duration::from_nanos(delay);
            assert_eq!(responder.handle(now, PEER, &data(1, sequence)), None);
        }
        let finish = Header { kind: Kind::Finish, run: 1, sequence: 0 }.emit(0);
        let report = responder.handle(start, PEER, &finish).unwrap();
        assert_eq!(Header::parse(&report).unwrap().kind, Kind::Report);
        let counted = Report { messages: 4, bytes: 256, expected: 10, nanoseconds: 5 };
        assert_eq!(Report::parse(&report), Some(counted));
        // The run is forgotten, and nobody else's was asked for.
        let report = responder.handle(start, PEER, &finish).unwrap();
        assert_eq!(Report::parse(&report), Some(Report::default()));
    }

    #[test]
    fn sends_back_what_is_asked() {
        let ask = Header { kind: Kind::Ask, run: 3, sequence: 4 }.emit(100);
        let answer = Responder::default().handle(Instant::now(), PEER, &ask).unwrap();
        assert_eq!(answer.len(), 100);
        assert_eq!(Header::parse(&answer), Some(Header { kind: Kind::Answer, run: 3, sequence: 4 }));
        assert_eq!(Responder::default().handle(Instant::now(), PEER, &answer), None);
    }

    #[test]
    fn memory_is_bounded_and_garbage_is_ignored() {
        let mut responder = Responder::default();
        for run in 0..10 * MAX_RUNS as u64 {
            responder.handle(Instant::now(), PEER, &data(run, u64::MAX));
        }
        assert_eq!(responder.runs.len(), MAX_RUNS);
        for garbage in [&b""[..], b"\x00", b"\xff01234567", b"\x0101234567"] {
            let _ = responder.handle(Instant::now(), PEER, garbage);
        }
        assert_eq!(Report::parse(&data(1, 1)), None);
    }
}
