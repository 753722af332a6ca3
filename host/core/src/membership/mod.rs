//! Membership: the crate `foca` (SWIM), with what it leaves to its user.
//!
//! Foca sends, asks for timers and notifies through [`Effects`]; the engine carries these out, and [`timers`] says when.

mod binding;
mod identity;
mod runtime;
mod timers;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;

use bytes::BufMut;
use foca::{Codec, Foca, Header, Member, Message, PeriodicParams, PostcardCodec, State};
use overlan_wire::limits::{BASE_DATAGRAM, TAG};
use overlan_wire::{BootId, Entry, NodeId, SignedRecord};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::status::MemberState;
use crate::time::Instant;
use binding::{Binding, BoundCodec};
pub(crate) use identity::Identity;
use runtime::{Broadcasts, Effects};

/// One member is probed this often.
const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// A probe unanswered for this long is tried through others, and once more by all paths. Longer where answers take longer.
const PROBE_RTT: Duration = Duration::from_millis(200);
/// Who was not woken by another's probe takes the lead: its next one goes this much earlier, and it wakes the others.
/// (A probe that has no answer yet keeps its time.)
const LEAD: Duration = Duration::from_millis(8);
/// Leads differ by up to this, lest two go on taking it from each other.
const LEAD_SPREAD: Duration = Duration::from_millis(16);
/// Gossip, while there is something to tell.
const GOSSIP: Duration = Duration::from_millis(100);
/// A suspect has this long to object, in small clusters; more in larger ones.
const SUSPICION: Duration = Duration::from_secs(2);
/// A dead identity is remembered for this long, so that old news does not revive it.
const REMEMBER_DOWN: Duration = Duration::from_secs(3_600);
/// Members are announced to again when nobody is active.
const LONELY_ANNOUNCE: Duration = Duration::from_secs(1);
/// A node taken for dead, or outranked by another with its identity, renews its identity at most this often: each costs
/// a version of its entry.
const RENEWAL_PAUSE: Duration = Duration::from_millis(250);
/// Datagrams that there is always room for.
const FEW_SENDS: usize = 4;
/// Largest membership datagram: what a base datagram holds.
pub(crate) const MAX_PACKET: usize =
    BASE_DATAGRAM - overlan_wire::packet::CLUSTER_HEADER - TAG - overlan_wire::frame::FRAME_HEADER;

/// The membership protocol of one node.
pub(crate) struct Membership {
    foca: Foca<Identity, BoundCodec, ChaCha8Rng, Broadcasts>,
    binding: Rc<RefCell<Binding>>,
    effects: Effects,
    timers: BTreeMap<(Instant, u64), foca::Timer<Identity>>,
    next_timer: u64,
    /// When the next member is probed, and what this node's lead is, where it has it.
    probe: Option<(Instant, foca::Timer<Identity>)>,
    /// When it is, once the present one has answered: that one's time may be longer than the period.
    period_ends: Instant,
    /// The probe that waits for its answer.
    ping: Option<(NodeId, Vec<u8>)>,
    lead: Duration,
    leads: bool,
    /// When the probe that is under way is tried through others.
    indirect: Option<(Instant, foca::Timer<Identity>)>,
    /// Gossip's own timer, which rests while there is nothing to tell: an idle node is not woken for it.
    gossip: Option<(Instant, foca::Timer<Identity>)>,
    broadcasts: Broadcasts,
    health: u32,
    /// Members lower than this in the cluster's size get the small-cluster configuration.
    configured_for: usize,
    next_announce: Instant,
    errors: u64,
    left: bool,
    /// Taken for dead while alive, or outranked by an entry that is answered later.
    defunct: bool,
    next_renewal: Instant,
}

