//! The operator's key: signs cluster documents, and lies on no member.

use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use crate::text;

/// An Ed25519 key in a file of its own: `#` comments, and a line `operator` with the seed (RFC 8032 section 5.1.5) in 64
/// hexadecimal digits. Members are told its public key.
pub struct OperatorKey(SigningKey);

/// The file holds no operator key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no operator key: one line `operator` with 64 hexadecimal digits, as `overlan keygen --operator` makes it"
)]
pub struct NoOperatorKey;

impl OperatorKey {
    /// A new key of 32 bytes from a cryptographic random source.
    pub fn generate(random: [u8; 32]) -> Self {
        OperatorKey(SigningKey::from_bytes(&Zeroizing::new(random)))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It is no such file; the error never tells a secret.
    pub fn parse(text: &str) -> Result<Self, NoOperatorKey> {
        let mut lines = text::lines(text);
        let (Some((_, words)), None) = (lines.next(), lines.next()) else { return Err(NoOperatorKey) };
        let ["operator", seed] = words[..] else { return Err(NoOperatorKey) };
        let seed = text::secret(seed).ok_or(NoOperatorKey)?;
        Ok(OperatorKey(SigningKey::from_bytes(&seed)))
    }

    /// The file's text. It holds the secret: write it with mode 0600.
    pub fn to_text(&self) -> Zeroizing<String> {
        const HEAD: &str =
            "# Overlan operator key: signs cluster documents. A secret; no member needs it.\noperator ";
        let mut out = Zeroizing::new(String::with_capacity(HEAD.len() + 65));
        out.push_str(HEAD);
        text::push_hex(&mut out, self.0.as_bytes());
        out.push('\n');
        out
    }

    /// The public key, for `[cluster] operator_key`.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_nothing_else_does() {
        let key = OperatorKey::generate([5; 32]);
        let text = key.to_text();
        assert_eq!(OperatorKey::parse(&text).unwrap().public(), key.public());
        let wrong = ["", "operator", "operator 00", "node 00", &format!("{}{}", *text, *text)];
        wrong.into_iter().for_each(|text| assert!(OperatorKey::parse(text).is_err(), "{text}"));
    }
}
