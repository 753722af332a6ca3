//! Back-pressure holds up those whom it must, and nobody else.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use overlan_contract::assignment::Responsibility;
use overlan_contract::failover;
use overlan_core::policy::{Answer, Question, fallback};
use overlan_core::{Config, Core, Event, Fate, Instant, Outgoing, SendError, plan};
use overlan_seal::Seal;
use overlan_sim::{Link, Network, World};
use overlan_wire::{BootId, MessageMode, NodeId};

use crate::common::{MS, SECOND, address, core, lan, many, two};

fn duty(name: &str) -> Responsibility {
    Responsibility { name: name.into(), replicas: 1, weight_milli: 1_000, requires: Vec::new() }
}

/// Messages that nobody takes fill the application's window; the cluster's own still pass.
#[test]
fn a_member_without_a_consumer_still_gets_plans() {
    let mut world = World::new(5, lan());
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut config = Config::new(name, BootId::default(), [0; 32]);
        config.responsibilities = (0..16).map(|at| duty(&format!("shard-{at}"))).collect();
        config.receive_window_bytes = 16 << 20;
        if index > 0 {
            config.seeds = vec!["10.0.0.2:7400".parse().unwrap()];
        }
        let address = format!("10.{index}.0.2");
        world.add_with(config, &[&address]);
    }
    assert!(world.run_until(5 * SECOND, World::converged));
    world.run_for(SECOND);
    for member in &mut world.members {
        member.consuming = false;
    }
    // Each counts for 64 bytes beside its own: to the last byte of the credit.
    let last = (16 << 20) + 64 - 15 * ((1 << 20) + 64) - 64;
    for (token, len) in [1 << 20; 15].into_iter().chain([last]).enumerate() {
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            world.send(from, to, MessageMode::Reliable, vec![0; len], token as u64);
        }
        world.run_for(5 * MS);
    }
    world.run_for(SECOND);
    let epoch = |world: &World, member: usize| core(world, member).plan().epoch;
    let before = epoch(&world, 0).max(epoch(&world, 1)).max(epoch(&world, 2));
    // A change that needs a new plan, agreed by those that remain.
    world.kill(2);
    world.run_for(30 * SECOND);
    let epochs: Vec<u64> = (0..2).map(|member| epoch(&world, member)).collect();
    assert!(epochs.iter().all(|&epoch| epoch > before && epoch == epochs[0]), "{before}: {epochs:?}");
}

/// Whoever was refused for a full queue to the node itself hears when there is room.
#[test]
fn a_full_queue_to_oneself_becomes_writable() {
    let mut world = World::new(6, lan());
    let mut config = Config::new("a", BootId::default(), [0; 32]);
    config.send_queue_bytes = 1_000;
    world.add_with(config, &["10.0.0.2"]);
    world.members[0].consuming = false;
    world.run_for(Duration::from_millis(10));
    let (now, id) = (world.now, world.members[0].id);
    let core = world.members[0].core.as_mut().unwrap();
    let send = |core: &mut overlan_core::Core<_>, token| {
        let message = Outgoing::new(MessageMode::Reliable, vec![0; 400], token);
        core.send(now, id, message).map_err(|(error, _)| error)
    };
    let mut token = 0;
    while send(core, token).is_ok() {
        token += 1;
    }
    assert_eq!(send(core, token), Err(SendError::QueueFull));
    while core.poll_messages(
        now,
        |_| true,
        |arrivals| {
            arrivals.for_each(drop);
            ControlFlow::Continue(())
        },
    ) {}
    let events: Vec<Event> = std::iter::from_fn(|| core.poll_event()).collect();
    assert!(events.contains(&Event::Writable { node: id, stream: 0 }), "{events:?}");
}

