//! Another node that runs with a member's identity, as a copied state directory makes it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::{Adapter, Entry, NodeId};

use super::Core;
use crate::crypto::Crypto;
use crate::event::Event;
use crate::sighting::Sighting;
use crate::time::Instant;

/// A node that runs for less than this is taken for the copy.
const YOUNG: Duration = Duration::from_secs(60);
/// Times that a node is outranked by entries of its own identity until that is no past life. One whose versions were
/// forgotten outranks it once, or once for each version that members hold of it.
const SURE: u64 = 4;
/// Times that a young node is outranked before it gives way. Of two young ones, the one that ranks higher waits for
/// four times as often, so that it sees the other give way first.
const PATIENCE: u64 = 8;
/// So many answers are given at once, more than any patience asks for; then, one for each [`REST`].
const ANSWERS: u32 = 64;
/// After it one more answer is given at once: a copy that a supervisor starts again and again is answered as it comes,
/// another old node with a pause.
const REST: Duration = Duration::from_millis(250);

/// What is known of the other node.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    /// Entries it put over the own one.
    seen: Sighting,
    /// The last of them.
    version: u64,
    /// Where it says that it is, in ascending order.
    at: Vec<SocketAddr>,
    /// Copies of live members that were not let in, and the name and the addresses of the last.
    refused: Sighting,
    copy: Option<(String, String)>,
    /// When all answers that were given at once are rested from.
    rested: Instant,
}

/// What an entry of the own identity that outranks the own one asks for.
pub(super) enum Answer {
    /// A higher version of the own entry.
    AtOnce,
    /// The same after a pause: at once, two that both stay would keep each other and all members busy.
    Later,
    /// None: this node gives way, and one more version might be what makes the other give way, too.
    Never,
}

impl Conflict {
    /// A node that has a live member's identity.
    pub(super) fn note_refused(&mut self, now: Instant, copy: &Entry) {
        self.refused.note(now);
        self.copy = Some((copy.name.clone(), listed(&addresses(&copy.adapters))));
    }

    /// An entry is a member's: what was taken for a copy was that.
    pub(super) fn note_let_in(&mut self, entry: &Entry) {
        self.copy.take_if(|(name, at)| *name == entry.name && *at == listed(&addresses(&entry.adapters)));
    }

    /// Of a node that stays.
    fn answer(&mut self, now: Instant) -> Answer {
        let (rested, most) = (self.rested.max(now) + REST, now + REST * ANSWERS);
        self.rested = rested.min(most);
        if rested <= most { Answer::AtOnce } else { Answer::Later }
    }

    /// Whether an entry of the own identity that this node did not write came lately.
    pub(super) fn is_seen(&self, now: Instant) -> bool {
        self.seen.lasting(now).is_some()
    }

    pub(super) fn problems(&self, now: Instant) -> impl Iterator<Item = String> {
        let sure = |seen: &Sighting| seen.lasting(now).is_some_and(|times| times >= SURE);
        let mend = "give each node a state_dir of its own; a copied one brings the identity with it";
        let own = sure(&self.seen)
            .then(|| format!("another node ran with this node's identity (at {}): {mend}", listed(&self.at)));
        let copy = self.copy.as_ref().filter(|_| sure(&self.refused)).map(|(name, at)| {
            format!("a node with the identity of the live member {name} is not let in (at {at}): {mend}")
        });
        own.into_iter().chain(copy)
    }
}

/// Members whose boots end again and again, as other members see it.
#[derive(Debug, Default)]
pub(super) struct Restarts(BTreeMap<NodeId, Sighting>);

impl Restarts {
    /// A boot of this node is over.
    pub(super) fn note(&mut self, id: NodeId, now: Instant) {
        self.0.retain(|_, seen| seen.lasting(now).is_some());
        self.0.entry(id).or_default().note(now);
    }

    /// The nodes, with how often.
    pub(super) fn lasting(&self, now: Instant) -> impl Iterator<Item = (NodeId, u64)> {
        let times = move |(&id, seen): (&NodeId, &Sighting)| Some((id, seen.lasting(now)?));
        self.0.iter().filter_map(times).filter(|&(_, times)| times >= SURE)
    }
}

impl<C: Crypto> Core<C> {
    /// An entry that this node did not write outranked its own. Another node that runs with its identity makes that
    /// happen again and again, where a past life has an end. A young node gives way, as Serf's minority does in a
    /// conflict of names; one that has run for a while stays, whatever else is started.
    pub(super) fn note_outranked(&mut self, entry: &Entry) -> Answer {
        let conflict = &mut self.conflict;
        if entry.version > conflict.version {
            conflict.seen.note(self.now);
            conflict.version = entry.version;
        }
        conflict.at = addresses(&entry.adapters);
        let times = conflict.seen.lasting(self.now).unwrap_or(0);
        if self.now.since(self.started) >= YOUNG {
            return conflict.answer(self.now);
        }
        // Copies on one host differ in their ports, those in containers with equal addresses only in their boots.
        let higher = (&addresses(&self.adapters), self.config.boot) > (&conflict.at, entry.boot);
        if times < if higher { 4 * PATIENCE } else { PATIENCE } {
            return Answer::AtOnce;
        }
        self.events.push_back(Event::IdentityTaken { evidence: format!("at {}", listed(&conflict.at)) });
        Answer::Never
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let mut hosts: Vec<_> = addresses.iter().map(|at| at.ip().to_string()).collect();
    hosts.dedup();
    hosts.join(", ")
}

fn addresses(adapters: &[Adapter]) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> =
        adapters.iter().map(|adapter| SocketAddr::new(adapter.address, adapter.port)).collect();
    addresses.sort();
    addresses
}
