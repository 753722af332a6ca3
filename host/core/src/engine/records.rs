//! Records of the table: our own, and what others say of themselves.

use alloc::boxed::Box;
use core::time::Duration;

use overlan_wire::entry::RecordTooLarge;
use overlan_wire::limits::MAX_REMOVED_VERSION;
use overlan_wire::{Adapter, BootId, Entry, Forgotten, Frame, NodeId, Record, SignedRecord};
use rand::Rng;

use super::cluster::Origin;
use super::conflict::Answer;
use super::refusals::operator_id;
use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::event::Event;
use crate::membership::Identity;
use crate::peer::{Adapters, Peer, Surroundings};
use crate::table::Merge;

/// Live members told of our own changes directly; the others hear of them by gossip.
const DIRECT_PUSHES: usize = 32;
/// A leaving entry is sent again after so long, and so often: within the 150 ms that a node stays to say farewell.
pub(super) const FAREWELL_PAUSE: Duration = Duration::from_millis(50);
pub(super) const FAREWELL_ROUNDS: u32 = 2;
/// Boots whose sessions are over that are remembered; the oldest gives way.
const MAX_RETIRED: usize = 8_192;

impl<C: Crypto> Core<C> {
    /// Writes the own entry anew, under the next version.
    pub(super) fn publish(&mut self) -> Result<(), RecordTooLarge> {
        let entry = self.own_entry(self.version + 1);
        let record = Record::Entry(entry);
        let unsigned = record.to_unsigned_bytes()?;
        self.version += 1;
        let signature = self.crypto.sign(&unsigned);
        let signed = SignedRecord::new(record, unsigned, &signature);
        self.events.push_back(Event::Version(self.version));
        self.store(signed.clone());
        // Whoever does not hear that this node leaves takes it for alive for seconds.
        let told = if self.left { usize::MAX } else { DIRECT_PUSHES };
        self.push(&signed, told);
        Ok(())
    }

    /// Sends a record to so many live members.
    fn push(&mut self, record: &SignedRecord, most: usize) {
        for peer in self.live_peers().into_iter().take(most) {
            self.send_cluster(peer, |out| Frame::Record(record.bytes()).emit(out));
        }
    }

    /// The leaving entry goes out again: nobody acknowledges it, and no other round follows.
    pub(super) fn farewell_timeout(&mut self) {
        let Some((at, rounds)) = self.farewell.filter(|&(at, _)| at <= self.now) else { return };
        self.farewell = (rounds > 1).then_some((at + FAREWELL_PAUSE, rounds - 1));
        if let Some(own) = self.table.record(self.id).cloned() {
            self.push(&own, usize::MAX);
        }
    }

    fn own_entry(&self, version: u64) -> Entry {
        Entry {
            id: self.id,
            boot: self.config.boot,
            version,
            name: self.config.name.clone(),
            sign_key: self.crypto.sign_key(),
            exchange_key: self.crypto.exchange_key(),
            adapters: self.adapters.clone(),
            attributes: self.config.attributes.clone(),
            left: self.left,
            operator: self.config.operator_key.map(operator_id),
        }
    }

    /// Whether the entry as it would be written fits.
    pub(super) fn check_size(&self, adapters: &[Adapter]) -> Result<(), RecordTooLarge> {
        let entry = Entry { adapters: adapters.to_vec(), ..self.own_entry(self.version + 1) };
        Record::Entry(entry).to_unsigned_bytes().map(drop)
    }

    pub(super) fn is_allowed(&self, id: NodeId) -> bool {
        id == self.id || self.config.allow.as_ref().is_none_or(|allow| allow.contains(&id))
    }

    /// Parses a record and checks that its author wrote it, and may be a member.
    pub(super) fn verify(&mut self, bytes: &[u8]) -> Option<SignedRecord> {
        let signed = self.verify_author(bytes)?;
        // A removal of one who may not join is welcome; refusing it would keep the tables apart.
        let entry = matches!(signed.record, Record::Entry(_));
        if entry && !self.is_allowed(signed.record.id()) {
            self.note_stranger(signed.record.id());
            return None;
        }
        Some(signed)
    }

    /// One who may not be a member was met.
    pub(super) fn note_stranger(&mut self, id: NodeId) {
        self.counters.dropped_not_allowed += 1;
        self.stranger = Some(id);
        self.strangers.note(self.now);
    }

    /// Parses a record and checks that its author wrote it.
    pub(super) fn verify_author(&mut self, bytes: &[u8]) -> Option<SignedRecord> {
        let Ok(signed) = SignedRecord::parse(bytes) else {
            self.counters.dropped_malformed += 1;
            return None;
        };
        let (message, signature) = signed.signed_part();
        let key = signed.record.author_key();
        let owned = match &signed.record {
            Record::Entry(entry) => self.crypto.node_id(&entry.sign_key) == entry.id,
            Record::Forgotten(forgotten) => self.is_allowed(self.crypto.node_id(&forgotten.by_key)),
        };
        if !owned || !self.crypto.verify(key, message, signature) {
            self.counters.dropped_signature += 1;
            return None;
        }
        Some(signed)
    }

