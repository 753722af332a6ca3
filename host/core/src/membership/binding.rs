//! Identities bound to the signed table.
//!
//! Whoever holds the cluster key can write any identity into its gossip. One counts only where the node's signed
//! entry bears it out: the entry's boot, and an order no higher than the entry's version. So nobody can make up an
//! identity that the node itself, with its next version, would not outrank.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, PostcardCodec, ProbeNumber, State};
use overlan_wire::{BootId, Entry, NodeId};

use super::Identity;
use crate::time::Instant;

/// Nodes remembered of which nothing bore out what was heard; more are told of again by later gossip.
const MAX_UNPROVEN: usize = 1_024;

/// A node as the table has it.
#[derive(Clone, Copy, Debug)]
struct Bound {
    boot: BootId,
    version: u64,
    left: bool,
    /// When a datagram of it came last, in this boot, or [`NEVER`].
    heard: Instant,
    /// How long its last two answers took, in milliseconds; 0: they did not come yet.
    trips_ms: [u16; 2],
    /// The round trip of the path to it at present, and what a few datagrams in a queue there take, in milliseconds.
    path_ms: (u16, u16),
}

impl Bound {
    fn bears_out(&self, identity: &Identity) -> bool {
        self.boot == identity.boot() && identity.order <= self.version
    }
}

/// What the table says of identities, and what came that it does not bear out.
#[derive(Debug)]
pub(super) struct Binding {
    own: Identity,
    entries: BTreeMap<NodeId, Bound>,
    /// What was last heard of nodes whose entry does not bear it out: news once that comes.
    unproven: BTreeMap<NodeId, Member<Identity>>,
    /// Something was not borne out since the last look.
    pub(super) behind: bool,
    /// Others may hold an identity of this node that its present one does not outrank.
    pub(super) outranked: bool,
    pub(super) probes: Probes,
    pub(super) now: Instant,
    /// Who sent the datagram that is being read.
    sender: Option<NodeId>,
    /// Members that it says are alive.
    alive: Vec<Member<Identity>>,
}

/// Nothing came yet.
const NEVER: Instant = Instant::ZERO;
/// Whoever was heard from so lately is not dead by what another says: to be found dead takes longer. One that comes back
/// from where it saw nobody says it of all.
const HEARD_LATELY: Duration = Duration::from_secs(2);

/// What the answers of a member take until the first of them came.
const FIRST_TRIP_MS: u16 = 500;
/// No answer is waited for longer than this: one that took as long tells of a node that slept.
const LONGEST_TRIP_MS: u16 = 3_000;
/// Probes whose answers are measured, though they come too late to count.
const MEASURED: usize = 4;

/// A probe of this node's.
#[derive(Clone, Copy, Debug)]
struct Asked {
    node: NodeId,
    number: ProbeNumber,
    at: Instant,
}

/// What the headers that pass by tell of probes; foca itself says nothing of them.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The last probes of this node's, the latest first, and whether that was answered.
    asked: [Option<Asked>; MEASURED],
    pub(super) answered: bool,
    /// Somebody probed this node since the last look.
    pub(super) pinged: bool,
}

impl Probes {
    fn note_sent(&mut self, header: &Header<Identity>, now: Instant) {
        if let Message::Ping(number) = header.message {
            self.asked.rotate_right(1);
            self.asked[0] = Some(Asked { node: header.dst.node(), number, at: now });
            self.answered = false;
        }
    }

    /// Returns how long the sender took to answer, if it is an answer of its own.
    fn note_received(&mut self, header: &Header<Identity>, now: Instant) -> Option<Duration> {
        match &header.message {
            Message::Ping(_) => self.pinged = true,
            Message::Ack(number) => {
                let place = self.place(header.src.node(), *number)?;
                self.answered |= place == 0;
                return self.asked[place].map(|asked| now.since(asked.at));
            }
            // It was asked for late: how long it took tells of this node's patience.
            Message::ForwardedAck { origin, probe_number } => {
                self.answered |= self.place(origin.node(), *probe_number) == Some(0);
            }
            _ => {}
        }
        None
    }

