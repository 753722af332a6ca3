//! Members of an earlier life of this node: they are greeted like seeds, so that a cluster that lost its power finds together
//! though no seed came back (as Serf's snapshot and Cassandra's `system.peers` do), and they count where a majority is
//! asked for, so that a part of the cluster that restarts does not take itself for the whole.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::{Entry, NodeId};

use super::Core;
use crate::crypto::Crypto;
use crate::event::Event;
use crate::table::socket_address;

/// After so long with others, those who had left are forgotten, and the rest is greeted one by one.
const GREETED: Duration = Duration::from_secs(60);
/// After a start, members are waited for so long where they were before: of two that start with one identity as all do, as
/// after a power failure, the one that is still there is the member. One that moved while all were down is let in then.
const AWAITED: Duration = Duration::from_secs(10);
/// A newcomer has the table of those it joined after so long.
const LEARNS: Duration = Duration::from_secs(10);
/// Greeted at once, until then.
const AT_ONCE: usize = 8;
/// Addresses that a problem names.
const NAMED: usize = 4;

/// An address of a member, as the table last had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastKnown {
    /// Whose it was.
    pub id: NodeId,
    /// Where it listened.
    pub address: SocketAddr,
    /// It had said farewell.
    pub left: bool,
}

impl<C: Crypto> Core<C> {
    /// What [`Config::last_known`](crate::Config::last_known) should be at the next start: the addresses of all other
    /// members in the table that were alive once, and of those that were not met since the start. It changes with
    /// [`Event::Routes`](crate::Event::Routes).
    pub fn last_known(&self) -> Vec<LastKnown> {
        let others = self.table.entries().filter(|entry| self.lived.contains(&entry.id));
        let known = |entry: &Entry| {
            let (id, left) = (entry.id, entry.left);
            let addresses = entry.adapters.iter().map(socket_address);
            addresses.map(|address| LastKnown { id, address, left }).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = others.flat_map(known).chain(self.config.last_known.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The table tells of this member now, or that it was forgotten. One of before was alive then.
    pub(super) fn met(&mut self, id: NodeId) {
        let before = self.config.last_known.len();
        self.config.last_known.retain(|last| last.id != id);
        let learns = self.learns_members() && id != self.id && self.table.entry(id).is_some();
        if self.config.last_known.len() < before || learns {
            self.lived.insert(id);
        }
    }

    /// Whether it takes the table's members as those that let it in have them: one that knew none when it started can't tell
    /// which of them ever were. That they are out of reach is no reason not to count them.
    fn learns_members(&self) -> bool {
        self.newcomer && self.hellos.joined.is_none_or(|since| self.now.since(since) < LEARNS)
    }

    /// A member that was elsewhere when this node last ran, and may come back there.
    pub(super) fn is_awaited_elsewhere(&self, entry: &Entry) -> bool {
        let mut before =
            self.config.last_known.iter().filter(|last| last.id == entry.id && !last.left).peekable();
        let is_there =
            |last: &LastKnown| entry.adapters.iter().any(|new| socket_address(new) == last.address);
        self.now.since(self.started) < AWAITED && before.peek().is_some() && !before.any(is_there)
    }

    /// Who had left and was not met in a minute with others is not waited for.
    pub(super) fn forget_last_known(&mut self) {
        let before = self.config.last_known.len();
        if self.is_settled() {
            self.config.last_known.retain(|last| !last.left);
        }
        if self.config.last_known.len() < before {
            self.events.push_back(Event::Routes);
        }
    }

    fn is_settled(&self) -> bool {
        self.hellos.joined.is_some_and(|since| self.now.since(since) >= GREETED)
    }

    /// Addresses to greet now.
    pub(super) fn some_missing(&mut self) -> Vec<SocketAddr> {
        let most = if self.is_settled() { 1 } else { AT_ONCE };
        self.some(self.config.last_known.iter().map(|last| last.address).collect(), most)
    }

    /// Members of before that had not left, and were not met since the start.
    pub(super) fn missing_members(&self) -> usize {
        let missing = self.config.last_known.iter().filter(|last| !last.left);
        missing.map(|last| last.id).collect::<BTreeSet<_>>().len()
    }

    /// This node was told of others, and has met none of them.
    pub(super) fn awaits_others(&self) -> bool {
        let expected = !self.config.seeds.is_empty() || self.missing_members() > 0;
        self.hellos.joined.is_none() && expected
    }

    /// That nobody answers whom this node was told of, or knew when it last ran.
    pub(super) fn nobody_answers(&self, seeds: &[String]) -> Option<String> {
        let who = match (seeds, self.missing_addresses(seeds)) {
            ([], None) => return None,
            (seeds, None) => format!("no seed answers ({})", seeds.join(", ")),
            ([], Some(before)) => format!("no member of before answers ({before})"),
            (seeds, Some(before)) => {
                format!("no seed answers ({}), and no member of before ({before})", seeds.join(", "))
            }
        };
        let gone = if self.config.last_known.is_empty() { "" } else { GONE };
        Some(format!("{who}: check addresses, routes and that the others run; still trying{gone}"))
    }

    /// That some of before are missing, though others were met.
    pub(super) fn some_do_not_answer(&self) -> Option<String> {
        let (count, before) = (self.missing_members(), self.missing_addresses(&[])?);
        (self.is_settled() && count > 0).then(|| {
            format!("{count} of the members of before were not met since this node started ({before}); still trying{GONE}")
        })
    }

    fn missing_addresses(&self, but: &[String]) -> Option<String> {
        let all = self.config.last_known.iter().map(|last| format!("{}", last.address));
        let all: Vec<_> = all.filter(|address| !but.contains(address)).collect();
        let more = if all.len() > NAMED { ", ..." } else { "" };
        (!all.is_empty()).then(|| all[..all.len().min(NAMED)].join(", ") + more)
    }
}

/// What to do about members that will not come back.
const GONE: &str = "; of those that are gone for good, remove the lines from `last-known` in the state directory, and start \
                    the node anew";