impl Membership {
    pub(crate) fn new(identity: Identity, rng: &mut impl Rng, now: Instant) -> Self {
        let broadcasts = Broadcasts::default();
        let binding = Rc::new(RefCell::new(Binding::new(identity)));
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let foca = Foca::with_custom_broadcast(
            identity,
            config(1),
            ChaCha8Rng::from_seed(seed),
            BoundCodec(binding.clone()),
            broadcasts.clone(),
        );
        Membership {
            foca,
            binding,
            effects: Effects::default(),
            timers: BTreeMap::new(),
            next_timer: 0,
            probe: None,
            period_ends: now,
            ping: None,
            lead: LEAD
                + LEAD_SPREAD * u32::from(u16::from_be_bytes([identity.id[0], identity.id[1]])) / (1 << 16),
            leads: false,
            indirect: None,
            gossip: None,
            broadcasts,
            health: 0,
            configured_for: 1,
            next_announce: now,
            errors: 0,
            left: false,
            defunct: false,
            next_renewal: now,
        }
    }

    /// Takes a membership datagram.
    pub(crate) fn handle_data(&mut self, now: Instant, data: &[u8]) {
        self.binding.borrow_mut().now = now;
        let result = self.foca.handle_data(data, &mut self.effects);
        self.note(result);
        self.settle(now);
        self.doubt_deaths(now);
        if self.binding.borrow().probes.answered {
            self.handle_answer(now);
        }
    }

    /// What a live member says of others that are dead here. One that objected to a suspicion since it was found dead
    /// lived on: this node did not reach it, or nobody. Of any other the one who says that it is alive hears a suspicion,
    /// for it to object to. (Foca ends no death under the same identity, and whoever can't be reached from here does not
    /// hear that it is to take another.)
    fn doubt_deaths(&mut self, now: Instant) {
        let (sender, alive) = self.binding.borrow_mut().take_alive();
        let returned = core::mem::take(&mut self.effects.returned);
        if self.foca.iter_membership_state().len() == self.foca.num_members() {
            return;
        }
        let active = |member: &&Member<Identity>| Some(member.id().node()) == sender;
        let Some(sender) = self.foca.iter_members().find(active).map(|member| *member.id()) else { return };
        if returned {
            // Who lives, as it sees it.
            self.announce(now, sender.node());
        }
        let mut doubted = Vec::new();
        for said in alive {
            let died = self.foca.iter_membership_state().find(|held| held.id() == said.id());
            let Some(died) = died.filter(|held| held.state() == State::Down) else { continue };
            if said.incarnation() > died.incarnation() {
                self.revive(now, said);
            } else if said.state() == State::Alive {
                doubted.push(Member::new(*died.id(), died.incarnation(), State::Suspect));
            }
        }
        // No more than it said itself: it fits.
        let told = (!doubted.is_empty()).then(|| self.gossip_to(&sender, &doubted)).flatten();
        self.effects.sends.extend(told.map(|data| (sender.node(), data)));
    }

    /// Takes a member for alive that was dead.
    fn revive(&mut self, now: Instant, lives: Member<Identity>) {
        self.fire(foca::Timer::RemoveDown(*lives.id()), now);
        let result = self.foca.apply_many(core::iter::once(lives), true, &mut self.effects);
        self.note(result);
        self.settle(now);
    }

    /// The present probe was answered.
    fn handle_answer(&mut self, now: Instant) {
        self.ping = None;
        if let Some((at, _)) = &mut self.probe {
            *at = (*at).min(self.period_ends.max(now));
        }
        // It has nothing left to do, but foca wants to have seen it before the next probe.
        if let Some((_, timer)) = self.indirect.take() {
            self.fire(timer, now);
        }
    }

    /// Whether somebody probed this node since the last call.
    pub(crate) fn take_pinged(&mut self) -> bool {
        core::mem::take(&mut self.binding.borrow_mut().probes.pinged)
    }

    /// Asks a member to take this node in.
    pub(crate) fn announce(&mut self, now: Instant, to: NodeId) {
        // An announce is accepted by any identity of the address.
        let to = Identity::new(to, BootId::default(), 0);
        let result = self.foca.announce(to, &mut self.effects);
        self.note(result);
        self.settle(now);
    }

    /// Spreads a verified record.
    pub(crate) fn broadcast(&mut self, now: Instant, record: &SignedRecord) {
        let result = self.foca.add_broadcast(record.bytes()).map(drop);
        self.note(result);
        let result = self.foca.gossip(&mut self.effects);
        self.note(result);
        self.settle(now);
    }