    fn place(&self, node: NodeId, number: ProbeNumber) -> Option<usize> {
        let is = |asked: &Asked| (asked.node, asked.number) == (node, number);
        self.asked.iter().position(|asked| asked.as_ref().is_some_and(is))
    }

    /// Who was probed last.
    pub(super) fn target(&self) -> Option<NodeId> {
        self.asked[0].map(|asked| asked.node)
    }
}

impl Binding {
    pub(super) fn new(own: Identity) -> Self {
        Binding {
            own,
            entries: BTreeMap::new(),
            unproven: BTreeMap::new(),
            behind: false,
            outranked: false,
            probes: Probes::default(),
            now: Instant::ZERO,
            sender: None,
            alive: Vec::new(),
        }
    }

    /// Whether somebody else says that a member is dead that was heard from lately.
    fn is_hearsay(&self, member: &Member<Identity>) -> bool {
        let bound = self.entries.get(&member.id().node());
        let heard = bound.map(|bound| bound.heard).filter(|heard| *heard != NEVER);
        let lately = heard.is_some_and(|heard| self.now.since(heard) < HEARD_LATELY);
        lately && member.state() == State::Down && self.sender != Some(member.id().node())
    }

    pub(super) fn set_own(&mut self, own: Identity) {
        self.own = own;
    }

    /// The round trip of the path to a member at present, and what a few datagrams in a queue there take.
    pub(super) fn learn_path(&mut self, node: NodeId, trip: Duration, queue: Duration) {
        if let Some(bound) = self.entries.get_mut(&node) {
            let millis = |time: Duration| time.as_millis().min(LONGEST_TRIP_MS.into()) as u16;
            bound.path_ms = (millis(trip), millis(queue));
        }
    }

    /// How long an answer of a member takes, behind a few datagrams in a queue.
    pub(super) fn trip(&self, node: NodeId) -> Duration {
        // The lesser: a node that was busy for a moment is not far.
        let known = self.entries.get(&node).filter(|bound| bound.trips_ms[0] > 0);
        let trip = |bound: &Bound| {
            let (path, queue) = bound.path_ms;
            u64::from(bound.trips_ms[0].min(bound.trips_ms[1]).max(path) + queue)
        };
        Duration::from_millis(known.map_or(FIRST_TRIP_MS.into(), trip))
    }

    fn note_trip(&mut self, node: NodeId, trip: Duration) {
        let Some(bound) = self.entries.get_mut(&node) else { return };
        let trip_ms = trip.as_millis().clamp(1, LONGEST_TRIP_MS.into()) as u16;
        let before = if bound.trips_ms[0] == 0 { trip_ms } else { bound.trips_ms[0] };
        bound.trips_ms = [trip_ms, before];
    }

    /// The table's entry of a node changed, or is gone. What was heard of it and has waited for that.
    pub(super) fn learn(&mut self, node: NodeId, entry: Option<&Entry>) -> Option<Member<Identity>> {
        match entry {
            Some(&Entry { boot, version, left, .. }) => {
                let before = self.entries.get(&node).filter(|bound| bound.boot == boot);
                let (heard, trips_ms, path_ms) = before
                    .map_or((NEVER, [0; 2], (0, 0)), |bound| (bound.heard, bound.trips_ms, bound.path_ms));
                self.entries.insert(node, Bound { boot, version, left, heard, trips_ms, path_ms });
                let news = self.unproven.remove(&node);
                if self.unproven.is_empty() {
                    // An emptied map keeps its memory.
                    self.unproven = BTreeMap::new();
                }
                news
            }
            None => {
                self.entries.remove(&node);
                None
            }
        }
    }

