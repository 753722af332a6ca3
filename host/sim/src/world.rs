//! Members and the datagrams between them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use overlan_core::document::SignedDocument;
use overlan_core::policy::{Answer, Question, fallback};
use overlan_core::{
    ApplyError, Arrivals, Config, Core, Event, Fate, Instant, Message, Outgoing, OwnershipChange, plan,
};
use overlan_seal::{Identity, Keyring, Seal};
use overlan_wire::{Adapter, AdapterStatus, BootId, DocumentId, MessageMode, NodeId};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Network;

/// The UDP port of every member.
const PORT: u16 = 7400;

/// Answers a policy question; `None` leaves it unanswered.
type Policy = Box<dyn FnMut(usize, &Question) -> Option<Result<Answer, String>>>;

/// One member of the world.
pub struct Member {
    /// Its state; `None` while it is stopped.
    pub core: Option<Core<Seal>>,
    /// Its id.
    pub id: NodeId,
    /// Messages its consumer took.
    pub received: Vec<Message>,
    /// Fates of the messages it sent, by token.
    pub fates: BTreeMap<u64, Vec<Fate>>,
    /// What became of its responsibilities.
    pub owned: Vec<OwnershipChange>,
    /// Whether a consumer takes messages.
    pub consuming: bool,
    /// What arrived while it was stopped, up to [`MAX_MISSED`].
    pub missed: Vec<Vec<u8>>,
    /// How often it had something to do: what comes at one instant counts once.
    pub wakes: u64,
    /// Datagrams it sent.
    pub sent: u64,
    woken: Option<Instant>,
    config: Config,
    keyring: Keyring,
    seeds: ([u8; 32], [u8; 32]),
    adapters: Vec<Adapter>,
}

struct Flight {
    to: usize,
    local: SocketAddr,
    remote: SocketAddr,
    bytes: Vec<u8>,
}

/// A cluster in virtual time.
pub struct World {
    /// The time.
    pub now: Instant,
    /// What happens to datagrams.
    pub network: Network,
    /// The members in the order they were added.
    pub members: Vec<Member>,
    /// Answers policy questions; without it the native fallbacks do.
    pub policy: Option<Policy>,
    rng: ChaCha8Rng,
    flights: BTreeMap<(Instant, u64), Flight>,
    sequence: u64,
    trace: DefaultHasher,
    /// Steps taken without time passing.
    standing: u32,
    asleep: Option<(usize, Vec<Flight>)>,
}

/// Datagrams to a stopped member that are kept.
const MAX_MISSED: usize = 10_000;
/// More steps than this at one instant are a core that spins.
const MAX_STANDING: u32 = 100_000;

impl World {
    /// An empty world.
    pub fn new(seed: u64, network: Network) -> Self {
        World {
            now: Instant::ZERO,
            network,
            members: Vec::new(),
            policy: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            flights: BTreeMap::new(),
            sequence: 0,
            trace: DefaultHasher::new(),
            standing: 0,
            asleep: None,
        }
    }

    /// Adds and starts a member with these addresses, in order of preference; `seeds` are addresses of
    /// other members. Returns its index.
    pub fn add(&mut self, name: &str, addresses: &[&str], seeds: &[&str]) -> usize {
        let mut config = Config::new(name, BootId::default(), [0; 32]);
        config.seeds =
            seeds.iter().map(|seed| SocketAddr::new(seed.parse().expect("an address"), PORT)).collect();
        self.add_with(config, addresses)
    }

    /// Adds and starts a member with a configuration of its own; boot and seed are drawn.
    pub fn add_with(&mut self, config: Config, addresses: &[&str]) -> usize {
        let seeds = (self.rng.random(), self.rng.random());
        self.enter(config, seeds, addresses)
    }

    /// Adds and starts a node with another's configuration and identity, as a copied state directory makes it.
    pub fn add_copy(&mut self, of: usize, addresses: &[&str]) -> usize {
        let Member { config, seeds, .. } = &self.members[of];
        self.enter(config.clone(), *seeds, addresses)
    }

