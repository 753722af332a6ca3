//! First contact: hello (our entry) → hello reply (theirs) → hello done. Each end takes the other for
//! alive only when its own random token came back, so that a replayed hello changes nothing; and the
//! reply is never longer than the hello.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::failover::PathState;
use overlan_wire::frame::{refusal, refusal_text};
use overlan_wire::{Adapter, Digest, Entry, Frame, NodeId, Record, SignedRecord};
use rand::Rng;

use super::cluster::{LEAST_ROOM, Origin, ROOM};
use super::facts::JOIN_GRACE;
use super::session::{DETOUR_AFTER, Ends, MAX_DETOURS};
use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::event::Event;
use crate::peer::Peer;
use crate::status::MemberState;
use crate::table::socket_address;
use crate::time::Instant;

/// First pause between hellos; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause while nobody has answered.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Sizes of hellos, in turn: a path may not carry the largest, and no reply is longer than its hello.
const SIZES: [usize; 3] = [ROOM, LEAST_ROOM, (ROOM + LEAST_ROOM) / 2];
/// Hellos sent and not yet answered.
const MAX_SENT: usize = 64;
/// An answered hello is good for this long.
const NEWCOMER: Duration = Duration::from_secs(10);
/// A node that is told for so long that a live member has its identity gives way: the past life of one that came back at
/// other addresses is found dead sooner.
const TAKEN: Duration = Duration::from_secs(10);
/// A refusal counts for so long: whoever refused may be gone since.
const REFUSED: Duration = Duration::from_secs(60);
/// Reasons for refusals that are kept.
const MAX_REASONS: usize = 8;
/// Hellos answered and not yet confirmed.
const MAX_ANSWERED: usize = 256;

/// Hellos under way.
#[derive(Debug)]
pub(super) struct Hellos {
    next: Instant,
    pause: Duration,
    /// Which of the sizes the next ones have.
    turn: usize,
    /// By token, with the way they went.
    sent: BTreeMap<u64, (Instant, Ends)>,
    /// By token, with the address that alone was told it.
    answered: BTreeMap<u64, (SignedRecord, Instant, SocketAddr)>,
    /// Since when a member has been known.
    pub(super) joined: Option<Instant>,
    /// One for each reason.
    pub(super) refused: Vec<Refused>,
}

/// Hellos are refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why.
    pub(super) code: u8,
    since: Instant,
    last: Instant,
    /// What others own this node must not own, too, while it is alone.
    bars: bool,
}

impl Hellos {
    pub(super) fn new(now: Instant) -> Self {
        Hellos {
            next: now,
            pause: FIRST_PAUSE,
            turn: 0,
            sent: BTreeMap::new(),
            answered: BTreeMap::new(),
            joined: None,
            refused: Vec::new(),
        }
    }

    /// When to look again for somebody to greet. Whether there is anybody is not asked before: it takes a look at
    /// the whole table, and this is called for every datagram.
    pub(super) fn next_deadline(&self, left: bool) -> Option<Instant> {
        (!left).then_some(self.next)
    }

    /// Entries of those whose hello was answered a short while ago.
    pub(super) fn newcomers(&self, now: Instant) -> impl Iterator<Item = &Entry> {
        let recent = self.answered.values().filter(move |(_, at, _)| now.since(*at) < NEWCOMER);
        recent.filter_map(|(signed, ..)| match &signed.record {
            Record::Entry(entry) => Some(entry),
            Record::Forgotten(_) => None,
        })
    }

    /// When the next hello is due, if there is no hurry.
    pub(super) fn beat_due(&self) -> Option<Instant> {
        (self.pause == LONGEST_PAUSE).then_some(self.next)
    }

    /// The next hello may go now, where it would be due until `horizon` and there is no hurry.
    pub(super) fn handle_beat(&mut self, now: Instant, horizon: Instant) {
        if self.beat_due().is_some_and(|at| at <= horizon) {
            self.next = self.next.min(now);
        }
    }

    /// Adapters or members changed: try again soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.pause = FIRST_PAUSE;
        self.next = self.next.min(now);
    }
}

