//! Nodes that a cluster does not let in: they say why, and own nothing beside it.

use overlan_core::Config;
use overlan_sim::World;
use overlan_wire::BootId;

use crate::common::{MS, SECOND, address, core, duties, isolate, lan};

const DUTIES: usize = 8;

/// A node that knows the first two members' addresses.
fn add(world: &mut World, name: &str, at: usize) -> usize {
    let mut config = Config::new(name, BootId::default(), [0; 32]);
    config.responsibilities = duties(DUTIES);
    config.seeds = vec!["10.0.0.2:7400".parse().unwrap(), "10.1.0.2:7400".parse().unwrap()];
    world.add_with(config, &[&address(at, 0).to_string()])
}

/// So many members that know each other.
fn cluster(seed: u64, members: usize) -> World {
    let mut world = World::new(seed, lan());
    (0..members).for_each(|at| _ = add(&mut world, &format!("n{at}"), at));
    assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}");
    world
}

fn owns(world: &World, member: usize) -> usize {
    core(world, member).own_duties().1.len()
}

fn problems(world: &World, member: usize) -> String {
    core(world, member).status(world.now).problems.join("\n")
}

/// Whether the node owns nothing for so long.
fn stays_idle(world: &mut World, node: usize, seconds: u32) -> bool {
    !world.run_until(seconds * SECOND, |world| owns(world, node) > 0)
}

#[test]
fn a_node_whose_name_is_taken_owns_nothing_until_it_is_let_in() {
    for seed in 0..6 {
        let mut world = cluster(seed, 3);
        let late = add(&mut world, "n2", 3);
        assert!(stays_idle(&mut world, late, 40), "seed {seed}");
        assert!(
            problems(&world, late).contains("the name is taken"),
            "seed {seed}: {}",
            problems(&world, late)
        );
        world.kill(2);
        let shares = |world: &World| owns(world, late) > 0 && core(world, late).live_peers().len() == 2;
        assert!(world.run_until(30 * SECOND, shares), "seed {seed}");
    }
}

#[test]
fn a_node_that_is_not_allowed_is_told_so_and_owns_nothing() {
    for seed in 0..6 {
        let mut world = cluster(seed, 2);
        let allowed: Vec<_> = world.members.iter().map(|member| member.id).collect();
        for member in 0..2 {
            world.kill(member);
            world.configure(member, |config| config.allow = Some(allowed.clone()));
            world.start(member);
        }
        assert!(world.run_until(10 * SECOND, World::converged), "seed {seed}");
        let late = add(&mut world, "late", 3);
        assert!(stays_idle(&mut world, late, 40), "seed {seed}");
        assert!(problems(&world, late).contains("allow-list"), "seed {seed}: {}", problems(&world, late));
        let refused = |member| core(&world, member).status(world.now).counters.hellos_refused;
        assert!(refused(0) > 0 && refused(1) > 0, "seed {seed}");
    }
}

/// A lone member whose others are gone, and a node that was given its name by mistake: they greet each other.
#[test]
fn who_was_there_first_keeps_its_name_and_what_it_owns() {
    for seed in 0..6 {
        let mut world = World::new(seed, lan());
        let first = add(&mut world, "n", 0);
        assert!(world.run_until(20 * SECOND, |world| owns(world, first) == DUTIES), "seed {seed}");
        world.run_for(MS * (1 + 300 * seed as u32));
        let late = add(&mut world, "n", 1);
        let until = world.now + 60 * SECOND;
        while world.now < until {
            world.run_for(100 * MS);
            assert_eq!(
                (owns(&world, first), owns(&world, late)),
                (DUTIES, 0),
                "seed {seed}, {:?}",
                world.now
            );
        }
    }
}

/// Two nodes of one name that start together: one of them owns all, and whoever restarts.
#[test]
fn of_two_of_one_name_one_owns_all() {
    for seed in 0..6 {
        let mut world = World::new(seed, lan());
        let nodes = [add(&mut world, "n", 0), add(&mut world, "n", 1)];
        let one_owns = |world: &World| {
            let mut owned = nodes.map(|node| owns(world, node));
            owned.sort_unstable();
            owned == [0, DUTIES]
        };
        assert!(world.run_until(10 * SECOND, one_owns), "seed {seed}");
        for node in nodes {
            assert!(!world.run_until(60 * SECOND, |world| !one_owns(world)), "seed {seed}");
            world.kill(node);
            world.run_for(2 * SECOND);
            world.start(node);
            assert!(world.run_until(20 * SECOND, one_owns), "seed {seed}");
        }
    }
}

/// A node whose name is taken, and that planned alone before the cluster told it so: its network came late, or was cut.
#[test]
fn what_was_owned_in_a_cut_is_not_owned_beside_the_cluster() {
    for seed in 0..6 {
        let mut world = cluster(seed, 3);
        let late = add(&mut world, "n2", 3);
        for cut in [8, 80] {
            isolate(&mut world, &[late]);
            world.run_for(cut * SECOND);
            assert_eq!(owns(&world, late), DUTIES, "seed {seed}: it sees nobody");
            world.network.heal();
            assert!(world.run_until(5 * SECOND, |world| owns(world, late) == 0), "seed {seed}, {cut}");
            assert!(stays_idle(&mut world, late, 90), "seed {seed}, {cut}");
        }
    }
}

/// Whoever has the key and greets a lone member does not take its duties away by letting it in nowhere.
#[test]
fn a_lone_member_is_not_barred_by_a_stranger() {
    for seed in 0..3 {
        let mut world = World::new(seed, lan());
        let nodes = ["a", "b"].map(|name| {
            let at = world.members.len();
            let node = add(&mut world, name, at);
            let id = world.members[node].id;
            world.kill(node);
            world.configure(node, |config| config.allow = Some(vec![id]));
            node
        });
        world.start(nodes[0]);
        world.run_for(30 * SECOND);
        world.start(nodes[1]);
        let until = world.now + 100 * SECOND;
        while world.now < until {
            world.run_for(100 * MS);
            assert_eq!(nodes.map(|node| owns(&world, node)), [DUTIES, 0], "seed {seed}");
        }
    }
}
