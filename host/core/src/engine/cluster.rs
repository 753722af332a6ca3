//! Stateless cluster datagrams: sealing, opening, and who sent what.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::frame::{FRAME_HEADER, Frames};
use overlan_wire::limits::{BASE_DATAGRAM, LEAST_DATAGRAM, TAG};
use overlan_wire::packet::CLUSTER_HEADER;
use overlan_wire::{BootId, Frame, Header, KeyId, Kind, NodeId};

use super::answers::Allowance;
use super::counts::{ASK_PAUSE, OLD_BURST, OLD_REST, needs_no_window};
use super::replay::Window;
use super::session::Arrived;
use super::{Core, MAX_CLUSTER_QUEUE};
use crate::crypto::{Aead, Crypto};
use crate::event::Transmit;
use crate::plan::Plans;
use crate::sighting::Sighting;
use crate::time::Instant;

/// Boots whose keys and replay windows are kept; those that no entry names, and were silent for longest, give way.
const MAX_SENDERS: usize = 8_192;
/// So many at once: whoever makes up boots does not have all looked through for each.
const GIVE_WAY: usize = MAX_SENDERS / 4;

/// For so long after a boot began others may take this node for the boot before.
const OLD_BOOT_FADES: Duration = Duration::from_secs(30);

/// Frame bytes in one cluster datagram.
pub(super) const ROOM: usize = BASE_DATAGRAM - CLUSTER_HEADER - TAG;
/// The same in the least that is sent where a path does not carry the base datagram.
pub(super) const LEAST_ROOM: usize = LEAST_DATAGRAM - CLUSTER_HEADER - TAG;
/// How many of the latest drafts are looked through for one that more frames may go into.
const OPEN_DRAFTS: usize = 8;

/// Frames that wait to be sealed in one datagram.
pub(super) struct Draft {
    local: SocketAddr,
    remote: SocketAddr,
    to: Option<BootId>,
    /// Nothing joins it.
    alone: bool,
    frames: Vec<u8>,
}

/// Where a cluster datagram came from: enough to answer it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) boot: BootId,
    /// What it was sealed with.
    pub(super) key: KeyId,
}

/// One boot that has sent authentic datagrams.
struct Sender<A> {
    cipher: A,
    window: Window,
    /// Until then it gets no answer of the sync protocol.
    quiet_until: Instant,
    /// Until then it is not asked for its count.
    unasked_until: Instant,
    /// When all old datagrams that were looked through at once are rested from.
    rested: Instant,
    /// The address at which it got what only a hello's answer says.
    proved: Option<SocketAddr>,
    allowance: Allowance,
}

impl<A> Sender<A> {
    fn new(cipher: A, counter: u64, now: Instant) -> Self {
        let window = Window::new(counter, now);
        Sender {
            cipher,
            window,
            quiet_until: now,
            unasked_until: now,
            rested: now,
            proved: None,
            allowance: Allowance::new(now),
        }
    }

    /// Whether one more datagram whose number came, or is too old to tell, is looked through.
    fn admits_old(&mut self, now: Instant) -> bool {
        let rested = self.rested.max(now) + OLD_REST;
        let admits = rested <= now + OLD_REST * OLD_BURST;
        if admits {
            self.rested = rested;
        }
        admits
    }
}

/// A cluster datagram that was opened.
struct Opened {
    /// Bytes of its frames.
    len: usize,
    /// Its number came, or is too old to tell.
    old: bool,
}

/// Keys of stateless datagrams, ours and others'.
pub(super) struct Senders<A> {
    own_key: KeyId,
    own: Option<A>,
    counter: u64,
    /// Boxed, as the table's records are.
    others: BTreeMap<(KeyId, BootId), Box<Sender<A>>>,
}

impl<A: Aead> Senders<A> {
    pub(super) fn new<C: Crypto<Aead = A>>(crypto: &C, boot: BootId) -> Self {
        let own_key = crypto.active_key();
        Senders { own_key, own: crypto.cluster_cipher(own_key, boot), counter: 0, others: BTreeMap::new() }
    }

    /// Whether an answer of the sync protocol to this boot may go out: not more than one in `pause`.
    pub(super) fn may_answer(&mut self, origin: Origin, pause: Duration, now: Instant) -> bool {
        let Some(sender) = self.others.get_mut(&(origin.key, origin.boot)) else { return false };
        let may = now >= sender.quiet_until;
        if may {
            sender.quiet_until = now + pause;
        }
        may
    }

    /// The sender of this has got what went to where this came from.
    pub(super) fn prove(&mut self, origin: Origin) {
        if let Some(sender) = self.others.get_mut(&(origin.key, origin.boot)) {
            sender.proved = Some(origin.remote);
        }
    }