impl<C: Crypto> Core<C> {
    /// Seeds at which no live member is known. With nobody alive, all seeds but ourselves.
    fn unknown_seeds(&self) -> Vec<SocketAddr> {
        let own = |seed: &SocketAddr| self.adapters.iter().any(|adapter| socket_address(adapter) == *seed);
        let known = |seed: &SocketAddr| {
            let mut alive = self.table.entries().filter(|entry| is_live(self.state_of(entry.id)));
            alive.any(|entry| entry.adapters.iter().any(|adapter| socket_address(adapter) == *seed))
        };
        self.config.seeds.iter().copied().filter(|seed| !own(seed) && !known(seed)).collect()
    }

    /// Whom to greet now: unknown seeds, members of an earlier life, and addresses of a member that vanished, which may be
    /// back under a boot that nobody knows (an announce to its old boot would not open).
    fn hello_targets(&mut self) -> Vec<SocketAddr> {
        let mut targets = self.unknown_seeds();
        targets.extend(self.some_missing());
        let vanished = self.vanished();
        if !vanished.is_empty() {
            let chosen = vanished[self.rng.next_u64() as usize % vanished.len()];
            let entry = self.table.entry(chosen);
            targets.extend(entry.into_iter().flat_map(|entry| entry.adapters.iter()).map(socket_address));
        }
        targets
    }

    /// Members that are neither alive nor have left.
    fn vanished(&self) -> Vec<NodeId> {
        let down = |id: &NodeId| *id != self.id && self.state_of(*id) == MemberState::Down;
        self.table.entries().map(|entry| entry.id).filter(down).collect()
    }

    pub(super) fn hello_timeout(&mut self) {
        let now = self.now;
        if now < self.hellos.next || self.left {
            return;
        }
        let expired = |refused: &mut Refused| now.since(refused.last) >= REFUSED;
        self.facts_changed |= self.hellos.refused.extract_if(.., expired).count() > 0;
        self.forget_last_known();
        self.hellos.next = now + self.hellos.pause;
        self.hellos.pause = (self.hellos.pause * 2).min(LONGEST_PAUSE);
        let Some(own) = self.table.record(self.id).map(|record| record.bytes().to_vec()) else { return };
        let digest = self.table.digest();
        let size = SIZES[self.hellos.turn % SIZES.len()];
        self.hellos.turn += 1;
        for seed in self.hello_targets() {
            for local in self.locals_for(seed) {
                let token = self.rng.next_u64();
                while self.hellos.sent.len() >= MAX_SENT {
                    let oldest =
                        self.hellos.sent.iter().min_by_key(|(_, (at, _))| *at).map(|(&token, _)| token);
                    self.hellos.sent.remove(&oldest.unwrap_or_default());
                }
                self.hellos.sent.insert(token, (now, (local, seed)));
                self.counters.hellos_sent += 1;
                self.queue_cluster(local, seed, None, |out| {
                    Frame::Hello { token, digest, record: &own }.emit(out);
                    // Padding: the reply is never longer.
                    out.resize(size.max(out.len()), 0);
                });
            }
        }
    }

    /// Own addresses from which there may be a way to another.
    fn locals_for(&self, remote: SocketAddr) -> Vec<SocketAddr> {
        let up = self.adapters.iter().filter(|adapter| adapter.status == overlan_wire::AdapterStatus::Up);
        let may_reach = |local: &SocketAddr| {
            local.is_ipv4() == remote.is_ipv4() && local.ip().is_loopback() == remote.ip().is_loopback()
        };
        up.map(socket_address).filter(may_reach).collect()
    }

    /// Other ways to one that goes on greeting though it was answered: none may work both ways. Its signed entry names
    /// them, and all that a hello is answered with is no longer than three times as much (RFC 9000 section 8.1).
    fn hello_detours(&mut self, origin: Origin, entry: &Entry) -> Vec<Ends> {
        let now = self.now;
        let mut unheard = self.hellos.answered.values().filter(|(_, at, _)| now.since(*at) >= DETOUR_AFTER);
        if !unheard.any(|(held, ..)| held.record.id() == entry.id) {
            return Vec::new();
        }
        let remotes = entry.adapters.iter().map(socket_address);
        let ways =
            remotes.flat_map(|remote| self.locals_for(remote).into_iter().map(move |local| (local, remote)));
        let others = ways.filter(|&ways| ways != (origin.local, origin.remote)).collect();
        self.some(others, MAX_DETOURS)
    }

