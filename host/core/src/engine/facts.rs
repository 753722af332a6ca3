//! What follows from changes: member states, plan facts, and what the parts want sent.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_contract::{Kind, assignment};
use overlan_wire::limits::CLUSTER_STREAM;
use overlan_wire::{BootId, Entry, Frame, MessageMode, NodeId};

use super::{Core, Seen, is_live};
use crate::config::Quorum;
use crate::crypto::{Aead, Crypto};
use crate::delivery::outbox::Queued;
use crate::event::{Event, OwnershipChange};
use crate::peer::Peer;
use crate::plan::Facts;
use crate::status::{MemberState, Ownership};
use crate::table::contract_adapter;

/// A newcomer that knows of others waits this long for one to answer before it plans alone.
pub(super) const JOIN_GRACE: Duration = Duration::from_secs(5);
/// Bytes of the cluster's own messages that wait for a peer from which on it gets no more: a member that is alive by what
/// others say, and can't be reached from here, would be kept all that ever changed.
const MAX_BACKLOG: usize = 4 << 20;
/// States are looked at this often at the least, while there is input.
const REFRESH: Duration = Duration::from_millis(100);

impl<C: Crypto> Core<C> {
    /// Carries out what the parts want after an input.
    pub(super) fn pump(&mut self) {
        self.refresh_waiting();
        self.session_timeout();
        if self.routes.take(self.now) {
            self.events.push_back(Event::Routes);
        }
        self.facts_changed |= self.facts_aside.take(self.now);
        if core::mem::take(&mut self.facts_changed) {
            self.update_plan_facts();
        }
        loop {
            let has_room = |to: NodeId| self.peers.get(&to).is_none_or(|peer| takes_more(peer));
            let Some((to, message)) = self.planner.poll_send(has_room) else { break };
            self.send_internal(to, message);
        }
        while let Some(epoch) = self.planner.poll_changed() {
            self.events.push_back(Event::Plan { epoch });
            self.tell_duties();
        }
        self.pump_questions();
    }

    /// Tells what this member owns now and did not, or the other way round.
    fn tell_duties(&mut self) {
        let (epoch, owned) = self.planner.own_duties();
        let before = core::mem::replace(&mut self.owned, owned);
        let change = |name: &String, before: Option<&Ownership>, now: Option<&Ownership>| OwnershipChange {
            name: name.clone(),
            before: before.copied().unwrap_or(Ownership::None),
            now: now.copied().unwrap_or(Ownership::None),
        };
        let lost = before.iter().filter(|(name, _)| !self.owned.contains_key(*name));
        let lost = lost.map(|(name, ownership)| change(name, Some(ownership), None));
        let others = self.owned.iter().filter(|&(name, now)| before.get(name) != Some(now));
        let others = others.map(|(name, now)| change(name, before.get(name), Some(now)));
        let changes: Vec<OwnershipChange> = lost.chain(others).collect();
        if !changes.is_empty() {
            self.events.push_back(Event::Responsibilities { epoch, changes });
        }
    }

    /// Queues a message of the cluster's own. One that does not take what it was sent gets no more meanwhile; whoever
    /// wants an answer asks again.
    pub(super) fn send_internal(&mut self, to: NodeId, payload: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if !takes_more(peer) {
            self.counters.dropped_limit += 1;
            return;
        }
        let message = Queued {
            mode: MessageMode::Reliable,
            redelivered: false,
            payloads: vec![payload.into()],
            token: 0,
            deadline: None,
        };
        if peer.push(CLUSTER_STREAM, message, self.now).is_err() {
            self.counters.dropped_limit += 1;
        }
        self.touch(to);
    }

    /// Carries out what membership wants.
    pub(super) fn pump_membership(&mut self) {
        self.counters.membership_errors += self.membership.take_errors();
        if self.membership.take_renewal(self.now) {
            self.renew_identity();
        }
        while let Some(bytes) = self.membership.poll_record() {
            self.handle_record(None, &bytes);
        }
        while let Some((to, data)) = self.membership.poll_send() {
            self.send_cluster(to, |out| Frame::Membership(&data).emit(out));
        }
        while let Some((to, data)) = self.membership.poll_retry() {
            self.send_cluster_widely(to, |out| Frame::Membership(&data).emit(out));
        }
        if self.membership.take_changed() {
            self.refresh_members();
        }
    }

    /// Suspicion comes without an event of membership.
    fn refresh_waiting(&mut self) {
        if self.refresh_due() {
            self.refresh_members();
        }
    }

