//! Members that are forgotten, cut off or taken for dead.

use std::net::IpAddr;

use overlan_core::config::Quorum;
use overlan_core::status::MemberState;
use overlan_core::{Config, Fate};
use overlan_sim::World;
use overlan_wire::{BootId, MessageMode};

use crate::common::{
    MS, SECOND, address, check_exactly_once, core, duties, isolate, lan, many, mode, payload,
};

fn agreed(world: &World) -> bool {
    let mut running = world.members.iter().filter_map(|member| member.core.as_ref());
    world.converged() && running.all(|core| core.status(world.now).agreed)
}

/// A member that was forgotten while it lived on behind a cut comes back as a newcomer: nothing of the old
/// session is used again, and messages pass both ways.
#[test]
fn a_forgotten_member_that_lives_comes_back_whole() {
    for seed in 0..8 {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        for token in 0..10 {
            world.send(0, 1, mode(token), payload(token), token);
            world.send(1, 0, mode(token), payload(token), token);
        }
        world.run_for(SECOND);
        check_exactly_once(&world, 0..10, "before");
        let boot = core(&world, 1).status(world.now).boot;
        isolate(&mut world, &[1]);
        world.send(0, 1, MessageMode::Ordered, payload(10), 10);
        world.run_for(20 * SECOND);
        world.forget(0, 1);
        if seed % 2 == 1 {
            // What it says of itself meanwhile outranks the removal.
            world.change_adapters(1, |adapters| adapters[0].mtu = 1_400);
        }
        world.run_for(2 * SECOND);
        assert_eq!(world.members[0].fates[&10], [Fate::Abandoned]);
        world.network.heal();
        assert!(world.run_until(30 * SECOND, agreed), "seed {seed}: no agreement");
        assert_ne!(core(&world, 1).status(world.now).boot, boot, "seed {seed}: the old session goes on");
        for token in 20..40 {
            assert!(world.send(0, 1, mode(token), payload(token), token));
            assert!(world.send(1, 0, mode(token), payload(token), token));
        }
        world.run_for(3 * SECOND);
        check_exactly_once(&world, 20..40, &format!("seed {seed}"));
        assert_eq!(world.members[1].fates.keys().filter(|&&token| token >= 20).count(), 20, "seed {seed}");
        assert_eq!(core(&world, 0).status(world.now).counters.dropped_replayed, 0, "seed {seed}");
    }
}

#[test]
fn two_members_that_forget_the_same_one_agree() {
    for seed in 0..4 {
        let mut world = many(seed, 4);
        assert!(world.run_until(5 * SECOND, World::converged));
        world.kill(3);
        world.run_for(20 * SECOND);
        isolate(&mut world, &[1, 2]);
        world.forget(0, 3);
        world.forget(1, 3);
        world.run_for(SECOND);
        world.network.heal();
        assert!(world.run_until(20 * SECOND, agreed), "seed {seed}: the tables differ");
        // And it may come back.
        world.start(3);
        assert!(world.run_until(20 * SECOND, agreed), "seed {seed}: it does not come back");
    }
}

/// A node that lost its memory of published versions starts under one that another life used.
#[test]
fn a_version_used_twice_is_outranked() {
    let mut world = many(3, 3);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.forget_version(2);
    world.kill(2);
    world.start(2);
    assert!(world.run_until(20 * SECOND, agreed));
}

/// A node with a copied state directory is not let in, whatever it says; nothing becomes of the member that it copies, and
/// its status or that of whoever it asked says why, for a while.
#[test]
fn a_copy_of_a_running_member_is_not_let_in() {
    for (seed, original) in (0..8).map(|seed| (seed, seed as usize % 2)) {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        let before = core(&world, original).status(world.now);
        let copy = world.add_copy(original, &["10.0.0.77"]);
        // Whom it asks.
        world.configure(copy, |config| config.seeds = vec!["10.0.0.2:7400".parse().unwrap()]);
        world.start(copy);
        for token in 0..100 {
            assert!(world.send(0, 1, mode(token), payload(token), token));
            assert!(world.send(1, 0, mode(token), payload(token), token));
            world.run_for(150 * MS);
        }
        assert!(world.members[copy].core.is_none(), "seed {seed}: both stay");
        check_exactly_once(&world, 0..100, &format!("seed {seed}"));
        assert_eq!(core(&world, original).status(world.now).boot, before.boot, "seed {seed}");
        assert!(agreed(&world), "seed {seed}");
        let problems = |world: &World| core(world, 0).status(world.now).problems;
        assert!(
            problems(&world)[0].contains("not let in (at 10.0.0.77)"),
            "seed {seed}: {:?}",
            problems(&world)
        );
        world.run_for(60 * SECOND);
        assert!(problems(&world).is_empty(), "seed {seed}: {:?}", problems(&world));
    }
}

