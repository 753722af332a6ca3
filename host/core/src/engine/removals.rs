//! Removals of members that live.
//!
//! Any member may sign one. Whoever takes the removed member for alive keeps it, with its sessions, and tells it. That member
//! publishes a version above the removal, under its boot. Where others did drop their half of its sessions (it was
//! forgotten while it could not be heard), they say so with a removal of that version as well, and it begins again, under a
//! boot of its own. It does so once in a while only: whoever removes it again and again would have it lose its messages.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use overlan_wire::{Forgotten, Frame, NodeId, SignedRecord};

use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::sighting::Sighting;
use crate::time::Instant;

/// Removals of different versions, none of them [`ONE_CAUSE`] after the last, for which a node begins again: what its answer to
/// the first is answered with.
const DROPPED: u64 = 2;
/// A removal and what follows from it: a few round trips. Whoever is forgotten has been silent for longer.
const ONE_CAUSE: Duration = Duration::from_secs(5);
/// A node begins again this often at most: messages under way to it and from it are lost then. Who forgets it has to find
/// it dead first, which takes about as long.
const PAUSE: Duration = Duration::from_secs(4);
/// So many of one cause are a lie.
const SURE: u64 = 4;

/// Removals of live members that came.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// By the member that they name.
    of: BTreeMap<NodeId, Removed>,
    /// Of whom the last that was too many was, and whose.
    lie: Option<(NodeId, NodeId)>,
    /// Those that were too many.
    lies: Sighting,
    /// When this node began again last.
    began: Option<Instant>,
}

/// Removals of one member.
#[derive(Clone, Copy, Debug)]
struct Removed {
    /// Of the last one, which came then.
    version: u64,
    at: Instant,
    /// How many came of the same cause.
    times: u64,
}

impl Removals {
    /// Counts each version once, as one removal comes by several ways: how many came of the same cause.
    fn note(&mut self, now: Instant, removal: &Forgotten, by: NodeId) -> u64 {
        let last = self.of.get(&removal.id).copied();
        if let Some(last) = last.filter(|last| last.version >= removal.version) {
            return last.times;
        }
        let times = last.filter(|last| now.since(last.at) < ONE_CAUSE).map_or(1, |last| last.times + 1);
        self.of.insert(removal.id, Removed { version: removal.version, at: now, times });
        if times >= SURE {
            self.lie = Some((removal.id, by));
            self.lies.note(now);
        }
        times
    }

    /// It is no member any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.of.remove(&node);
    }
}

impl<C: Crypto> Core<C> {
    /// A removal of this node came, which lives. Whether it is to begin again: at once where another node has its identity
    /// (others then take each of the two for the other's past), until one gives way.
    pub(super) fn note_removed(&mut self, removal: &Forgotten) -> bool {
        let (now, by) = (self.now, self.crypto.node_id(&removal.by_key));
        let dropped = self.removals.note(now, removal, by) >= DROPPED;
        let rested = self.removals.began.is_none_or(|at| now.since(at) >= PAUSE);
        let begins = dropped && rested || self.conflict.is_seen(now);
        if begins {
            self.removals.began = Some(now);
        }
        begins
    }

    /// Whether a removal has to wait, since the member lives: it is told, and outranks it.
    pub(super) fn removes_the_living(&mut self, removal: &Forgotten, record: &SignedRecord) -> bool {
        if !is_live(self.state_of(removal.id)) {
            return false;
        }
        let by = self.crypto.node_id(&removal.by_key);
        self.removals.note(self.now, removal, by);
        self.send_cluster(removal.id, |out| Frame::Record(record.bytes()).emit(out));
        true
    }

    /// Who removes the living.
    pub(super) fn removal_problem(&self, now: Instant) -> Option<String> {
        let times = self.removals.lies.lasting(now)?;
        let (of, by) = self.removals.lie?;
        Some(format!(
            "{times} removals of live members came (the last of {}, signed by {}): that member is not what it should be; take \
             it out, and change the cluster key (`overlan keys`)",
            self.name_of(of),
            self.name_of(by)
        ))
    }
}
