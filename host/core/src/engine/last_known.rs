//! Where members were in an earlier life of this node: they are greeted like seeds, so that a cluster that lost its power
//! finds together though no seed came back (as Serf's snapshot and Cassandra's `system.peers` do).

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::Entry;
use rand::Rng;

use super::Core;
use crate::crypto::Crypto;
use crate::event::Event;
use crate::table::socket_address;

/// They are greeted for so long after a member was met: two that found each other are no cluster yet.
const GREETED: Duration = Duration::from_secs(60);
/// Greeted at once.
const AT_ONCE: usize = 4;

/// An address of a member, as the table last had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastKnown {
    /// Where it listened.
    pub address: SocketAddr,
    /// It had said farewell.
    pub left: bool,
}

impl<C: Crypto> Core<C> {
    /// What [`Config::last_known`](crate::Config::last_known) should be at the next start: the addresses of all other
    /// members in the table, and those of before that are still greeted. It changes with
    /// [`Event::Routes`](crate::Event::Routes) and when a member leaves.
    pub fn last_known(&self) -> Vec<LastKnown> {
        let others = self.table.entries().filter(|entry| entry.id != self.id);
        let known = |entry: &Entry| {
            let left = entry.left;
            entry
                .adapters
                .iter()
                .map(move |adapter| LastKnown { address: socket_address(adapter), left })
                .collect::<Vec<_>>()
        };
        let mut all: Vec<_> = others.flat_map(known).chain(self.config.last_known.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Who has been a member for a while knows those that matter by the table.
    pub(super) fn forget_last_known(&mut self) {
        let joined = self.hellos.joined.is_some_and(|since| self.now.since(since) >= GREETED);
        if joined && !self.config.last_known.is_empty() {
            self.config.last_known.clear();
            self.events.push_back(Event::Routes);
        }
    }

    /// The table tells of this member now.
    pub(super) fn met(&mut self, entry: &Entry) {
        let known = |address| entry.adapters.iter().any(|adapter| socket_address(adapter) == address);
        self.config.last_known.retain(|last| !known(last.address));
    }

    /// Some to greet now.
    pub(super) fn some_missing(&mut self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.config.last_known.iter().map(|last| last.address).collect();
        while addresses.len() > AT_ONCE {
            addresses.swap_remove(self.rng.next_u64() as usize % addresses.len());
        }
        addresses
    }

    /// This node was told of others, and has met none of them.
    pub(super) fn awaits_others(&self) -> bool {
        let expected = !self.config.seeds.is_empty() || self.config.last_known.iter().any(|last| !last.left);
        self.hellos.joined.is_none() && expected
    }
}