    pub(super) fn is_proved(&self, origin: Origin) -> bool {
        let sender = self.others.get(&(origin.key, origin.boot));
        sender.is_some_and(|sender| sender.proved == Some(origin.remote))
    }

    pub(super) fn allowance(&mut self, origin: Origin) -> Option<&mut Allowance> {
        self.others.get_mut(&(origin.key, origin.boot)).map(|sender| &mut sender.allowance)
    }

    /// The keyring changed.
    pub(super) fn rekey<C: Crypto<Aead = A>>(&mut self, crypto: &C, boot: BootId) {
        self.own_key = crypto.active_key();
        self.own = crypto.cluster_cipher(self.own_key, boot);
        let accepted = crypto.accepted_keys();
        self.others.retain(|(key, _), _| accepted.contains(key));
    }

    /// This node goes on under another boot: another key, and its count from 0.
    pub(super) fn begin_again<C: Crypto<Aead = A>>(&mut self, crypto: &C, boot: BootId) {
        self.rekey(crypto, boot);
        self.counter = 0;
    }

    /// The number of the next datagram of this node's.
    pub(super) fn count(&self) -> u64 {
        self.counter
    }

    /// A member says that it did not send what came with the number `seen`, and where its count stands. Whether a window is
    /// set back: one that was is not any more.
    pub(super) fn set_back(&mut self, boot: BootId, seen: u64, next: u64, now: Instant) -> bool {
        let mut any = false;
        let senders = self.others.iter_mut().filter(|((_, held), _)| *held == boot);
        for (_, sender) in senders.filter(|(_, sender)| sender.window.highest() >= seen.max(next)) {
            sender.window.set_back(next, now);
            any = true;
        }
        any
    }

    fn bound(&mut self, is_known: impl Fn(&BootId) -> bool) {
        if self.others.len() <= MAX_SENDERS {
            return;
        }
        let others = self.others.iter();
        let mut places: Vec<_> =
            others.map(|(&key, sender)| (is_known(&key.1), sender.window.noted(), key)).collect();
        let (first, ..) = places.select_nth_unstable(GIVE_WAY);
        first.iter().for_each(|(.., key)| drop(self.others.remove(key)));
    }
}

impl<C: Crypto> Core<C> {
    /// Queues frames for one datagram: that of others to the same boot which waits to be sealed, if they fit. `to`: the
    /// receiver's boot, `None` for a hello.
    pub(super) fn queue_cluster(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        to: Option<BootId>,
        emit: impl FnOnce(&mut Vec<u8>),
    ) {
        if !self.has_cluster_room() {
            return;
        }
        let room = self.room_by(local, remote, to);
        let fits = |draft: &&mut Draft| {
            let same = (draft.local, draft.remote, draft.to) == (local, remote, to);
            to.is_some() && same && !draft.alone
        };
        let frames = match self.cluster_drafts.iter_mut().rev().take(OPEN_DRAFTS).find(fits) {
            Some(draft) => {
                let before = draft.frames.len();
                emit(&mut draft.frames);
                if draft.frames.len() <= room {
                    return;
                }
                draft.frames.split_off(before)
            }
            None => {
                let mut frames = Vec::with_capacity(256);
                emit(&mut frames);
                frames
            }
        };
        self.cluster_drafts.push(Draft { local, remote, to, alone: false, frames });
    }

    /// Whether one more datagram may be queued; counts where not.
    fn has_cluster_room(&mut self) -> bool {
        let has = self.cluster_queue.len() + self.cluster_drafts.len() < MAX_CLUSTER_QUEUE;
        self.counters.dropped_limit += u64::from(!has);
        has
    }

    /// Queues frames, if there are any, for a datagram of their own.
    pub(super) fn queue_cluster_alone(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        to: BootId,
        frames: Vec<u8>,
    ) {
        if frames.is_empty() || !self.has_cluster_room() {
            return;
        }
        self.cluster_drafts.push(Draft { local, remote, to: Some(to), alone: true, frames });
    }

    /// Frame bytes in one cluster datagram on this path: what is known to be narrow is not sent what it drops. (One frame that
    /// is larger goes alone.)
    fn room_by(&self, local: SocketAddr, remote: SocketAddr, to: Option<BootId>) -> usize {
        let peer = to.and_then(|boot| self.boots.get(&boot)).and_then(|id| self.peers.get(id));
        let path =
            peer.and_then(|peer| peer.paths.iter().find(|path| (path.local, path.remote) == (local, remote)));
        path.map_or(ROOM, |path| path.datagram().min(BASE_DATAGRAM) - CLUSTER_HEADER - TAG)
    }

