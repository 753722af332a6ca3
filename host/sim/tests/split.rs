//! Members that can't reach each other, both alive by what a third says: one plan all the same.

use std::net::IpAddr;
use std::time::Duration;

use overlan_contract::Attributes;
use overlan_contract::assignment::Responsibility;
use overlan_core::Config;
use overlan_core::config::Quorum;
use overlan_core::document::{Document, SignedDocument};
use overlan_core::status::PlanStatus;
use overlan_sim::{Network, World};
use overlan_wire::BootId;

const SECOND: Duration = Duration::from_secs(1);
/// The node ids, and with them who leads, are others with each seed.
const ADDRESSES: [&str; 3] = ["10.1.1.2", "10.2.1.2", "10.3.1.2"];
/// Who can't reach each other, and the third.
const HOLES: [(usize, usize, usize); 3] = [(0, 1, 2), (0, 2, 1), (1, 2, 0)];

/// Three members, configured with duties.
fn world(seed: u64, addresses: [&[&str]; 3], quorum: Quorum) -> World {
    let mut world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
    for (index, addresses) in addresses.into_iter().enumerate() {
        let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
        config.responsibilities = duties("configured");
        config.quorum = quorum;
        world.add_with(config, addresses);
    }
    world
}

fn meet(seed: u64, quorum: Quorum) -> World {
    let mut world = world(seed, [&ADDRESSES[0..1], &ADDRESSES[1..2], &ADDRESSES[2..3]], quorum);
    for index in 1..3 {
        reseed(&mut world, index, ADDRESSES[0]);
    }
    assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

/// Starts a member anew with this seed.
fn reseed(world: &mut World, index: usize, seed: &str) {
    world.kill(index);
    let seed: IpAddr = seed.parse().expect("an address");
    world.configure(index, |config| config.seeds = vec![(seed, 7400).into()]);
    world.start(index);
}

fn duties(name: &str) -> Vec<Responsibility> {
    let duty = |n| Responsibility {
        name: format!("{name}-{n}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Attributes::new(),
    };
    (0..24).map(duty).collect()
}

/// Applies a document of these duties; its version.
fn apply(world: &mut World, by: usize, name: &str) -> u64 {
    let parent = world.members[by].core.as_ref().expect("it runs").document_id();
    let document = Document {
        version: parent.version + 1,
        parent: parent.digest,
        cluster: String::new(),
        responsibilities: duties(name),
        policies: Vec::new(),
    };
    let body = document.to_body().expect("it is valid");
    let document = SignedDocument::new(&body, None).expect("just made");
    world.apply(by, document).expect("nothing is in its way").version
}

fn cut(world: &mut World, a: usize, b: usize) {
    let address = |index: usize| ADDRESSES[index].parse().expect("an address");
    world.network.partition(&[address(a)], &[address(b)]);
}

fn plans(world: &World) -> Vec<PlanStatus> {
    world.members.iter().filter_map(|member| Some(member.core.as_ref()?.plan())).collect()
}

/// Whether all see all, own by one plan, and it is for this document.
fn one_plan(world: &World, version: u64) -> bool {
    let plans = plans(world);
    world.converged()
        && plans.iter().all(|plan| plan.quorate && plan.epoch > 0 && plan.document_version == version)
        && plans.windows(2).all(|pair| (pair[0].epoch, &pair[0].digest) == (pair[1].epoch, &pair[1].digest))
}

/// Whether it shows that nobody's vote is awaited.
fn has_all_votes(plan: &PlanStatus) -> bool {
    plan.votes.iter().all(|vote| vote.verdict == "same")
}

fn seen(world: &World) -> Vec<(u64, u64, bool)> {
    plans(world).iter().map(|plan| (plan.epoch, plan.document_version, plan.quorate)).collect()
}

#[test]
fn a_plan_reaches_whom_its_leader_does_not_reach() {
    for seed in 0..4 {
        for (a, b, third) in HOLES {
            let mut world = meet(seed, Quorum::None);
            cut(&mut world, a, b);
            for (round, by) in [third, a, b].into_iter().enumerate() {
                let version = apply(&mut world, by, &format!("round-{round}"));
                let done = world.run_until(15 * SECOND, |world| one_plan(world, version));
                assert!(done, "seed {seed}, {a} and {b}, round {round}: {:?}", seen(&world));
                let voted = world.run_until(2 * SECOND, |world| plans(world).iter().all(has_all_votes));
                assert!(voted, "seed {seed}, {a} and {b}, round {round}: {:?}", plans(&world));
            }
            // It stays so, and no plan follows another.
            let epoch = plans(&world)[0].epoch;
            world.run_for(60 * SECOND);
            assert!(one_plan(&world, 3), "seed {seed}: {:?}", seen(&world));
            assert_eq!(plans(&world)[0].epoch, epoch, "seed {seed}, {a} and {b}");
        }
    }
}

#[test]
fn members_of_different_address_families_are_in_one_plan() {
    for seed in 0..8 {
        let mut world =
            world(seed, [&["10.1.1.2"], &["10.2.1.2", "fd00:2::2"], &["fd00:3::2"]], Quorum::None);
        reseed(&mut world, 0, "10.2.1.2");
        reseed(&mut world, 2, "fd00:2::2");
        assert!(world.run_until(30 * SECOND, |world| one_plan(world, 0)), "seed {seed}: {:?}", seen(&world));
        let told = |world: &World| names(world, 0, 2) && names(world, 2, 0);
        assert!(world.run_until(10 * SECOND, told), "seed {seed}: no problem");
        assert!(!names(&world, 0, 1) && !names(&world, 2, 1) && !names(&world, 1, 0) && !names(&world, 1, 2));
    }
}

/// Whether a member names another among its problems.
fn names(world: &World, at: usize, whom: usize) -> bool {
    let core = world.members[at].core.as_ref().expect("it runs");
    core.status(world.now).problems.iter().any(|problem| problem.starts_with(&format!("m{whom} lives")))
}

/// A newcomer takes a member that it can't reach for alive by what a third says, as soon as it has its entry; and both say
/// that they can't reach each other.
#[test]
fn a_newcomer_hears_of_whom_it_does_not_reach() {
    for seed in 0..8 {
        let mut world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
        world.add("m0", &ADDRESSES[0..1], &[]);
        world.add("m1", &ADDRESSES[1..2], &ADDRESSES[0..1]);
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}");
        // That it lives is no news any more.
        world.run_for(30 * SECOND);
        cut(&mut world, 1, 2);
        world.add("m2", &ADDRESSES[2..3], &ADDRESSES[0..1]);
        assert!(world.run_until(2 * SECOND, World::converged), "seed {seed}: it does not hear of all");
        let told = |world: &World| names(world, 1, 2) && names(world, 2, 1);
        assert!(world.run_until(10 * SECOND, told), "seed {seed}: no problem");
        assert!(!names(&world, 0, 1) && !names(&world, 0, 2));
        world.network.heal();
        let none = |world: &World| !names(world, 1, 2) && !names(world, 2, 1);
        assert!(world.run_until(10 * SECOND, none), "seed {seed}: it lasts");
    }
}

/// One member is alone for a while and then reaches the third again, but not the other, which it takes for dead (or is
/// about to): it takes it for alive by what the third says, and the two do not lead apart.
#[test]
fn one_that_was_alone_takes_whom_it_does_not_reach_for_alive() {
    for (seed, (alone, other)) in (0..3).flat_map(|seed| pairs().map(move |pair| (seed, pair))) {
        let what = format!("seed {seed}, {alone} without {other}");
        let mut world = meet(seed, Quorum::None);
        world.network.dead.insert(ADDRESSES[alone].parse().expect("an address"));
        let apart = |world: &World| {
            let live = |at: usize| world.members[at].core.as_ref().map(|core| core.live_peers().len());
            (0..3).all(|at| live(at) == Some(usize::from(at != alone)))
        };
        let patience = [3, 20, 20][seed as usize] * SECOND;
        assert!(world.run_until(patience, apart) || seed == 0, "{what}");
        world.network.heal();
        cut(&mut world, alone, other);
        // What they were about to find is found.
        world.run_for([10, 0, 0][seed as usize] * SECOND);
        assert!(world.run_until(20 * SECOND, |world| one_plan(world, 0)), "{what}: {:?}", seen(&world));
        let epoch = plans(&world)[0].epoch;
        assert!(!world.run_until(20 * SECOND, |world| !one_plan(world, 0)), "{what}: {:?}", seen(&world));
        assert_eq!(plans(&world)[0].epoch, epoch, "{what}");
    }
}

/// And a member that is dead stays so, whatever was last heard of it.
#[test]
fn one_that_was_alone_revives_nobody_who_is_dead() {
    for (alone, other) in pairs() {
        let mut world = meet(0, Quorum::None);
        world.network.dead.insert(ADDRESSES[alone].parse().expect("an address"));
        world.run_for(8 * SECOND);
        world.network.heal();
        cut(&mut world, alone, other);
        world.kill(other);
        let third = 3 - alone - other;
        let lives = |world: &World, at: usize, whom: usize| {
            world.members[at].core.as_ref().is_some_and(|core| core.is_live(world.members[whom].id))
        };
        let met = |world: &World| lives(world, alone, third) && !lives(world, third, other);
        assert!(world.run_until(15 * SECOND, met), "{alone} without {other}");
        let revived = |world: &World| [alone, third].iter().any(|&at| lives(world, at, other));
        assert!(!world.run_until(60 * SECOND, revived), "{other} came back to {alone} or {third}");
    }
}

/// One member is alone for a while and then reaches the third again, but not the other, which has restarted meanwhile.
fn come_back(world: &mut World, alone: usize, other: usize, mut meanwhile: impl FnMut(&mut World)) {
    world.network.dead.insert(ADDRESSES[alone].parse().expect("an address"));
    world.run_for(20 * SECOND);
    meanwhile(world);
    let third = 3 - alone - other;
    reseed(world, other, ADDRESSES[third]);
    world.run_for(5 * SECOND);
    world.network.heal();
    cut(world, alone, other);
}

/// All pairs of one that was alone and one that it does not reach.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    HOLES.into_iter().flat_map(|(a, b, _)| [(a, b), (b, a)])
}

