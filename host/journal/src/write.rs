//! Appending, within a bound.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::read::read_file;
use crate::{HEADER, JournalError, MAX_RECORD_BYTES, PREFIX_BYTES, Record, checksum};

/// The file that records are appended to.
pub const CURRENT: &str = "current.journal";
/// The file with the records before those.
pub const PREVIOUS: &str = "previous.journal";

/// A record as it stands in a file. `None`: it is larger than [`MAX_RECORD_BYTES`].
pub fn encode(record: &Record) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PREFIX_BYTES];
    // Neither a vector nor the types of the contract refuse; a record that cannot be written is not.
    bytes = postcard::to_extend(record, bytes).ok()?;
    let payload = bytes.len() - PREFIX_BYTES;
    if payload > MAX_RECORD_BYTES {
        return None;
    }
    let sum = checksum(&bytes[PREFIX_BYTES..]);
    bytes[..4].copy_from_slice(&(payload as u32).to_le_bytes());
    bytes[4..PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}

/// Appends records to a journal.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    file: File,
    length: u64,
    file_limit: u64,
}

impl Writer {
    /// Opens the journal in a folder, or begins one. `limit_bytes` is what both files together may take; a
    /// single record may exceed half of it and then has a file for itself.
    ///
    /// What a writer that was killed left unfinished is cut off. A file of another version becomes the previous one.
    ///
    /// # Errors
    /// The folder can't be made, or its files can't be read or written.
    pub fn open(folder: &Path, limit_bytes: u64) -> Result<Self, JournalError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(JournalError::io(folder))?;
        let path = folder.join(CURRENT);
        let whole = match read_file(&path) {
            Ok((_, end, _)) => Some(end),
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(JournalError::NotAJournal { .. }) => {
                let previous = folder.join(PREVIOUS);
                fs::rename(&path, &previous).map_err(JournalError::io(&previous))?;
                None
            }
            Err(error) => return Err(error),
        };
        let (file, length) = match whole {
            Some(end) => {
                let file = OpenOptions::new().append(true).open(&path).map_err(JournalError::io(&path))?;
                file.set_len(end).map_err(JournalError::io(&path))?;
                (file, end)
            }
            None => (begin(&path)?, HEADER.len() as u64),
        };
        Ok(Writer { folder: folder.to_owned(), file, length, file_limit: limit_bytes / 2 })
    }

    /// Appends a record as [`encode`] made it; begins another file first if this one is full.
    ///
    /// # Errors
    /// The file can't be written; whatever was written of the record is cut off again, if that can be done.
    pub fn append(&mut self, record: &[u8]) -> Result<(), JournalError> {
        let path = self.folder.join(CURRENT);
        let bytes = record.len() as u64;
        if self.length + bytes > self.file_limit && self.length > HEADER.len() as u64 {
            let previous = self.folder.join(PREVIOUS);
            fs::rename(&path, &previous).map_err(JournalError::io(&previous))?;
            self.file = begin(&path)?;
            self.length = HEADER.len() as u64;
        }
        if let Err(source) = self.file.write_all(record) {
            let _ = self.file.set_len(self.length);
            return Err(JournalError::Io { path, source });
        }
        self.length += bytes;
        Ok(())
    }
}

/// A new file with its header.
fn begin(path: &Path) -> Result<File, JournalError> {
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let mut file = open.map_err(JournalError::io(path))?;
    file.set_len(0).and_then(|()| file.write_all(&HEADER)).map_err(JournalError::io(path))?;
    Ok(file)
}