    /// Seals what was queued: before it is sent, and before keys or boot change.
    pub(super) fn seal_drafts(&mut self) {
        for Draft { local, remote, to, frames, .. } in core::mem::take(&mut self.cluster_drafts) {
            let (boot, counter) = (self.config.boot, self.senders.counter);
            let Some(cipher) = &self.senders.own else { return };
            self.senders.counter += 1;
            let kind =
                if to.is_some() { Kind::Cluster { boot, counter } } else { Kind::Hello { boot, counter } };
            let mut datagram = Vec::with_capacity(CLUSTER_HEADER + frames.len() + TAG);
            Header { key: self.senders.own_key, kind }.emit(&mut datagram);
            let associated = associated(&datagram, to);
            datagram.extend_from_slice(&frames);
            let tag = cipher.seal(nonce(counter), &associated, &mut datagram[CLUSTER_HEADER..]);
            datagram.extend_from_slice(&tag);
            let adapter = self.adapters.iter().find(|adapter| adapter.address == local.ip());
            let dscp = adapter.map_or(0, |adapter| adapter.dscp);
            let transmit = Transmit { local, remote, dscp, segment: datagram.len() };
            self.cluster_queue.push_back((transmit, datagram));
        }
    }

    /// Sends to a member by the best of its paths, or by several where none is known to work.
    pub(super) fn send_cluster(&mut self, to: NodeId, emit: impl Fn(&mut Vec<u8>)) {
        let routes = self.peers.get(&to).map(|peer| peer.cluster_routes(self.now));
        self.send_by(to, &routes.unwrap_or_default(), emit);
    }

    /// Sends to a member by all its paths, up to a few.
    pub(super) fn send_cluster_widely(&mut self, to: NodeId, emit: impl Fn(&mut Vec<u8>)) {
        let routes = self.peers.get(&to).map(|peer| peer.open_routes());
        self.send_by(to, &routes.unwrap_or_default(), emit);
    }

    fn send_by(&mut self, to: NodeId, routes: &[usize], emit: impl Fn(&mut Vec<u8>)) {
        let Some(peer) = self.peers.get(&to) else { return };
        let ends: Vec<_> = routes.iter().map(|&at| (peer.paths[at].local, peer.paths[at].remote)).collect();
        let boot = peer.boot;
        for (local, remote) in ends {
            self.queue_cluster(local, remote, Some(boot), &emit);
        }
    }

    /// Opens a cluster datagram and hands out its frames.
    pub(super) fn handle_cluster(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        header: Header,
        datagram: &mut [u8],
    ) {
        let (boot, counter, to) = match header.kind {
            Kind::Hello { boot, counter } => (boot, counter, None),
            Kind::Cluster { boot, counter } => (boot, counter, Some(self.config.boot)),
            Kind::Data { .. } => return,
        };
        if boot == self.config.boot {
            self.counters.dropped_own += 1;
            return;
        }
        let opened = self.open_cluster(header.key, boot, counter, to, remote, datagram);
        let Some(Opened { len, old }) = opened else { return };
        let origin = Origin { local, remote, boot, key: header.key };
        self.answers.begin(len);
        self.note_proof(origin);
        // The frames borrow the datagram, the handlers the core.
        let text = datagram[CLUSTER_HEADER..CLUSTER_HEADER + len].to_vec();
        let mut dropped = false;
        for frame in Frames::new(&text) {
            match frame {
                Ok(frame) if old && !needs_no_window(&frame) => dropped = true,
                Ok(frame) => self.handle_cluster_frame(origin, header.key, to.is_none(), &frame),
                Err(_) => self.counters.dropped_malformed += 1,
            }
        }
        self.counters.dropped_replayed += u64::from(dropped);
    }

