//! What a liar writes in its own entry, and whom it removes.

use overlan_core::event::Fate;

use super::*;

/// The liar's own entry, with a version above the one that `a` holds of it.
fn entry(world: &World, mallory: &Insider, name: &str, boot: BootId) -> Vec<u8> {
    let address = "10.3.1.2:7400".parse().expect("an address");
    let entry = forged::entry(&mallory.seal, boot, version(world, MALLORY) + 1, name, &[address]);
    sign(&mallory.seal, Record::Entry(entry))
}

/// Of a member's entry, as `a` holds it.
fn version(world: &World, of: usize) -> u64 {
    let id = world.members[of].id.to_string();
    let table = world.members[A].core.as_ref().expect("it runs").table();
    table.entries.into_iter().find(|entry| entry.id == id).map_or(1, |entry| entry.version)
}

/// Messages that were delivered, once each.
fn delivered(world: &World, from: usize) -> usize {
    world.members[from].fates.values().filter(|fates| **fates == [Fate::Delivered]).count()
}

/// A message each way each 10 ms, for a while. Those that were refused.
fn talk(world: &mut World, tokens: std::ops::Range<u64>, mut each: impl FnMut(&mut World, u64)) -> u64 {
    let mut refused = 0;
    for token in tokens {
        each(world, token);
        for (from, to) in [(A, B), (B, A)] {
            let payload = token.to_be_bytes().to_vec();
            refused += u64::from(!world.send(from, to, MessageMode::Ordered, payload, token));
        }
        world.run_for(Duration::from_millis(10));
    }
    refused
}

#[test]
fn anothers_boot_in_ones_own_entry_ends_nobodys_life() {
    for seed in 201..204 {
        let mut world = three(seed);
        world.run_for(2 * SECOND);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let (_, boot) = world.credentials(B);
        for boot in [boot, BootId([5; 16])] {
            let record = entry(&world, &mallory, "mallory", boot);
            mallory.cluster_frame(&mut world, A, &Frame::Record(&record));
            world.run_for(SECOND);
        }
        // An ordinary change of b's entry.
        talk(&mut world, 0..200, |world, token| {
            if token == 100 {
                world.set_adapter(B, 1, false);
            }
        });
        world.run_for(10 * SECOND);
        for from in [A, B] {
            assert_eq!(delivered(&world, from), 200, "seed {seed}: messages of member {from}");
        }
        let (_, after) = world.credentials(B);
        assert_eq!(after, boot);
        for at in [A, B] {
            let core = world.members[at].core.as_ref().expect("it runs");
            let held = core.members(world.now).into_iter().find(|member| member.name == "b");
            assert_eq!(
                held.expect("it is there").boot,
                boot.to_string(),
                "seed {seed}: b's boot at member {at}"
            );
        }
    }
}

#[test]
fn the_living_are_not_removed_again_and_again() {
    for (seed, pause) in [(1, 10), (2, 1), (3, 100)] {
        let mut world = three(seed);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        world.run_for(2 * SECOND);
        let victim = world.members[B].id;
        let refused = talk(&mut world, 0..1_000, |world, token| {
            if token % pause != 0 {
                return;
            }
            let by_key = mallory.seal.sign_key();
            let removal = Forgotten { id: victim, version: version(world, B), by_key };
            let removal = sign(&mallory.seal, Record::Forgotten(removal));
            for to in [A, B] {
                mallory.cluster_frame(world, to, &Frame::Record(&removal));
            }
        });
        for at in [A, B] {
            let problems = world.members[at].core.as_ref().expect("it runs").status(world.now).problems;
            let told = problems.iter().any(|problem| problem.contains("signed by mallory"));
            assert!(told, "seed {seed}: {problems:?}");
        }
        world.run_for(20 * SECOND);
        let what = format!("seed {seed}, each {pause}0 ms");
        assert_eq!(refused, 0, "{what}");
        for from in [A, B] {
            let lost = 1_000 - delivered(&world, from);
            assert!(lost <= 5, "{what}: {lost} messages of member {from} were lost");
        }
        check_both_alive(&world, &what);
    }
}

fn check_both_alive(world: &World, what: &str) {
    let id = |member: usize| world.members[member].id;
    let live =
        |at: usize, whom: usize| world.members[at].core.as_ref().is_some_and(|core| core.is_live(id(whom)));
    assert!(live(A, B) && live(B, A), "{what}: they lost each other");
}

#[test]
fn a_name_leads_to_who_had_it_first() {
    for seed in 100..110 {
        let mut world = three(seed);
        let mut mallory = Insider::take_over(&mut world, MALLORY);
        let boot = mallory.boot;
        let record = entry(&world, &mallory, "b", boot);
        mallory.cluster_frame(&mut world, A, &Frame::Record(&record));
        world.run_for(SECOND / 20);
        let core = world.members[A].core.as_ref().expect("it runs");
        assert_eq!(core.find("b"), Some(world.members[B].id), "seed {seed}");
    }
}
