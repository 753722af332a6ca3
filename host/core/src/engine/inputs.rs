//! What comes in.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::entry::RecordTooLarge;
use overlan_wire::limits::{MAX_ADAPTERS, TAG};
use overlan_wire::packet::DATA_HEADER;
use overlan_wire::{Adapter, DecodeError, Header, Kind, Reader};

use super::records::{FAREWELL_PAUSE, FAREWELL_ROUNDS};
use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::peer::{Adapters, Packet, Peer, Surroundings};
use crate::sighting::Sighting;
use crate::time::Instant;

/// A timer that fires this late says that the node itself did not run.
const ASLEEP: Duration = Duration::from_millis(50);
/// What is not urgent may be done this much earlier, where the node is awake: half a period of membership's probes.
const SLACK: Duration = Duration::from_millis(250);
/// Another's probe so soon after a beat finds nothing left to do: whoever sends many does not have all peers looked
/// through for each.
const BEAT_PAUSE: Duration = Duration::from_millis(10);

impl<C: Crypto> Core<C> {
    /// Takes the node's adapters in order of preference, each with the address and port a socket is
    /// bound to; at most 8 count. Adapters that went away or down lose their traffic to others at once.
    ///
    /// # Errors
    /// The own entry would be too large; nothing changed.
    pub fn handle_adapters(
        &mut self,
        now: Instant,
        mut adapters: Vec<Adapter>,
    ) -> Result<(), RecordTooLarge> {
        self.now = now;
        adapters.truncate(MAX_ADAPTERS);
        if self.table.record(self.id).is_some() && adapters == self.adapters {
            return Ok(());
        }
        self.check_size(&adapters)?;
        let before = core::mem::replace(&mut self.adapters, adapters);
        // The paths first: what was on a dead adapter leaves by another before anybody is told.
        for (id, peer) in &mut self.peers {
            let Some(entry) = self.table.entry(*id) else { continue };
            let mut env = Surroundings {
                counters: &mut self.counters,
                events: &mut self.events,
                fates: &mut self.fates,
                outcome: &mut self.outcome,
            };
            let local = Adapters { now: &self.adapters, before: &before };
            peer.sync_paths(now, local, Adapters::unchanged(&entry.adapters), &mut env);
            self.to_transmit.insert(*id);
            self.to_schedule.insert(*id);
        }
        self.publish()?;
        self.hellos.hurry(now);
        self.events.push_back(crate::Event::Routes);
        self.pump();
        Ok(())
    }

