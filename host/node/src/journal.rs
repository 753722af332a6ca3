//! Writes the journal of policy questions: a thread writes, nobody waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlan_core::policy::{Answer, Question};
use overlan_journal::{Exchange, JournalError, Record, Writer, encode};
use serde::{Deserialize, Serialize};

/// Records that may wait for the disk.
const QUEUE_RECORDS: usize = 256;
/// Bytes that may wait for the disk.
const QUEUE_BYTES: usize = 16 << 20;

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Written to the journal.
    pub written: u64,
    /// Dropped, because the disk was slower than the questions, or one was too large.
    pub dropped: u64,
    /// Lost, because the disk refused them.
    pub failed: u64,
}

/// Where policy workers put their records. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Recorder {
    /// Opens the journal in a folder and starts the thread.
    ///
    /// # Errors
    /// The folder can't be written, or there is no thread to be had.
    pub(crate) fn open(folder: PathBuf, limit_bytes: u64) -> Result<Self, JournalError> {
        let writer = Writer::open(&folder, limit_bytes)?;
        let (queue, records) = sync_channel(QUEUE_RECORDS);
        let shared = Arc::new(Shared::default());
        let kept = shared.clone();
        let spawned =
            thread::Builder::new().name("policy-journal".into()).spawn(move || kept.write(&records, writer));
        spawned.map_err(|source| JournalError::Io { path: folder, source })?;
        Ok(Recorder { queue, shared })
    }

    /// Queues a record, or drops and counts it; never waits.
    pub(crate) fn record(&self, record: &Record) {
        let queued = encode(record)
            .filter(|bytes| self.shared.queued_bytes.load(Ordering::Relaxed) + bytes.len() <= QUEUE_BYTES);
        let sent = queued.is_some_and(|bytes| {
            let length = bytes.len();
            self.shared.queued_bytes.fetch_add(length, Ordering::Relaxed);
            let sent = self.queue.try_send(bytes).is_ok();
            if !sent {
                self.shared.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            }
            sent
        });
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn status(&self) -> JournalStatus {
        let Shared { written, dropped, failed, .. } = &*self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalStatus { written: count(written), dropped: count(dropped), failed: count(failed) }
    }
}

impl Shared {
    fn write(&self, records: &Receiver<Vec<u8>>, mut writer: Writer) {
        let mut failing = false;
        while let Ok(record) = records.recv() {
            self.queued_bytes.fetch_sub(record.len(), Ordering::Relaxed);
            // Logged once for each change, since every record would say the same.
            match writer.append(&record) {
                Ok(()) => {
                    self.written.fetch_add(1, Ordering::Relaxed);
                    if failing {
                        tracing::info!("the policy journal is written again");
                    }
                    failing = false;
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        tracing::warn!(%error, "the policy journal loses records");
                    }
                    failing = true;
                }
            }
        }
    }
}

/// A question and its outcome as the journal has them.
pub(crate) fn exchange(question: Question, outcome: Result<Answer, String>) -> Option<Exchange> {
    macro_rules! exchange {
        ($($kind:ident),*) => {
            match (question, outcome) {
                $(
                    (Question::$kind(question), Ok(Answer::$kind(answer))) => {
                        Some(Exchange::$kind(question, Ok(answer)))
                    }
                    (Question::$kind(question), Err(fault)) => Some(Exchange::$kind(question, Err(fault))),
                )*
                // A worker answers its own kind only.
                _ => None,
            }
        };
    }
    exchange!(Assignment, Sizing, Failover)
}

/// The time of a record.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