    /// The table's entry of a node changed, or is gone (`None`): which identities of it count.
    pub(crate) fn learn(&mut self, now: Instant, node: NodeId, entry: Option<&Entry>) {
        let awaited = self.binding.borrow_mut().learn(node, entry);
        if let Some(heard) = awaited {
            self.hear(now, heard);
            // What was heard of it came before its entry: ask itself, too, where it can be reached.
            self.announce(now, node);
        }
    }

    /// Takes what was heard of a member before its entry came.
    fn hear(&mut self, now: Instant, heard: Member<Identity>) {
        let admitted = self.binding.borrow_mut().admit_late(now, heard);
        let result = self.foca.apply_many(admitted.into_iter(), true, &mut self.effects);
        self.note(result);
        self.settle(now);
    }

    /// The round trip of the path to a member at present, and what a few datagrams in a queue there take: its answers may
    /// come that much later.
    pub(crate) fn learn_path(&mut self, node: NodeId, trip: Duration, queue: Duration) {
        self.binding.borrow_mut().learn_path(node, trip, queue);
    }

    /// Whether an identity came that the table does not bear out, since the last call.
    pub(crate) fn take_behind(&mut self) -> bool {
        core::mem::take(&mut self.binding.borrow_mut().behind)
    }

    /// Whether this node is to publish a version of its entry and [`outrank`](Self::outrank) what is said of it.
    pub(crate) fn take_renewal(&mut self, now: Instant) -> bool {
        if !self.wants_renewal() || now < self.next_renewal {
            return false;
        }
        self.next_renewal = now + RENEWAL_PAUSE;
        self.defunct = false;
        self.binding.borrow_mut().outranked = false;
        true
    }

    /// Has [`take_renewal`](Self::take_renewal) ask for a renewal once the pause since the last one is over.
    pub(crate) fn renew_later(&mut self) {
        self.defunct = true;
    }

    fn wants_renewal(&self) -> bool {
        (self.defunct || self.binding.borrow().outranked) && !self.left
    }

    /// This node's entry moved on: outrank the identity of an old boot, or one taken for dead.
    pub(crate) fn outrank(&mut self, now: Instant, identity: Identity) {
        if *self.foca.identity() != identity {
            self.binding.borrow_mut().set_own(identity);
            let result = self.foca.change_identity(identity, &mut self.effects);
            self.note(result);
            // Foca probes nobody until it has heard from somebody again.
            (self.probe, self.indirect, self.ping) = (None, None, None);
            self.settle(now);
            self.ask_suspects(now);
        }
    }