/// Whoever was refused for a full queue hears when unreliable messages have left: nobody acknowledges those.
#[test]
fn unreliable_messages_that_left_make_room() {
    let mut world = World::new(7, lan());
    for (name, address, seeds) in [("a", "10.0.0.2", vec![]), ("b", "10.0.0.3", vec!["10.0.0.2:7400"])] {
        let mut config = Config::new(name, BootId::default(), [0; 32]);
        config.seeds = seeds.into_iter().map(|seed| seed.parse().unwrap()).collect();
        config.send_queue_bytes = 4_000;
        world.add_with(config, &[address]);
    }
    assert!(world.run_until(Duration::from_secs(5), World::converged));
    world.run_for(Duration::from_secs(1));
    let (now, b) = (world.now, world.members[1].id);
    let core = world.members[0].core.as_mut().unwrap();
    let send = |core: &mut overlan_core::Core<_>| {
        let message = Outgoing::new(MessageMode::Unreliable, vec![0; 400], 0);
        core.send(now, b, message).map_err(|(error, _)| error)
    };
    while send(core).is_ok() {}
    assert_eq!(send(core), Err(SendError::QueueFull));
    let mut buffer = Vec::new();
    while core.poll_transmit(now, &mut buffer).is_some() {}
    let events: Vec<Event> = std::iter::from_fn(|| core.poll_event()).collect();
    assert!(events.contains(&Event::Writable { node: b, stream: 0 }), "{events:?}");
}

/// Messages to oneself that nobody takes hold up those of no other stream, and no peer's.
#[test]
fn an_unread_stream_to_oneself_holds_up_no_other() {
    let mut world = two(8, 1, lan());
    assert!(world.run_until(5 * SECOND, World::converged));
    world.members[0].consuming = false;
    let (now, ids) = (world.now, [world.members[0].id, world.members[1].id]);
    let core = world.members[0].core.as_mut().unwrap();
    let mut send = |stream, token| {
        let message = Outgoing { stream, ..Outgoing::new(MessageMode::Reliable, vec![0; 100_000], token) };
        core.send(now, ids[0], message).is_ok()
    };
    let unread = (0..10_000).take_while(|&token| send(1, token)).count() as u64;
    assert!(unread > 10, "there is room for some");
    assert!(send(2, unread) && send(2, unread + 1), "and for another stream");
    assert!(world.send(1, 0, MessageMode::Reliable, vec![1], 0));
    world.run_for(SECOND);
    let (now, core) = (world.now, world.members[0].core.as_mut().unwrap());
    let mut got = Vec::new();
    while core.poll_messages(
        now,
        |stream| stream != 1,
        |arrivals| {
            got.extend(arrivals.next().map(|message| (message.from, message.id.0)));
            ControlFlow::Break(())
        },
    ) {}
    got.sort_unstable_by_key(|&(from, id)| (from != ids[0], id));
    assert_eq!(got, [(ids[0], unread), (ids[0], unread + 1), (ids[1], 0)]);
    assert!(
        core.cancel(now, ids[0], 0..1) && !core.cancel(now, ids[0], unread..unread + 1),
        "one waits, one is gone"
    );
}

/// A message to oneself expires like any other when nobody takes it in time.
#[test]
fn a_message_to_oneself_that_nobody_takes_expires() {
    let mut world = many(9, 1);
    world.run_for(SECOND);
    world.members[0].consuming = false;
    let lifetime = Some(20 * MS);
    let message = Outgoing { lifetime, ..Outgoing::new(MessageMode::Reliable, vec![1], 7) };
    assert!(world.send_batch(0, 0, message));
    let told = world.run_until(SECOND, |world| world.members[0].fates.contains_key(&7));
    assert!(told, "nobody hears of it");
    assert_eq!(world.members[0].fates[&7], [Fate::Expired]);
}

/// Messages about as long as a datagram arrive, whichever of them just fits and whichever just does not.
#[test]
fn messages_of_every_size_arrive() {
    let mut world = two(10, 1, lan());
    assert!(world.run_until(5 * SECOND, World::converged));
    for len in 1_080..=1_500 {
        world.send(0, 1, MessageMode::Ordered, vec![0; len], len as u64);
        let arrived = world.run_until(SECOND, |world| {
            world.members[1].received.last().is_some_and(|message| message.payload.len() == len)
        });
        assert!(arrived, "{len} bytes do not");
    }
}

