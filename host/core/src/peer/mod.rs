//! One peer: the session between two boots, its paths and its messages.

mod counts;
mod decide;
mod probe;
mod receive;
mod select;
mod session;
mod transmit;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::failover;
use overlan_contract::failover::{Mode, PathState};
use overlan_wire::{Adapter, BootId, NodeId, PathId};

use crate::config::{Config, Congestion};
use crate::crypto::Aead;
use crate::delivery::Content;
use crate::delivery::inbox::Inbox;
use crate::delivery::outbox::{Outbox, Queued, Via};
use crate::event::{Event, Fate, FateReport};
use crate::path::Path;
use crate::path::health::HealthEvent;
use crate::path::receive::ReceiveSpace;
use crate::path::recovery::Outcome;
use crate::policy::fallback;
use crate::status::Counters;
use crate::table::{adapter_at, contract_adapter, socket_address};
use crate::time::Instant;

use counts::Counts;
pub(crate) use receive::Packet;
pub(crate) use session::Agreed;
use session::Session;

/// Paths of a peer, in each direction, that are kept state for.
const MAX_SPACES: usize = 2 * failover::MAX_PATHS;
/// Traffic keeps a peer's paths probed this long in clusters larger than [`PROBE_ALL`].
const TRAFFIC_MEMORY: Duration = Duration::from_secs(60);
/// A peer without traffic for this long is probed seldom.
const QUIET: Duration = Duration::from_secs(5);
/// Memory that a burst took is given back after this long without traffic.
const IDLE: Duration = Duration::from_secs(2);
/// For this long after a change of state, policies that look at its age are asked again and again.
const SETTLING: Duration = Duration::from_secs(30);
/// How often, then.
const SETTLING_PAUSE: Duration = Duration::from_secs(1);
/// Up to this many members, all paths of all are probed.
pub(crate) const PROBE_ALL: usize = 8;

/// What a peer's work needs of its surroundings.
pub(crate) struct Surroundings<'a> {
    pub(crate) counters: &'a mut Counters,
    pub(crate) events: &'a mut alloc::collections::VecDeque<Event>,
    pub(crate) fates: &'a mut alloc::collections::VecDeque<FateReport>,
    /// What acknowledgements and timers bring to light is put here, and acted on at once.
    pub(crate) outcome: &'a mut Outcome,
}

/// Adapters of one end, as they are and as they were when the paths were last paired.
#[derive(Clone, Copy)]
pub(crate) struct Adapters<'a> {
    pub(crate) now: &'a [Adapter],
    pub(crate) before: &'a [Adapter],
}

impl<'a> Adapters<'a> {
    /// They are as they were.
    pub(crate) fn unchanged(adapters: &'a [Adapter]) -> Self {
        Adapters { now: adapters, before: adapters }
    }

    /// Whether this one was there and policies saw the same of it.
    fn knows(self, adapter: &Adapter) -> bool {
        let before = adapter_at(self.before, socket_address(adapter));
        before.is_some_and(|before| contract_adapter(before) == contract_adapter(adapter))
    }
}

/// One peer.
pub(crate) struct Peer<A> {
    pub(crate) id: NodeId,
    pub(crate) boot: BootId,
    session: Session<A>,
    pub(crate) paths: Vec<Path>,
    next_path: u32,
    /// Indices into `paths`, most preferred first.
    order: Vec<usize>,
    /// Of these, the usable ones, the fittest first; see [`choose_active`](Self::choose_active).
    ranked: Vec<usize>,
    mode: Mode,
    /// In spread mode, the share at which the last path was chosen.
    spread_clock: u128,
    /// The path that carries new traffic.
    pub(crate) active: Option<PathId>,
    /// By path, ascending. No map: its nodes have room for eleven, and most peers have few paths.
    spaces: Vec<Space>,
    /// Below it, a space that is not held is not opened any more.
    space_floor: u32,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    last_traffic: Option<Instant>,
    /// Since when a change of acceptance waits for something to carry it.
    accepted_since: Option<Instant>,
    congestion: Congestion,
    /// Memory that a burst took was given back since the last traffic.
    shrunk: bool,
    next_ping: u32,
    /// Either end probed a path that carries nothing, since the last look.
    beat: bool,
    /// A failover question waits for its answer.
    pub(crate) asked_failover: bool,
    /// A state or a path changed since the last failover question.
    pub(crate) ask_failover: bool,
    /// A policy has given a valid failover decision.
    pub(crate) decided: bool,
    /// When the last failover question was asked, and the round trips it spoke of.
    last_question: Option<(Instant, Vec<u32>)>,
    /// Paths whose sizing question is due.
    pub(crate) ask_sizing: Vec<PathId>,
    /// Membership takes it for alive.
    alive: bool,
    /// What is told of counts of cluster datagrams. Boxed: there seldom is anything.
    counts: Option<Box<Counts>>,
}