/// A copy owns nothing from when it is told what it is, or where it is told before it would plan alone.
#[test]
fn a_copy_owns_nothing_once_it_is_refused() {
    for (seed, alone) in (0..4).flat_map(|seed| [(seed, 0), (seed, 20)]) {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        let copy = world.add_copy(1, &["10.0.0.77"]);
        world.configure(copy, |config| config.responsibilities = duties(24));
        world.start(copy);
        let own = |world: &World| core(world, copy).own_duties().1.len();
        if alone > 0 {
            world.network.dead.insert("10.0.0.77".parse().unwrap());
            world.run_for(alone * SECOND);
            assert_eq!(own(&world), 24, "seed {seed}: it sees nobody, and nobody told it");
            world.network.heal();
        }
        let refused = |world: &World| {
            let problems = core(world, copy).status(world.now).problems;
            problems.iter().any(|problem| problem.contains("with this node's identity is a live member"))
        };
        assert!(world.run_until(3 * SECOND, refused), "seed {seed}");
        let gone = |world: &World| world.members[copy].core.is_none();
        assert!(!world.run_until(9 * SECOND, |world| own(world) > 0), "seed {seed}, after {alone} s alone");
        assert!(world.run_until(5 * SECOND, gone), "seed {seed}");
        assert_eq!(world.members[copy].owned.is_empty(), alone == 0, "seed {seed}");
    }
}

/// A node that crashed and comes back elsewhere is let in once its past life is found dead.
#[test]
fn a_member_that_crashed_may_come_back_elsewhere() {
    for seed in 0..8 {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        world.kill(1);
        let moved = world.add_copy(1, &["10.0.0.77"]);
        let joined = |world: &World| {
            let entries = core(world, 0).table().entries;
            entries.iter().any(|entry| entry.adapters[0].address.ip() == IpAddr::from([10, 0, 0, 77]))
        };
        assert!(world.run_until(SECOND, joined), "seed {seed}");
        assert!(world.run_until(20 * SECOND, agreed), "seed {seed}: no agreement");
        assert!(world.members[moved].core.is_some(), "seed {seed}");
        let problems = core(&world, 0).status(world.now).problems.join("\n");
        assert!(!problems.contains("not let in"), "seed {seed}: {problems}");
    }
}

/// Of two that became members of two sides of a partition at once one stays. Two that have run for long both stay, and say
/// why nothing works; they do not fill the network with entries meanwhile.
#[test]
fn two_nodes_with_one_identity_are_told() {
    for (seed, apart) in (0..4).flat_map(|seed| [(seed, 5), (seed, 70)]) {
        let mut world = World::new(seed, lan());
        let seeds = [address(0, 0).to_string(), address(2, 0).to_string()];
        let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
        for index in 0..3 {
            world.add(&format!("n{index}"), &[&address(index, 0).to_string()], &seeds);
        }
        let copy = world.add_copy(1, &["10.0.0.77"]);
        let there = ["10.0.0.77".parse().unwrap(), address(2, 0)];
        world.network.partition(&there, &[0, 1].map(|member| address(member, 0)));
        world.run_for(apart * SECOND);
        world.network.heal();
        world.run_for(20 * SECOND);
        let version = |world: &World| {
            let running = [1, copy].into_iter().filter_map(|at| world.members[at].core.as_ref());
            let entries = running.flat_map(|core| core.table().entries);
            entries.filter(|entry| entry.name == "n1").map(|entry| entry.version).max().unwrap()
        };
        let before = version(&world);
        world.run_for(30 * SECOND);
        // Four renewals a second of each, and as many returns from removals: the others take each for the other's past.
        assert!(version(&world) - before <= 30 * 20, "seed {seed}: {} versions", version(&world) - before);
        let alive: Vec<_> = [1, copy].into_iter().filter(|&at| world.members[at].core.is_some()).collect();
        assert_eq!(alive.len(), if apart < 60 { 1 } else { 2 }, "seed {seed}, {apart} s apart");
        for &at in &alive {
            let problems = core(&world, at).status(world.now).problems;
            assert!(
                problems.iter().any(|text| text.contains("state_dir of its own")),
                "seed {seed}: {problems:?}"
            );
        }
        // The other members see that something is wrong, while it is.
        let problems = core(&world, 0).status(world.now).problems;
        let told = problems.iter().any(|text| text.contains("began anew"));
        assert!(told || alive.len() == 1, "seed {seed}: {problems:?}");
    }
}

