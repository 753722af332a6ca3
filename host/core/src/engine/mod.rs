//! Ties the parts together.

mod answers;
mod calm;
mod claims;
mod cluster;
mod conflict;
mod counts;
mod documents;
mod facts;
mod gate;
mod hearsay;
mod hello;
mod inputs;
mod last_known;
mod own;
mod questions;
mod records;
mod refusals;
mod removals;
mod replay;
mod session;
mod snapshot;
mod sync;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::{ControlFlow, Range};

use bytes::Bytes;
use overlan_wire::entry::RecordTooLarge;
use overlan_wire::limits::{MAX_MESSAGE, is_open_stream};
use overlan_wire::{Adapter, BootId, Digest, KeyId, MessageMode, NodeId, SessionId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Config;
use crate::crypto::Crypto;
use crate::delivery::arrivals::Arrivals;
use crate::delivery::outbox::Queued;
use crate::event::{Event, Fate, FateReport, Outgoing, SendError, Transmit};
use crate::membership::{Identity, Membership};
use crate::path::recovery::Outcome;
use crate::peer::{Peer, Surroundings};
use crate::plan::Planner;
use crate::policy::Ticket;
use crate::sighting::Sighting;
use crate::status::{Counters, MemberState, Ownership};
use crate::table::Table;
use crate::time::Instant;

use answers::Answers;
use calm::Calm;
use claims::Names;
use cluster::{Draft, Senders};
use conflict::{Conflict, Restarts};
use counts::Impostors;
pub use documents::ApplyError;
use documents::Documents;
use hearsay::Hearsay;
use hello::Hellos;
pub use last_known::LastKnown;
use own::OwnQueue;
use questions::Pending;
use refusals::Refusals;
use removals::Removals;
use session::{Handshakes, Secrets};
use sync::Agreement;

/// Cluster datagrams that may wait to be sent; more are dropped and counted.
const MAX_CLUSTER_QUEUE: usize = 4_096;
/// Of these there is always room for so many.
const FEW_DATAGRAMS: usize = 8;

/// A member's state as last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    boot: BootId,
    state: MemberState,
    since: Instant,
}

/// One member's protocol state.
///
/// Inputs are the `handle_*` and command methods; after any of them, and when
/// [`poll_timeout`](Self::poll_timeout) has come, drain the `poll_*` methods until they return `None`.
///
/// It holds no thread-safe parts: build it in the thread that drives it.
pub struct Core<C: Crypto> {
    crypto: C,
    config: Config,
    id: NodeId,
    rng: ChaCha8Rng,
    now: Instant,
    adapters: Vec<Adapter>,
    version: u64,
    table: Table,
    boots: BTreeMap<BootId, NodeId>,
    names: Names,
    /// Boots of others whose sessions this node has dropped.
    retired: VecDeque<(NodeId, BootId)>,
    membership: Membership,
    seen: BTreeMap<NodeId, Seen>,
    /// Others in the table that were alive once, as far as is known here: an entry alone is no member.
    lived: BTreeSet<NodeId>,
    /// It knew no other member when it started.
    newcomer: bool,
    /// Boxed, as the table's records are.
    peers: BTreeMap<NodeId, Box<Peer<C::Aead>>>,
    sessions: BTreeMap<SessionId, NodeId>,
    handshakes: Handshakes<C::Handshake>,
    planner: Planner,
    plugin_digests: [Digest; 3],
    facts_changed: bool,
    /// The same, of members that are not alive.
    facts_aside: Calm,
    routes: Calm,
    refreshed: Instant,
    started: Instant,
    /// When the present boot began.
    began: Instant,
    hellos: Hellos,
    senders: Senders<C::Aead>,
    agreement: Agreement,
    hearsay: Hearsay,
    documents: Documents,
    refusals: Refusals,
    /// What this member owns and stands by for, as last told.
    owned: BTreeMap<String, Ownership>,
    /// When the last beat was.
    beaten: Option<Instant>,
    answers: Answers,
    cluster_drafts: Vec<Draft>,
    cluster_queue: VecDeque<(Transmit, Vec<u8>)>,
    pending: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    questions: VecDeque<(Ticket, crate::policy::Question)>,
    /// Messages to this node itself.
    own: OwnQueue,
    deadlines: BTreeSet<(Instant, NodeId)>,
    /// Deadlines up to it were overdue because this node did not run, and that is settled.
    slept_until: Instant,
    scheduled: BTreeMap<NodeId, Instant>,
    to_transmit: BTreeSet<NodeId>,
    to_schedule: BTreeSet<NodeId>,
    /// Where the search for ready messages goes on, so that every peer has its turn.
    next_reader: NodeId,
    /// Whose turn it is to send.
    next_writer: NodeId,
    events: VecDeque<Event>,
    fates: VecDeque<FateReport>,
    /// Used over and over.
    outcome: Outcome,
    counters: Counters,
    wrong_key: Option<(SocketAddr, KeyId)>,
    /// Datagrams sealed with a key that is not on the keyring.
    unknown_keys: Sighting,
    /// The last node whose entry was dropped since it may not join.
    stranger: Option<NodeId>,
    strangers: Sighting,
    /// Entries that the table had no room for.
    kept_out: Sighting,
    /// Datagrams that failed authentication, but for what was meant for a boot before this one.
    forgeries: Sighting,
    conflict: Conflict,
    restarts: Restarts,
    impostors: Impostors,
    removals: Removals,
    left: bool,
    /// When the leaving entry is sent again, and how often yet.
    farewell: Option<(Instant, u32)>,
}

