//! What must hold of an inbox between any two calls.

use super::{Inbox, MAX_UNRELIABLE_BYTES, MAX_UNRELIABLE_PARTIAL, Partial};

impl Inbox {
    /// Panics where the counters do not say what is there, or a limit is exceeded.
    pub(crate) fn check(&self) {
        assert_eq!(self.waiting, self.streams.values().map(|stream| stream.ready.len()).sum::<usize>());
        assert_eq!(self.unreliable_partial, self.unreliable.values().map(Partial::total).sum::<usize>());
        assert!(self.unreliable.len() <= MAX_UNRELIABLE_PARTIAL, "{} in pieces", self.unreliable.len());
        assert!(self.unreliable_partial <= MAX_UNRELIABLE_BYTES, "{} in pieces", self.unreliable_partial);
        assert!(self.waiting > 0 || self.unreliable_bytes == 0, "{} held by nothing", self.unreliable_bytes);
        self.streams.values().for_each(|stream| stream.check());
    }
}