    fn enter(&mut self, config: Config, seeds: ([u8; 32], [u8; 32]), addresses: &[&str]) -> usize {
        let adapters = addresses.iter().enumerate().map(|(index, address)| adapter(index, address)).collect();
        let id = Identity::from_seeds(&seeds.0, &seeds.1).node_id();
        self.members.push(Member {
            core: None,
            id,
            received: Vec::new(),
            fates: BTreeMap::new(),
            owned: Vec::new(),
            consuming: true,
            missed: Vec::new(),
            wakes: 0,
            sent: 0,
            woken: None,
            config,
            keyring: Keyring::public_lab(),
            seeds,
            adapters,
        });
        let index = self.members.len() - 1;
        self.start(index);
        index
    }

    /// Starts a stopped member: a new boot, nothing remembered but its keys.
    pub fn start(&mut self, index: usize) {
        let mut boot = [0; 16];
        self.rng.fill_bytes(&mut boot);
        let seed = self.rng.random();
        let member = &mut self.members[index];
        member.config.boot = BootId(boot);
        member.config.seed = seed;
        let identity = Identity::from_seeds(&member.seeds.0, &member.seeds.1);
        let seal = Seal::new(identity, member.keyring.clone(), "sim");
        let core = Core::new(member.config.clone(), seal, member.adapters.clone(), self.now);
        member.core = Some(core.expect("the entry fits"));
        self.pump(index);
    }

    /// A member's keys and present boot: what it takes to send in its name.
    pub fn credentials(&self, index: usize) -> (Seal, BootId) {
        let member = &self.members[index];
        let identity = Identity::from_seeds(&member.seeds.0, &member.seeds.1);
        (Seal::new(identity, member.keyring.clone(), "sim"), member.config.boot)
    }

    /// Changes a member's cluster keys, as its operator would.
    pub fn set_keyring(&mut self, index: usize, keyring: Keyring) {
        let now = self.now;
        let member = &mut self.members[index];
        member.keyring = keyring.clone();
        if let Some(core) = &mut member.core {
            core.handle_keyring_change(now, |seal| seal.set_keyring(keyring));
        }
        self.pump(index);
    }

    /// Changes what a member's next start is configured with.
    pub fn configure(&mut self, index: usize, change: impl FnOnce(&mut Config)) {
        change(&mut self.members[index].config);
    }

    /// Puts a datagram from one member's first address to another's on the network, whoever wrote it.
    pub fn inject(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let end = |index: usize| SocketAddr::new(self.members[index].adapters[0].address, PORT);
        self.transmit(end(from), end(to), datagram);
    }

    /// Stops a member as `kill -9` does.
    pub fn kill(&mut self, index: usize) {
        self.members[index].core = None;
    }

    /// A member says farewell; it goes on until it is [killed](Self::kill).
    pub fn leave(&mut self, index: usize) {
        let now = self.now;
        if let Some(core) = &mut self.members[index].core {
            core.leave(now);
        }
        self.pump(index);
    }

    /// Changes the status of one of a member's adapters, as its kernel would tell it.
    pub fn set_adapter(&mut self, index: usize, adapter: usize, up: bool) {
        let member = &mut self.members[index];
        member.adapters[adapter].status = if up { AdapterStatus::Up } else { AdapterStatus::Down };
        let address = member.adapters[adapter].address;
        if up {
            self.network.dead.remove(&address);
        } else {
            self.network.dead.insert(address);
        }
        if let Some(core) = &mut member.core {
            core.handle_adapters(self.now, member.adapters.clone()).expect("the entry fits");
        }
        self.pump(index);
    }

    /// Changes a member's adapters in any way but their status, as its kernel would tell it.
    pub fn change_adapters(&mut self, index: usize, change: impl FnOnce(&mut Vec<Adapter>)) {
        let member = &mut self.members[index];
        change(&mut member.adapters);
        if let Some(core) = &mut member.core {
            core.handle_adapters(self.now, member.adapters.clone()).expect("the entry fits");
        }
        self.pump(index);
    }

    /// A member forgets another, as an operator would have it do.
    ///
    /// # Panics
    /// The other is alive.
    pub fn forget(&mut self, by: usize, whom: usize) {
        let (now, id) = (self.now, self.members[whom].id);
        let core = self.members[by].core.as_mut().expect("it runs");
        core.forget(now, id).expect("it is known and down");
        self.pump(by);
    }

    /// A member loses its memory of the versions it has published; it shows at its next start.
    pub fn forget_version(&mut self, index: usize) {
        self.members[index].config.last_version = 0;
    }