/// One packet-number space of the peer.
struct Space {
    /// The path, as the peer counts.
    path: PathId,
    received: ReceiveSpace,
    /// The path that its last packet came by, as this end counts.
    own: Option<PathId>,
}

impl<A: Aead> Peer<A> {
    pub(crate) fn new(config: &Config, id: NodeId, boot: BootId) -> Self {
        Peer {
            id,
            boot,
            session: Session::new(),
            paths: Vec::new(),
            next_path: 0,
            order: Vec::new(),
            ranked: Vec::new(),
            mode: Mode::Passive,
            spread_clock: 0,
            active: None,
            spaces: Vec::new(),
            space_floor: 0,
            outbox: Outbox::new(config.send_queue_bytes),
            inbox: Inbox::new(config.receive_window_bytes),
            last_traffic: None,
            accepted_since: None,
            congestion: config.congestion,
            shrunk: true,
            next_ping: 0,
            beat: false,
            asked_failover: false,
            ask_failover: false,
            decided: false,
            last_question: None,
            ask_sizing: Vec::new(),
            alive: true,
            counts: None,
        }
    }

    /// The peer restarted: a new session, new paths; messages it may have seen are reported.
    pub(crate) fn restart(&mut self, config: &Config, boot: BootId) {
        let mut fresh = Peer::new(config, self.id, boot);
        self.outbox.restart();
        core::mem::swap(&mut fresh.outbox, &mut self.outbox);
        // There may be messages left for it.
        fresh.last_traffic = self.last_traffic;
        fresh.session.due = self.last_traffic.is_some();
        *self = fresh;
    }

    /// Queues messages; gives back those that there is no room for.
    pub(crate) fn push(&mut self, stream: u16, queued: Queued, now: Instant) -> Result<(), Queued> {
        self.touch(now);
        self.outbox.push(stream, queued)
    }

    /// There is traffic: the paths are probed from now on.
    fn touch(&mut self, now: Instant) {
        let slept = self.last_traffic.is_none_or(|last| now.since(last) >= QUIET);
        self.last_traffic = Some(now);
        self.shrunk = false;
        if slept {
            for path in &mut self.paths {
                path.next_probe = path.next_probe.min(now);
            }
        }
    }

    /// Pairs our adapters with the peer's addresses: in table order, for each of the peer's addresses
    /// in its order of preference, our adapters in ours.
    pub(crate) fn sync_paths(
        &mut self,
        now: Instant,
        local: Adapters<'_>,
        remote: Adapters<'_>,
        env: &mut Surroundings<'_>,
    ) {
        // Until the policy has spoken, known paths keep their order and new ones come last.
        let ranks: BTreeMap<PathId, usize> =
            self.paths.iter().map(|path| (path.id, self.rank(path.id))).collect();
        let mut old = core::mem::take(&mut self.paths);
        for theirs in remote.now {
            for ours in local.now.iter().filter(|ours| may_pair(ours, theirs)) {
                if self.paths.len() == failover::MAX_PATHS {
                    env.counters.dropped_limit += 1;
                    break;
                }
                let ends = (socket_address(ours), socket_address(theirs));
                let path = match old.iter().position(|path| (path.local, path.remote) == ends) {
                    Some(at) => old.remove(at),
                    None => self.new_path(now, ours, theirs),
                };
                self.paths.push(path);
                let at = self.paths.len() - 1;
                if !local.knows(ours) || !remote.knows(theirs) {
                    self.paths[at].set_adapters(ours, theirs, now);
                    self.ask_sizing.push(self.paths[at].id);
                }
                self.update_status(at, ours, theirs, now, env);
            }
        }
        for path in old {
            self.paths.push(path);
            self.abandon(self.paths.len() - 1);
            self.paths.pop();
        }
        // Most peers have few, and a vector that grows by itself has room for four.
        self.paths.shrink_to_fit();
        let mut order: Vec<usize> = (0..self.paths.len()).collect();
        order.sort_by_key(|&at| ranks.get(&self.paths[at].id).copied().unwrap_or(usize::MAX));
        self.order = order;
        self.ask_failover = true;
        self.choose_active(now, env);
    }