#[test]
fn a_plan_that_the_leader_has_not_heard_of_is_outbid() {
    for seed in 0..2 {
        for (alone, other) in pairs() {
            let mut world = meet(seed, Quorum::None);
            come_back(&mut world, alone, other, |world| {
                for round in 0..5 {
                    apply(world, alone, &format!("round-{round}"));
                    world.run_for(2 * SECOND);
                }
            });
            let done = world.run_until(60 * SECOND, |world| one_plan(world, 5));
            assert!(done, "seed {seed}, {alone} without {other}: {:?}", seen(&world));
        }
    }
}

#[test]
fn with_a_quorum_a_third_gives_back_what_may_be_owned() {
    for seed in 0..2 {
        for (alone, other) in pairs() {
            let mut world = meet(seed, Quorum::Majority);
            assert!(world.run_until(20 * SECOND, |world| one_plan(world, 0)), "seed {seed}");
            come_back(&mut world, alone, other, |_| {});
            let done = world.run_until(60 * SECOND, |world| one_plan(world, 0));
            assert!(done, "seed {seed}, {alone} without {other}: {:?}", seen(&world));
        }
    }
}

/// A member that sees one alive whom its leader takes for dead reminds the leader, and they do not answer each other
/// as fast as they can.
#[test]
fn reminders_are_few() {
    for (alone, other) in pairs() {
        let mut world = meet(0, Quorum::None);
        come_back(&mut world, alone, other, |_| {});
        let sent = |world: &World| world.members.iter().map(|member| member.sent).sum::<u64>();
        for second in 0..40 {
            let before = sent(&world);
            world.run_for(SECOND);
            let datagrams = sent(&world) - before;
            assert!(datagrams < 500, "{alone} without {other}, second {second}: {datagrams} datagrams");
        }
    }
}

