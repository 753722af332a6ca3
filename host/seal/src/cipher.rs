//! Authenticated encryption.

use core::fmt;

use overlan_core::crypto::Aead;
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use zeroize::Zeroizing;

/// A cipher of the data path. The codes are part of the wire format.
///
/// Sealing and opening 1,400 bytes in place, in ns (x86-64 with AES instructions, the least of some runs of 200,000):
///
/// ```text
///                      ring 0.17      aws-lc-rs 1.19
/// AES-128-GCM          255  266        266  293
/// AES-256-GCM          283  288        282  312
/// ChaCha20-Poly1305    737  712        742  713
/// ```
///
/// Where the processor has AVX-512, aws-lc-rs takes 211 and 204 instead of ring's 260 and 257 in such a loop; whole transfers
/// between two nodes gained nothing by it (16.2 Gbit/s, 16.3 with ring).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// AES-128-GCM (NIST SP 800-38D): the fastest where the processor has AES instructions.
    Aes128Gcm = 1,
    /// AES-256-GCM.
    Aes256Gcm = 2,
    /// ChaCha20-Poly1305 (RFC 8439): every node has it, and it is fast without AES instructions.
    ChaCha20Poly1305 = 3,
}

impl Suite {
    /// The suite of a code; `None` for one of a later version.
    pub fn from_code(code: u8) -> Option<Suite> {
        [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
            .into_iter()
            .find(|suite| *suite as u8 == code)
    }

    /// What is fast on this processor, the fastest first.
    pub fn fast() -> Vec<Suite> {
        #[cfg(target_arch = "x86_64")]
        let aes =
            std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let aes = false;
        if aes {
            vec![Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
        } else {
            vec![Suite::ChaCha20Poly1305]
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// Bytes of its key.
    pub(crate) fn key_len(self) -> usize {
        self.algorithm().key_len()
    }
}

/// One derived key, used in place.
///
/// Like all of GCM it breaks when a nonce is used twice under the key: that a counter only grows is the
/// caller's duty, which is why `ring` calls its type for caller-made nonces `LessSafeKey`.
pub struct Cipher {
    suite: Suite,
    key: LessSafeKey,
    mask: Zeroizing<[u8; 12]>,
}

impl Cipher {
    /// A cipher whose nonces are combined by exclusive or with a secret mask, as in TLS 1.3 (RFC 8446 section 5.3):
    /// one guess at a key cannot be tried on all sessions at once.
    pub(crate) fn new(suite: Suite, key: &[u8], mask: [u8; 12]) -> Self {
        let key = UnboundKey::new(suite.algorithm(), key).expect("the key is as long as the suite's keys");
        Cipher { suite, key: LessSafeKey::new(key), mask: Zeroizing::new(mask) }
    }

    /// What it encrypts with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    fn nonce(&self, mut nonce: [u8; 12]) -> Nonce {
        nonce.iter_mut().zip(self.mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Aead for Cipher {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16] {
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(nonce), Aad::from(associated), text)
            .expect("only texts above 64 GiB fail, and datagrams have 64 KiB");
        tag.as_ref().try_into().expect("every suite's tags have 16 bytes")
    }

    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Option<usize> {
        self.key.open_in_place(self.nonce(nonce), Aad::from(associated), sealed).ok().map(|text| text.len())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({:?})", self.suite)
    }
}