    fn is_proven(&self, identity: &Identity) -> bool {
        self.entries.get(&identity.node()).is_some_and(|bound| bound.bears_out(identity))
    }

    fn bears_out(&mut self, member: &Member<Identity>) -> bool {
        let (node, proven) = (member.id().node(), self.is_proven(member.id()));
        if !proven {
            self.behind = true;
            // What outranks the rest tells the most.
            let rank = |member: &Member<Identity>| (member.id().order, member.incarnation());
            let outranked = self.unproven.get(&node).map(|heard| rank(heard) <= rank(member));
            if outranked.unwrap_or(self.unproven.len() < MAX_UNPROVEN) {
                self.unproven.insert(node, member.clone());
            }
        }
        proven
    }

    /// An update as it may reach foca.
    fn admit(&mut self, member: Member<Identity>) -> Option<Member<Identity>> {
        self.admits(&member).then(|| self.temper(member))
    }

    /// What was heard before the entry came, as it may reach foca now.
    pub(super) fn admit_late(&mut self, now: Instant, heard: Member<Identity>) -> Option<Member<Identity>> {
        (self.now, self.sender) = (now, None);
        self.is_proven(heard.id()).then(|| self.temper(heard))
    }

    /// Who sent the last datagram, and whom it said to be alive that has not left.
    pub(super) fn take_alive(&mut self) -> (Option<NodeId>, Vec<Member<Identity>>) {
        let mut alive = core::mem::take(&mut self.alive);
        alive.retain(|member| self.entries.get(&member.id().node()).is_some_and(|bound| !bound.left));
        (self.sender, alive)
    }

    /// Whoever was heard from may object to a suspicion.
    fn temper(&self, member: Member<Identity>) -> Member<Identity> {
        match self.is_hearsay(&member) {
            true => Member::new(*member.id(), member.incarnation(), State::Suspect),
            false => member,
        }
    }

    fn admits(&mut self, member: &Member<Identity>) -> bool {
        let identity = member.id();
        if *identity == self.own {
            return true;
        }
        if identity.id == self.own.id {
            // An earlier one says nothing new; a later one is not ours, and others may have believed it.
            let believed = self.entries.get(&self.own.node()).is_some_and(|bound| bound.bears_out(identity));
            self.outranked |= believed && identity.order > self.own.order;
            return false;
        }
        self.bears_out(member)
    }
}

/// The sender's identity is not what its entry says.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum BoundError {
    #[error(transparent)]
    Postcard(#[from] postcard::Error),
    #[error("the table does not bear out the sender's identity")]
    Unproven,
}

/// Foca's postcard encoding; what is read passes the binding first.
#[derive(Clone, Debug)]
pub(super) struct BoundCodec(pub(super) Rc<RefCell<Binding>>);

impl Codec<Identity> for BoundCodec {
    type Error = BoundError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), BoundError> {
        let Binding { probes, now, .. } = &mut *self.0.borrow_mut();
        probes.note_sent(header, *now);
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, BoundError> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        let mut binding = self.0.borrow_mut();
        // Foca refuses what claims to come from ourselves.
        let sender = Member::new(header.src, header.src_incarnation, State::Alive);
        if header.src.id == binding.own.id || binding.bears_out(&sender) {
            let (sender, now) = (header.src.node(), binding.now);
            if let Some(trip) = binding.probes.note_received(&header, now) {
                binding.note_trip(sender, trip);
            }
            binding.sender = Some(sender);
            if let Some(bound) = binding.entries.get_mut(&sender) {
                bound.heard = now;
            }
            Ok(header)
        } else {
            Err(BoundError::Unproven)
        }
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), BoundError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, BoundError> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        let mut binding = self.0.borrow_mut();
        if member.state() != State::Down {
            binding.alive.push(member.clone());
        }
        // That this node is alive is news to nobody: it takes the place of what is refused.
        Ok(binding.admit(member).unwrap_or(Member::alive(binding.own)))
    }
}