impl<C: Crypto> Core<C> {
    /// A core that knows nobody yet. `adapters` in order of preference, each with the address and port a
    /// socket is bound to.
    ///
    /// # Errors
    /// The own entry is too large.
    pub fn new(
        mut config: Config,
        crypto: C,
        adapters: Vec<Adapter>,
        now: Instant,
    ) -> Result<Self, RecordTooLarge> {
        let mut secrets = Secrets::new(core::mem::take(&mut config.seed));
        let mut rng = ChaCha8Rng::from_seed(secrets.draw());
        let id = crypto.node_id(&crypto.sign_key());
        let version = config.last_version;
        let identity = Identity::new(id, config.boot, version + 1);
        let newcomer = config.last_known.is_empty();
        let mut core = Core {
            membership: Membership::new(identity, &mut rng, now),
            planner: Planner::new(id, rng.next_u64()),
            handshakes: Handshakes::new(secrets, now),
            hellos: Hellos::new(now),
            senders: Senders::new(&crypto, config.boot),
            agreement: Agreement::new(now),
            hearsay: Hearsay::default(),
            documents: Documents::default(),
            refusals: Refusals::default(),
            owned: BTreeMap::new(),
            own: OwnQueue::new(config.send_queue_bytes),
            crypto,
            config,
            id,
            rng,
            now,
            adapters: Vec::new(),
            version,
            table: Table::new(),
            boots: BTreeMap::new(),
            names: Names::default(),
            retired: VecDeque::new(),
            seen: BTreeMap::new(),
            lived: BTreeSet::new(),
            newcomer,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            plugin_digests: [Digest([0; 32]); 3],
            facts_changed: true,
            facts_aside: Calm::default(),
            routes: Calm::default(),
            refreshed: now,
            started: now,
            began: now,
            beaten: None,
            answers: Answers::new(now),
            cluster_drafts: Vec::new(),
            cluster_queue: VecDeque::new(),
            pending: BTreeMap::new(),
            next_ticket: 0,
            questions: VecDeque::new(),
            deadlines: BTreeSet::new(),
            slept_until: now,
            scheduled: BTreeMap::new(),
            to_transmit: BTreeSet::new(),
            to_schedule: BTreeSet::new(),
            next_reader: NodeId([0; 16]),
            next_writer: NodeId([0; 16]),
            events: VecDeque::new(),
            fates: VecDeque::new(),
            outcome: Outcome::default(),
            counters: Counters::default(),
            wrong_key: None,
            unknown_keys: Sighting::default(),
            stranger: None,
            strangers: Sighting::default(),
            kept_out: Sighting::default(),
            forgeries: Sighting::default(),
            conflict: Conflict::default(),
            restarts: Restarts::default(),
            impostors: Impostors::default(),
            removals: Removals::default(),
            left: false,
            farewell: None,
        };
        core.restore_document();
        core.handle_adapters(now, adapters)?;
        Ok(core)
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The cryptography in use; [`handle_keyring_change`](Self::handle_keyring_change) changes it.
    pub fn crypto(&self) -> &C {
        &self.crypto
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What became of the next messages.
    pub fn poll_fate(&mut self) -> Option<FateReport> {
        self.fates.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.schedule();
        let peer = self.deadlines.first().map(|&(at, _)| at);
        let own = [
            peer,
            self.membership.next_deadline(),
            self.planner.poll_timeout(),
            self.hellos.next_deadline(self.left),
            Some(self.agreement.next_deadline()),
            self.own.next_deadline(),
            self.farewell.map(|(at, _)| at),
            self.facts_aside.next_deadline(),
            self.routes.next_deadline(),
            (!self.left).then_some(self.handshakes.next_deadline()),
        ];
        own.into_iter().flatten().min()
    }

    /// Appends datagrams for one destination to `buffer` (cleared first).
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.now = now;
        buffer.clear();
        self.seal_drafts();
        if let Some((transmit, datagram)) = self.cluster_queue.pop_front() {
            buffer.extend_from_slice(&datagram);
            self.counters.datagrams_sent += 1;
            self.counters.bytes_sent += datagram.len() as u64;
            return Some(transmit);
        }
        // The room that a burst took is given back.
        self.cluster_queue.shrink_to(FEW_DATAGRAMS);
        while let Some(id) = self.writer() {
            let open = self.peers.get_mut(&id).filter(|peer| peer.is_open());
            let mut env = Surroundings {
                counters: &mut self.counters,
                events: &mut self.events,
                fates: &mut self.fates,
                outcome: &mut self.outcome,
            };
            let transmit = open.and_then(|peer| {
                let transmit = peer.poll_transmit(now, buffer);
                // Unreliable messages that left have made room.
                peer.report(&mut env);
                transmit
            });
            self.want_session(id);
            self.to_schedule.insert(id);
            if let Some(transmit) = transmit {
                self.counters.datagrams_sent += buffer.len().div_ceil(transmit.segment) as u64;
                self.counters.bytes_sent += buffer.len() as u64;
                self.next_writer = after(id);
                return Some(transmit);
            }
            self.to_transmit.remove(&id);
        }
        None
    }

    /// The peer that may send next. Each in turn: one whose queue is never empty would keep the others from their
    /// acknowledgements and probes.
    fn writer(&self) -> Option<NodeId> {
        self.to_transmit.range(self.next_writer..).next().or_else(|| self.to_transmit.first()).copied()
    }

    /// Who sent the messages that [`poll_messages`](Self::poll_messages) would give next.
    pub fn next_sender(&self, takes: impl Fn(u16) -> bool) -> Option<NodeId> {
        // Round robin: each peer in turn, and this node among them.
        let mut turns = self.peers.range(self.next_reader..).chain(self.peers.range(..self.next_reader));
        let peer = turns.find(|(_, peer)| peer.inbox.has_ready(&takes)).map(|(&id, _)| id);
        let own = self.own.has_ready(&takes).then_some(self.id);
        let turn = |id: &NodeId| number(*id).wrapping_sub(number(self.next_reader));
        peer.into_iter().chain(own).min_by_key(turn)
    }

    /// Gives messages for consumers to `each`, all from one sender and in one of the streams that `takes` holds for,
    /// until `each` wants no more or leaves some; whether any was taken. Taking one is accepting it: the sender learns
    /// `delivered`. Let `takes` say no while a stream has no consumer with room: that is the back-pressure.
    pub fn poll_messages(
        &mut self,
        now: Instant,
        takes: impl Fn(u16) -> bool,
        mut each: impl FnMut(&mut Arrivals<'_>) -> ControlFlow<()>,
    ) -> bool {
        self.now = now;
        let Some(from) = self.next_sender(&takes) else { return false };
        self.next_reader = after(from);
        let mut taken = 0;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.inbox.take_ready(from, &takes, |arrivals| {
                let flow = each(arrivals);
                taken += arrivals.taken().count as u64;
                flow
            });
            self.touch(from);
        } else {
            let (fates, counters) = (&mut self.fates, &mut self.counters);
            self.own.take(from, &takes, each, |mode, accepted| {
                taken += accepted.count as u64;
                if mode != MessageMode::Unreliable && accepted.count > 0 {
                    counters.messages_delivered += accepted.count as u64;
                    let tokens = accepted.first.0..accepted.first.0 + accepted.count as u64;
                    fates.push_back(FateReport { tokens, node: from, fate: Fate::Delivered });
                }
            });
            self.report_own();
        }
        self.counters.messages_received += taken;
        taken > 0
    }

    /// Tells where there is room again for messages to this node itself.
    fn report_own(&mut self) {
        while let Some(stream) = self.own.take_writable() {
            self.events.push_back(Event::Writable { node: self.id, stream });
        }
    }

    /// Queues messages. Unreliable ones get no fate.
    ///
    /// # Errors
    /// Messages come back. With [`SendError::QueueFull`] those before them were queued; otherwise nothing was.
    pub fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        outgoing: Outgoing,
    ) -> Result<(), (SendError, Outgoing)> {
        self.now = now;
        if outgoing.payloads.iter().any(|payload| payload.len() > MAX_MESSAGE) {
            return Err((SendError::TooLarge, outgoing));
        }
        if !is_open_stream(outgoing.stream) {
            return Err((SendError::UnknownStream, outgoing));
        }
        let Outgoing { mode, stream, redelivered, payloads, token, lifetime } = outgoing;
        let (count, deadline) = (payloads.len(), lifetime.map(|lifetime| now + lifetime));
        let rest = if to == self.id {
            self.send_to_self((mode, stream, redelivered), token, payloads, deadline)
        } else if let Some(peer) = self.peers.get_mut(&to) {
            let queued = Queued { mode, redelivered, payloads, token, deadline };
            let rest = peer.push(stream, queued, now).err().map(|rest| rest.payloads);
            self.touch(to);
            rest.unwrap_or_default()
        } else {
            let outgoing = Outgoing { mode, stream, redelivered, payloads, token, lifetime };
            return Err((SendError::UnknownNode, outgoing));
        };
        let sent = (count - rest.len()) as u64;
        self.counters.messages_sent += sent;
        if rest.is_empty() {
            return Ok(());
        }
        let token = token + sent;
        let rest = Outgoing { mode, stream, redelivered, payloads: rest, token, lifetime };
        Err((SendError::QueueFull, rest))
    }

