//! What is sent in another member's name: cluster datagrams prove the cluster key alone.

use overlan_core::status::MemberState;

use super::*;

/// What any jump of the count has to beat: a window of 16,384 numbers, and the last there is.
const NUMBERS: [u64; 3] = [1 << 15, 1 << 20, u64::MAX];

/// One datagram to a member in another's name, with a number of the liar's choice.
fn say(mallory: &mut Insider, world: &mut World, name: usize, to: usize, number: u64, frame: &Frame<'_>) {
    let (_, boot) = world.credentials(name);
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    mallory.counter = number - 1;
    mallory.cluster(world, boot, to, &bytes);
}

/// What means nothing to anybody.
const NOTHING: Frame<'_> = Frame::HelloDone { echo: 1 };

fn state(world: &World, at: usize, whom: usize) -> MemberState {
    let id = world.members[whom].id.to_string();
    let members = world.members[at].core.as_ref().expect("it runs").members(world.now);
    members.into_iter().find(|member| member.id == id).expect("it is known").state
}

fn all_alive(world: &World, among: &[usize]) -> bool {
    let mut pairs = among.iter().flat_map(|&at| among.iter().map(move |&whom| (at, whom)));
    pairs.all(|(at, whom)| state(world, at, whom) == MemberState::Alive)
}

fn replayed(world: &World, among: &[usize]) -> u64 {
    let of = |&at: &usize| world.members[at].core.as_ref().expect("it runs").status(world.now);
    among.iter().map(|at| of(at).counters.dropped_replayed).sum()
}

/// All see each other alive, each second of a minute, and nothing of theirs is refused any more.
fn check_healed(world: &mut World, among: &[usize], what: &str) {
    let before = replayed(world, among);
    for second in 0..60 {
        assert!(all_alive(world, among), "{what}: somebody is missing {second} s after");
        world.run_for(SECOND);
    }
    assert_eq!(replayed(world, among), before, "{what}: numbers are refused");
}

#[test]
fn a_number_that_a_member_did_not_use_keeps_nobody_from_hearing_it() {
    for (seed, number) in (1..).zip(NUMBERS) {
        for pairs in [&[(B, A)][..], &[(A, B), (B, A)]] {
            let mut world = three(seed);
            let mut mallory = Insider::take_over(&mut world, MALLORY);
            for &(name, to) in pairs {
                say(&mut mallory, &mut world, name, to, number, &NOTHING);
            }
            let what = format!("number {number} in {} names", pairs.len());
            for _ in 0..50 {
                world.run_for(SECOND / 10);
                assert!(world.members[A].core.as_ref().is_some_and(|core| core.is_live(world.members[B].id)));
            }
            check_healed(&mut world, &[A, B], &what);
            check_healthy(&mut world, 0);
        }
    }
}

#[test]
fn a_lie_about_the_count_is_told_as_a_problem() {
    let mut world = three(1);
    let mut mallory = Insider::take_over(&mut world, MALLORY);
    say(&mut mallory, &mut world, B, A, u64::MAX, &NOTHING);
    world.run_for(5 * SECOND);
    let problems = world.members[A].core.as_ref().expect("it runs").status(world.now).problems;
    assert!(problems.iter().any(|problem| problem.contains("in the name of b ")), "{problems:?}");
}

/// Foca's gossip, as the liar would write it: header (source, incarnation, destination, kind), then the members with what is
/// said of them.
fn gossip(world: &World, name: usize, to: usize, state: u8) -> Vec<u8> {
    let identity = |of: usize| {
        let table = world.members[to].core.as_ref().expect("it runs").table();
        let id = world.members[of].id;
        let entry = table.entries.into_iter().find(|entry| entry.id == id.to_string()).expect("it is there");
        (id.0, world.credentials(of).1.0, entry.version)
    };
    const GOSSIP: u8 = 8;
    let header = (identity(name), u16::MAX, identity(to), GOSSIP);
    let mut data = postcard::to_allocvec(&header).expect("it is serialized");
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend(postcard::to_allocvec(&(identity(name), u16::MAX, state)).expect("it is serialized"));
    data
}

#[test]
fn a_member_objects_to_what_is_said_in_its_own_name() {
    const SUSPECT: u8 = 1;
    const DOWN: u8 = 2;
    for (seed, said) in [(1, DOWN), (2, SUSPECT), (3, DOWN)] {
        for number in NUMBERS {
            let mut world = three(seed);
            world.run_for(2 * SECOND);
            let mut mallory = Insider::take_over(&mut world, MALLORY);
            let data = gossip(&world, B, A, said);
            say(&mut mallory, &mut world, B, A, number, &Frame::Membership(&data));
            world.run_for(Duration::from_millis(10));
            let heard = if said == DOWN { MemberState::Down } else { MemberState::Suspect };
            assert_eq!(state(&world, A, B), heard, "seed {seed}: the lie was not heard");
            world.run_for(5 * SECOND);
            check_healed(&mut world, &[A, B], &format!("seed {seed}, number {number}, {heard:?}"));
            check_healthy(&mut world, 0);
        }
    }
}

#[test]
fn one_that_slept_meanwhile_comes_back() {
    for number in NUMBERS {
        let mut world = three(1);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        for (name, to) in [(A, B), (B, A)] {
            say(&mut mallory, &mut world, name, to, number, &NOTHING);
        }
        world.pause(B, 10 * SECOND);
        world.run_for(10 * SECOND);
        check_healed(&mut world, &[A, B], &format!("number {number}"));
        check_healthy(&mut world, 0);
    }
}

/// Members of larger clusters have no session with those to whom they send nothing.
#[test]
fn where_there_is_no_session_one_is_opened() {
    let mut world = World::new(1, Network::with_delay(Duration::from_micros(100)));
    let count = 12;
    for member in 1..=count + 1 {
        world.add(&format!("m{member}"), &[&format!("10.1.0.{member}")], &["10.1.0.1"]);
    }
    assert!(world.run_until(20 * SECOND, World::converged), "no convergence");
    world.run_for(10 * SECOND);
    let mut mallory = Insider::take_over(&mut world, count);
    let among: Vec<usize> = (0..count).collect();
    for name in 0..count {
        for to in (0..count).filter(|&to| to != name) {
            say(&mut mallory, &mut world, name, to, u64::MAX, &NOTHING);
        }
    }
    world.run_for(30 * SECOND);
    check_healed(&mut world, &among, "all names");
}

#[test]
fn a_newcomer_in_whose_name_others_came_before_it_joins() {
    for number in NUMBERS {
        let mut world = three(1);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let own = ["10.4.1.2".parse().expect("an address")];
        let others: Vec<_> = ["10.1.1.2", "10.1.2.2", "10.2.1.2", "10.2.2.2"]
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        world.network.partition(&own, &others);
        let late = world.add("late", &["10.4.1.2"], &["10.1.1.2"]);
        world.run_for(SECOND);
        for to in [A, B] {
            say(&mut mallory, &mut world, late, to, number, &NOTHING);
        }
        world.run_for(SECOND / 10);
        world.network.heal();
        let joined = |world: &World| {
            world.members[late].core.as_ref().is_some_and(|core| core.live_peers().len() == 2)
        };
        assert!(world.run_until(10 * SECOND, joined), "number {number}: it does not join");
        world.run_for(10 * SECOND);
        check_healed(&mut world, &[A, B, late], &format!("number {number}"));
    }
}