    /// So many of these, by chance.
    pub(super) fn some<T>(&mut self, mut all: Vec<T>, most: usize) -> Vec<T> {
        while all.len() > most {
            all.swap_remove(self.rng.next_u64() as usize % all.len());
        }
        all
    }

    pub(super) fn handle_hello(&mut self, origin: Origin, token: u64, record: &[u8]) {
        let Some(record) = self.verify_author(record) else { return };
        let Record::Entry(entry) = &record.record else {
            self.counters.dropped_malformed += 1;
            return;
        };
        if entry.boot != origin.boot {
            self.counters.dropped_malformed += 1;
            return;
        }
        let code = if !self.is_allowed(entry.id) {
            self.note_stranger(entry.id);
            Some(refusal::NOT_ALLOWED)
        } else if self.table.is_full_for(entry.id) {
            self.kept_out.note(self.now);
            Some(refusal::TABLE_FULL)
        } else if self.yields_name(entry) {
            self.counters.hellos_refused += 1;
            return;
        } else if self.name_is_taken(entry) {
            Some(refusal::NAME_TAKEN)
        } else if self.identity_is_taken(entry) {
            self.conflict.note_refused(self.now, entry);
            Some(refusal::IDENTITY_TAKEN)
        } else if self.is_awaited_elsewhere(entry) {
            Some(refusal::AWAITED_ELSEWHERE)
        } else {
            None
        };
        if let Some(code) = code {
            self.counters.hellos_refused += 1;
            let others = !self.live_peers().is_empty();
            self.answer(origin, |out| Frame::Refused { echo: token, code, others }.emit(out));
            return;
        }
        let Some(own) = self.table.record(self.id).map(|record| record.bytes().to_vec()) else { return };
        let digest = self.table.digest();
        let reply = |token_here| Frame::HelloReply { echo: token, token: token_here, digest, record: &own };
        let mut longest = Vec::new();
        reply(u64::MAX).emit(&mut longest);
        if !self.answers.spend(longest.len()) {
            // A longer one comes.
            return;
        }
        let now = self.now;
        let detours = self.hello_detours(origin, entry);
        self.hellos.answered.retain(|_, (_, at, _)| now.since(*at) < NEWCOMER);
        self.events.push_back(Event::Routes);
        for (local, remote) in detours.into_iter().chain([(origin.local, origin.remote)]) {
            if self.hellos.answered.len() >= MAX_ANSWERED {
                // The smallest token is as good as any: they are random.
                self.hellos.answered.pop_first();
                self.counters.dropped_limit += 1;
            }
            // One for each: it proves where it was received.
            let token_here = self.rng.next_u64();
            self.hellos.answered.insert(token_here, (record.clone(), now, remote));
            self.queue_cluster(local, remote, Some(origin.boot), |out| reply(token_here).emit(out));
        }
    }

    /// A live member of another id has the name.
    fn name_is_taken(&self, entry: &overlan_wire::Entry) -> bool {
        let mut others = self.table.entries().filter(|held| held.id != entry.id && held.name == entry.name);
        others.any(|held| is_live(self.state_of(held.id)))
    }

    /// Two nodes of one name that are alone must not keep each other out: one of them says nothing. It is the one that was let
    /// in nowhere, and of two that have just started the one of higher id.
    fn yields_name(&self, entry: &Entry) -> bool {
        let starts = self.hellos.joined.is_none() && self.now.since(self.started) < JOIN_GRACE;
        entry.id != self.id
            && entry.name == self.config.name
            && (self.is_barred() || starts && entry.id < self.id)
    }

