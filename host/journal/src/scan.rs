//! What a writer finds: where it may go on, without the records themselves.

use std::fs::File;
use std::io::{self, BufReader, Read as _};

use crate::{HEADER, MAX_RECORD_BYTES, PREFIX_BYTES, Record, checksum};

/// What an earlier writer left.
pub(crate) enum Left {
    /// Whole records, and behind them at most one that was never finished.
    Records {
        /// Bytes up to the end of the last whole record.
        end: u64,
    },
    /// Not even a header: a writer was killed before it wrote any record.
    Nothing,
    /// Damage in the midst of it, another version, or something else.
    Other,
}

/// Reads through a file, holding one record at a time.
pub(crate) fn scan(file: &File) -> io::Result<Left> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    reader.by_ref().take(HEADER.len() as u64).read_to_end(&mut bytes)?;
    if bytes != HEADER {
        return Ok(if HEADER.starts_with(&bytes) { Left::Nothing } else { Left::Other });
    }
    let mut end = HEADER.len() as u64;
    while length - end >= PREFIX_BYTES as u64 {
        let (mut payload, mut sum) = ([0; 4], [0; 8]);
        reader.read_exact(&mut payload)?;
        reader.read_exact(&mut sum)?;
        let payload = u32::from_le_bytes(payload);
        if payload as usize > MAX_RECORD_BYTES {
            return Ok(Left::Other);
        }
        bytes.clear();
        reader.by_ref().take(payload.into()).read_to_end(&mut bytes)?;
        if bytes.len() < payload as usize {
            // What was cut is no record; one that is whole only claims to be longer.
            let whole = postcard::take_from_bytes::<Record>(&bytes).is_ok();
            return Ok(if whole { Left::Other } else { Left::Records { end } });
        }
        if checksum(&bytes) != u64::from_le_bytes(sum) {
            return Ok(Left::Other);
        }
        end += PREFIX_BYTES as u64 + u64::from(payload);
    }
    Ok(Left::Records { end })
}