/// A copy that is started again and again gives way as soon each time, however long that goes on.
#[test]
fn a_supervised_copy_gives_way_each_time() {
    for seed in 0..4 {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        world.run_for(60 * SECOND);
        let copy = world.add_copy(1, &["10.0.0.77"]);
        for round in 0..10 {
            assert!(
                world.run_until(12 * SECOND, |world| world.members[copy].core.is_none()),
                "seed {seed}, round {round}: both stay"
            );
            assert!(world.members[1].core.is_some(), "seed {seed}, round {round}: the original went");
            world.run_for(5 * SECOND);
            world.start(copy);
        }
    }
}

/// A member that lost its memory of versions meets one of its past life's entries; being forgotten again and again makes
/// no copy of that.
#[test]
fn a_past_life_is_no_copy() {
    let mut world = many(9, 3);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.change_adapters(1, |adapters| adapters[0].mtu = 1_400);
    world.run_for(SECOND);
    world.forget_version(1);
    world.kill(1);
    world.start(1);
    for cycle in 0..16 {
        world.run_for(SECOND);
        isolate(&mut world, &[1]);
        let is_down = |world: &World| {
            core(world, 0).members(world.now).iter().any(|member| member.state == MemberState::Down)
        };
        assert!(world.run_until(20 * SECOND, is_down), "cycle {cycle}");
        world.forget(0, 1);
        world.run_for(SECOND);
        world.network.heal();
        assert!(world.run_until(20 * SECOND, agreed), "cycle {cycle}: no agreement");
        let problems = core(&world, 1).status(world.now).problems;
        assert!(problems.is_empty(), "cycle {cycle}: {problems:?}");
    }
}

#[test]
fn the_leader_dies_while_tables_differ() {
    for seed in 0..6 {
        let mut world = many(seed, 5);
        assert!(world.run_until(5 * SECOND, agreed), "seed {seed}");
        let leader = (0..5).min_by_key(|&at| world.members[at].id).unwrap();
        let victim = (0..5).find(|&at| at != leader && at != 0).unwrap();
        isolate(&mut world, &[leader, victim]);
        world.run_for((3 + seed as u32) * SECOND);
        world.kill(leader);
        world.network.heal();
        assert!(world.run_until(60 * SECOND, agreed), "seed {seed}: no agreement without the leader");
        world.start(leader);
        assert!(world.run_until(60 * SECOND, agreed), "seed {seed}: no agreement with it");
    }
}

#[test]
fn a_false_death_keeps_message_state() {
    for seed in 0..4 {
        let mut world = many(seed, 3);
        assert!(world.run_until(5 * SECOND, World::converged));
        for token in 0..30 {
            if token == 10 {
                isolate(&mut world, &[1]);
            }
            world.send(0, 1, mode(token), payload(token), token);
            world.run_for(SECOND);
        }
        assert!(
            core(&world, 0)
                .members(world.now)
                .iter()
                .any(|member| member.name == "n1" && member.state == overlan_core::status::MemberState::Down)
        );
        world.network.heal();
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}");
        world.run_for(3 * SECOND);
        check_exactly_once(&world, 0..30, &format!("seed {seed}"));
    }
}

