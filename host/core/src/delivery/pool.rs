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
type Buffers = Arc<ArrayQueue<Vec<u8>>>;

/// Makes and keeps buffers; takes next to no memory until the first large one.
#[derive(Debug, Default)]
pub(crate) struct Pool(Option<Buffers>);

/// A payload that gives its buffer back.
struct Pooled {
    bytes: Vec<u8>,
    buffers: Buffers,
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
        let _ = self.buffers.push(bytes);
    }
}

impl Pool {
    /// An empty buffer with room for so many bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = if is_pooled(len) { self.buffers().pop().unwrap_or_default() } else { Vec::new() };
        bytes.reserve_exact(len);
        bytes
    }

    /// A payload whose buffer comes back once nobody holds it.
    pub(crate) fn share(&mut self, bytes: Vec<u8>) -> Bytes {
        if is_pooled(bytes.len()) {
            Bytes::from_owner(Pooled { bytes, buffers: self.buffers().clone() })
        } else {
            bytes.into()
        }
    }

    /// Frees what is kept, and what comes back of before.
    pub(crate) fn shrink(&mut self) {
        self.0 = None;
    }

    fn buffers(&mut self) -> &Buffers {
        self.0.get_or_insert_with(|| Arc::new(ArrayQueue::new(BUFFERS)))
    }
}

fn is_pooled(len: usize) -> bool {
    (LARGE..=LARGEST).contains(&len)
}
