//! The journal of policy questions and answers: what a policy was asked, what it answered, and what it took.
//!
//! A journal is a folder of two files, `current.journal` and `previous.journal`. Records are appended to the first;
//! when it is full, it takes the place of the second, so that a journal never takes more than its bound on disk. The
//! next file is made ready as `next.journal`, so that a writer that is killed then loses neither. A file is
//!
//! ```text
//! 8 bytes   "ovljrnl" and the version of the format, 2
//! records, each:
//!   4 bytes   length of the payload, little-endian
//!   8 bytes   XXH64 of the payload (seed: the length), little-endian
//!   payload   a `Record` in postcard
//! ```
//!
//! Each record is written by one system call, so that a process that is killed leaves all records whole but the last.
//! What was written survives the process, not a power cut: nothing is forced to the disk. A reader takes whole records,
//! and skips what is none up to the next ([`Damage`]); a writer cuts an unfinished record off and goes on behind the last whole
//! one, and leaves a file that is damaged otherwise as the previous one.
//!
//! This crate has no clock, threads or runtime of its own: the node writes from a thread, the simulator
//! may write in place. Within a version nothing of [`Record`] may change; another layout is another version. Version 1,
//! which is read, too, has neither [`limits`](Record::limits) nor [`fresh`](Record::fresh).
//!
//! Reading order: [`Record`], [`Writer`], [`read`].

mod read;
mod record;
mod scan;
mod write;

pub use read::{Damage, DamageKind, Journal, read};
pub use record::{Exchange, Outcome, Record};
pub use write::{CURRENT, PREVIOUS, Writer, encode};

/// What a file begins with: the name of the format and its version.
pub const HEADER: [u8; 8] = *b"ovljrnl\x02";
/// Largest payload in bytes: the largest question there is (4,096 nodes, 16,384 duties) and its answer fit.
pub const MAX_RECORD_BYTES: usize = 32 << 20;
/// Bytes before each payload.
const PREFIX_BYTES: usize = 12;

/// Why a journal cannot be read or written at all.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or folder can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else, or of another version.
    #[error("{path} is no journal of version {}: {found}; give a journal file, or the folder that a node keeps it in (STATE_DIR/journal)", HEADER[7])]
    NotAJournal {
        /// Which file.
        path: std::path::PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The folder has no journal in it.
    #[error("{0} holds no journal; a node keeps it in STATE_DIR/journal unless `[policy] journal = 0`")]
    Empty(std::path::PathBuf),
}

impl JournalError {
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| JournalError::Io { path, source }
    }
}

/// The checksum of a payload.
fn checksum(payload: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(payload.len() as u64, payload)
}