    /// Stops a member for a while as SIGSTOP does: datagrams wait in its sockets, which are drained before its
    /// timers fire.
    pub fn pause(&mut self, index: usize, duration: Duration) {
        let core = self.members[index].core.take();
        self.asleep = Some((index, Vec::new()));
        self.run_for(duration);
        self.members[index].core = core;
        for flight in self.asleep.take().map(|(_, waiting)| waiting).into_iter().flatten() {
            self.deliver(flight);
        }
    }

    /// Sends; `false` where the core refused.
    pub fn send(&mut self, from: usize, to: usize, mode: MessageMode, payload: Vec<u8>, token: u64) -> bool {
        self.send_batch(from, to, Outgoing::new(mode, payload, token))
    }

    /// Sends messages together; `false` where the core refused some.
    pub fn send_batch(&mut self, from: usize, to: usize, outgoing: Outgoing) -> bool {
        let (now, to) = (self.now, self.members[to].id);
        let core = self.members[from].core.as_mut();
        let sent = core.is_some_and(|core| core.send(now, to, outgoing).is_ok());
        self.pump(from);
        sent
    }

    /// A member wants messages no more.
    pub fn cancel(&mut self, from: usize, to: usize, tokens: Range<u64>) {
        let (now, to) = (self.now, self.members[to].id);
        if let Some(core) = &mut self.members[from].core {
            core.cancel(now, to, tokens);
        }
        self.pump(from);
    }

    /// A member applies a cluster document, as an operator would have it do.
    ///
    /// # Errors
    /// It refuses.
    ///
    /// # Panics
    /// It is stopped.
    pub fn apply(&mut self, by: usize, document: SignedDocument) -> Result<DocumentId, ApplyError> {
        let now = self.now;
        let core = self.members[by].core.as_mut().expect("it runs");
        let applied = core.apply_document(now, document);
        self.pump(by);
        applied
    }

    /// Runs for a while.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`; returns whether it was.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    /// Hash of every datagram sent so far, with its time and addresses.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Whether all running members hold byte-identical tables and each takes each other for alive.
    pub fn converged(&self) -> bool {
        let running: Vec<&Core<Seal>> =
            self.members.iter().filter_map(|member| member.core.as_ref()).collect();
        let digest = |core: &Core<Seal>| core.table().digest;
        running.windows(2).all(|pair| digest(pair[0]) == digest(pair[1]))
            && running.iter().all(|core| core.live_peers().len() + 1 == running.len())
    }

    /// The next datagram or timer up to `end`; `false` when there is none.
    fn step(&mut self, end: Instant) -> bool {
        let flight = self.flights.first_key_value().map(|(&(at, _), _)| at);
        let timer = self
            .members
            .iter_mut()
            .enumerate()
            .filter_map(|(index, member)| Some((member.core.as_mut()?.poll_timeout()?, index)))
            .min();
        let next = flight.into_iter().chain(timer.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|&at| at <= end) else { return false };
        self.standing = if at > self.now { 0 } else { self.standing + 1 };
        assert!(
            self.standing < MAX_STANDING,
            "time stands still at {at:?}: flight {flight:?}, timer {timer:?}"
        );
        self.now = self.now.max(at);
        if flight == Some(at) {
            let (_, flight) = self.flights.pop_first().expect("just seen");
            self.deliver(flight);
        } else if let Some((_, index)) = timer {
            if let Some(core) = &mut self.members[index].core {
                core.handle_timeout(self.now);
            }
            self.pump(index);
        }
        true
    }

    fn deliver(&mut self, mut flight: Flight) {
        let now = self.now;
        if let Some((sleeper, waiting)) = &mut self.asleep
            && *sleeper == flight.to
        {
            waiting.push(flight);
            return;
        }
        let member = &mut self.members[flight.to];
        if let Some(core) = &mut member.core {
            core.handle_datagram(now, flight.local, flight.remote, &mut flight.bytes);
            self.pump(flight.to);
        } else if member.missed.len() < MAX_MISSED {
            member.missed.push(flight.bytes);
        }
    }