/// Between which addresses a member sends that finds time for one transmission each 2 ms, and has more for all of these.
fn sent_in_turns(core: &mut Core<Seal>, mut now: Instant, to: &[NodeId]) -> Vec<(IpAddr, IpAddr)> {
    let payload = Bytes::from(vec![7; 16 << 10]);
    for &node in to {
        let message = || Outgoing::new(MessageMode::Reliable, payload.clone(), 0);
        while core.send(now, node, message()).is_ok() {}
    }
    let mut buffer = Vec::new();
    let turn = |_| {
        now = now + 2 * MS;
        core.handle_timeout(now);
        core.poll_transmit(now, &mut buffer).map(|transmit| (transmit.local.ip(), transmit.remote.ip()))
    };
    (0..12).filter_map(turn).collect()
}

/// A peer whose queue is never empty keeps the others from nothing, were the processor the bottleneck.
#[test]
fn each_peer_has_its_turn() {
    let mut world = many(1, 4);
    assert!(world.run_until(5 * SECOND, World::converged));
    // Their windows grow.
    for token in 0..30 {
        for to in 1..4 {
            world.send(0, to, MessageMode::Reliable, vec![0; 1 << 20], token);
        }
    }
    world.run_for(5 * SECOND);
    let ids: Vec<_> = world.members[1..].iter().map(|member| member.id).collect();
    let mut core = world.members[0].core.take().expect("it runs");
    let sent = sent_in_turns(&mut core, world.now, &ids);
    for member in 1..4 {
        let turns = sent.iter().filter(|(_, to)| *to == address(member, 0)).count();
        assert!(turns >= 3, "{sent:?}");
    }
}

/// Copies go beside what they are copies of, however much there is to send.
#[test]
fn copies_have_their_turn() {
    let mut world = World::new(1, lan());
    world.policy = Some(Box::new(|_, question| {
        Some(Ok(match question {
            Question::Assignment(question) => Answer::Assignment(plan::fallback_assignment(question)),
            Question::Sizing(path) => {
                Answer::Sizing(fallback::sizing(path.local.mtu.min(path.remote.mtu), path.overhead))
            }
            Question::Failover(paths) => Answer::Failover(failover::Answer {
                mode: failover::Mode::Active,
                ..fallback::failover(paths)
            }),
        }))
    }));
    world.add("a", &["10.0.0.1", "10.1.0.1"], &[]);
    world.add("b", &["10.0.0.2", "10.1.0.2"], &["10.0.0.1"]);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.run_for(20 * SECOND);
    // The windows grow, so that neither path is what holds the sender up.
    transfer(&mut world, 0..12);
    let to = [world.members[1].id];
    let mut core = world.members[0].core.take().expect("it runs");
    let sent = sent_in_turns(&mut core, world.now, &to);
    let turns = |path| sent.iter().filter(|other| *other == path).count();
    let most = sent.iter().map(turns).max().expect("something is sent");
    assert!(most <= sent.len() / 2, "one path has {most} of the turns: {sent:?}");
}

/// Peers share what may be open here from the start.
#[test]
fn peers_share_the_receive_window() {
    let mut world = World::new(1, lan());
    let mut config = Config::new("x", BootId::default(), [0; 32]);
    config.receive_total_bytes = 64 << 20;
    world.add_with(config, &["10.0.0.1"]);
    world.add("a", &["10.0.0.2"], &["10.0.0.1"]);
    world.add("b", &["10.0.0.3"], &["10.0.0.1"]);
    assert!(world.run_until(5 * SECOND, World::converged));
    world.kill(2);
    world.start(2);
    assert!(world.run_until(30 * SECOND, World::converged));
    world.members[0].consuming = false;
    for token in 0..96 {
        for from in [1, 2] {
            let mut message = Outgoing::new(MessageMode::Reliable, vec![0; 1 << 20], token);
            message.stream = token as u16 % 8;
            let _ = world.send_batch(from, 0, message);
        }
        world.run_for(100 * MS);
    }
    // Nothing comes any more; what is held here is handed out.
    for silent in ["10.0.0.2", "10.0.0.3"] {
        world.network.dead.insert(silent.parse().unwrap());
    }
    world.members[0].consuming = true;
    world.run_for(SECOND);
    for from in [1, 2] {
        let from = world.members[from].id;
        let held = world.members[0].received.iter().filter(|message| message.from == from).count();
        assert!((20..=32).contains(&held), "{held} MiB of one peer");
    }
}

