//! Agreement on the table and the document past holes: members that can't reach each other, all alive by what others say.

use std::net::IpAddr;
use std::time::Duration;

use overlan_contract::Attributes;
use overlan_contract::assignment::Responsibility;
use overlan_core::config::Quorum;
use overlan_core::document::{Document, SignedDocument};
use overlan_core::{Config, Core, Instant};
use overlan_seal::Seal;
use overlan_sim::{Insider, Network, World};
use overlan_wire::{BootId, DocumentId, Frame};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);
/// How often it is looked whether what members say is true.
const LOOK: Duration = Duration::from_millis(20);
/// What is known of a member by others is at most so old, and what a member says was true is so for as long at most: twice
/// three seconds, and the way.
const AGE: Duration = Duration::from_millis(6_500);

/// A cluster, and for how long members have said that all hold what they hold while others held something else.
struct Cluster {
    world: World,
    what: String,
    /// By member: since when it is wrong of the table, and of the document.
    wrong: Vec<[Option<Instant>; 2]>,
}

fn address(index: usize) -> String {
    format!("10.{}.1.2", index + 1)
}

fn ip(index: usize) -> IpAddr {
    address(index).parse().expect("an address")
}

/// What a member says.
struct Said {
    table: String,
    document: DocumentId,
    /// That all hold the table, and the document.
    agreed: [bool; 2],
}

impl Cluster {
    fn new(what: String, seed: u64, count: usize, quorum: Quorum) -> Self {
        let world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
        let mut cluster = Cluster { world, what, wrong: Vec::new() };
        for _ in 0..count {
            cluster.add(quorum);
        }
        let converged = cluster.run_until(20 * SECOND, World::converged).is_some();
        assert!(converged, "{}: no convergence", cluster.what);
        cluster
    }

    /// All know all as seeds, so that nobody depends on one that it does not reach.
    fn add(&mut self, quorum: Quorum) -> usize {
        let index = self.world.members.len();
        let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
        config.quorum = quorum;
        config.seeds = (0..index).map(|other| (ip(other), 7400).into()).collect();
        self.wrong.push([None; 2]);
        self.world.add_with(config, &[&address(index)])
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.world.network.cut.insert((ip(from), ip(to)));
    }

    fn hole(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Members by ascending node id: the first leads.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.world.members.len()).collect();
        order.sort_by_key(|&at| self.world.members[at].id);
        order
    }

    fn apply(&mut self, by: usize, name: &str) {
        let parent = self.world.members[by].core.as_ref().expect("it runs").document_id();
        let duty = |n| Responsibility {
            name: format!("{name}-{n}"),
            replicas: 1,
            weight_milli: 1_000,
            requires: Attributes::new(),
        };
        let document = Document {
            version: parent.version + 1,
            parent: parent.digest,
            cluster: String::new(),
            responsibilities: (0..8).map(duty).collect(),
            policies: Vec::new(),
        };
        let body = document.to_body().expect("it is valid");
        let document = SignedDocument::new(&body, None).expect("just made");
        self.world.apply(by, document).expect("nothing is in its way");
    }

    /// All come to hold the same, and say so soon after.
    fn agrees(&mut self) {
        assert!(self.run_until(60 * SECOND, is_same).is_some(), "{}: not the same", self.what);
        let took = self.run_until(SOON, is_agreed);
        assert!(took.is_some(), "{}: no agreement, {:?}", self.what, self.world.now);
    }

    /// How long it took.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> Option<Duration> {
        let start = self.world.now;
        while !done(&self.world) {
            if self.world.now.since(start) >= limit {
                return None;
            }
            self.world.run_for(LOOK);
            self.check();
        }
        Some(self.world.now.since(start))
    }

    fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    fn check(&mut self) {
        let world = &self.world;
        let all = world.members.iter();
        let said: Vec<_> = all.map(|member| Some(said(member.core.as_ref()?, world.now))).collect();
        for (at, core) in
            world.members.iter().enumerate().filter_map(|(at, member)| Some((at, member.core.as_ref()?)))
        {
            let own = said[at].as_ref().expect("it runs");
            let others = || {
                world
                    .members
                    .iter()
                    .zip(&said)
                    .filter(|(other, _)| core.is_live(other.id))
                    .filter_map(|(_, said)| said.as_ref())
            };
            let wrong = [
                own.agreed[0] && others().any(|other| other.table != own.table),
                own.agreed[1] && others().any(|other| other.document != own.document),
            ];
            for (kind, wrong) in wrong.into_iter().enumerate() {
                let since = &mut self.wrong[at][kind];
                *since = wrong.then(|| since.unwrap_or(world.now));
                let lasts = since.map_or(Duration::ZERO, |since| world.now.since(since));
                assert!(
                    lasts < AGE,
                    "{}: m{at} says that all agree (kind {kind}) at {:?}",
                    self.what,
                    world.now
                );
            }
        }
    }
}

