//! Reading, past damage to the next whole record.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use overlan_contract::Attributes;

use crate::{
    CURRENT, Exchange, HEADER, JournalError, MAX_RECORD_BYTES, PREFIX_BYTES, PREVIOUS, Record, checksum,
};

/// How often a folder is looked at again whose writer begins another file meanwhile.
const MAX_LOOKS: usize = 16;

/// What is in a journal, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    /// All whole records.
    pub records: Vec<Record>,
    /// Where files are damaged: what was skipped.
    pub damage: Vec<Damage>,
}

/// A piece of a file that holds no whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The whole records before it.
    pub records: usize,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// Bytes from there to the next whole record, or to the end of the file.
    pub lost_bytes: u64,
    /// What is wrong where it begins.
    pub kind: DamageKind,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// It claims more than there is up to the end of the file: its writer was killed, the file was cut, or its length is
    /// damaged.
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
            DamageKind::Cut => "has a record that its end cuts off",
            DamageKind::Length => "has a record of an impossible length",
            DamageKind::Checksum => "has a record with a wrong checksum",
            DamageKind::Content => "has a record that cannot be understood",
        };
        let Damage { path, records, offset, lost_bytes, .. } = self;
        write!(
            f,
            "{} {what} at byte {offset}, behind {records} whole ones: {lost_bytes} bytes were skipped there",
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
        let file = open(path).map_err(JournalError::io(path))?;
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

/// A FIFO would be waited for, and a device never ends.
fn open(path: &Path) -> io::Result<File> {
    match path.metadata()?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The previous and the current file of one moment: a writer may exchange them between two looks.
fn files(folder: &Path) -> Result<[Option<File>; 2], JournalError> {
    let open = |name| {
        let path = folder.join(name);
        match open(&path) {
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
        let (records, damage) = read_file(path, file)?;
        self.records.extend(records);
        self.damage.extend(damage);
        Ok(())
    }
}

/// The whole records of a file, and where it is damaged.
fn read_file(path: &Path, mut file: File) -> Result<(Vec<Record>, Vec<Damage>), JournalError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(JournalError::io(path))?;
    let name = &HEADER[..7];
    let version = match &bytes[..] {
        bytes if bytes.starts_with(&HEADER) => Version::Two,
        bytes if bytes.starts_with(name) && bytes.get(7) == Some(&1) => Version::One,
        bytes => {
            let found = match bytes {
                [] => "it is empty".to_owned(),
                bytes if bytes.starts_with(name) && bytes.len() > 7 => format!("it has version {}", bytes[7]),
                _ => "it begins otherwise".to_owned(),
            };
            return Err(JournalError::NotAJournal { path: path.to_owned(), found });
        }
    };
    let (mut records, mut damage, mut offset) = (Vec::new(), Vec::new(), HEADER.len());
    while offset < bytes.len() {
        match version.record(&bytes[offset..]) {
            Ok((record, length)) => {
                records.push(record);
                offset += length;
            }
            Err(kind) => {
                let next = version.next_record(&bytes, offset);
                damage.push(Damage {
                    path: path.to_owned(),
                    records: records.len(),
                    offset: offset as u64,
                    lost_bytes: (next - offset) as u64,
                    kind,
                });
                offset = next;
            }
        }
    }
    Ok((records, damage))
}

/// How a file's payloads are laid out.
#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// A record of version 1: no limits, and nothing known of the instance.
type VersionOne = (u64, String, String, Attributes, u64, Option<u64>, Exchange);

impl Version {
    /// The first record, and how many bytes it takes.
    fn record(self, bytes: &[u8]) -> Result<(Record, usize), DamageKind> {
        let (payload, sum) = framed(bytes)?;
        if checksum(payload) != sum {
            return Err(DamageKind::Checksum);
        }
        let record = self.decode(payload).ok_or(DamageKind::Content)?;
        Ok((record, PREFIX_BYTES + payload.len()))
    }

    fn decode(self, payload: &[u8]) -> Option<Record> {
        match self {
            Version::Two => postcard::take_from_bytes(payload).ok(),
            Version::One => postcard::take_from_bytes::<VersionOne>(payload).ok().map(|(record, rest)| {
                let (unix_ms, plugin, sha256, config, elapsed_us, fuel, exchange) = record;
                let (limits, fresh) = (Vec::new(), false);
                let record =
                    Record { unix_ms, plugin, sha256, config, elapsed_us, fuel, exchange, limits, fresh };
                (record, rest)
            }),
        }
        .filter(|(_, rest)| rest.is_empty())
        .map(|(record, _)| record)
    }

    /// Where the next whole record begins behind the one at `damaged`, or the file ends.
    fn next_record(self, bytes: &[u8], damaged: usize) -> usize {
        // Where the damaged one says that it ends, most likely.
        let end = framed(&bytes[damaged..]).map(|(payload, _)| damaged + PREFIX_BYTES + payload.len());
        let places = end.into_iter().chain(damaged + 1..bytes.len());
        places.into_iter().find(|&at| at < bytes.len() && self.is_whole(&bytes[at..])).unwrap_or(bytes.len())
    }

    /// Whether a record begins here. Most of what is none is told by its first fields, without a checksum over all that
    /// it claims to be.
    fn is_whole(self, bytes: &[u8]) -> bool {
        framed(bytes).is_ok_and(|(payload, sum)| self.decode(payload).is_some() && checksum(payload) == sum)
    }
}

/// The first payload and the checksum that it should have.
fn framed(bytes: &[u8]) -> Result<(&[u8], u64), DamageKind> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(DamageKind::Cut)?;
    let (sum, rest) = rest.split_first_chunk::<8>().ok_or(DamageKind::Cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_RECORD_BYTES {
        return Err(DamageKind::Length);
    }
    let payload = rest.get(..length).ok_or(DamageKind::Cut)?;
    Ok((payload, u64::from_le_bytes(*sum)))
}