    /// Wants messages no more: they are dropped, or, where some of one was sent, it goes on without a further report.
    /// Their fate is [`Fate::Expired`] then. Whether any was still open.
    pub fn cancel(&mut self, now: Instant, to: NodeId, tokens: Range<u64>) -> bool {
        self.cancel_all(now, to, &[tokens])
    }

    /// The same of many messages at once: ascending ranges, of messages that were given together no more than one.
    pub fn cancel_all(&mut self, now: Instant, to: NodeId, tokens: &[Range<u64>]) -> bool {
        self.now = now;
        if to == self.id {
            let before = self.fates.len();
            self.own.cancel(tokens, |token| self.fates.push_back(expired(token, to)));
            return self.report_own_expired(before);
        }
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        let cancelled = peer.outbox.cancel(tokens);
        let mut env = Surroundings {
            counters: &mut self.counters,
            events: &mut self.events,
            fates: &mut self.fates,
            outcome: &mut self.outcome,
        };
        peer.report(&mut env);
        cancelled
    }

    /// Counts what expired of the own messages since there were so many fates; whether any did.
    fn report_own_expired(&mut self, before: usize) -> bool {
        let expired = self.fates.len() - before;
        self.counters.messages_expired += expired as u64;
        self.report_own();
        expired > 0
    }