    fn new_path(&mut self, now: Instant, ours: &Adapter, theirs: &Adapter) -> Path {
        let id = PathId(self.next_path);
        self.next_path += 1;
        self.ask_sizing.push(id);
        let overhead = if ours.address.is_ipv4() { 28 } else { 48 };
        let sizing = fallback::sizing(ours.mtu.min(theirs.mtu), overhead);
        let timing = fallback::timing(None, 0);
        Path::new(id, (ours, theirs), timing, sizing, self.congestion, now)
    }

    fn update_status(
        &mut self,
        at: usize,
        ours: &Adapter,
        theirs: &Adapter,
        now: Instant,
        env: &mut Surroundings<'_>,
    ) {
        let path = &mut self.paths[at];
        let up = overlan_wire::AdapterStatus::Up;
        let event = if ours.status != up {
            HealthEvent::AdapterDown("local adapter down")
        } else if theirs.status != up {
            HealthEvent::AdapterDown("remote adapter down")
        } else if path.health.adapter_down() {
            HealthEvent::AdapterUp
        } else {
            return;
        };
        if apply_health(self.id, path, event, now, env) {
            match path.state() {
                PathState::Down => self.abandon(at),
                _ => path.next_probe = now,
            }
        }
    }

    /// What was in flight on a dead path goes out again on others.
    fn abandon(&mut self, at: usize) {
        let path = &mut self.paths[at];
        let (id, lost) = (path.id, path.recovery.abandon());
        self.requeue(lost, Via::Not(id));
        self.outbox.drop_copies(id);
    }

    fn requeue(&mut self, contents: impl IntoIterator<Item = Content>, via: Via) {
        for content in contents {
            match content {
                Content::Accepted { stream } => self.inbox.owe_accepted(stream),
                content => self.outbox.handle_lost(content, via),
            }
        }
    }

    /// Tells what became of messages, and where there is room again.
    pub(crate) fn report(&mut self, env: &mut Surroundings<'_>) {
        while let Some((tokens, fate)) = self.outbox.poll_fate() {
            let count = tokens.end - tokens.start;
            match fate {
                Fate::Delivered => env.counters.messages_delivered += count,
                Fate::Expired => env.counters.messages_expired += count,
                Fate::PeerLostState => env.counters.messages_peer_lost_state += count,
                Fate::Abandoned => {}
            }
            env.fates.push_back(FateReport { tokens, node: self.id, fate });
        }
        while let Some(stream) = self.outbox.take_writable() {
            env.events.push_back(Event::Writable { node: self.id, stream });
        }
    }

    /// Whether facts changed that policies are asked about.
    pub(crate) fn has_news(&self) -> bool {
        self.ask_failover && !self.asked_failover || !self.ask_sizing.is_empty()
    }

    fn path_between(&self, ends: (SocketAddr, SocketAddr)) -> Option<usize> {
        self.paths.iter().position(|path| (path.local, path.remote) == ends)
    }
}

/// Addresses of one family, and loopback only with loopback.
fn may_pair(ours: &Adapter, theirs: &Adapter) -> bool {
    ours.address.is_ipv4() == theirs.address.is_ipv4()
        && ours.address.is_loopback() == theirs.address.is_loopback()
}

/// Applies an event and tells of a change of state.
fn apply_health(
    node: NodeId,
    path: &mut Path,
    event: HealthEvent,
    now: Instant,
    env: &mut Surroundings<'_>,
) -> bool {
    let before = path.state();
    let changed = path.apply(event, now);
    if changed {
        env.events.push_back(Event::Path {
            node,
            local: path.local,
            remote: path.remote,
            before,
            state: path.state(),
            why: path.health.why(),
        });
    }
    changed
}