    /// Takes a record from the network.
    pub(super) fn handle_record(&mut self, origin: Option<Origin>, bytes: &[u8]) {
        // Most records that arrive are known: look before checking a signature.
        if let Ok(parsed) = SignedRecord::parse(bytes) {
            let held = self.table.record(parsed.record.id());
            let known = held.is_some_and(|held| held.record.precedence() >= parsed.record.precedence());
            if known && !self.is_own_double(&parsed) {
                return;
            }
            if let Some(removal) = self.table.ended(&parsed).cloned() {
                // Who still holds an entry that was ended is to know.
                if let Some(origin) = origin.filter(|_| matches!(parsed.record, Record::Entry(_))) {
                    self.answer(origin, |out| Frame::Record(removal.bytes()).emit(out));
                }
                return;
            }
        }
        if let Some(record) = self.verify(bytes) {
            self.merge(record);
        }
    }

    /// Whether the record claims our own version for something else: an earlier life used the version up and could
    /// not remember it.
    fn is_own_double(&self, record: &SignedRecord) -> bool {
        record.record.id() == self.id
            && self.table.record(self.id).is_some_and(|held| {
                held.record.precedence() == record.record.precedence() && held.bytes() != record.bytes()
            })
    }

    /// Takes a verified record.
    pub(super) fn merge(&mut self, record: SignedRecord) {
        if record.record.id() != self.id {
            if let Record::Forgotten(removal) = &record.record
                && self.removes_the_living(removal, &record)
            {
                return;
            }
            self.store(record);
            return;
        }
        // Only this node writes its entry: whatever outranks it is an earlier life, or a removal.
        let (version, _) = record.record.precedence();
        let ours = self.table.record(self.id).map(|held| held.record.precedence());
        let outranked = ours.is_none_or(|ours| ours < record.record.precedence());
        if self.left || !outranked && !self.is_own_double(&record) || self.is_beyond(&record) {
            return;
        }
        self.version = self.version.max(version);
        match &record.record {
            Record::Entry(entry) => match self.note_outranked(entry) {
                Answer::AtOnce => {}
                Answer::Later => return self.membership.renew_later(),
                Answer::Never => return,
            },
            Record::Forgotten(removal) if self.note_removed(removal) => self.begin_again(),
            Record::Forgotten(_) => return self.membership.renew_later(),
        }
        self.renew_identity();
    }

    /// Publishes a new version, then takes an identity under it: whatever others hold of this node is outranked.
    pub(super) fn renew_identity(&mut self) {
        if self.publish().is_ok() {
            let identity = Identity::new(self.id, self.config.boot, self.version);
            self.membership.outrank(self.now, identity);
            self.pump_membership();
        }
    }

    /// This node was forgotten while it lived, and others dropped their half of its sessions. It comes back as a newcomer,
    /// under a boot of its own, so that no key, number or message of the old sessions is used again.
    fn begin_again(&mut self) {
        self.seal_drafts();
        let mut boot = [0; 16];
        self.rng.fill_bytes(&mut boot);
        self.config.boot = BootId(boot);
        self.began = self.now;
        self.senders.begin_again(&self.crypto, self.config.boot);
        self.sessions.clear();
        self.handshakes.begin_again(self.now);
        for (&id, peer) in &mut self.peers {
            peer.restart(&self.config, peer.boot);
            peer.set_alive(self.seen.get(&id).is_some_and(|seen| is_live(seen.state)), self.now);
            let mut env = Surroundings {
                counters: &mut self.counters,
                events: &mut self.events,
                fates: &mut self.fates,
                outcome: &mut self.outcome,
            };
            peer.report(&mut env);
            if let Some(entry) = self.table.entry(id) {
                let (local, remote) =
                    (Adapters::unchanged(&self.adapters), Adapters::unchanged(&entry.adapters));
                peer.sync_paths(self.now, local, remote, &mut env);
            }
            self.to_transmit.insert(id);
            self.to_schedule.insert(id);
        }
        self.share_window();
    }

    /// Sessions with this boot are over for good: a session opened anew would use its nonces again.
    fn retire(&mut self, id: NodeId, boot: BootId) {
        self.restarts.note(id, self.now);
        if self.retired.len() >= MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back((id, boot));
    }

    /// A removal above [`MAX_REMOVED_VERSION`] ends exactly the version it names, and none of a member that is alive: so nobody
    /// is lifted up there, and whoever is there can be forgotten when it is gone.
    fn is_beyond(&self, record: &SignedRecord) -> bool {
        let Record::Forgotten(removal) = &record.record else { return false };
        let held = self.table.entry(removal.id).filter(|entry| entry.version == removal.version);
        let others_live = removal.id != self.id && is_live(self.state_of(removal.id));
        removal.version > MAX_REMOVED_VERSION && (held.is_none() || others_live)
    }