    /// Ends the wait of own messages whose deadline passed.
    fn expire_own(&mut self) {
        let (before, own) = (self.fates.len(), self.id);
        self.own.expire(self.now, |token| self.fates.push_back(expired(token, own)));
        self.report_own_expired(before);
    }

    /// Queues messages to this node while there is room; the rest.
    fn send_to_self(
        &mut self,
        (mode, stream, redelivered): (MessageMode, u16, bool),
        token: u64,
        payloads: Vec<Bytes>,
        deadline: Option<Instant>,
    ) -> Vec<Bytes> {
        let mut payloads = payloads.into_iter();
        for token in token.. {
            if payloads.len() == 0 || !self.own.has_room(stream) {
                break;
            }
            let Some(payload) = payloads.next() else { break };
            self.own.push(token, (mode, stream, redelivered), payload, deadline);
        }
        payloads.collect()
    }

    /// The member of this name (a live one before others, of several the one that has had it for longest), or whose id
    /// starts with these hexadecimal digits (at least 4, unambiguous).
    pub fn find(&self, name_or_id: &str) -> Option<NodeId> {
        self.named(name_or_id).min().map(|(.., id)| id).or_else(|| self.find_id(name_or_id))
    }

    /// The same, of several with a name one that is not alive before others: whom to [`forget`](Self::forget).
    pub fn find_gone(&self, name_or_id: &str) -> Option<NodeId> {
        self.named(name_or_id).max().map(|(.., id)| id).or_else(|| self.find_id(name_or_id))
    }