/// Five members with a quorum: the smaller piece owns nothing, the larger one everything.
#[test]
fn a_minority_owns_nothing() {
    for seed in 0..4 {
        let mut world = World::new(seed, lan());
        for index in 0..5 {
            let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
            config.quorum = Quorum::Majority;
            config.responsibilities = duties(8);
            if index > 0 {
                config.seeds = vec!["10.0.0.2:7400".parse().unwrap()];
            }
            world.add_with(config, &[&address(index, 0).to_string()]);
        }
        assert!(world.run_until(5 * SECOND, World::converged));
        world.run_for(5 * SECOND);
        let owned = |world: &World, member: usize| {
            (0..8).filter(|at| core(world, member).owner(&format!("r{at}")).is_some()).count()
        };
        assert!((0..5).all(|member| owned(&world, member) == 8), "seed {seed}");
        isolate(&mut world, &[seed as usize, 4]);
        world.run_for(30 * SECOND);
        for member in 0..5 {
            let minority = member == seed as usize || member == 4;
            let expected = if minority && seed != 4 { 0 } else { 8 };
            assert_eq!(owned(&world, member), expected, "seed {seed}, member {member}");
        }
        world.network.heal();
        assert!(world.run_until(30 * SECOND, World::converged));
        world.run_for(10 * SECOND);
        assert!((0..5).all(|member| owned(&world, member) == 8), "seed {seed}: after healing");
    }
}

/// The member with the lowest id comes back from where it saw nobody, and leads. Two members that never lost each other
/// own no duty both at a time meanwhile, but for a moment, and neither takes the other for dead.
#[test]
fn a_returning_leader_gives_nothing_away_twice() {
    for (seed, quorum) in (0..12).flat_map(|seed| [(seed, Quorum::Majority), (seed, Quorum::None)]) {
        let mut world = World::new(seed, lan());
        for index in 0..3 {
            let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
            config.quorum = quorum;
            config.responsibilities = duties(24);
            if index > 0 {
                config.seeds = vec!["10.0.0.2:7400".parse().unwrap()];
            }
            world.add_with(config, &[&address(index, 0).to_string()]);
        }
        assert!(world.run_until(5 * SECOND, World::converged), "seed {seed}");
        world.run_for(5 * SECOND);
        let leader = (0..3).min_by_key(|&at| world.members[at].id).unwrap();
        let healthy: Vec<_> = (0..3).filter(|&at| at != leader).collect();
        isolate(&mut world, &[leader]);
        world.run_for(4_200 * MS + 200 * MS * seed as u32);
        world.network.heal();
        let mut overlap = 0;
        for step in 0..600 {
            world.run_for(5 * MS);
            let owned = |at: usize| {
                let (plan, name) = (core(&world, at).plan(), format!("n{at}"));
                let duties = plan.duties.into_iter().filter(move |duty| duty.owners.first() == Some(&name));
                duties.map(|duty| duty.name).collect::<Vec<_>>()
            };
            let (one, other) = (owned(healthy[0]), owned(healthy[1]));
            let both: Vec<_> = one.iter().filter(|name| other.contains(name)).collect();
            // They may see the returning one, and so take its plan, at different times: as gossip comes.
            overlap = if both.is_empty() { 0 } else { overlap + 1 };
            assert!(overlap <= 40, "seed {seed}, {quorum:?}, {} ms: two own {both:?}", 5 * (step + 1));
            for (at, of) in [(healthy[0], healthy[1]), (healthy[1], healthy[0])] {
                let members = core(&world, at).members(world.now);
                let state = members.iter().find(|member| member.name == format!("n{of}")).unwrap().state;
                assert_ne!(state, MemberState::Down, "seed {seed}, {quorum:?}: n{at} takes n{of} for dead");
            }
        }
        assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}");
    }
}

