//! What the two key files have in common: lines of words, `#` starts a comment, keys in hexadecimal.

use zeroize::Zeroizing;

/// The lines that say something: number (from 1) and words.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        (!words.is_empty()).then_some((index + 1, words))
    })
}

/// A secret of 64 hexadecimal digits.
pub(crate) fn secret(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}

/// Appends `bytes` in hexadecimal digits. `out` must have room: growing would leave a copy behind.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    debug_assert!(out.capacity() - out.len() >= 2 * bytes.len(), "a secret's buffer must not grow");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(digit.into(), 16).expect("four bits are a hexadecimal digit"));
        }
    }
}
