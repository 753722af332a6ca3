//! Another node that runs with this node's identity, as a copied state directory makes it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::{Adapter, Entry};

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
/// From so many times on the other does not give way either, and is answered with a pause. (More than any patience.)
const STUBBORN: u64 = 64;

/// What is known of the other node.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    /// Entries it put over the own one.
    seen: Sighting,
    /// The last of them.
    version: u64,
    /// Where it says that it is, in ascending order.
    at: Vec<SocketAddr>,
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
    fn addresses(&self) -> String {
        let mut addresses: Vec<_> = self.at.iter().map(|at| at.ip().to_string()).collect();
        addresses.dedup();
        addresses.join(", ")
    }

    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        self.seen.lasting(now).filter(|&times| times >= SURE).map(|_| {
            format!(
                "another node ran with this node's identity (at {}): give each node a state_dir of its own; a copied \
                 one brings the identity with it",
                self.addresses()
            )
        })
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
            return if times < STUBBORN { Answer::AtOnce } else { Answer::Later };
        }
        // Copies on one host differ in their ports, those in containers with equal addresses only in their boots.
        let higher = (&addresses(&self.adapters), self.config.boot) > (&conflict.at, entry.boot);
        if times < if higher { 4 * PATIENCE } else { PATIENCE } {
            return Answer::AtOnce;
        }
        self.events.push_back(Event::IdentityTaken { at: conflict.addresses() });
        Answer::Never
    }
}

fn addresses(adapters: &[Adapter]) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> =
        adapters.iter().map(|adapter| SocketAddr::new(adapter.address, adapter.port)).collect();
    addresses.sort();
    addresses
}