/// Short partitions make members suspect that live: all are soon taken for alive again. A suspect that is dead is found dead.
#[test]
fn suspicion_ends_after_a_short_partition() {
    for (seed, count) in (0..24).map(|seed| (seed, [2, 3, 5][seed as usize % 3])) {
        let mut world = many(seed, count);
        assert!(world.run_until(5 * SECOND, agreed), "seed {seed}");
        world.run_for(3 * SECOND);
        let apart = seed as usize % count;
        isolate(&mut world, &[apart]);
        world.run_for(1_600 * MS + 70 * MS * seed as u32);
        world.network.heal();
        let states = |world: &World| -> Vec<MemberState> {
            let running = world.members.iter().filter_map(|member| member.core.as_ref());
            running.flat_map(|core| core.members(world.now)).map(|member| member.state).collect()
        };
        let only = |world: &World, state| states(world).iter().all(|held| *held == state);
        let what = format!("seed {seed}, {count} members");
        world.run_for(SECOND);
        assert!(world.run_until(5 * SECOND, |world| only(world, MemberState::Alive)), "{what}");
        assert!(!world.run_until(10 * SECOND, |world| !only(world, MemberState::Alive)), "{what}: again");
        // Suspected at the same time, and dead.
        isolate(&mut world, &[apart]);
        world.run_for(1_600 * MS + 70 * MS * seed as u32);
        let dead = (apart + 1) % count;
        world.kill(dead);
        world.network.heal();
        let found = |world: &World| {
            let (states, running) = (states(world), count - 1);
            let of = |state| states.iter().filter(|held| **held == state).count();
            of(MemberState::Down) == running && of(MemberState::Alive) == running * running
        };
        assert!(world.run_until(15 * SECOND, found), "{what}: n{dead} is not found dead");
    }
}

/// A node that lost its identity and kept name and address is refused while its past life counts as alive, and says just
/// that; once it is a member it says nothing more of it.
#[test]
fn a_refusal_ends_with_the_join() {
    let mut world = many(2, 3);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.kill(1);
    world.change_adapters(1, |adapters| adapters[0].address = address(9, 0));
    let back = world.add("n1", &[&address(1, 0).to_string()], &["10.0.0.2"]);
    world.run_for(2 * SECOND);
    let problems = |world: &World| core(world, back).status(world.now).problems;
    let (all, refused) = (problems(&world), problems(&world)[0].contains("name is taken"));
    assert!(refused && all.len() == 1, "{all:?}");
    let joined = |world: &World| core(world, back).live_peers().len() == 2;
    assert!(world.run_until(20 * SECOND, joined));
    let all = problems(&world);
    assert!(!all.iter().any(|problem| problem.contains("name is taken")), "{all:?}");
}

/// Two members whose routers know no way between them live all the same, as a third says: both name the other.
#[test]
fn a_live_member_out_of_reach_is_a_problem() {
    let mut world = many(4, 3);
    assert!(world.run_until(5 * SECOND, World::converged));
    let problems = |world: &World, index: usize| core(world, index).status(world.now).problems.join("\n");
    assert_eq!((problems(&world, 0), problems(&world, 1)), (String::new(), String::new()));
    let (one, two) = ([address(0, 0)], [address(1, 0)]);
    world.network.partition(&one, &two);
    let named =
        |world: &World| problems(world, 0).contains("n1 lives") && problems(world, 1).contains("n0 lives");
    assert!(world.run_until(20 * SECOND, named), "{}", problems(&world, 0));
    assert_eq!(problems(&world, 2), "");
    world.network.heal();
    let none = |world: &World| (0..3).all(|index| problems(world, index).is_empty());
    assert!(world.run_until(20 * SECOND, none), "{}", problems(&world, 0));
}

#[test]
fn of_two_with_a_name_the_dead_one_is_forgotten() {
    let mut world = many(6, 3);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.kill(2);
    world.run_for(10 * SECOND);
    let own = address(3, 0).to_string();
    let successor = world.add("n2", &[&own], &["10.0.0.2"]);
    world.run_for(3 * SECOND);
    let [dead, alive] = [2, successor].map(|index| world.members[index].id);
    assert_eq!(core(&world, 0).find("n2"), Some(alive));
    assert_eq!(core(&world, 0).find_gone("n2"), Some(dead));
}
