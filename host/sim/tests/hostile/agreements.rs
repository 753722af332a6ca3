//! What a liar says is agreed.

use overlan_wire::Digest;

use super::*;

/// So many honest members, and the liar, which comes last.
fn many(seed: u64, honest: usize) -> (World, Insider) {
    let mut world = World::new(seed, Network::with_delay(Duration::from_micros(100)));
    for member in 0..=honest {
        world.add(&format!("m{member}"), &[&format!("10.1.{member}.2")], &["10.1.0.2"]);
    }
    assert!(world.run_until(60 * SECOND, World::converged), "seed {seed}: no convergence");
    world.run_for(5 * SECOND);
    let mallory = Insider::take_over(&mut world, honest);
    world.run_for(30 * SECOND);
    (world, mallory)
}

fn all_agree(world: &World) -> bool {
    let mut running = world.members.iter().filter_map(|member| member.core.as_ref());
    running.all(|core| core.status(world.now).agreed)
}

fn epochs(world: &World) -> Vec<u64> {
    let running = world.members.iter().filter_map(|member| member.core.as_ref());
    running.map(|core| core.status(world.now).agreed_epoch).collect()
}

fn sent(world: &World) -> u64 {
    world.members.iter().map(|member| member.sent).sum()
}

#[test]
fn an_epoch_that_nobody_reached_ends_no_agreement() {
    for (seed, honest) in [(1, 3), (2, 3), (3, 12)] {
        let (mut world, mut mallory) = many(seed, honest);
        let what = format!("seed {seed}, {honest} members");
        assert!(all_agree(&world), "{what}: no agreement");
        let before = epochs(&world).into_iter().max().unwrap_or(0);
        let idle = sent(&world);
        world.run_for(10 * SECOND);
        let idle = sent(&world) - idle;
        let leader = (0..honest).min_by_key(|&member| world.members[member].id).expect("there are some");
        let table = world.members[0].core.as_ref().expect("it runs").table().digest;
        let made_up = Digest([0xff; 32]);
        // The last name is the leader's: a cluster datagram proves no sender.
        for (name, epoch) in [(honest, u64::MAX), (honest, 1 << 40), (leader, u64::MAX), (leader, before + 5)]
        {
            for to in (0..honest).filter(|&to| to != name) {
                let frame = Frame::Summary {
                    digest: made_up,
                    epoch,
                    agreed: made_up,
                    documents: <_>::default(),
                    refused: None,
                };
                let mut bytes = Vec::new();
                frame.emit(&mut bytes);
                let (_, boot) = world.credentials(name);
                mallory.cluster(&mut world, boot, to, &bytes);
            }
            world.run_for(5 * SECOND);
            assert!(all_agree(&world), "{what}: {:?} after {epoch} in the name of {name}", epochs(&world));
        }
        let after = sent(&world);
        world.run_for(10 * SECOND);
        let after = sent(&world) - after;
        assert!(after <= idle + idle / 10, "{what}: {idle} datagrams before, {after} after");
        // An honest change.
        world.change_adapters(1, |adapters| adapters[0].mtu = 1_400);
        world.run_for(5 * SECOND);
        assert_ne!(world.members[0].core.as_ref().expect("it runs").table().digest, table);
        assert!(all_agree(&world), "{what}: no agreement on a change: {:?}", epochs(&world));
        assert!(epochs(&world).iter().all(|&epoch| epoch < before + 100), "{what}: {:?}", epochs(&world));
    }
}
