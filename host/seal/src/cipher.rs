//! Authenticated encryption.

use core::fmt;

use overlan_core::crypto::Aead;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// AES-256-GCM under one derived key, in place.
///
/// Like all of GCM it breaks when a nonce is used twice under the key: that a counter only grows is the
/// caller's duty, which is why `ring` calls its type for caller-made nonces `LessSafeKey`.
pub struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 keys have 32 bytes");
        Cipher(LessSafeKey::new(key))
    }
}

impl Aead for Cipher {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), text)
            .expect("only texts above 64 GiB fail, and datagrams have 64 KiB");
        tag.as_ref().try_into().expect("GCM tags have 16 bytes")
    }

    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(associated), sealed).ok().map(|text| text.len())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(AES-256-GCM)")
    }
}