    /// Tells others that this node leaves.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.left = true;
        let result = self.foca.leave_cluster(&mut self.effects);
        self.note(result);
        self.settle(now);
    }

    fn suspects(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.foca.iter_members().filter(|member| member.state() == State::Suspect)
    }

    /// Tells a member that it is suspected, and to whom that goes. The gossip of it may all have been lost, by that of
    /// which it came to be suspected; an answer alone ends no suspicion, and foca does not repeat it.
    fn suspicion(&self, suspect: &Member<Identity>) -> Option<(NodeId, Vec<u8>)> {
        Some((suspect.id().node(), self.gossip_to(suspect.id(), core::slice::from_ref(suspect))?))
    }

    /// A datagram that says this of members.
    fn gossip_to(&self, to: &Identity, members: &[Member<Identity>]) -> Option<Vec<u8>> {
        let header = Header {
            src: *self.foca.identity(),
            // Foca does not tell its own; lower ones change nothing.
            src_incarnation: 0,
            dst: *to,
            message: Message::Gossip,
        };
        let mut data = Vec::new();
        PostcardCodec.encode_header(&header, &mut data).ok()?;
        data.put_u16(members.len() as u16);
        for member in members {
            PostcardCodec.encode_member(member, &mut data).ok()?;
        }
        Some(data)
    }

    /// Whoever is suspected objects now, or is found dead by later probes: foca's timers for that ended with the identity
    /// that they were set under.
    fn ask_suspects(&mut self, now: Instant) {
        let told: Vec<_> = self.suspects().filter_map(|suspect| self.suspicion(suspect)).collect();
        for (suspect, data) in told {
            self.effects.sends.push_back((suspect, data));
            // What answers it carries the objection.
            self.announce(now, suspect);
        }
    }

    /// The next membership datagram to send, and to whom.
    pub(crate) fn poll_send(&mut self) -> Option<(NodeId, Vec<u8>)> {
        let next = self.effects.sends.pop_front();
        if next.is_none() {
            // The room that a burst took is given back.
            self.effects.sends.shrink_to(FEW_SENDS);
        }
        next
    }

    /// The same, if it is for this node.
    pub(crate) fn poll_send_to(&mut self, node: Option<NodeId>) -> Option<(NodeId, Vec<u8>)> {
        self.effects.sends.pop_front_if(|(to, _)| Some(*to) == node)
    }

    /// The next one to send by all paths: it was not answered in time.
    pub(crate) fn poll_retry(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.effects.retries.pop_front()
    }

    /// The next record that came with gossip, not verified.
    pub(crate) fn poll_record(&mut self) -> Option<Vec<u8>> {
        self.broadcasts.0.borrow_mut().pop_front()
    }

    /// Whether anything may have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.effects.changed)
    }

    /// Errors of the protocol (malformed input mostly) since the last call.
    pub(crate) fn take_errors(&mut self) -> u64 {
        core::mem::take(&mut self.errors)
    }

    /// Every member that membership has heard of, by its last identity: earlier ones are down for good.
    pub(crate) fn states(&self) -> BTreeMap<NodeId, (BootId, MemberState)> {
        let mut states = BTreeMap::new();
        let mut orders = BTreeMap::new();
        for member in self.foca.iter_membership_state() {
            let order = member.id().order;
            let last = orders.entry(member.id().node()).or_insert(order);
            if order < *last {
                continue;
            }
            *last = order;
            states.insert(member.id().node(), (member.id().boot(), state(member.state())));
        }
        states
    }

    /// The same of one member.
    pub(crate) fn state(&self, node: NodeId) -> Option<(BootId, MemberState)> {
        let held = self.foca.iter_membership_state().filter(|member| member.id().node() == node);
        let last = held.max_by_key(|member| member.id().order)?;
        Some((last.id().boot(), state(last.state())))
    }

    fn note(&mut self, result: Result<(), foca::Error>) {
        if result.is_err() {
            self.errors += 1;
        }
    }

    /// Carries out what foca asked for after a call.
    fn settle(&mut self, now: Instant) {
        self.defunct |= core::mem::take(&mut self.effects.defunct);
        for (timer, after) in core::mem::take(&mut self.effects.timers) {
            let at = now + self.stretch(&timer, after);
            // Of these there is one each: one of an older token would be void.
            match timer {
                foca::Timer::PeriodicGossip(_) => self.gossip = Some((at, timer)),
                foca::Timer::ProbeRandomMember(_) => {
                    self.period_ends = now + after * (1 + self.health);
                    self.probe = Some((at, timer));
                }
                foca::Timer::SendIndirectProbe { .. } => self.indirect = Some((at, timer)),
                _ => self.queue(at, timer),
            }
        }
        let size = self.foca.num_members() + 1;
        if size.next_power_of_two() != self.configured_for {
            self.configured_for = size.next_power_of_two();
            let result = self.foca.set_config(config(size));
            self.note(result);
        }
    }
}

fn state(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

fn config(members: usize) -> foca::Config {
    let magnitude = usize::BITS - members.leading_zeros();
    let params = |frequency, count: usize| {
        Some(PeriodicParams { frequency, num_members: NonZeroUsize::new(count).expect("not zero") })
    };
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: NonZeroUsize::new(3).expect("not zero"),
        max_transmissions: NonZeroU8::new((4 * magnitude).clamp(6, 60) as u8).expect("not zero"),
        // memberlist: suspicion grows with the logarithm of the cluster's size.
        suspect_to_down_after: SUSPICION * magnitude.max(4) / 4,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: NonZeroUsize::new(MAX_PACKET).expect("not zero"),
        notify_down_members: true,
        periodic_announce: params(Duration::from_secs(30), 1),
        periodic_announce_to_down_members: params(Duration::from_secs(5), 2),
        periodic_gossip: params(GOSSIP, 3),
    }
}
