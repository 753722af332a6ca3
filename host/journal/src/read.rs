//! Reading, up to the first damage.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{CURRENT, HEADER, JournalError, MAX_RECORD_BYTES, PREFIX_BYTES, PREVIOUS, Record, checksum};

/// What is in a journal, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    /// All whole records before the first damage of each file.
    pub records: Vec<Record>,
    /// Where files are damaged. What follows there is lost.
    pub damage: Vec<Damage>,
}

/// Where a file stops being whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Its whole records.
    pub records: usize,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// Bytes from there to the end of the file.
    pub lost_bytes: u64,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file ends in the middle of it: its writer was killed, or the file was cut.
    Cut,
    /// It claims to be larger than any record.
    Length,
    /// Its checksum is another's.
    Checksum,
    /// Its checksum is right, but it is no record of this version.
    Content,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DamageKind::Cut => "ends in the middle of a record",
            DamageKind::Length => "has a record of an impossible length",
            DamageKind::Checksum => "has a record with a wrong checksum",
            DamageKind::Content => "has a record that cannot be understood",
        };
        let Damage { path, records, offset, lost_bytes, .. } = self;
        write!(
            f,
            "{} {what} at byte {offset}: read the {records} records before it, not the {lost_bytes} bytes from there on",
            path.display()
        )
    }
}

/// Reads a journal: a folder as a [`Writer`](crate::Writer) keeps it, or one of its files.
///
/// # Errors
/// It can't be read, or is none. Damage is no error: it stands in the result.
pub fn read(path: &Path) -> Result<Journal, JournalError> {
    if !path.is_dir() {
        let mut journal = Journal::default();
        journal.add(path)?;
        return Ok(journal);
    }
    let mut journal = Journal::default();
    let mut found = false;
    for name in [PREVIOUS, CURRENT] {
        match journal.add(&path.join(name)) {
            Ok(()) => found = true,
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if found { Ok(journal) } else { Err(JournalError::Empty(path.to_owned())) }
}

impl Journal {
    fn add(&mut self, path: &Path) -> Result<(), JournalError> {
        let (mut records, _, damage) = read_file(path)?;
        self.records.append(&mut records);
        self.damage.extend(damage);
        Ok(())
    }
}

/// The whole records of a file, where they end, and what is wrong there.
pub(crate) fn read_file(path: &Path) -> Result<(Vec<Record>, u64, Option<Damage>), JournalError> {
    let bytes = fs::read(path).map_err(JournalError::io(path))?;
    if !bytes.starts_with(&HEADER) {
        let found = match &bytes[..] {
            [] => "it is empty".to_owned(),
            bytes if bytes.len() > 7 && bytes.starts_with(&HEADER[..7]) => {
                format!("it has version {}", bytes[7])
            }
            _ => "it begins otherwise".to_owned(),
        };
        return Err(JournalError::NotAJournal { path: path.to_owned(), found });
    }
    let (mut records, mut offset) = (Vec::new(), HEADER.len());
    while offset < bytes.len() {
        match record(&bytes[offset..]) {
            Ok((record, length)) => {
                records.push(record);
                offset += length;
            }
            Err(kind) => {
                let lost_bytes = (bytes.len() - offset) as u64;
                let offset = offset as u64;
                let damage =
                    Damage { path: path.to_owned(), records: records.len(), offset, lost_bytes, kind };
                return Ok((records, offset, Some(damage)));
            }
        }
    }
    Ok((records, offset as u64, None))
}

/// The first record, and how many bytes it takes.
fn record(bytes: &[u8]) -> Result<(Record, usize), DamageKind> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(DamageKind::Cut)?;
    let (sum, rest) = rest.split_first_chunk::<8>().ok_or(DamageKind::Cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_RECORD_BYTES {
        return Err(DamageKind::Length);
    }
    let payload = rest.get(..length).ok_or(DamageKind::Cut)?;
    if checksum(payload) != u64::from_le_bytes(*sum) {
        return Err(DamageKind::Checksum);
    }
    match postcard::take_from_bytes(payload) {
        Ok((record, [])) => Ok((record, PREFIX_BYTES + length)),
        Ok(_) | Err(_) => Err(DamageKind::Content),
    }
}
