//! What a cluster datagram is answered with: nobody makes a member send much by sending little, least of all to others.
//!
//! Whoever holds the cluster key can seal under any boot and write any source address. So a datagram is answered with no more
//! than its own length; what goes beyond that comes out of an allowance, which grows with time and depends on what is
//! known of where the answer goes (as before a QUIC server has validated an address, RFC 9000 section 8.1).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::NodeId;

use super::Core;
use super::cluster::{Origin, ROOM};
use crate::crypto::Crypto;
use crate::path::Path;
use crate::time::Instant;

/// Bytes in a second, and at once, to an address that has shown that it is the member's: a table of 3,000 entries.
const PROVED: usize = 1 << 20;
/// To one that is only in the member's entry, which names whom it likes: what a newcomer needs to learn of some fifty members
/// before a path has answered.
const NAMED: usize = 16 << 10;
/// To all that are not known: those that came back under a boot that is not known here yet are told of the table, and what is held
/// of them, for them to outrank it.
const STRANGERS: usize = 16 << 10;
/// And by one datagram: the hashes of all buckets.
const STRANGERS_AT_ONCE: usize = 2 * ROOM;

/// Bytes that may go out beyond what came in: so many at once, and as many in a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    spent: usize,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Allowance { spent: 0, at: now }
    }

    /// Takes so much of it, if there is as much.
    fn take(&mut self, bytes: usize, rate: usize, now: Instant) -> bool {
        let passed = now.since(self.at).min(Duration::from_secs(1)).as_micros() as usize;
        let left = self.spent.saturating_sub(rate * passed / 1_000_000);
        let may = left + bytes <= rate;
        if may {
            (self.spent, self.at) = (left + bytes, now);
        }
        may
    }
}

/// What a datagram may ask for, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Given {
    Summary,
    /// Documents and plans, with a summary.
    Told,
    Leaves(u8),
    Record(NodeId),
}

/// The datagram that is being answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// Bytes of frames that it may still be answered with.
    left: usize,
    given: BTreeSet<Given>,
    /// Bytes that it was answered with beyond its own.
    beyond: usize,
    /// Of all senders that are not known.
    strangers: Allowance,
}

impl Answers {
    pub(super) fn new(now: Instant) -> Self {
        Answers { left: 0, given: BTreeSet::new(), beyond: 0, strangers: Allowance::new(now) }
    }

    /// A datagram with so many bytes of frames came.
    pub(super) fn begin(&mut self, len: usize) {
        (self.left, self.beyond) = (len, 0);
        self.given.clear();
    }

    /// Takes so many bytes of the datagram's length, if as many are left.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let may = bytes <= self.left;
        if may {
            self.left -= bytes;
        }
        may
    }

    /// Whether the datagram did not ask for this before: it may repeat its frames at will.
    pub(super) fn is_first(&mut self, what: Given) -> bool {
        self.given.insert(what)
    }
}

impl<C: Crypto> Core<C> {
    /// Answers whoever sent a cluster datagram, unless that is more than [the datagram is worth](self).
    pub(super) fn answer(&mut self, origin: Origin, emit: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = Vec::new();
        emit(&mut frames);
        if self.may_give(origin, frames.len()) {
            self.queue_cluster(origin.local, origin.remote, Some(origin.boot), |out| {
                out.extend_from_slice(&frames);
            });
        } else {
            self.counters.dropped_limit += 1;
        }
    }

    /// Takes so many bytes from what the datagram's sender may be sent.
    pub(super) fn may_give(&mut self, origin: Origin, bytes: usize) -> bool {
        let beyond = bytes.saturating_sub(self.answers.left);
        let may = beyond == 0
            || match self.rate(origin) {
                Some(rate) => {
                    self.senders.allowance(origin).is_some_and(|held| held.take(beyond, rate, self.now))
                }
                None => {
                    let answers = &mut self.answers;
                    answers.beyond + beyond <= STRANGERS_AT_ONCE
                        && answers.strangers.take(beyond, STRANGERS, self.now)
                }
            };
        if may {
            self.answers.left -= bytes - beyond;
            self.answers.beyond += beyond;
        }
        may
    }

    /// The same, where it goes to the addresses that the sender's entry names.
    pub(super) fn may_give_elsewhere(&mut self, origin: Origin, bytes: usize) -> bool {
        let known = self.boots.contains_key(&origin.boot);
        known && self.senders.allowance(origin).is_some_and(|held| held.take(bytes, NAMED, self.now))
    }

    /// What may go to a datagram's source in a second beyond what comes from there; `None` if it is no known member's.
    fn rate(&self, origin: Origin) -> Option<usize> {
        if self.senders.is_proved(origin) {
            return Some(PROVED);
        }
        self.paths_to(origin).next().map(|_| NAMED)
    }

    /// What answered on a path is the sender's, also when another entry takes its entry's place.
    pub(super) fn note_proof(&mut self, origin: Origin) {
        let answered = |path: &Path| path.rtt.measured().is_some();
        if !self.senders.is_proved(origin) && self.paths_to(origin).any(answered) {
            self.senders.prove(origin);
        }
    }

    /// The paths to where it came from.
    fn paths_to(&self, origin: Origin) -> impl Iterator<Item = &Path> {
        let peer = self.boots.get(&origin.boot).and_then(|id| self.peers.get(id));
        let paths = peer.into_iter().flat_map(|peer| &peer.paths);
        paths.filter(move |path| path.remote == origin.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_spent_at_once_and_grows_in_a_second() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut allowance = Allowance::new(at(0));
        assert!(allowance.take(600, 1_000, at(0)) && allowance.take(400, 1_000, at(0)));
        assert!(!allowance.take(1, 1_000, at(0)));
        assert!(allowance.take(100, 1_000, at(100)) && !allowance.take(100, 1_000, at(199)));
        assert!(allowance.take(1_000, 1_000, at(9_000)) && !allowance.take(1_001, 1_000, at(99_000)));
    }
}