    /// Carries out what a core wants after an input.
    fn pump(&mut self, index: usize) {
        let now = self.now;
        let member = &mut self.members[index];
        member.wakes += u64::from(member.woken.replace(now) != Some(now));
        let mut buffer = Vec::new();
        loop {
            let mut busy = false;
            self.answer_questions(index);
            let member = &mut self.members[index];
            let Some(core) = &mut member.core else { return };
            while let Some(report) = core.poll_fate() {
                for token in report.tokens {
                    member.fates.entry(token).or_default().push(report.fate);
                }
            }
            while let Some(event) = core.poll_event() {
                match event {
                    Event::Version(version) => member.config.last_version = version,
                    Event::Document(_) => {
                        member.config.document = core.document().map(|document| document.bytes().clone());
                    }
                    Event::Routes => member.config.last_known = core.last_known(),
                    Event::Responsibilities { changes, .. } => member.owned.extend(changes),
                    Event::IdentityTaken { .. } => {
                        member.core = None;
                        return;
                    }
                    _ => {}
                }
            }
            let received = &mut member.received;
            let take = |arrivals: &mut Arrivals<'_>| {
                received.extend(arrivals);
                ControlFlow::Continue(())
            };
            busy |= member.consuming && core.poll_messages(now, |_| true, take);
            while let Some(transmit) =
                self.members[index].core.as_mut().and_then(|core| core.poll_transmit(now, &mut buffer))
            {
                busy = true;
                let way = (transmit.local.ip(), transmit.remote.ip());
                if self.network.filters.get(&way).is_some_and(|&most| buffer.len() > most) {
                    self.members[index].sent += buffer.len().div_ceil(transmit.segment) as u64;
                    continue;
                }
                for datagram in buffer.chunks(transmit.segment) {
                    self.members[index].sent += 1;
                    if self
                        .network
                        .refused
                        .get(&transmit.local.ip())
                        .is_some_and(|&most| datagram.len() > most)
                    {
                        if let Some(core) = &mut self.members[index].core {
                            core.handle_too_large(now, transmit.local, transmit.remote, datagram.len());
                        }
                        // The kernel takes none of them.
                        break;
                    }
                    self.transmit(transmit.local, transmit.remote, datagram);
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn answer_questions(&mut self, index: usize) {
        let now = self.now;
        loop {
            let Some(core) = &mut self.members[index].core else { return };
            let Some((ticket, question)) = core.poll_question() else { return };
            let answer = match &mut self.policy {
                Some(policy) => policy(index, &question),
                None => Some(Ok(native(&question))),
            };
            if let Some(answer) = answer {
                core.handle_answer(now, ticket, answer);
            }
        }
    }

    fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, datagram: &[u8]) {
        (self.now.as_nanos(), local, remote, datagram).hash(&mut self.trace);
        let holds = |member: &Member| member.adapters.iter().any(|adapter| adapter.address == remote.ip());
        let Some(to) = self.members.iter().position(holds) else { return };
        let carried = self.network.carry(self.now, local.ip(), remote.ip(), datagram.len(), &mut self.rng);
        for (delay, damaged) in carried {
            let mut bytes = datagram.to_vec();
            if damaged {
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            self.sequence += 1;
            let flight = Flight { to, local: remote, remote: local, bytes };
            self.flights.insert((self.now + delay, self.sequence), flight);
        }
    }
}

/// The native fallback's answer.
fn native(question: &Question) -> Answer {
    match question {
        Question::Assignment(question) => Answer::Assignment(plan::fallback_assignment(question)),
        Question::Sizing(question) => {
            // As the default plugin, `mtu-fit`, does.
            let ends = question.local.mtu.min(question.remote.mtu);
            let mtu = question.path_mtu.map_or(ends, |path_mtu| path_mtu.min(ends));
            Answer::Sizing(fallback::sizing(mtu, question.overhead))
        }
        Question::Failover(question) => Answer::Failover(fallback::failover(question)),
    }
}

fn adapter(index: usize, address: &str) -> Adapter {
    let address: IpAddr = address.parse().expect("an address");
    Adapter {
        name: format!("eth{index}"),
        kind: "ether".into(),
        address,
        port: PORT,
        prefix_length: 24,
        mtu: 1_500,
        speed: 1_000,
        class_of_service: String::new(),
        dscp: 0,
        status: AdapterStatus::Up,
        gateways: Vec::new(),
    }
}