    /// Takes one received datagram; it is decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &mut [u8],
    ) {
        self.handle_arrival(now, (local, remote), false, datagram);
    }

    /// As [`handle_datagram`](Self::handle_datagram), of a socket that tells whether a router marked the datagram CE
    /// (RFC 3168): the sender learns it and slows down.
    pub fn handle_arrival(
        &mut self,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        marked: bool,
        datagram: &mut [u8],
    ) {
        self.now = now;
        self.counters.datagrams_received += 1;
        self.counters.bytes_received += datagram.len() as u64;
        let header = match Header::parse(&mut Reader::new(datagram)) {
            Ok(header) => header,
            Err(DecodeError::Version(_)) => {
                self.counters.dropped_version += 1;
                return;
            }
            Err(_) => {
                self.counters.dropped_malformed += 1;
                return;
            }
        };
        match header.kind {
            Kind::Hello { .. } | Kind::Cluster { .. } => self.handle_cluster(local, remote, header, datagram),
            Kind::Data { session, path, number } => {
                if datagram.len() < DATA_HEADER + TAG {
                    self.counters.dropped_malformed += 1;
                    return;
                }
                let Some(&id) = self.sessions.get(&session) else {
                    self.counters.dropped_unknown_session += 1;
                    return;
                };
                self.notice_sleep();
                let Some(peer) = self.peers.get_mut(&id) else { return };
                let mut env = Surroundings {
                    counters: &mut self.counters,
                    events: &mut self.events,
                    fates: &mut self.fates,
                    outcome: &mut self.outcome,
                };
                let forged = env.counters.dropped_forged;
                let parts = datagram.split_at_mut(DATA_HEADER);
                peer.handle_datagram(
                    now,
                    (local, remote),
                    session,
                    Packet { path, number, marked },
                    (parts.0, parts.1),
                    &mut env,
                );
                // The rest of this is for every datagram: only what is new is looked at.
                let beat = peer.take_beat();
                let counts = peer.has_counts();
                let news = peer.has_news() || beat || self.refresh_due();
                self.touch(id);
                if counts {
                    self.handle_counts(id);
                }
                if self.counters.dropped_forged != forged {
                    self.note_forgery();
                }
                if beat {
                    self.beat(false);
                }
                if self.drain_internal(id) || news {
                    self.pump();
                }
                return;
            }
        }
        self.pump();
    }

    /// The socket refused to send on this path (for example with ENETUNREACH or EPERM): counts as a late
    /// reply.
    pub fn handle_send_failure(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let ends = (local, remote);
        self.for_path(now, ends, |peer, env| peer.handle_send_failure(now, ends, env));
    }

    /// The kernel refused a datagram of this size (EMSGSIZE): this path's link carries no such, and is not asked whether it
    /// does.
    pub fn handle_too_large(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, size: usize) {
        let ends = (local, remote);
        self.for_path(now, ends, |peer, env| peer.handle_too_large(now, ends, size, env));
    }

    /// Does something to the peers that have a path between these ends.
    fn for_path(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        mut each: impl FnMut(&mut Peer<C::Aead>, &mut Surroundings<'_>),
    ) {
        self.now = now;
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.paths.iter().any(|path| (path.local, path.remote) == ends) {
                let mut env = Surroundings {
                    counters: &mut self.counters,
                    events: &mut self.events,
                    fates: &mut self.fates,
                    outcome: &mut self.outcome,
                };
                each(peer, &mut env);
                self.touch(id);
            }
        }
        self.pump();
    }

    /// Call when [`poll_timeout`](Self::poll_timeout) has come, after the sockets were drained.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.schedule();
        let probe_all = self.probe_all();
        self.notice_sleep();
        let due: Vec<_> =
            self.deadlines.iter().take_while(|&&(at, _)| at <= now).map(|&(_, id)| id).collect();
        let mut probed = false;
        for id in due {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let mut env = Surroundings {
                counters: &mut self.counters,
                events: &mut self.events,
                fates: &mut self.fates,
                outcome: &mut self.outcome,
            };
            peer.handle_timeout(now, probe_all, &mut env);
            probed |= peer.take_beat();
            self.touch(id);
        }
        let soft = [self.membership.beat_due(), Some(self.agreement.next_deadline()), self.hellos.beat_due()];
        if probed || soft.into_iter().flatten().any(|at| at <= now) {
            self.beat(true);
        }
        self.membership_timeout();
        self.hello_timeout();
        self.sync_timeout();
        self.planner.handle_timeout(now);
        self.expire_own();
        self.farewell_timeout();
        self.pump();
    }

    /// This node is awake for a probe of its own (`leads`), or for one of another's: whatever is not urgent and would be
    /// due soon is done now, so that it costs neither end a wake-up of its own. What is done early starts its period
    /// anew, so that from then on all of it comes together.
    pub(super) fn beat(&mut self, leads: bool) {
        let (now, horizon) = (self.now, self.now + SLACK);
        if !leads && self.beaten.is_some_and(|at| now.since(at) < BEAT_PAUSE) {
            return;
        }
        self.beaten = Some(now);
        self.membership.handle_beat(now, horizon, leads);
        self.pump_membership();
        let probe_all = self.probe_all();
        for (&id, peer) in &mut self.peers {
            if peer.handle_beat(now, horizon, probe_all) {
                self.to_transmit.insert(id);
                self.to_schedule.insert(id);
            }
        }
        self.agreement.handle_beat(now, horizon);
        self.hellos.handle_beat(now, horizon);
        self.sync_timeout();
        self.hello_timeout();
    }

    /// A paused or starved observer accuses nobody: what it did not hear in its sleep is no miss, and what it hears now
    /// tells nothing of round trips.
    fn notice_sleep(&mut self) {
        let overdue = self.deadlines.first().filter(|&&(at, _)| self.now.since(at) > ASLEEP);
        if overdue.is_some_and(|&(at, _)| at > self.slept_until) {
            self.slept_until = self.now;
            self.peers.values_mut().for_each(|peer| peer.forgive(self.now));
            self.to_schedule.extend(self.peers.keys());
        }
    }

    fn membership_timeout(&mut self) {
        if self.membership.next_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        // Nobody active: knock at one member of the table after the other.
        let others: Vec<_> = self.peers.keys().copied().collect();
        let draw = rand::Rng::next_u64(&mut self.rng) as usize;
        let candidate = (!others.is_empty()).then(|| others[draw % others.len()]);
        let (now, probe_all, peers) = (self.now, self.probe_all(), &self.peers);
        self.membership.handle_timeout(now, candidate, |id, boot| {
            peers.get(&id).is_some_and(|peer| peer.boot == boot && peer.answers(now, probe_all))
        });
        self.pump_membership();
    }

    /// Announces that this node leaves; transmit what it gives, then stop.
    pub fn leave(&mut self, now: Instant) {
        self.now = now;
        if self.left {
            return;
        }
        self.left = true;
        // The entry grows by nothing: it fitted before.
        let _ = self.publish();
        self.farewell = Some((now + FAREWELL_PAUSE, FAREWELL_ROUNDS));
        self.membership.leave(now);
        self.pump_membership();
        self.pump();
    }

    /// The keyring changes. Sessions under keys that are retired end at once, and new ones are opened; sessions under
    /// keys other than the active one are replaced while they go on. Messages wait for the new sessions; none is lost.
    pub fn handle_keyring_change(&mut self, now: Instant, change: impl FnOnce(&mut C)) {
        self.now = now;
        self.seal_drafts();
        let before = self.crypto.active_key();
        change(&mut self.crypto);
        self.unknown_keys = Sighting::default();
        self.senders.rekey(&self.crypto, self.config.boot);
        self.rekey_sessions(before);
        self.pump();
    }

    /// Hands plan messages to the planner; whether there were any.
    fn drain_internal(&mut self, from: overlan_wire::NodeId) -> bool {
        let mut any = false;
        while let Some(message) = self.peers.get_mut(&from).and_then(|peer| peer.inbox.pop_internal()) {
            any = true;
            if self.handle_document_message(from, &message) {
                continue;
            }
            if self.planner.handle_message(self.now, from, &message).is_err() {
                self.counters.dropped_malformed += 1;
            }
        }
        any
    }

    /// Whether a member is taken for alive or suspect.
    pub fn is_live(&self, id: overlan_wire::NodeId) -> bool {
        is_live(self.state_of(id))
    }
}