    fn find_id(&self, name_or_id: &str) -> Option<NodeId> {
        let mut matching = self.table.entries().filter(|entry| entry.id.to_string().starts_with(name_or_id));
        let found = matching.next().filter(|_| name_or_id.len() >= 4)?;
        matching.next().is_none().then_some(found.id)
    }

    /// Primary owner of a responsibility in the plan in force.
    pub fn owner(&self, responsibility: &str) -> Option<NodeId> {
        self.planner.owner(responsibility)
    }

    /// Live members other than this node.
    pub fn live_peers(&self) -> Vec<NodeId> {
        self.peers.keys().copied().filter(|&id| is_live(self.state_of(id))).collect()
    }

    /// The addresses that host routes are wanted for: of every other member that has not left, of the seeds, of members
    /// of an earlier life, and of newcomers whose hello is being answered: first contact may need a route as well.
    pub fn remote_addresses(&self) -> Vec<SocketAddr> {
        let others = self.table.entries().filter(|entry| entry.id != self.id && !entry.left);
        let newcomers = self.hellos.newcomers(self.now);
        let adapters = others.chain(newcomers).flat_map(|entry| &entry.adapters);
        let mut addresses: Vec<_> = adapters.map(crate::table::socket_address).collect();
        addresses.extend(&self.config.seeds);
        addresses.extend(self.config.last_known.iter().map(|last| last.address));
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The peer's session is missing, or its time is over.
    fn want_session(&mut self, id: NodeId) {
        let probe_all = self.probe_all();
        if !self.handshakes.is_busy(id)
            && let Some(peer) = self.peers.get(&id)
            && let probed = peer.is_probed(self.now, probe_all)
            && peer.handshake_at(&self.config, self.id, probed).is_some_and(|at| at <= self.now)
        {
            self.handshakes.hurry_with(id, self.now);
        }
    }

    /// The peer has something to send or another deadline.
    fn touch(&mut self, id: NodeId) {
        self.to_transmit.insert(id);
        self.to_schedule.insert(id);
    }

    fn schedule(&mut self) {
        let probe_all = self.probe_all();
        for id in core::mem::take(&mut self.to_schedule) {
            let deadline = self.peers.get(&id).and_then(|peer| peer.next_deadline(self.now, probe_all));
            if let Some(old) = self.scheduled.remove(&id) {
                self.deadlines.remove(&(old, id));
            }
            if let Some(at) = deadline {
                self.scheduled.insert(id, at);
                self.deadlines.insert((at, id));
            }
        }
    }

    fn probe_all(&self) -> bool {
        self.peers.len() < crate::peer::PROBE_ALL
    }

    fn state_of(&self, id: NodeId) -> MemberState {
        if id == self.id {
            return if self.left { MemberState::Left } else { MemberState::Alive };
        }
        self.seen.get(&id).map_or(MemberState::Down, |seen| seen.state)
    }
}

fn expired(token: u64, node: NodeId) -> FateReport {
    FateReport { tokens: token..token + 1, node, fate: Fate::Expired }
}

/// Ids stand in a circle: their place.
fn number(NodeId(id): NodeId) -> u128 {
    u128::from_be_bytes(id)
}

/// The place after it.
fn after(id: NodeId) -> NodeId {
    NodeId(number(id).wrapping_add(1).to_be_bytes())
}

/// Whether a member in this state may be relied on.
fn is_live(state: MemberState) -> bool {
    match state {
        MemberState::Alive | MemberState::Suspect => true,
        MemberState::Down | MemberState::Left => false,
    }
}