/// Whoever got a plan through another votes there too; two that hand on each other's votes come to rest, though no new plan
/// replaces that one: its proposer died, and what is left is no majority.
#[test]
fn votes_that_are_passed_on_come_to_rest() {
    for seed in 0..6 {
        let mut world = World::new(seed, Network::with_delay(Duration::from_millis(1)));
        for index in 0..4 {
            let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
            config.responsibilities = duties("configured");
            config.quorum = Quorum::Majority;
            if index > 0 {
                config.seeds = vec!["10.0.0.100:7400".parse().expect("an address")];
            }
            world.add_with(config, &[&format!("10.0.0.{}", 100 + index)]);
        }
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence");
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by_key(|&at| world.members[at].id);
        let [proposer, next, between, last] = order[..] else { unreachable!("there are four") };
        let address = |at: usize| format!("10.0.0.{}", 100 + at).parse().expect("an address");
        world.network.partition(&[address(next)], &[proposer, last].map(address));
        world.run_for(30 * SECOND);
        // A new plan, which the second gets through the third alone.
        world.kill(last);
        world.run_for(20 * SECOND);
        world.start(last);
        world.run_for(40 * SECOND);
        world.kill(proposer);
        world.kill(last);
        world.run_for(20 * SECOND);
        let sent = |world: &World| [next, between].map(|at| world.members[at].sent).iter().sum::<u64>();
        let before = sent(&world);
        world.run_for(10 * SECOND);
        let datagrams = sent(&world) - before;
        assert!(datagrams < 600, "seed {seed}: {datagrams} datagrams in ten seconds");
    }
}

/// It never saw those alive that are out of reach, but finds them in the table of the one that lets it in.
#[test]
fn a_newcomer_makes_no_majority_of_a_minority() {
    for seed in 1..=4 {
        let mut world = meet(seed, Quorum::Majority);
        let [alone, others] = [&ADDRESSES[..1], &ADDRESSES[1..]].map(|side| {
            side.iter().map(|address| address.parse().expect("an address")).collect::<Vec<IpAddr>>()
        });
        world.network.partition(&alone, &others);
        world.run_for(30 * SECOND);
        let newcomer = "10.1.1.3";
        world.network.partition(&[newcomer.parse().expect("an address")], &others);
        let mut config = Config::new("newcomer".to_owned(), BootId::default(), [0; 32]);
        config.responsibilities = duties("configured");
        config.quorum = Quorum::Majority;
        config.seeds = vec![(alone[0], 7400).into()];
        world.add_with(config, &[newcomer]);
        for _ in 0..40 {
            world.run_for(SECOND);
            for member in [0, 3] {
                let plan = world.members[member].core.as_ref().expect("it runs").plan();
                assert!(
                    plan.duties.is_empty(),
                    "seed {seed}: {} plans for a minority",
                    world.members[member].id
                );
            }
        }
    }
}