    fn open_cluster(
        &mut self,
        key: KeyId,
        boot: BootId,
        counter: u64,
        to: Option<BootId>,
        remote: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Opened> {
        if datagram.len() < CLUSTER_HEADER + TAG {
            self.counters.dropped_malformed += 1;
            return None;
        }
        let known = self.senders.others.get(&(key, boot));
        let old = known.is_some_and(|sender| !sender.window.is_new(counter));
        let (head, sealed) = datagram.split_at_mut(CLUSTER_HEADER);
        let associated = associated(head, to);
        let derived = if known.is_none() { self.crypto.cluster_cipher(key, boot) } else { None };
        let Some(cipher) = known.map(|sender| &sender.cipher).or(derived.as_ref()) else {
            self.counters.dropped_unknown_key += 1;
            if self.wrong_key.replace((remote, key)).is_none_or(|(_, other)| other != key) {
                self.unknown_keys = Sighting::default();
            }
            self.unknown_keys.note(self.now);
            return None;
        };
        let Some(len) = cipher.open(nonce(counter), &associated, sealed) else {
            self.counters.dropped_forged += 1;
            self.note_forgery();
            return None;
        };
        let now = self.now;
        if let Some(cipher) = derived {
            self.senders.others.insert((key, boot), Box::new(Sender::new(cipher, counter, now)));
            self.senders.bound(|boot| self.boots.contains_key(boot));
        } else if let Some(sender) = self.senders.others.get_mut(&(key, boot)) {
            if old {
                return self.open_old((key, boot), len);
            }
            sender.window.note(counter, now);
        }
        Some(Opened { len, old })
    }

    /// An authentic datagram whose number came, or is too old to tell.
    fn open_old(&mut self, (key, boot): (KeyId, BootId), len: usize) -> Option<Opened> {
        let now = self.now;
        let sender = self.senders.others.get_mut(&(key, boot))?;
        let admitted = sender.admits_old(now);
        if now >= sender.unasked_until {
            sender.unasked_until = now + ASK_PAUSE;
            let seen = sender.window.highest();
            self.ask_count(boot, seen);
        }
        self.counters.dropped_replayed += u64::from(!admitted);
        admitted.then_some(Opened { len, old: true })
    }

    /// What others send to the boot before this one, until they know better, is no problem.
    pub(super) fn note_forgery(&mut self) {
        if self.now.since(self.began) > OLD_BOOT_FADES {
            self.forgeries.note(self.now);
        }
    }

    fn handle_cluster_frame(&mut self, origin: Origin, key: KeyId, first_contact: bool, frame: &Frame<'_>) {
        match frame {
            Frame::Hello { token, digest: _, record } if first_contact => {
                self.handle_hello(origin, *token, record)
            }
            // Whatever lacks our boot in its seal may be a replay from an earlier life.
            _ if first_contact => self.counters.dropped_malformed += 1,
            Frame::HelloReply { echo, token, digest, record } => {
                self.handle_hello_reply(origin, *echo, *token, *digest, record);
            }
            Frame::HelloDone { echo } => self.handle_hello_done(origin, *echo),
            Frame::Refused { echo, code, others } => {
                self.handle_refused(origin, *echo, *code, *others);
            }
            Frame::Membership(data) => self.handle_membership(origin, data),
            Frame::Summary { digest, epoch, agreed, documents, refused } => {
                self.handle_summary(origin, *digest, (*epoch, *agreed), *documents, *refused);
            }
            Frame::Plans { in_force, above } => {
                self.handle_plans(origin, Plans { in_force: *in_force, above: *above });
            }
            Frame::Heard { agreed_by, contested, tables, documents } => {
                self.handle_heard(origin, (*agreed_by, *contested), tables, documents);
            }
            Frame::Buckets { first, hashes } => self.handle_buckets(origin, *first, hashes),
            Frame::Leaves { bucket, leaves } => self.handle_leaves(origin, *bucket, leaves),
            Frame::Want(nodes) => self.handle_want(origin, nodes),
            Frame::Record(bytes) => {
                self.handle_record(Some(origin), bytes);
            }
            Frame::SessionOpen { number, session, cookie, suites, request } => {
                let (number, session) = (*number, *session);
                self.handle_session_open(origin, key, &Arrived { number, session, cookie, suites, request });
            }
            Frame::SessionAccept { echo, answer } => self.handle_session_accept(origin, *echo, answer),
            Frame::SessionCookie { echo, cookie } => self.handle_session_cookie(origin, *echo, *cookie),
            _ => self.counters.dropped_malformed += 1,
        }
    }

    /// What membership says to whoever has just sent something goes back the way that came: its best path here may be one
    /// that has just broken, for which the other end has tried another. An address that the member's entry does not have gets
    /// no more than came from there; the rest goes where the entry says.
    fn answer_probe(&mut self, origin: Origin) {
        let from = self.boots.get(&origin.boot).copied();
        while let Some((to, data)) = self.membership.poll_send_to(from) {
            if self.may_give(origin, FRAME_HEADER + data.len()) {
                self.queue_cluster(origin.local, origin.remote, Some(origin.boot), |out| {
                    Frame::Membership(&data).emit(out);
                });
            } else if self.may_give_elsewhere(origin, data.len()) {
                self.send_cluster(to, |out| Frame::Membership(&data).emit(out));
            } else {
                self.counters.dropped_limit += 1;
            }
        }
    }

    fn handle_membership(&mut self, origin: Origin, data: &[u8]) {
        if !self.boots.contains_key(&origin.boot) {
            // Its entry is not here yet: compare tables first.
            self.send_summary(origin);
            return;
        }
        self.membership.handle_data(self.now, data);
        self.answer_probe(origin);
        if self.membership.take_pinged() {
            self.beat(false);
        }
        self.pump_membership();
        if self.membership.take_behind() {
            // An identity without an entry to bear it out: the sender has a newer table, or lies.
            self.send_summary(origin);
        }
    }
}

fn associated(header: &[u8], to: Option<BootId>) -> Vec<u8> {
    let mut associated = header.to_vec();
    associated.extend_from_slice(&to.unwrap_or_default().0);
    associated
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}