    /// A member that answers has the id, at other addresses under another boot: this is a copy of it. One that crashed and
    /// came back elsewhere is let in once its past life is found dead.
    fn identity_is_taken(&self, entry: &Entry) -> bool {
        let Some(held) = self.table.entry(entry.id).filter(|held| held.boot != entry.boot) else {
            return false;
        };
        if entry.id == self.id {
            // Where neither is a member yet, one gives way by what `conflict` says.
            return self.hellos.joined.is_some();
        }
        let at = |adapter: &Adapter| {
            entry.adapters.iter().any(|new| socket_address(new) == socket_address(adapter))
        };
        let answers = |peer: &Peer<C::Aead>| peer.paths.iter().any(|path| path.state() != PathState::Down);
        is_live(self.state_of(entry.id))
            && self.peers.get(&entry.id).is_some_and(|peer| answers(peer))
            && !held.adapters.iter().any(at)
    }

    pub(super) fn handle_hello_reply(
        &mut self,
        origin: Origin,
        echo: u64,
        token: u64,
        digest: Digest,
        record: &[u8],
    ) {
        let Some((_, (local, remote))) = self.hellos.sent.remove(&echo) else {
            // Once another has answered, the hellos before are forgotten: what comes late is no replay.
            self.counters.dropped_replayed += u64::from(self.hellos.joined.is_none());
            return;
        };
        let Some(record) = self.verify(record) else { return };
        let id = record.record.id();
        if let Record::Entry(entry) = &record.record {
            let taken = self.identity_is_taken(entry);
            if taken {
                self.conflict.note_refused(self.now, entry);
            }
            if taken || self.is_awaited_elsewhere(entry) {
                self.counters.hellos_refused += 1;
                return;
            }
        }
        if remote == origin.remote {
            self.senders.prove(origin);
        }
        self.answer(origin, |out| Frame::HelloDone { echo: token }.emit(out));
        if (local, remote) != (origin.local, origin.remote) {
            // The way that the hello went works.
            self.queue_cluster(local, remote, Some(origin.boot), |out| {
                Frame::HelloDone { echo: token }.emit(out)
            });
        }
        self.joined();
        self.merge(record);
        self.membership.announce(self.now, id);
        self.pump_membership();
        if digest != self.table.digest() {
            self.send_summary(origin);
        }
    }

    pub(super) fn handle_hello_done(&mut self, origin: Origin, echo: u64) {
        let Some((record, _, told_at)) = self.hellos.answered.remove(&echo) else {
            self.counters.dropped_replayed += 1;
            return;
        };
        if told_at == origin.remote {
            self.senders.prove(origin);
        }
        self.joined();
        self.merge(record);
        self.send_summary(origin);
    }

    fn joined(&mut self) {
        self.facts_changed |= self.is_barred();
        self.hellos.joined.get_or_insert(self.now);
        self.hellos.refused.clear();
        self.hellos.sent.clear();
    }

    /// Alone, and told by others that it may not join them: what they own it must not own, too. One that sees others alive
    /// is a member, whatever yet others say.
    pub(super) fn is_barred(&self) -> bool {
        self.hellos.refused.iter().any(|refused| refused.bars) && self.live_peers().is_empty()
    }

    pub(super) fn handle_refused(&mut self, origin: Origin, echo: u64, code: u8, others: bool) {
        // Of a member, one that starts anew knows no better.
        let passing = code == refusal::AWAITED_ELSEWHERE && !self.live_peers().is_empty();
        if self.hellos.sent.remove(&echo).is_none() || passing {
            return;
        }
        // Who is refused by one that is as alone as itself was there first, unless it has just started.
        let elsewhere = matches!(code, refusal::IDENTITY_TAKEN | refusal::AWAITED_ELSEWHERE);
        let bars = others || elsewhere || self.now.since(self.started) < JOIN_GRACE;
        let now = self.now;
        let Some(known) = self.hellos.refused.iter_mut().find(|known| known.code == code) else {
            if self.hellos.refused.len() < MAX_REASONS {
                self.hellos.refused.push(Refused { code, since: now, last: now, bars });
                self.facts_changed = true;
                self.events.push_back(Event::Refused(refusal_text(code)));
            }
            return;
        };
        self.facts_changed |= bars && !known.bars;
        (known.last, known.bars) = (now, known.bars || bars);
        if code == refusal::IDENTITY_TAKEN && now.since(known.since) >= TAKEN {
            self.events.push_back(Event::IdentityTaken {
                evidence: format!("the member at {} knows it", origin.remote.ip()),
            });
        }
    }
}
