//! The checked reader and the writer's helpers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why bytes could not be decoded. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends before the field does.
    #[error("truncated: {0} is missing")]
    Truncated(&'static str),
    /// The field holds a value outside its range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The text is not UTF-8, or holds what is not printable.
    #[error("{0} is not printable UTF-8")]
    NotText(&'static str),
    /// The datagram speaks another wire version.
    #[error("wire version {0} is not supported")]
    Version(u8),
    /// Bytes are left over where none may be.
    #[error("{0} trailing bytes")]
    Trailing(usize),
}

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Takes a 16-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Takes a 32-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Takes a 64-bit number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Takes text of at most `max` bytes behind a length byte.
    ///
    /// # Errors
    /// Truncated, longer than `max`, not UTF-8, or not [printable](is_printable).
    pub fn text(&mut self, max: usize, what: &'static str) -> Result<String, DecodeError> {
        let len = usize::from(self.u8(what)?);
        if len > max {
            return Err(DecodeError::OutOfRange(what));
        }
        let bytes = self.take(len, what)?;
        let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::NotText(what))?;
        if is_printable_text(text) { Ok(text.into()) } else { Err(DecodeError::NotText(what)) }
    }

    /// Takes an address: 4 or 6, then its bytes.
    ///
    /// # Errors
    /// Truncated, or another family.
    pub fn ip(&mut self, what: &'static str) -> Result<IpAddr, DecodeError> {
        match self.u8(what)? {
            4 => Ok(Ipv4Addr::from(self.array::<4>(what)?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>(what)?).into()),
            _ => Err(DecodeError::OutOfRange(what)),
        }
    }

    /// Takes a block behind a 16-bit length.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] names `what`.
    pub fn block(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16(what)?);
        self.take(len, what)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] where bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

/// Whether a character may stand in texts of the wire. They end on terminals and in logs: control characters,
/// line and paragraph separators, and what reverses the direction of the text around it may not.
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether all of a text is [printable](is_printable).
pub fn is_printable_text(text: &str) -> bool {
    is_printable_ascii(text) || text.chars().all(is_printable)
}

/// Most text is, and documents hold much of it.
fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Appends text behind a length byte, cut at a character boundary to `max` (at most 255) bytes, with U+FFFD in
/// the place of what is not [printable](is_printable).
pub fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    if text.len() <= max.min(255) && is_printable_ascii(text) {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let at = out.len();
    out.push(0);
    for c in text.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }) {
        if out.len() - at - 1 + c.len_utf8() > max.min(255) {
            break;
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out[at] = (out.len() - at - 1) as u8;
}

/// Appends an address: 4 or 6, then its bytes.
pub(crate) fn put_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

/// Appends what `body` writes behind its 16-bit length.
pub(crate) fn put_block(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out);
    let len = u16::try_from(out.len() - at - 2).expect("blocks are built from bounded fields");
    out[at..at + 2].copy_from_slice(&len.to_be_bytes());
}
