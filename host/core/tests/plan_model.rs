//! Five members agree on a plan in a seeded model: partitions, pairs that only others reach, one-sided suspicions,
//! restarts, messages that come late, in another order or never, plugins that fault, hang, lie or differ, swaps that
//! reach members one by one, configurations that differ, cluster documents applied here and there. After each quiet
//! spell the invariants of `World::check` must hold.
//!
//! `OVERLAN_MODEL_SEEDS=20000 cargo test --release -p overlan-core --test plan_model` runs more seeds,
//! `OVERLAN_MODEL_SEED=17` one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use overlan_contract::assignment::{Answer, Node, Question, Responsibility};
use overlan_core::Instant;
use overlan_core::config::Quorum;
use overlan_core::plan::{Facts, Planner, Plans, fallback_assignment};
use overlan_core::status::PlanStatus;
use overlan_wire::{BootId, Digest, DocumentId, NodeId};

const MEMBERS: usize = 5;
const DUTIES: usize = 12;
const MS: u64 = 1_000_000;
/// Long enough for every delay of the model and a few reminders.
const QUIET_MS: u64 = 60_000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn member(&mut self) -> usize {
        self.below(MEMBERS as u64) as usize
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a member's plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Good,
    Faults,
    Hangs,
    Invalid,
    Differs,
}

#[derive(Debug)]
enum Event {
    Deliver {
        from: usize,
        from_boot: BootId,
        to: usize,
        to_boot: BootId,
        bytes: Vec<u8>,
    },
    Answer {
        node: usize,
        boot: BootId,
        ticket: u64,
        answer: Result<Answer, String>,
    },
    /// What goes with a summary.
    Plans {
        from: usize,
        from_boot: BootId,
        to: usize,
        plans: Plans,
    },
    /// A summary is due.
    Summarize {
        node: usize,
        boot: BootId,
    },
    /// The observer's view of the peer becomes what is true.
    See {
        observer: usize,
        peer: usize,
    },
    /// The observer takes the peer for dead.
    Suspect {
        observer: usize,
        peer: usize,
    },
    /// The observer's copy of the table catches up with its component's.
    Table {
        observer: usize,
    },
    Version {
        node: usize,
        version: u8,
    },
    Fault(Fault),
}

#[derive(Debug)]
enum Fault {
    Split(u64),
    /// Two can't reach each other, where a third of their side reaches both.
    Hole(usize, usize),
    Heal,
    Crash(usize),
    Start(usize),
    Suspicion(usize, usize),
    Behave(usize, Plugin),
    Swap(u8),
    Attribute(usize),
    Document(usize, Vec<Responsibility>),
    /// The member applies a cluster document of this kind; 2: without duties.
    Apply(usize, u64),
}

struct Member {
    up: bool,
    boot: BootId,
    side: u64,
    planner: Planner,
    plugin: Plugin,
    version: u8,
    document: Vec<Responsibility>,
    /// The cluster document that it holds.
    cluster: DocumentId,
    /// Peers it sees.
    view: BTreeMap<usize, BootId>,
    /// Version of each node's facts in its copy of the table; 0: it has no entry of that node.
    table: [u64; MEMBERS],
    epoch: u64,
    /// Its last answer was not what the good plugin would say.
    lied: bool,
}

struct World {
    rng: Rng,
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Event>,
    members: Vec<Member>,
    attributes: [u64; MEMBERS],
    /// All cluster documents that were applied.
    documents: BTreeMap<DocumentId, Vec<Responsibility>>,
    holes: BTreeSet<(usize, usize)>,
    quorum: Quorum,
    /// Whether cluster documents are applied in this run.
    applies: bool,
    boots: u64,
    trace: u64,
    sent: u64,
    plans: u64,
    tally: [u64; 7],
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 16])
}

fn index(node: NodeId) -> usize {
    usize::from(node.0[0]) - 1
}

fn document(kind: u64) -> Vec<Responsibility> {
    let duty = |n: usize| Responsibility {
        name: format!("duty-{kind}-{n}"),
        replicas: 1 + (n % 3) as u32,
        weight_milli: 1000,
        requires: if n == 5 { vec![("site".into(), "x".into())] } else { Vec::new() },
    };
    (0..DUTIES).map(duty).collect()
}

