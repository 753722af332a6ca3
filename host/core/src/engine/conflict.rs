//! Another node that runs with this node's identity, as a copied state directory makes it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use overlan_wire::{Adapter, Record};

use super::Core;
use crate::crypto::Crypto;
use crate::event::Event;
use crate::sighting::Sighting;
use crate::time::Instant;

/// A node that runs for less than this is taken for the copy.
const YOUNG: Duration = Duration::from_secs(60);
/// Times that a node is outranked by its own identity until that is no past life. One whose versions were forgotten
/// outranks it once, or once for each version that members hold of it.
const SURE: u64 = 4;
/// Times that the node is outranked whose turn it is to give way. Whoever should rather stay waits for a multiple of
/// that, so that it sees the other give way first.
const PATIENCE: u64 = 8;

/// What is known of the other node.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    /// Records that were put over the own entry: what the other wrote, and removals of one of the two for the other.
    seen: Sighting,
    /// What it said last of where it is, in ascending order.
    at: Vec<IpAddr>,
}

impl Conflict {
    fn addresses(&self) -> String {
        self.at.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        let known = self.seen.lasting(now).is_some_and(|times| times >= SURE) && !self.at.is_empty();
        known.then(|| {
            format!(
                "another node ran with this node's identity (at {}): give each node a state_dir of its own; a copied \
                 one brings the identity with it",
                self.addresses()
            )
        })
    }
}

impl<C: Crypto> Core<C> {
    /// A record that this node did not write outranked its entry. Another node that runs with its identity makes that
    /// happen again and again, where a past life has an end. One of the two gives way, as Serf's minority does in a
    /// conflict of names: the younger, and of two old or two young ones that with the lower addresses.
    pub(super) fn note_outranked(&mut self, record: &Record) {
        let conflict = &mut self.conflict;
        if conflict.seen.lasting(self.now).is_none() {
            conflict.at.clear();
        }
        conflict.seen.note(self.now);
        if let Record::Entry(entry) = record {
            conflict.at = addresses(&entry.adapters);
        }
        let old = self.now.since(self.started) >= YOUNG;
        let higher = addresses(&self.adapters) > conflict.at;
        let patience = PATIENCE * if old { 16 } else { 1 } * if higher { 4 } else { 1 };
        let times = conflict.seen.lasting(self.now).unwrap_or(0);
        if times >= patience && !conflict.at.is_empty() {
            self.events.push_back(Event::IdentityTaken { at: conflict.addresses() });
        }
    }
}

fn addresses(adapters: &[Adapter]) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = adapters.iter().map(|adapter| adapter.address).collect();
    addresses.sort();
    addresses
}
