//! Appending, within a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::scan::{Left, scan};
use crate::{HEADER, JournalError, MAX_RECORD_BYTES, PREFIX_BYTES, Record, checksum};

/// The file that records are appended to.
pub const CURRENT: &str = "current.journal";
/// The file with the records before those.
pub const PREVIOUS: &str = "previous.journal";
/// The next [`CURRENT`] until it has its header.
const NEXT: &str = "next.journal";

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
    /// The record that a killed writer left unfinished is cut off. A file that is damaged otherwise, or of another
    /// version, becomes the previous one as it is.
    ///
    /// # Errors
    /// The folder can't be made, or its files can't be read or written.
    pub fn open(folder: &Path, limit_bytes: u64) -> Result<Self, JournalError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(JournalError::io(folder))?;
        let path = folder.join(CURRENT);
        let at_path = JournalError::io(&path);
        let (file, length) = match OpenOptions::new().read(true).append(true).open(&path) {
            // It would be waited for, and is no journal.
            Ok(file) if !file.metadata().map_err(JournalError::io(&path))?.is_file() => begin(folder, false)?,
            Ok(file) => match scan(&file) {
                Ok(Left::Records { end }) => {
                    file.set_len(end).map_err(at_path)?;
                    (file, end)
                }
                Ok(Left::Nothing) => begin(folder, false)?,
                Ok(Left::Other) => begin(folder, true)?,
                Err(error) => return Err(at_path(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => begin(folder, false)?,
            Err(error) => return Err(at_path(error)),
        };
        Ok(Writer { folder: folder.to_owned(), file, length, file_limit: limit_bytes / 2 })
    }

    /// Appends a record as [`encode`] made it; begins another file first if this one is full.
    ///
    /// # Errors
    /// The file can't be written; whatever was written of the record is cut off again, if that can be done. What was
    /// appended before stays.
    pub fn append(&mut self, record: &[u8]) -> Result<(), JournalError> {
        let bytes = record.len() as u64;
        if self.length + bytes > self.file_limit && self.length > HEADER.len() as u64 {
            (self.file, self.length) = begin(&self.folder, true)?;
        }
        if let Err(source) = self.file.write_all(record) {
            let _ = self.file.set_len(self.length);
            return Err(JournalError::Io { path: self.folder.join(CURRENT), source });
        }
        self.length += bytes;
        Ok(())
    }
}

/// A new current file and its length. The one there was becomes the previous one if it is to be kept. A writer that is
/// killed in between, or a full disk, costs no record: the new file has its header before anything is moved.
fn begin(folder: &Path, keep: bool) -> Result<(File, u64), JournalError> {
    let [next, current, previous] = [NEXT, CURRENT, PREVIOUS].map(|name| folder.join(name));
    let written = || -> io::Result<File> {
        // Whatever was left there.
        let _ = fs::remove_file(&next);
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&next)?;
        file.write_all(&HEADER)?;
        Ok(file)
    };
    let file = written().map_err(JournalError::io(&next))?;
    if keep {
        match fs::rename(&current, &previous) {
            // It was moved before, and the next one could not take its place.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved.map_err(JournalError::io(&previous))?,
        }
    }
    fs::rename(&next, &current).map_err(JournalError::io(&current))?;
    Ok((file, HEADER.len() as u64))
}