/// The plugin of a version; `2` never answers as `1` does where there is a choice.
fn good_answer(version: u8, question: &Question) -> Answer {
    let mut question = question.clone();
    if version == 2 {
        for node in &mut question.nodes {
            node.id.push('2');
        }
    }
    fallback_assignment(&question)
}

fn other_answer(question: &Question, answer: &Answer) -> Answer {
    let owners = question.responsibilities.iter().zip(&answer.owners).map(|(duty, owners)| {
        let eligible =
            |i: &u32| question.nodes[*i as usize].live && question.nodes[*i as usize].meets(&duty.requires);
        let mut all: Vec<u32> = (0..question.nodes.len() as u32).filter(eligible).collect();
        let place = all.iter().position(|node| Some(node) == owners.first()).unwrap_or(0);
        if !all.is_empty() {
            let by = (place + 1) % all.len();
            all.rotate_left(by);
        }
        all.truncate(owners.len());
        all
    });
    Answer { owners: owners.collect() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let quorum = if rng.one_in(2) { Quorum::Majority } else { Quorum::None };
        let (documents, applies) = (rng.below(4), rng.one_in(2));
        let members = (0..MEMBERS)
            .map(|node| Member {
                up: false,
                boot: BootId([0; 16]),
                side: 0,
                planner: Planner::new(id(node), seed),
                plugin: Plugin::Good,
                version: 1,
                document: match documents {
                    0 if rng.one_in(2) => Vec::new(),
                    1 if rng.one_in(3) => document(1),
                    _ => document(0),
                },
                cluster: DocumentId::default(),
                view: BTreeMap::new(),
                table: [0; MEMBERS],
                epoch: 0,
                lied: false,
            })
            .collect();
        let mut world = World {
            rng,
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            members,
            attributes: [1; MEMBERS],
            documents: BTreeMap::new(),
            holes: BTreeSet::new(),
            quorum,
            applies,
            boots: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            sent: 0,
            plans: 0,
            tally: [0; 7],
        };
        for node in 0..MEMBERS {
            let at = world.rng.below(800);
            world.after(at, Event::Fault(Fault::Start(node)));
        }
        world
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.seq += 1;
        let jitter = self.rng.below(MS);
        self.queue.insert((self.now + ms * MS + jitter, self.seq), event);
    }

    fn note(&mut self, bytes: &[u8]) {
        for &byte in self.now.to_be_bytes().iter().chain(bytes) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        self.members[a].up && self.members[b].up && self.members[a].side == self.members[b].side
    }

    /// Whether what one of the two sends reaches the other. All see each other alive also where it does not.
    fn reaches(&self, a: usize, b: usize) -> bool {
        let whole = |a: usize, b: usize| self.connected(a, b) && !self.holes.contains(&(a.min(b), a.max(b)));
        let by_a_third = || (0..MEMBERS).any(|third| whole(a, third) && whole(third, b));
        whole(a, b) || self.connected(a, b) && !by_a_third()
    }

    /// Tells one other and the leader which plans the member knows of.
    fn summarize(&mut self, node: usize) {
        let plans = self.members[node].planner.plans();
        let peers: Vec<usize> = self.members[node].view.keys().copied().collect();
        if peers.is_empty() {
            return;
        }
        let other = peers[self.rng.below(peers.len() as u64) as usize];
        let from_boot = self.members[node].boot;
        for to in BTreeSet::from([peers[0], other]) {
            let ms = self.rng.below(60);
            self.after(ms, Event::Plans { from: node, from_boot, to, plans });
        }
    }

    /// Everybody's view becomes true again, each at another time.
    fn look_around(&mut self) {
        for observer in 0..MEMBERS {
            for peer in 0..MEMBERS {
                let ms = self.rng.below(1_500);
                self.after(ms, Event::See { observer, peer });
            }
            let ms = self.rng.below(2_500);
            self.after(ms, Event::Table { observer });
        }
    }

    fn facts(&mut self, node: usize) {
        let member = &self.members[node];
        if !member.up {
            return;
        }
        let node_facts = |n: usize| {
            let mut attributes = vec![("capacity".into(), (100 + member.table[n]).to_string())];
            if n != 1 {
                attributes.push(("site".into(), "x".into()));
            }
            Node {
                id: id(n).to_string(),
                name: format!("n{n}"),
                live: false,
                adapters: Vec::new(),
                attributes,
            }
        };
        let mut live: BTreeMap<_, _> = member.view.iter().map(|(&peer, &boot)| (id(peer), boot)).collect();
        live.insert(id(node), member.boot);
        let mut table_digest = [0; 32];
        for (byte, version) in table_digest.iter_mut().zip(member.table) {
            *byte = version as u8;
        }
        let facts = Facts {
            me: id(node),
            nodes: (0..MEMBERS).filter(|&n| member.table[n] > 0).map(node_facts).collect(),
            live,
            members: MEMBERS,
            table_digest: Digest(table_digest),
            plugin_pending: false,
            plugin_digest: Digest([member.version; 32]),
            document: member.cluster,
            responsibilities: self.duties(node).clone(),
            quorum: self.quorum,
            barred: false,
        };
        let now = Instant::from_nanos(self.now);
        self.members[node].planner.handle_facts(now, facts);
        self.drain(node);
    }

    /// What the member knows of the cluster's duties.
    fn duties(&self, node: usize) -> &Vec<Responsibility> {
        let member = &self.members[node];
        self.documents.get(&member.cluster).unwrap_or(&member.document)
    }

    fn drain(&mut self, node: usize) {
        while let Some((to, bytes)) = self.members[node].planner.poll_send(|_| true) {
            let to = index(to);
            self.note(&bytes);
            self.sent += 1;
            let Some(&to_boot) = self.members[node].view.get(&to) else {
                panic!("{node} sends to {to}, which it does not see")
            };
            let ms = if self.rng.one_in(20) { self.rng.below(2_000) } else { self.rng.below(60) };
            let from_boot = self.members[node].boot;
            self.after(ms, Event::Deliver { from: node, from_boot, to, to_boot, bytes });
        }
        while let Some((ticket, question)) = self.members[node].planner.poll_question() {
            self.answer(node, ticket, &question);
        }
        if let Some(epoch) = self.members[node].planner.poll_changed() {
            let member = &mut self.members[node];
            assert!(epoch >= member.epoch, "n{node}: epoch {epoch} after {}", member.epoch);
            self.plans += u64::from(epoch > member.epoch);
            member.epoch = epoch;
            self.note(&epoch.to_be_bytes());
        }
    }

    fn answer(&mut self, node: usize, ticket: u64, question: &Question) {
        let member = &mut self.members[node];
        let good = good_answer(member.version, question);
        let other = other_answer(question, &good);
        member.lied = member.plugin == Plugin::Differs && other != good;
        let (plugin, boot) = (member.plugin, member.boot);
        let answer = match plugin {
            Plugin::Good | Plugin::Hangs => Ok(good),
            Plugin::Faults => Err("wasm trap: unreachable".into()),
            Plugin::Invalid => Ok(Answer { owners: vec![vec![9999]; good.owners.len() + 1] }),
            Plugin::Differs => Ok(other),
        };
        let ms = if plugin == Plugin::Hangs { 2_500 + self.rng.below(2_000) } else { self.rng.below(80) };
        self.after(ms, Event::Answer { node, boot, ticket, answer });
    }

    fn lose_sight(&mut self, observer: usize, peer: usize) {
        if self.members[observer].view.remove(&peer).is_some() {
            // The engine may give up what is on the way.
            let rng = &mut self.rng;
            self.queue.retain(|_, event| match event {
                Event::Deliver { from, to, .. } => (*from, *to) != (observer, peer) || rng.one_in(2),
                _ => true,
            });
            self.facts(observer);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::from_nanos(self.now);
        match event {
            Event::Deliver { from, from_boot, to, to_boot, bytes } => {
                if !self.members[to].up || self.members[to].boot != to_boot {
                    return;
                }
                let old_life = self.members[from].boot != from_boot;
                if !old_life && !self.reaches(from, to) {
                    let ms = 100 + self.rng.below(200);
                    self.after(ms, Event::Deliver { from, from_boot, to, to_boot, bytes });
                    return;
                }
                self.note(&bytes);
                self.members[to].planner.handle_message(now, id(from), &bytes).expect("our own bytes parse");
                self.drain(to);
            }
            Event::Plans { from, from_boot, to, plans } => {
                if self.reaches(from, to) && self.members[from].boot == from_boot {
                    self.members[to].planner.handle_plans(now, id(from), from_boot, plans);
                    self.drain(to);
                }
            }
            Event::Summarize { node, boot } => {
                if self.members[node].up && self.members[node].boot == boot {
                    self.summarize(node);
                    self.after(1_000, Event::Summarize { node, boot });
                }
            }
            Event::Answer { node, boot, ticket, answer } => {
                if self.members[node].up && self.members[node].boot == boot {
                    self.members[node].planner.handle_answer(now, ticket, answer);
                    self.drain(node);
                }
            }
            Event::See { observer, peer } => {
                if observer == peer || !self.members[observer].up {
                } else if !self.connected(observer, peer) {
                    self.lose_sight(observer, peer);
                } else {
                    let boot = self.members[peer].boot;
                    if self.members[observer].view.insert(peer, boot) != Some(boot) {
                        self.facts(observer);
                    }
                }
            }
            Event::Suspect { observer, peer } => self.lose_sight(observer, peer),
            Event::Table { observer } => {
                let mut table = self.members[observer].table;
                for peer in 0..MEMBERS {
                    if self.connected(observer, peer) {
                        let known = self.members[peer].table;
                        table.iter_mut().zip(known).for_each(|(mine, other)| *mine = (*mine).max(other));
                        table[peer] = self.attributes[peer];
                    }
                }
                self.members[observer].table = table;
                let connected = (0..MEMBERS).filter(|&peer| self.connected(observer, peer));
                let newest = connected.map(|peer| self.members[peer].cluster).max();
                self.members[observer].cluster =
                    newest.max(Some(self.members[observer].cluster)).unwrap_or_default();
                self.facts(observer);
            }
            Event::Version { node, version } => {
                self.members[node].version = version;
                self.facts(node);
            }
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Split(sides) => {
                (0..MEMBERS).for_each(|node| self.members[node].side = sides >> (2 * node) & 1);
                self.look_around();
            }
            Fault::Hole(a, b) => {
                if a != b {
                    self.holes.insert((a.min(b), a.max(b)));
                }
            }
            Fault::Heal => {
                self.holes.clear();
                self.members.iter_mut().for_each(|member| member.side = 0);
                self.look_around();
            }
            Fault::Crash(node) => {
                self.members[node].up = false;
                self.look_around();
            }
            Fault::Start(node) => {
                self.boots += 1;
                self.count(node);
                let mut boot = [self.rng.below(256) as u8; 16];
                boot[8..].copy_from_slice(&self.boots.to_be_bytes());
                let seed = self.rng.next();
                let member = &mut self.members[node];
                member.up = true;
                member.boot = BootId(boot);
                member.planner = Planner::new(id(node), seed);
                member.view.clear();
                member.table = [0; MEMBERS];
                member.table[node] = self.attributes[node];
                member.epoch = 0;
                if self.rng.one_in(4) {
                    // A new state directory.
                    member.cluster = DocumentId::default();
                }
                // What the dead life sent is sometimes still on the way.
                let boot = member.boot;
                self.after(1_000, Event::Summarize { node, boot });
                let rng = &mut self.rng;
                self.queue.retain(|_, event| match event {
                    Event::Deliver { from, .. } => *from != node || rng.one_in(2),
                    _ => true,
                });
                self.facts(node);
                self.look_around();
            }
            Fault::Suspicion(observer, peer) => {
                self.after(0, Event::Suspect { observer, peer });
                let ms = self.rng.below(6_000);
                self.after(ms, Event::See { observer, peer });
            }
            Fault::Behave(node, plugin) => self.members[node].plugin = plugin,
            Fault::Swap(version) => {
                for node in 0..MEMBERS {
                    let ms = self.rng.below(3_000);
                    self.after(ms, Event::Version { node, version });
                }
            }
            Fault::Attribute(node) => {
                self.attributes[node] += 1 + self.rng.below(100);
                self.look_around();
            }
            Fault::Document(node, document) => {
                self.members[node].document = document;
                self.facts(node);
            }
            Fault::Apply(node, kind) => {
                let mut digest = [kind as u8; 32];
                digest[..8].copy_from_slice(&self.rng.next().to_be_bytes());
                let version = self.members[node].cluster.version + 1;
                let id = DocumentId { version, digest: Digest(digest) };
                self.documents.insert(id, if kind == 2 { Vec::new() } else { document(kind) });
                self.members[node].cluster = id;
                self.facts(node);
                self.look_around();
            }
        }
    }

    fn random_fault(&mut self) -> Fault {
        let node = self.rng.member();
        match self.rng.below(16) {
            0 | 1 => Fault::Split(self.rng.next()),
            2 | 3 => Fault::Heal,
            4 if self.members[node].up => Fault::Crash(node),
            4..=6 => Fault::Start(node),
            7 | 8 => Fault::Suspicion(node, self.rng.member()),
            9 => {
                let all = [Plugin::Good, Plugin::Faults, Plugin::Hangs, Plugin::Invalid, Plugin::Differs];
                Fault::Behave(node, all[self.rng.below(5) as usize])
            }
            14 | 15 => Fault::Hole(node, self.rng.member()),
            10 => Fault::Swap(1 + self.rng.below(2) as u8),
            11 | 12 if self.applies => Fault::Apply(node, self.rng.below(3)),
            _ if self.rng.one_in(3) => {
                let kind = self.rng.below(2);
                Fault::Document(node, document(kind))
            }
            _ => Fault::Attribute(node),
        }
    }

    fn run_until(&mut self, end: u64) {
        loop {
            let timeout = |m: &Member| m.planner.poll_timeout().filter(|_| m.up).map(Instant::as_nanos);
            let timer = (0..MEMBERS).filter_map(|node| Some((timeout(&self.members[node])?, node))).min();
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let at = timer.map(|(at, _)| at).into_iter().chain(next).min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            match timer {
                Some((due, node)) if due <= at => {
                    self.note(&[node as u8]);
                    self.members[node].planner.handle_timeout(Instant::from_nanos(self.now));
                    self.drain(node);
                }
                _ => {
                    let (_, event) = self.queue.pop_first().expect("peeked at just now");
                    self.handle(event);
                }
            }
        }
        self.now = end;
    }

    /// Adds a life's counters to the run's: what the faults made the planners do.
    fn count(&mut self, node: usize) {
        let c = self.members[node].planner.counters();
        let counts = [c.adopted, c.stale, c.held, c.fetches, c.nudges, c.policy_faults, c.answers_late];
        self.tally.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    fn run(&mut self) {
        for _ in 0..4 {
            for _ in 0..self.rng.below(7) {
                let fault = self.random_fault();
                let ms = self.rng.below(5_000);
                self.after(ms, Event::Fault(fault));
            }
            self.run_until(self.now + 5_000 * MS);
            self.look_around();
            // A swap makes every verdict one of the plugin as it is now; but it also makes the leader propose,
            // which would hide that nothing else did. Each is to have its plan before the next comes.
            let swapped = self.rng.one_in(2);
            if swapped {
                let version = 1 + self.rng.below(2) as u8;
                for node in 0..MEMBERS {
                    self.after(4_000, Event::Version { node, version: version + 2 });
                    self.after(11_000, Event::Version { node, version });
                }
            }
            self.run_until(self.now + QUIET_MS * MS);
            let sent = self.sent;
            self.run_until(self.now + QUIET_MS * MS);
            assert_eq!(sent, self.sent, "messages are still sent after a quiet minute");
            self.check(swapped);
        }
        (0..MEMBERS).for_each(|node| self.count(node));
    }

    fn check(&self, swapped: bool) {
        let sides: BTreeSet<u64> = self.members.iter().filter(|m| m.up).map(|m| m.side).collect();
        let mut owned: BTreeMap<String, u64> = BTreeMap::new();
        for side in sides {
            let here: Vec<usize> =
                (0..MEMBERS).filter(|&n| self.members[n].up && self.members[n].side == side).collect();
            self.check_component(&here, swapped);
            for duty in &self.status(here[0]).duties {
                let other = owned.insert(duty.name.clone(), side);
                assert!(
                    self.quorum == Quorum::None || other.is_none(),
                    "{} is owned on two sides",
                    duty.name
                );
            }
        }
    }

    fn status(&self, node: usize) -> PlanStatus {
        self.members[node].planner.status(|id| format!("n{}", index(id)))
    }

    fn check_component(&self, here: &[usize], swapped: bool) {
        let quorate = self.quorum == Quorum::None || here.len() * 2 > MEMBERS;
        let leader = self.status(here[0]);
        for &node in here {
            let planner = &self.members[node].planner;
            let status = self.status(node);
            assert_eq!(status.quorate, quorate, "n{node} of {here:?}");
            if !quorate {
                assert!(status.duties.is_empty(), "n{node} owns in a minority");
                (0..DUTIES).for_each(|n| assert_eq!(planner.owner(&format!("duty-0-{n}")), None));
                continue;
            }
            assert_eq!(planner.poll_timeout(), None, "n{node} of {here:?} is not at rest");
            assert_eq!((status.epoch, &status.digest), (leader.epoch, &leader.digest), "n{node} of {here:?}");
            let held = self.members[node].cluster;
            assert_eq!((held, held.version), (self.members[here[0]].cluster, status.document_version));
            let owned = planner.own_duties().1;
            let named = status.duties.iter().filter(|duty| duty.ids.contains(&id(node).to_string()));
            assert!(
                owned.keys().eq(named.map(|duty| &duty.name).collect::<BTreeSet<_>>()),
                "n{node}: {owned:?}"
            );
            assert_eq!(status.proposer, format!("n{}", here[0]), "at n{node} of {here:?}");
            for duty in &status.duties {
                let eligible = here.iter().filter(|n| !duty.name.ends_with("-5") || **n != 1).count();
                let owner = planner.owner(&duty.name);
                assert_eq!(owner.is_some(), eligible > 0, "{duty:?}");
                assert!(duty.ids.iter().all(|id| here.contains(&index(id.parse().unwrap()))), "{duty:?}");
                assert_eq!(owner, self.members[here[0]].planner.owner(&duty.name));
            }
        }
        if quorate {
            self.check_duties_and_votes(here, &leader, swapped);
        }
    }

    fn check_duties_and_votes(&self, here: &[usize], leader: &PlanStatus, swapped: bool) {
        // Duties without a cluster document are lent to a leader that has none, by members that reach it.
        let lends = |n: usize| n == here[0] || self.reaches(n, here[0]);
        let somebody_has_duties = here.iter().any(|&n| lends(n) && !self.duties(n).is_empty());
        assert!(!somebody_has_duties || !leader.duties.is_empty(), "the duties got lost");
        let voters: Vec<String> = leader.votes.iter().map(|vote| vote.node.clone()).collect();
        assert_eq!(voters, here.iter().map(|n| format!("n{n}")).collect::<Vec<_>>());
        let first = &self.members[here[0]];
        for (&node, vote) in here.iter().zip(&leader.votes) {
            let member = &self.members[node];
            let named = leader.duties.first().map(|duty| &duty.name);
            let own = self.duties(node).first().map(|duty| &duty.name);
            let expected = match member.plugin {
                Plugin::Faults | Plugin::Hangs | Plugin::Invalid => Some("fault"),
                _ if own.is_some() && own != named => Some("differs"),
                _ if node == here[0] => Some("same"),
                Plugin::Good if first.plugin == Plugin::Good => Some("same"),
                Plugin::Differs if member.lied && first.plugin == Plugin::Good => Some("differs"),
                Plugin::Good if first.lied => Some("differs"),
                _ => None,
            };
            // No policy is asked for nothing else than duties: an empty plan is everybody's.
            let expected = if named.is_none() && expected == Some("differs") { None } else { expected };
            let heard = node == here[0] || self.reaches(node, here[0]);
            if let Some(expected) = expected.filter(|_| swapped && heard) {
                assert_eq!(
                    vote.verdict, expected,
                    "{vote:?} of {:?}, led by {:?}",
                    member.plugin, first.plugin
                );
            }
            if !heard {
                continue;
            }
            assert_ne!(vote.verdict, "pending", "{vote:?}");
            assert_eq!(vote.why.is_empty(), vote.verdict == "same", "{vote:?}");
        }
    }
}

fn trace_of(seed: u64) -> (u64, u64, [u64; 7]) {
    let mut world = World::new(seed);
    world.run();
    (world.trace, world.plans, world.tally)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn members_agree_after_faults() {
    let seeds = match number("OVERLAN_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OVERLAN_MODEL_SEEDS").unwrap_or(200),
    };
    let mut failed = Vec::new();
    let (mut plans, mut tally) = (0, [0; 7]);
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| trace_of(seed))) {
            Ok((_, more, counts)) => {
                plans += more;
                tally.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            Err(_) => {
                eprintln!("seed {seed} failed: OVERLAN_MODEL_SEED={seed} runs it alone");
                failed.push(seed);
            }
        }
        assert!(failed.len() < 5, "seeds {failed:?} failed");
    }
    println!("{plans} changes; adopted, stale, held, fetches, nudges, faults, late answers: {tally:?}");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

#[test]
fn a_seed_replays() {
    for seed in 0..10 {
        assert_eq!(trace_of(seed), trace_of(seed), "seed {seed}");
    }
}