    /// Puts a record into the table and acts on what changed.
    fn store(&mut self, record: SignedRecord) {
        let id = record.record.id();
        if self.is_beyond(&record) {
            return;
        }
        if let Record::Entry(entry) = &record.record
            && id != self.id
            && self.retired.contains(&(id, entry.boot))
        {
            // It lives on without knowing that it was forgotten: tell it, so that it begins again.
            let outranks = self
                .table
                .record(id)
                .is_none_or(|held| held.record.precedence() < record.record.precedence());
            if let Some(removal) = self.removal(id, entry.version).filter(|_| outranks) {
                self.store(removal);
            }
            return;
        }
        let claims = self.claims_before(&record.record);
        let adapters = self.table.entry(id).map(|entry| entry.adapters.clone()).unwrap_or_default();
        match self.table.merge(record.clone()) {
            Merge::Known => return,
            Merge::Full => {
                self.counters.dropped_limit += 1;
                self.kept_out.note(self.now);
                return;
            }
            Merge::Changed => {}
        }
        self.agreement.table_changed(self.now);
        if id == self.id || is_live(self.state_of(id)) {
            self.facts_changed = true;
        } else {
            self.facts_aside.want();
        }
        self.events.push_back(Event::Table { digest: self.table.digest() });
        self.note_claims(id, &claims);
        self.membership.broadcast(self.now, &record);
        self.met(id);
        let known = self.lived.contains(&id);
        if id != self.id {
            match &record.record {
                Record::Entry(entry) => self.entry_changed(entry, &adapters),
                Record::Forgotten(_) => self.entry_removed(id),
            }
            if known {
                self.events.push_back(Event::Routes);
            } else {
                self.routes.want();
            }
        }
        let entry = match &record.record {
            Record::Entry(entry) => Some(entry),
            Record::Forgotten(_) => None,
        };
        self.membership.learn(self.now, id, entry);
        self.pump_membership();
    }

    /// `before`: the adapters of the entry that it replaced.
    fn entry_changed(&mut self, entry: &Entry, before: &[Adapter]) {
        let id = entry.id;
        self.conflict.note_let_in(entry);
        match self.peers.get_mut(&id) {
            None => {
                self.peers.insert(id, Box::new(Peer::new(&self.config, id, entry.boot)));
                self.share_window();
            }
            Some(peer) if peer.boot != entry.boot => {
                let before = peer.boot;
                peer.restart(&self.config, entry.boot);
                self.share_window();
                self.handshakes.forget(id);
                self.retire(id, before);
                self.forget_told(id);
            }
            Some(_) => {}
        }
        self.index_sessions(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut env = Surroundings {
            counters: &mut self.counters,
            events: &mut self.events,
            fates: &mut self.fates,
            outcome: &mut self.outcome,
        };
        peer.report(&mut env);
        let remote = Adapters { now: &entry.adapters, before };
        peer.sync_paths(self.now, Adapters::unchanged(&self.adapters), remote, &mut env);
        self.touch(id);
        self.handshakes.hurry_with(id, self.now);
        self.refresh_member(entry);
    }

    /// What all peers may have open here is shared among them.
    fn share_window(&mut self) {
        let share = self.config.receive_total_bytes / self.peers.len().max(1);
        let window = share.min(self.config.receive_window_bytes);
        self.peers.values_mut().for_each(|peer| peer.inbox.set_window(window));
    }

    /// What a life of a member told is over with it.
    fn forget_told(&mut self, id: NodeId) {
        self.agreement.forget(id);
        self.hearsay.forget(id);
        self.documents.forget(id);
        self.refusals.forget(id);
    }

    fn entry_removed(&mut self, id: NodeId) {
        self.sessions.retain(|_, node| *node != id);
        self.handshakes.forget(id);
        if let Some(mut peer) = self.peers.remove(&id) {
            self.retire(id, peer.boot);
            peer.outbox.abandon();
            let mut env = Surroundings {
                counters: &mut self.counters,
                events: &mut self.events,
                fates: &mut self.fates,
                outcome: &mut self.outcome,
            };
            peer.report(&mut env);
            self.share_window();
        }
        self.seen.remove(&id);
        self.lived.remove(&id);
        self.removals.forget(id);
        self.forget_told(id);
        self.to_schedule.insert(id);
    }

    /// Removes a member's entry for good.
    ///
    /// # Errors
    /// In words: unknown, or still alive. Nothing changed.
    pub fn forget(&mut self, now: crate::Instant, node: NodeId) -> Result<(), &'static str> {
        self.now = now;
        if node == self.id {
            return Err("a node does not forget itself; stop it first and forget it at another member");
        }
        let Some(entry) = self.table.entry(node) else {
            return Err("no member of that name or id; `overlan members` lists them");
        };
        if is_live(self.state_of(node)) {
            return Err("the member is alive; stop it first");
        }
        let signed = self.removal(node, entry.version).ok_or("the removal does not fit a record")?;
        self.store(signed.clone());
        self.push(&signed, DIRECT_PUSHES);
        Ok(())
    }

    /// The removal of a node's entry up to this version, signed by this node.
    fn removal(&self, id: NodeId, version: u64) -> Option<SignedRecord> {
        let record = Record::Forgotten(Forgotten { id, version, by_key: self.crypto.sign_key() });
        let unsigned = record.to_unsigned_bytes().ok()?;
        let signature = self.crypto.sign(&unsigned);
        Some(SignedRecord::new(record, unsigned, &signature))
    }
}