/// How long it takes to bring over some messages of 1 MiB, sent in order.
fn transfer(world: &mut World, tokens: core::ops::Range<u64>) -> Duration {
    let begun = world.now;
    let last = tokens.end;
    for token in tokens {
        assert!(world.send(0, 1, MessageMode::Ordered, vec![7; 1 << 20], token), "message {token}");
    }
    let done = |world: &World| world.members[0].fates.len() as u64 == last;
    assert!(world.run_until(120 * SECOND, done), "{} of {last} came", world.members[0].fates.len());
    world.now.since(begun)
}

/// Datagrams that others overtake are not lost: a path that keeps no order, as where routers balance over several links,
/// is nearly as fast as another.
#[test]
fn overtaking_is_no_loss() {
    let took = |late_ppm, late| {
        let network = Network { delay: 5 * MS, late_ppm, late, ..Network::default() };
        let mut world = two(1, 1, network);
        assert!(world.run_until(5 * SECOND, World::converged));
        // The first ones teach.
        transfer(&mut world, 0..8);
        transfer(&mut world, 8..20)
    };
    for (late_ppm, late) in [(5_000, 25 * MS), (20_000, 25 * MS), (100_000, 25 * MS), (10_000, 2 * MS)] {
        let took = took(late_ppm, late);
        assert!(took < SECOND, "{late_ppm} late by {late:?}: {took:?} for 12 MiB");
    }
}

/// A path that becomes longer is no queue to give way to for long.
#[test]
fn a_path_that_becomes_longer_is_used() {
    let mut world = two(1, 1, Network::with_delay(MS));
    assert!(world.run_until(5 * SECOND, World::converged));
    transfer(&mut world, 0..12);
    for (longer, first) in [(3 * MS, 12), (8 * MS, 36), (28 * MS, 60)] {
        world.network.delay = longer;
        transfer(&mut world, first..first + 12);
        let later = transfer(&mut world, first + 12..first + 24);
        assert!(later < 2 * SECOND, "{longer:?} one way: {later:?} for 12 MiB");
    }
}

/// A flow that joins others on a link with room for a second's worth of datagrams: its own rate rises while it takes their
/// part, and that is no sign that the link has more to give.
#[test]
fn a_flow_that_joins_makes_no_long_queue() {
    for (delay, others) in [(10, 1), (10, 3), (25, 1), (25, 3)] {
        let senders = 1..=others + 1;
        let pairs = senders.clone().map(|member| (address(member, 0), address(0, 0)));
        let link = Link::new(50_000_000, 6_250_000, pairs);
        let mut world = many(7, others + 2);
        world.network = Network { delay: delay * MS, links: vec![link], ..Network::default() };
        assert!(world.run_until(20 * SECOND, World::converged));
        world.run_for(10 * SECOND);
        let mut longest = [Duration::ZERO; 2];
        for tick in 0..1_600 {
            // The last one comes after six seconds.
            let joined = tick >= 1_200;
            for member in senders.clone().take(others + usize::from(joined)) {
                while world.send(member, 0, MessageMode::Reliable, vec![0; 1 << 18], tick) {}
            }
            world.run_for(5 * MS);
            world.members[0].received.clear();
            let queued = world.network.links[0].queue_delay(world.now);
            let longest = &mut longest[usize::from(joined)];
            *longest = queued.max(*longest);
        }
        assert!(longest[1] < 80 * MS, "{delay} ms, {others} others: {longest:?}");
    }
}
