//! Dropping datagrams on purpose.

use std::sync::atomic::{AtomicU8, Ordering};

/// What a socket silently drops: for tests, and for `overlan demo`, which cuts an adapter this way
/// without root. It costs one relaxed load per call.
///
/// A dropped send looks like a sent one, and a dropped arrival like none, as with a pulled cable beyond
/// the first switch: the kernel reports nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Impairment {
    /// Nothing.
    #[default]
    None,
    /// Whatever is sent.
    DropOut,
    /// Whatever arrives.
    DropIn,
    /// Both.
    DropBoth,
}

#[derive(Debug, Default)]
pub(crate) struct AtomicImpairment(AtomicU8);

const OUT: u8 = 1;
const IN: u8 = 2;

impl AtomicImpairment {
    pub(crate) fn set(&self, impairment: Impairment) {
        let bits = match impairment {
            Impairment::None => 0,
            Impairment::DropOut => OUT,
            Impairment::DropIn => IN,
            Impairment::DropBoth => OUT | IN,
        };
        self.0.store(bits, Ordering::Relaxed);
    }

    pub(crate) fn drops_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OUT != 0
    }

    pub(crate) fn drops_in(&self) -> bool {
        self.0.load(Ordering::Relaxed) & IN != 0
    }
}
