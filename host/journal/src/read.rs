//! Reading, up to the first damage.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::{CURRENT, HEADER, JournalError, MAX_RECORD_BYTES, PREFIX_BYTES, PREVIOUS, Record, checksum};

/// How often a folder is looked at again whose writer begins another file meanwhile.
const MAX_LOOKS: usize = 16;

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
    let mut journal = Journal::default();
    if !path.is_dir() {
        let file = File::open(path).map_err(JournalError::io(path))?;
        journal.add(path, file)?;
        return Ok(journal);
    }
    let files = files(path)?;
    if files.iter().all(Option::is_none) {
        return Err(JournalError::Empty(path.to_owned()));
    }
    for (name, file) in [PREVIOUS, CURRENT].into_iter().zip(files) {
        if let Some(file) = file {
            journal.add(&path.join(name), file)?;
        }
    }
    Ok(journal)
}

/// The previous and the current file of one moment: a writer may exchange them between two looks.
fn files(folder: &Path) -> Result<[Option<File>; 2], JournalError> {
    let open = |name| {
        let path = folder.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::io(&path)(error)),
        }
    };
    let same = |current: &Option<File>, again: &Option<File>| -> io::Result<bool> {
        Ok(match (current, again) {
            // It is open, so that no other file can have got its number.
            (Some(current), Some(again)) => current.metadata()?.ino() == again.metadata()?.ino(),
            (None, None) => true,
            _ => false,
        })
    };
    for _ in 0..MAX_LOOKS {
        let current = open(CURRENT)?;
        let previous = open(PREVIOUS)?;
        if same(&current, &open(CURRENT)?).map_err(JournalError::io(folder))? {
            return Ok([previous, current]);
        }
    }
    let source = io::Error::other("its files change faster than they can be opened; try again");
    Err(JournalError::Io { path: folder.to_owned(), source })
}

impl Journal {
    fn add(&mut self, path: &Path, file: File) -> Result<(), JournalError> {
        let (mut records, damage) = read_file(path, file)?;
        self.records.append(&mut records);
        self.damage.extend(damage);
        Ok(())
    }
}

/// The whole records of a file, and what is wrong behind them.
fn read_file(path: &Path, mut file: File) -> Result<(Vec<Record>, Option<Damage>), JournalError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(JournalError::io(path))?;
    let name = &HEADER[..7];
    let defaults = match &bytes[..] {
        bytes if bytes.starts_with(&HEADER) => &[][..],
        bytes if bytes.starts_with(name) && bytes.get(7) == Some(&1) => &VERSION_1_LACKS,
        bytes => {
            let found = match bytes {
                [] => "it is empty".to_owned(),
                bytes if bytes.starts_with(name) && bytes.len() > 7 => format!("it has version {}", bytes[7]),
                _ => "it begins otherwise".to_owned(),
            };
            return Err(JournalError::NotAJournal { path: path.to_owned(), found });
        }
    };
    let (mut records, mut offset) = (Vec::new(), HEADER.len());
    while offset < bytes.len() {
        match record(&bytes[offset..], defaults) {
            Ok((record, length)) => {
                records.push(record);
                offset += length;
            }
            Err(kind) => {
                let lost_bytes = (bytes.len() - offset) as u64;
                let offset = offset as u64;
                let damage =
                    Damage { path: path.to_owned(), records: records.len(), offset, lost_bytes, kind };
                return Ok((records, Some(damage)));
            }
        }
    }
    Ok((records, None))
}

/// What a payload of version 1 ends without: no limits, and nothing known of the instance.
const VERSION_1_LACKS: [u8; 2] = [0, 0];

/// The first record, and how many bytes it takes; `defaults` are the fields that its version has not.
fn record(bytes: &[u8], defaults: &[u8]) -> Result<(Record, usize), DamageKind> {
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
    match postcard::take_from_bytes(&[payload, defaults].concat()) {
        Ok((record, [])) => Ok((record, PREFIX_BYTES + length)),
        Ok(_) | Err(_) => Err(DamageKind::Content),
    }
}