    /// Whether the members' states are to be looked at again.
    pub(super) fn refresh_due(&self) -> bool {
        self.now.since(self.refreshed) >= REFRESH
    }

    /// Takes the members' states from membership and table.
    pub(super) fn refresh_members(&mut self) {
        let heard = self.membership.states();
        let now = self.now;
        self.refreshed = now;
        for (&id, peer) in &self.peers {
            self.membership.learn_path(id, peer.round_trip().unwrap_or_default(), peer.queue());
        }
        let others = self.table.entries().filter(|entry| entry.id != self.id);
        let states: Vec<(NodeId, BootId, MemberState)> =
            others.map(|entry| (entry.id, entry.boot, state(entry, heard.get(&entry.id)))).collect();
        for (id, boot, state) in states {
            self.note_state(id, boot, state);
        }
    }

    /// Takes one member's state from membership and table.
    pub(super) fn refresh_member(&mut self, entry: &Entry) {
        let state = state(entry, self.membership.state(entry.id).as_ref());
        self.note_state(entry.id, entry.boot, state);
    }

    fn note_state(&mut self, id: NodeId, boot: BootId, state: MemberState) {
        let now = self.now;
        let held = self.seen.get(&id);
        if held.is_some_and(|seen| (seen.boot, seen.state) == (boot, state)) {
            return;
        }
        let before = held.map(|seen| seen.state);
        self.seen.insert(id, Seen { boot, state, since: now });
        if is_live(state) && self.lived.insert(id) {
            self.facts_changed = true;
            self.events.push_back(Event::Routes);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.set_alive(is_live(state), now);
            self.to_schedule.insert(id);
            self.hurry_session(id);
        }
        if before.is_none() && state == MemberState::Down {
            // Not yet heard of: no news.
            return;
        }
        if before.is_some_and(is_live) && state == MemberState::Down {
            // It may be back already, under a boot that nobody knows.
            self.hellos.hurry(now);
        }
        if before.is_some_and(is_live) != is_live(state) {
            self.facts_changed = true;
            self.agreement.hurry(now);
        }
        let name = self.table.entry(id).map(|entry| entry.name.clone()).unwrap_or_default();
        self.events.push_back(Event::Member { node: id, name, state });
    }

    /// Whether it is one of those of whom a majority is asked for. Anybody can write entries of nodes that never were.
    fn counts(&self, entry: &Entry) -> bool {
        !entry.left && (entry.id == self.id || self.lived.contains(&entry.id))
    }

    fn update_plan_facts(&mut self) {
        // A newcomer that has not met its cluster yet must not own everything for a moment; nor may a
        // lone one take itself for a majority, or a copy its member's duties.
        let alone = self.awaits_others();
        let barred = self.is_barred();
        let waits = self.config.quorum == Quorum::Majority || self.now.since(self.started) < JOIN_GRACE;
        if self.left || alone && waits {
            self.facts_changed = !self.left;
            return;
        }
        let nodes = self.table.entries().map(|entry| assignment::Node {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            live: is_live(self.state_of(entry.id)),
            adapters: entry.adapters.iter().map(contract_adapter).collect(),
            attributes: entry.attributes.clone(),
        });
        let live = self.table.entries().filter(|entry| is_live(self.state_of(entry.id)));
        let document = self.documents.document();
        let facts = Facts {
            me: self.id,
            nodes: nodes.collect(),
            live: live.map(|entry| (entry.id, entry.boot)).collect(),
            members: self.table.entries().filter(|entry| self.counts(entry)).count() + self.missing_members(),
            table_digest: self.table.digest(),
            plugin_digest: self.plugin_digests[Kind::Assignment as usize],
            plugin_pending: self.config.assignment_pending,
            document: self.documents.id(),
            responsibilities: document
                .map_or(&self.config.responsibilities, |held| &held.responsibilities)
                .clone(),
            quorum: self.config.quorum,
            barred,
        };
        self.planner.handle_facts(self.now, facts);
        self.facts_aside.done(self.now);
    }
}

/// A member's state by its entry and what membership has heard of it. That may still be of an earlier boot: it will hear of this
/// one by gossip. Of whom it has never heard, an entry alone says nothing: its owner may be long dead.
fn state(entry: &Entry, heard: Option<&(BootId, MemberState)>) -> MemberState {
    match heard {
        _ if entry.left => MemberState::Left,
        Some(&(_, state)) => state,
        None => MemberState::Down,
    }
}

/// Whether the peer may be sent more of the cluster's own messages.
fn takes_more<A: Aead>(peer: &Peer<A>) -> bool {
    peer.outbox.cluster_bytes() < MAX_BACKLOG
}