fn said(core: &Core<Seal>, now: Instant) -> Said {
    let status = core.status(now);
    Said {
        table: status.table_digest,
        document: core.document_id(),
        agreed: [status.agreed, status.document.agreed],
    }
}

/// Whether all see all and hold the same.
fn is_same(world: &World) -> bool {
    let all: Vec<_> = world.members.iter().filter_map(|member| member.core.as_ref()).collect();
    world.converged() && all.windows(2).all(|pair| pair[0].document_id() == pair[1].document_id())
}

fn is_agreed(world: &World) -> bool {
    let mut all = world.members.iter().filter_map(|member| member.core.as_ref());
    is_same(world) && all.all(|core| said(core, world.now).agreed == [true; 2])
}

/// Directed pairs, by place in the order of ids, that carry nothing.
fn shapes(count: usize) -> Vec<(&'static str, Vec<(usize, usize)>)> {
    let both = |a: usize, b: usize| [(a, b), (b, a)];
    let mut shapes = vec![
        ("leader and another", both(0, count - 1).to_vec()),
        ("two others", both(1, 2).to_vec()),
        ("to the leader", vec![(1, 0)]),
        ("from the leader", vec![(0, 1)]),
    ];
    if count > 3 {
        shapes.push(("the leader and half", (1..=count / 2).flat_map(|other| both(0, other)).collect()));
        shapes.push(("pairs", [both(0, 1), both(2, 3)].concat()));
        shapes.push(("a ring", (0..count).flat_map(|at| both(at, (at + 1) % count)).collect()));
    }
    shapes
}

/// What has to be so soon after all is the same: summaries go each second, and what a member itself said to the leader of an
/// older state just before the hole counts for three.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn holes_keep_nobody_from_agreement() {
    for count in [3, 5, 8] {
        for (seed, (name, pairs)) in shapes(count).into_iter().enumerate() {
            let quorum = [Quorum::None, Quorum::Majority][seed % 2];
            let what = format!("{count} members, {name}");
            let mut cluster = Cluster::new(what, seed as u64, count, quorum);
            let order = cluster.order();
            for (from, to) in pairs {
                cluster.cut(order[from], order[to]);
            }
            for (round, by) in [0, count - 1, 1].into_iter().enumerate() {
                cluster.apply(order[by], &format!("round-{round}"));
                cluster.agrees();
            }
            // A life that is over says nothing of the next.
            for at in [order[count - 1], order[0]] {
                cluster.world.kill(at);
                cluster.run_for(300 * LOOK);
                cluster.world.start(at);
                cluster.agrees();
            }
            // Who comes is in no hole, or in one with whoever leads then.
            let newcomer = cluster.add(quorum);
            cluster.agrees();
            let leader = cluster.order().into_iter().find(|&at| at != newcomer).expect("there are more");
            cluster.hole(leader, newcomer);
            cluster.apply(newcomer, "newcomer");
            cluster.agrees();
            cluster.world.leave(newcomer);
            cluster.run_for(SECOND);
            cluster.world.kill(newcomer);
            cluster.agrees();
        }
    }
}

/// Holes open and close each second while documents are applied and members restart. What members say is never wrong for
/// longer than may be, and once the holes stay all agree.
#[test]
fn holes_that_come_and_go_make_nobody_say_what_is_not_so() {
    for (seed, count) in [(1, 3), (2, 5), (3, 8)] {
        let mut cluster = Cluster::new(format!("{count} members, seed {seed}"), seed, count, Quorum::None);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for second in 0..60 {
            cluster.world.network.cut.clear();
            for _ in 0..rng.random_range(0..=count / 2) {
                let (from, to) = (rng.random_range(0..count), rng.random_range(1..count));
                cluster.cut(from, (from + to) % count);
            }
            let member = rng.random_range(0..count);
            match second % 6 {
                1 | 4 => cluster.apply(member, &format!("second-{second}")),
                2 => {
                    cluster.world.kill(member);
                    cluster.world.start(member);
                }
                _ => {}
            }
            cluster.run_for(SECOND);
        }
        cluster.world.network.cut.clear();
        let order = cluster.order();
        cluster.hole(order[0], order[count - 1]);
        cluster.apply(order[1], "last");
        cluster.agrees();
    }
}

