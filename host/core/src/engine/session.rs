//! Handshakes: opening sessions with peers and answering theirs.
//!
//! ```text
//! idle ── a session is wanted ──> opening ── accept ──> proving ── a datagram under the new key ──> idle
//!           opening: sent again with growing pauses, until answered or the peer's own opening wins
//!           proving: pings with growing pauses; after a few, from the start
//! ```
//!
//! When both open at once, the attempt of the lower node id wins. After a few openings in vain that node answers the other's
//! as well, but goes on with its own: where the round trip is long, its answer is on the way.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::frame::{Cookie, SessionAnswer, SessionRequest};
use overlan_wire::{BootId, Frame, KeyId, NodeId, SessionId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::cluster::Origin;
use super::gate::{Gate, Verdict};
use super::{Core, is_live};
use crate::crypto::{Attempt, Crypto};
use crate::peer::Agreed;
use crate::time::Instant;

/// First pause before an opening or a proof is sent again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Openings sent in vain after which the peer's own opening is answered as well, whoever has the lower id.
const YIELD_AFTER: u32 = 3;
/// Openings, over some 5 s, after which a peer that answered none is taken for out of reach.
const IN_VAIN: u32 = 7;
/// Proofs sent in vain after which the handshake starts over.
const MAX_PROOFS: u32 = 5;
/// An opening that comes again so long after it was answered is answered by other paths as well.
pub(super) const DETOUR_AFTER: Duration = Duration::from_millis(250);
/// And by so many of them.
pub(super) const MAX_DETOURS: usize = 2;
/// Answers tried on one sending of an opening: each costs the products of a handshake.
const MAX_ANSWERS: u32 = 8;
/// Paths on which an opening goes out at once while none is known to work.
const MAX_ROUTES: usize = 4;

/// Local and remote address.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// All handshakes under way.
pub(super) struct Handshakes<H> {
    /// When to look again at all peers.
    next: Instant,
    /// To be looked at before, and since when.
    hurried: BTreeSet<NodeId>,
    hurried_at: Instant,
    /// Of the last opening.
    number: u64,
    own: BTreeMap<NodeId, Own<H>>,
    answered: BTreeMap<NodeId, Answered>,
    gate: Gate,
    secrets: Secrets,
}

/// An opening of ours.
struct Own<H> {
    boot: BootId,
    stage: Stage<H>,
    /// The peer had not proven a key when this began, or its own opening was answered since: once it proves one, this
    /// is not needed any more.
    awaits_proof: bool,
    next: Instant,
    pause: Duration,
    tries: u32,
}

enum Stage<H> {
    /// Boxed: a map has room for eleven values, and keeps it.
    Opening(Box<Opening<H>>),
    Proving,
}

struct Opening<H> {
    handshake: H,
    key: KeyId,
    number: u64,
    session: SessionId,
    request: SessionRequest,
    cookie: Option<(Ends, Cookie)>,
    /// Answers tried since it was last sent.
    answers: u32,
}

/// The last opening of a peer that was answered.
struct Answered {
    boot: BootId,
    number: u64,
    session: SessionId,
    answer: SessionAnswer,
}

/// An opening as it arrived.
pub(super) struct Arrived<'a> {
    pub(super) number: u64,
    pub(super) session: SessionId,
    pub(super) cookie: &'a Cookie,
    pub(super) suites: &'a [u8],
    pub(super) request: &'a SessionRequest,
}

/// Randomness for keys. Each draw replaces the seed, so that whoever reads the node's memory cannot find earlier ones.
pub(super) struct Secrets(ChaCha20Rng);

impl Secrets {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Secrets(ChaCha20Rng::from_seed(seed))
    }

    pub(super) fn draw(&mut self) -> [u8; 32] {
        let (mut seed, mut secret) = ([0; 32], [0; 32]);
        self.0.fill_bytes(&mut seed);
        self.0.fill_bytes(&mut secret);
        self.0 = ChaCha20Rng::from_seed(seed);
        secret
    }
}

