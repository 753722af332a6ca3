//! Messages to members and roles that a node which has just started does not know yet.

use std::time::Duration;

use overlan_core::Instant;

use super::{NodeCore, Outbox, Outgoing, SendFailure, resolve};

/// A node that starts joins, learns the table and the plan, within this time or not at all. Until then whom it does not
/// know may be about to come.
const START: Duration = Duration::from_secs(3);
/// Batches that wait so.
const MAX_EARLY: usize = 1_024;

impl Outbox {
    /// Whether the messages are to wait; behind others, so that none overtakes another.
    pub(super) fn is_early(&self, core: &NodeCore, now: Instant, outgoing: &Outgoing) -> bool {
        now < end() && self.early.len() < MAX_EARLY && (!self.early.is_empty() || is_unknown(core, outgoing))
    }

    /// When the first of them is told that it waited in vain.
    pub(super) fn early_timeout(&self) -> Option<Instant> {
        (!self.early.is_empty()).then(end)
    }

    /// Takes those whose turn it is; whether there were any.
    pub(in crate::driver) fn take_early(&mut self, core: &mut NodeCore, now: Instant) -> bool {
        let waiting = self.early.len();
        while let Some(first) = self.early.front()
            && (now >= end() || first.queued.is_closed() || !is_unknown(core, first))
            && let Some(first) = self.early.pop_front()
        {
            self.take(core, now, first);
        }
        self.early.len() < waiting
    }
}

/// The node's clock begins with its start.
fn end() -> Instant {
    Instant::ZERO + START
}

fn is_unknown(core: &NodeCore, outgoing: &Outgoing) -> bool {
    use SendFailure::{NoOwner, NoPeers, UnknownNode};
    matches!(resolve(core, &outgoing.to), Err(UnknownNode(_) | NoOwner(_) | NoPeers))
}