/// That others speak for a member that does not reach the leader makes no datagrams of its own: a hole costs the same wherever
/// it is, probes of paths and of membership that get no answer.
#[test]
fn words_of_others_cost_no_datagrams() {
    for count in [3, 8] {
        let rate = |hole: Option<[usize; 2]>| {
            let mut cluster = Cluster::new(format!("{count} members"), 1, count, Quorum::None);
            let order = cluster.order();
            hole.iter().for_each(|[a, b]| cluster.hole(order[*a], order[*b]));
            cluster.apply(order[0], "some");
            cluster.run_for(30 * SECOND);
            let sent = |world: &World| world.members.iter().map(|member| member.sent).sum::<u64>();
            let before = sent(&cluster.world);
            cluster.run_for(60 * SECOND);
            (sent(&cluster.world) - before) / 60
        };
        let (none, others, leader) = (rate(None), rate(Some([1, 2])), rate(Some([0, 1])));
        println!(
            "{count} members: {none} datagrams a second, {others} with a hole, {leader} with one at the leader"
        );
        assert!(others < 2 * none && leader < others + others / 4, "{none}, {others}, {leader}");
    }
}

/// What a member says itself counts before what another says of it.
#[test]
fn nobody_speaks_for_a_member_that_is_heard() {
    for seed in 0..3 {
        let mut cluster = Cluster::new(format!("seed {seed}"), seed, 3, Quorum::None);
        let [leader, liar, other] = cluster.order()[..] else { unreachable!("there are three") };
        cluster.run_until(SOON, is_agreed).expect("nothing is in its way");
        // It is heard, and hears nothing: not the document.
        cluster.cut(leader, other);
        cluster.cut(liar, other);
        cluster.apply(leader, "some");
        cluster.run_for(SECOND / 2);
        let document = cluster.world.members[leader].core.as_ref().expect("it runs").document_id();
        assert_ne!(cluster.world.members[other].core.as_ref().expect("it runs").document_id(), document);
        let mut insider = Insider::take_over(&mut cluster.world, liar);
        for _ in 0..20 {
            let all = Frame::Heard { agreed_by: None, contested: false, tables: &[0xff], documents: &[0xff] };
            let frames = [summary(&cluster.world, leader), all].map(|frame| bytes(&frame)).concat();
            let boot = insider.boot;
            insider.cluster(&mut cluster.world, boot, leader, &frames);
            cluster.world.run_for(SECOND / 10);
            let core = cluster.world.members[leader].core.as_ref().expect("it runs");
            assert!(core.is_live(cluster.world.members[other].id), "seed {seed}");
            assert!(!core.document_agreed(), "seed {seed}");
        }
    }
}

/// A member's summary, as it may be told by another that holds the same.
fn summary(world: &World, of: usize) -> Frame<'static> {
    let core = world.members[of].core.as_ref().expect("it runs");
    let status = core.status(world.now);
    let digest = status.table_digest.parse().expect("a digest");
    let documents = [core.document_id(), DocumentId::default()];
    Frame::Summary { digest, epoch: status.agreed_epoch, agreed: digest, documents, refused: None }
}

fn bytes(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    bytes
}

/// A member in a hole with the leader refuses what all others hold: nobody says that all hold it.
#[test]
fn who_refuses_a_document_past_a_hole_is_known() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(format!("seed {seed}"), seed, 3, Quorum::None);
        let [leader, between, odd] = cluster.order()[..] else { unreachable!("there are three") };
        cluster.apply(leader, "first");
        cluster.agrees();
        // It loses its document, and its file names another cluster now.
        cluster.world.kill(odd);
        cluster.world.network.dead.insert(ip(odd));
        cluster.world.configure(odd, |config| {
            config.cluster = "other".into();
            config.document = None;
        });
        cluster.world.start(odd);
        cluster.run_for(20 * SECOND);
        cluster.world.network.dead.clear();
        cluster.hole(leader, odd);
        let met = cluster.run_until(60 * SECOND, World::converged);
        assert!(met.is_some(), "seed {seed}: they do not meet");
        let agreed =
            |world: &World, at: usize| world.members[at].core.as_ref().expect("it runs").document_agreed();
        cluster
            .run_until(SOON, |world| [leader, between, odd].iter().all(|&at| !agreed(world, at)))
            .expect("all say so");
        for _ in 0..100 {
            cluster.run_for(SECOND / 5);
            assert!(![leader, between].iter().any(|&at| agreed(&cluster.world, at)), "seed {seed}");
        }
    }
}