impl<H> Handshakes<H> {
    pub(super) fn new(mut secrets: Secrets, now: Instant) -> Self {
        let gate = Gate::new([secrets.draw(), secrets.draw()], now);
        Handshakes {
            next: now,
            hurried: BTreeSet::new(),
            hurried_at: now,
            number: 0,
            own: BTreeMap::new(),
            answered: BTreeMap::new(),
            gate,
            secrets,
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        if self.hurried.is_empty() { self.next } else { self.next.min(self.hurried_at) }
    }

    /// Something changed that concerns this peer alone: look at it again.
    pub(super) fn hurry_with(&mut self, peer: NodeId, now: Instant) {
        if self.hurried.is_empty() {
            self.hurried_at = now;
        }
        self.hurried.insert(peer);
    }

    /// Something changed: look at all peers again.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// Whether a handshake with this peer is under way.
    pub(super) fn is_busy(&self, peer: NodeId) -> bool {
        self.own.contains_key(&peer)
    }

    /// Whether this peer has left opening after opening unanswered.
    pub(super) fn in_vain(&self, peer: NodeId) -> bool {
        let opens = |own: &&Own<H>| matches!(own.stage, Stage::Opening(_));
        self.own.get(&peer).filter(opens).is_some_and(|own| own.tries >= IN_VAIN)
    }

    /// The peer is gone, or another now.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.own.remove(&peer);
        self.answered.remove(&peer);
    }

    /// This node goes on under another boot.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.own.clear();
        self.answered.clear();
        self.hurry(now);
    }
}

impl<C: Crypto> Core<C> {
    /// Opens, repeats and renews what is due.
    pub(super) fn session_timeout(&mut self) {
        if self.left {
            return;
        }
        let hurried = core::mem::take(&mut self.handshakes.hurried);
        if self.handshakes.next > self.now {
            let next = hurried.into_iter().filter_map(|peer| self.drive_session(peer)).min();
            self.handshakes.next = next.into_iter().fold(self.handshakes.next, Instant::min);
            return;
        }
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        let next = peers.into_iter().filter_map(|peer| self.drive_session(peer)).min();
        // Looking once an hour for nothing costs nothing.
        self.handshakes.next = next.unwrap_or(self.now + Duration::from_secs(3_600));
    }

    /// When to look again.
    fn drive_session(&mut self, id: NodeId) -> Option<Instant> {
        let (now, probe_all) = (self.now, self.probe_all());
        let peer = self.peers.get_mut(&id)?;
        if peer.expire_session(now) {
            self.index_sessions(id);
        }
        let peer = self.peers.get_mut(&id)?;
        let boot = peer.boot;
        let expiry = peer.next_key_expiry();
        if self.handshakes.own.get(&id).is_some_and(|own| own.boot != boot) {
            self.handshakes.own.remove(&id);
        }
        if let Some(own) = self.handshakes.own.get_mut(&id) {
            let proving = matches!(own.stage, Stage::Proving);
            if peer.is_proven() && (proving || own.awaits_proof) {
                self.handshakes.own.remove(&id);
                return self.drive_session(id);
            }
            if proving && own.next <= now && own.tries >= MAX_PROOFS {
                self.handshakes.own.remove(&id);
                self.counters.handshakes_failed += 1;
                self.open_session(id);
            }
            self.repeat(id);
            let again = self.handshakes.own.get(&id).map(|own| own.next);
            return again.into_iter().chain(expiry).min();
        }
        let probed = peer.is_probed(now, probe_all);
        let due = peer.handshake_at(&self.config, self.id, probed);
        if due.is_none_or(|at| at > now) {
            return due.into_iter().chain(expiry).min();
        }
        self.open_session(id);
        self.repeat(id);
        // The peer's key may be good for nothing.
        let again = self.handshakes.own.get(&id).map_or(now + LONGEST_PAUSE, |own| own.next);
        Some(again).into_iter().chain(expiry).min()
    }

    /// Starts a handshake of our own.
    fn open_session(&mut self, id: NodeId) {
        let (Some(peer), Some(entry)) = (self.peers.get(&id), self.table.entry(id)) else { return };
        let (boot, awaits_proof, exchange_key) = (peer.boot, !peer.is_proven(), entry.exchange_key);
        let (key, session) = (self.crypto.active_key(), self.new_session_id());
        self.handshakes.number += 1;
        let number = self.handshakes.number;
        let attempt = Attempt {
            key,
            initiator: (self.id, self.config.boot),
            responder: (id, boot),
            number,
            session,
            suites: self.crypto.suites(),
        };
        let opened = self.crypto.open(&attempt, &exchange_key, self.handshakes.secrets.draw());
        let Some((handshake, request)) = opened else {
            self.counters.handshakes_failed += 1;
            return;
        };
        self.counters.handshakes_started += 1;
        let opening = Opening { handshake, key, number, session, request, cookie: None, answers: 0 };
        let stage = Stage::Opening(Box::new(opening));
        let own = Own { boot, stage, awaits_proof, next: self.now, pause: FIRST_PAUSE, tries: 0 };
        self.handshakes.own.insert(id, own);
    }

