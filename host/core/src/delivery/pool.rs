//! Buffers of large messages, used again: making them anew costs the kernel a cleared page for each 4 KiB.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

/// Smaller ones are cheap to make.
const LARGE: usize = 32 << 10;
/// Buffers kept.
const BUFFERS: usize = 16;
/// Largest buffer kept, in bytes.
const LARGEST: usize = 2 << 20;

/// Buffers that consumers have let go of.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<ArrayQueue<Vec<u8>>>);

/// A payload that gives its buffer back.
struct Pooled {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.clear();
        // One too many is freed.
        let _ = self.pool.0.push(bytes);
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Pool(Arc::new(ArrayQueue::new(BUFFERS)))
    }

    /// An empty buffer with room for so many bytes.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut bytes = if is_pooled(len) { self.0.pop().unwrap_or_default() } else { Vec::new() };
        bytes.reserve_exact(len);
        bytes
    }

    /// A payload whose buffer comes back once nobody holds it.
    pub(crate) fn share(&self, bytes: Vec<u8>) -> Bytes {
        if is_pooled(bytes.len()) {
            Bytes::from_owner(Pooled { bytes, pool: self.clone() })
        } else {
            bytes.into()
        }
    }

    /// Frees what is kept.
    pub(crate) fn shrink(&self) {
        while self.0.pop().is_some() {}
    }
}

fn is_pooled(len: usize) -> bool {
    (LARGE..=LARGEST).contains(&len)
}