    /// Sends what a handshake of ours waits for an answer to, if it is time.
    fn repeat(&mut self, id: NodeId) {
        let now = self.now;
        let Some(own) = self.handshakes.own.get_mut(&id).filter(|own| own.next <= now) else { return };
        own.next = now + own.pause;
        own.pause = (own.pause * 2).min(LONGEST_PAUSE);
        own.tries = own.tries.saturating_add(1);
        let tries = own.tries;
        match &mut own.stage {
            Stage::Proving => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.prove(now);
                    self.touch(id);
                }
            }
            Stage::Opening(opening) => {
                opening.answers = 0;
                for ends in self.opening_routes(id, tries) {
                    self.send_opening(id, ends);
                }
            }
        }
    }

    /// The paths to send an opening on: one that works, or a few at a time of all that may.
    fn opening_routes(&self, id: NodeId, tries: u32) -> Vec<Ends> {
        let Some(peer) = self.peers.get(&id) else { return Vec::new() };
        let ends = |at: usize| (peer.paths[at].local, peer.paths[at].remote);
        let usable: Vec<usize> =
            (0..peer.paths.len()).filter(|&at| !peer.paths[at].health.adapter_down()).collect();
        if tries <= 1 || usable.len() <= MAX_ROUTES {
            return peer.cluster_routes(self.now).into_iter().map(ends).collect();
        }
        let skipped = (tries as usize - 1) * MAX_ROUTES;
        usable.iter().cycle().skip(skipped % usable.len()).take(MAX_ROUTES).map(|&at| ends(at)).collect()
    }

    fn send_opening(&mut self, id: NodeId, ends: Ends) {
        let Some(Own { boot, stage: Stage::Opening(opening), tries, .. }) = self.handshakes.own.get(&id)
        else {
            return;
        };
        let cookie = opening.cookie.filter(|(held, _)| *held == ends).map(|(_, cookie)| cookie);
        let frame = Frame::SessionOpen {
            number: opening.number,
            session: opening.session,
            cookie: cookie.unwrap_or_default(),
            suites: self.crypto.suites(),
            request: opening.request,
        };
        let (mut entry, mut open) = (Vec::new(), Vec::new());
        // Who has no session with us may not know our entry either.
        if self.peers.get(&id).is_some_and(|peer| !peer.is_open())
            && let Some(own) = self.table.record(self.id)
        {
            Frame::Record(own.bytes()).emit(&mut entry);
        }
        frame.emit(&mut open);
        let (boot, again) = (*boot, *tries > 1);
        if again {
            // What the path may not carry together goes apart.
            self.queue_cluster_alone(ends.0, ends.1, boot, entry);
            self.queue_cluster_alone(ends.0, ends.1, boot, open);
        } else {
            self.queue_cluster(ends.0, ends.1, Some(boot), |out| {
                out.extend_from_slice(&entry);
                out.extend_from_slice(&open);
            });
        }
    }

    /// A peer opens a session.
    pub(super) fn handle_session_open(&mut self, origin: Origin, key: KeyId, arrived: &Arrived<'_>) {
        let now = self.now;
        let Some(&id) = self.boots.get(&origin.boot).filter(|&&id| id != self.id) else {
            self.counters.dropped_unknown_session += 1;
            return;
        };
        let Some(exchange_key) = self.table.entry(id).map(|entry| entry.exchange_key) else { return };
        if self.peers.get(&id).is_none_or(|peer| peer.boot != origin.boot) || self.left {
            return;
        }
        if let Some(answered) = self.handshakes.answered.get(&id).filter(|held| held.boot == origin.boot)
            && answered.number >= arrived.number
        {
            if (answered.number, answered.session) == (arrived.number, arrived.session) {
                // The answer got lost, or came late.
                let frame = Frame::SessionAccept { echo: answered.session, answer: answered.answer };
                let mut out = Vec::new();
                frame.emit(&mut out);
                self.answer(origin, |datagram| datagram.extend_from_slice(&out));
                for (local, remote) in self.detours(id, origin) {
                    self.queue_cluster(local, remote, Some(origin.boot), |datagram| {
                        datagram.extend_from_slice(&out);
                    });
                }
            } else {
                self.counters.dropped_replayed += 1;
            }
            return;
        }
        let ours = self.handshakes.own.get(&id).filter(|own| matches!(own.stage, Stage::Opening(_)));
        if ours.is_some_and(|own| self.id < id && own.tries <= YIELD_AFTER) {
            return;
        }
        match self.admit(origin, arrived.cookie) {
            Verdict::Pass => {}
            Verdict::AskCookie => {
                let secrets = self.cookie_secrets();
                let cookie = self.crypto.cookie(&secrets[0], origin.boot, origin.remote);
                self.counters.cookies_sent += 1;
                let frame = Frame::SessionCookie { echo: arrived.session, cookie };
                self.answer(origin, |out| frame.emit(out));
                return;
            }
            Verdict::Refuse => {
                self.counters.handshakes_refused += 1;
                return;
            }
        }
        let attempt = Attempt {
            key,
            initiator: (id, origin.boot),
            responder: (self.id, self.config.boot),
            number: arrived.number,
            session: arrived.session,
            suites: arrived.suites,
        };
        let session = self.new_session_id();
        let secret = self.handshakes.secrets.draw();
        let Some((answer, keys)) =
            self.crypto.accept(&attempt, &exchange_key, arrived.request, session, secret)
        else {
            self.counters.handshakes_failed += 1;
            return;
        };
        self.give_way(id);
        let (boot, number) = (origin.boot, arrived.number);
        self.handshakes.answered.insert(id, Answered { boot, number, session: arrived.session, answer });
        let agreed = Agreed { key, ids: (arrived.session, session), keys, theirs: true };
        self.take_agreed(id, agreed);
        self.answer(origin, |out| Frame::SessionAccept { echo: arrived.session, answer }.emit(out));
        self.handshakes.hurry(now);
    }

    /// Other ways to a peer that goes on opening though it was answered: none may work both ways. Its signed entry names
    /// them, and all that an opening is answered with is shorter than three times as much (RFC 9000 section 8.1).
    fn detours(&mut self, id: NodeId, origin: Origin) -> Vec<Ends> {
        let (now, ends) = (self.now, (origin.local, origin.remote));
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_unheard(now, DETOUR_AFTER)) else {
            return Vec::new();
        };
        let open = peer.paths.iter().filter(|path| !path.health.adapter_down());
        let mut others: Vec<_> = open
            .map(|path| (!path.health.one_way(), self.rng.next_u32(), (path.local, path.remote)))
            .collect();
        others.retain(|&(.., other)| other != ends);
        // One that carries traffic first, the others by chance: there is another opening soon.
        others.sort_unstable();
        others.into_iter().take(MAX_DETOURS).map(|(.., other)| other).collect()
    }

    /// The peer's opening is answered. The higher id ends its own attempt. The lower one keeps it: its openings may be
    /// answered already, for which the peer has ended the one that is answered here.
    fn give_way(&mut self, id: NodeId) {
        match self.handshakes.own.get_mut(&id) {
            Some(own) if self.id < id && matches!(own.stage, Stage::Opening(_)) => own.awaits_proof = true,
            _ => drop(self.handshakes.own.remove(&id)),
        }
    }

    fn admit(&mut self, origin: Origin, cookie: &Cookie) -> Verdict {
        let proven = *cookie != [0; 16] && {
            let secrets = self.cookie_secrets();
            secrets.iter().any(|secret| {
                let expected = self.crypto.cookie(secret, origin.boot, origin.remote);
                // In a time that does not depend on where they differ.
                expected.iter().zip(cookie).fold(0, |all, (a, b)| all | (a ^ b)) == 0
            })
        };
        self.handshakes.gate.admit(self.now, origin.remote.ip(), proven)
    }

    fn cookie_secrets(&mut self) -> [[u8; 32]; 2] {
        let Handshakes { gate, secrets, .. } = &mut self.handshakes;
        gate.secrets(self.now, || secrets.draw())
    }

    /// A peer answers our opening.
    pub(super) fn handle_session_accept(&mut self, origin: Origin, echo: SessionId, answer: &SessionAnswer) {
        let Some((id, own)) = self.opening_of(origin.boot, echo) else { return };
        let Stage::Opening(opening) = &mut own.stage else { return };
        opening.answers += 1;
        if opening.answers > MAX_ANSWERS {
            self.counters.handshakes_refused += 1;
            return;
        }
        let (key, session) = (opening.key, opening.session);
        let Some(own) = self.handshakes.own.get_mut(&id) else { return };
        let Stage::Opening(opening) = &mut own.stage else { return };
        let Some((to, keys)) = self.crypto.finish(&mut opening.handshake, answer) else {
            self.counters.handshakes_failed += 1;
            return;
        };
        // The first proof goes out with taking the keys.
        own.stage = Stage::Proving;
        (own.next, own.pause, own.tries) = (self.now + FIRST_PAUSE, 2 * FIRST_PAUSE, 0);
        self.counters.handshakes_completed += 1;
        self.take_agreed(id, Agreed { key, ids: (to, session), keys, theirs: false });
        self.handshakes.hurry(self.now);
    }

    /// A peer is busy: open again with its cookie, on the path that it came by.
    pub(super) fn handle_session_cookie(&mut self, origin: Origin, echo: SessionId, cookie: Cookie) {
        let ends = (origin.local, origin.remote);
        let Some((id, own)) = self.opening_of(origin.boot, echo) else { return };
        let Stage::Opening(opening) = &mut own.stage else { return };
        // A second one for the same path is news only when that is due to be sent again.
        if opening.cookie.replace((ends, cookie)).is_none_or(|(held, _)| held != ends) {
            self.send_opening(id, ends);
        }
    }

    /// The opening of ours that an answer from this boot speaks of.
    fn opening_of(&mut self, boot: BootId, echo: SessionId) -> Option<(NodeId, &mut Own<C::Handshake>)> {
        let found = self.boots.get(&boot).copied().and_then(|id| {
            let own = self.handshakes.own.get_mut(&id).filter(|own| own.boot == boot)?;
            matches!(&own.stage, Stage::Opening(opening) if opening.session == echo).then_some((id, own))
        });
        if found.is_none() {
            // Too late: the peer's own opening won, or this is the second answer.
            self.counters.handshakes_refused += 1;
        }
        found
    }

    fn take_agreed(&mut self, id: NodeId, agreed: Agreed<C::Aead>) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&id) {
            self.counters.handshakes_completed += u64::from(agreed.theirs);
            peer.handle_agreed(agreed, now);
        }
        self.index_sessions(id);
        self.touch(id);
    }

    /// Finds the peer's datagrams by the session ids that it has now.
    pub(super) fn index_sessions(&mut self, id: NodeId) {
        self.sessions.retain(|_, node| *node != id);
        if let Some(peer) = self.peers.get(&id) {
            self.sessions.extend(peer.session_ids().map(|session| (session, id)));
        }
    }

    fn new_session_id(&mut self) -> SessionId {
        loop {
            let session = SessionId(self.rng.next_u64());
            if !self.sessions.contains_key(&session) {
                return session;
            }
        }
    }

    /// The cluster keys changed: sessions under retired ones end, those under others than the active one are replaced.
    pub(super) fn rekey_sessions(&mut self, before: KeyId) {
        let accepted = self.crypto.accepted_keys();
        let changed = before != self.crypto.active_key();
        self.handshakes.own.retain(|_, own| match &own.stage {
            Stage::Opening(opening) => accepted.contains(&opening.key) && !changed,
            Stage::Proving => true,
        });
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.handle_cluster_keys(changed, &accepted);
                if !peer.is_open() {
                    self.handshakes.own.remove(&id);
                }
            }
            self.index_sessions(id);
        }
        self.handshakes.hurry(self.now);
    }

    /// A member lives that was not there: do not wait out a long pause. (Proofs are few: in a hurry they would be over
    /// before an answer can be there.)
    pub(super) fn hurry_session(&mut self, id: NodeId) {
        if is_live(self.state_of(id))
            && let Some(own) = self.handshakes.own.get_mut(&id)
            && matches!(own.stage, Stage::Opening(_))
        {
            own.pause = FIRST_PAUSE;
            own.next = own.next.min(self.now);
        }
        self.handshakes.hurry_with(id, self.now);
    }
}
