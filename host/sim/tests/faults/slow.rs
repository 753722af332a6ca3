//! Slow paths: links of 64 to 256 kbit/s with short queues, which other traffic of ours shares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlan_core::status::MemberState;
use overlan_core::{Config, Congestion, Outgoing};
use overlan_sim::{HEADERS, Link, Network, World};
use overlan_wire::{BootId, MessageMode};

use crate::common::{MS, SECOND, address, core};

/// What is between members: links of so many bits per second, with queues of so many bytes.
#[derive(Clone, Copy, Debug)]
struct Slow {
    bits: u64,
    queue: usize,
    /// One way, without the queue.
    delay: Duration,
    members: usize,
    adapters: usize,
    shared: Shared,
    congestion: Congestion,
}

/// Who shares a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    /// Nobody: each path has one each way.
    Nothing,
    /// All that a member sends leaves by one.
    Uplink,
    /// All traffic passes one.
    All,
}

impl Slow {
    fn links(&self) -> Vec<Link> {
        let ends: Vec<(usize, IpAddr)> = (0..self.members)
            .flat_map(|member| (0..self.adapters).map(move |adapter| (member, address(member, adapter))))
            .collect();
        let pairs = ends.iter().flat_map(|&(from, local)| {
            let others = ends.iter().filter(move |(to, _)| *to != from);
            others.map(move |&(to, remote)| ((from, to), (local, remote)))
        });
        let mut links: BTreeMap<Vec<IpAddr>, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
        for ((from, _), pair) in pairs {
            let link = match self.shared {
                Shared::Nothing => vec![pair.0, pair.1],
                Shared::Uplink => vec![address(from, 0)],
                Shared::All => Vec::new(),
            };
            links.entry(link).or_default().push(pair);
        }
        links.into_values().map(|pairs| Link::new(self.bits, self.queue, pairs)).collect()
    }

    fn world(&self, seed: u64) -> World {
        let network = Network { delay: self.delay, jitter: MS, links: self.links(), ..Network::default() };
        let mut world = World::new(seed, network);
        for index in 0..self.members {
            let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
            if index > 0 {
                config.seeds = vec![(address(0, 0), 7400).into()];
            }
            config.congestion = self.congestion;
            let own: Vec<String> =
                (0..self.adapters).map(|adapter| address(index, adapter).to_string()).collect();
            world.add_with(config, &own.iter().map(String::as_str).collect::<Vec<_>>());
        }
        world
    }
}

/// What a run showed.
#[derive(Debug, Default)]
struct Seen {
    /// How long what was sent takes at the link's rate, with the headers that it can't do without, of how long it took.
    goodput: f64,
    /// How long small messages took, ascending.
    small: Vec<Duration>,
    suspected: u32,
    dead: u32,
    /// Fragments that were sent once more, and messages that came twice.
    again: u64,
}

impl Seen {
    /// The longest of the small messages but for one in a hundred.
    fn p99(&self) -> Duration {
        self.small[self.small.len() * 99 / 100]
    }

    /// Lets time pass; counts suspicions and deaths.
    fn watch(&mut self, world: &mut World, duration: Duration) {
        let states = |world: &World| -> Vec<MemberState> {
            let cores = (0..world.members.len()).map(|member| core(world, member));
            cores.flat_map(|core| core.members(world.now)).map(|member| member.state).collect()
        };
        let before = states(world);
        world.run_for(duration);
        for (was, is) in before.into_iter().zip(states(world)) {
            self.suspected += u32::from(was != is && is == MemberState::Suspect);
            self.dead += u32::from(was != is && is == MemberState::Down);
        }
    }
}

/// So long after they meet, members know how slow their paths are, though what they tell each other at first makes them vary:
/// it takes four probes in a row beside steadier short ones, and these come each 15 s.
const LEARNT: Duration = Duration::from_secs(120);

/// A datagram on the link, and what it carries of a message.
const DATAGRAM: (usize, usize) = (1_472 + HEADERS, 1_393);
/// A small message, each 200 ms, and what it takes in a datagram with others.
const SMALL: (usize, usize) = (64, 90);

/// One large message from the first member to the second, beside small ones in order on another stream.
fn run(slow: Slow, seed: u64, bulk: usize) -> Seen {
    let mut world = slow.world(seed);
    assert!(world.run_until(120 * SECOND, World::converged), "{slow:?}: no convergence");
    world.run_for(LEARNT);
    let counted = |world: &World| -> u64 {
        let counters = (0..slow.members).map(|member| core(world, member).status(world.now).counters);
        counters.map(|counters| counters.retransmissions + counters.fragments_duplicate).sum()
    };
    let (begun, again) = (world.now, counted(&world));
    let mut seen = Seen::default();
    let message = Outgoing { stream: 1, ..Outgoing::new(MessageMode::Reliable, vec![7; bulk], 0) };
    assert!(world.send_batch(0, 1, message));
    let (mut sent, mut got, mut done) = (BTreeMap::new(), 0, None);
    while done.is_none() {
        assert!(world.now.since(begun) < 600 * SECOND, "{slow:?}: it does not come");
        let token = sent.len() as u64 + 1;
        let payload = [&token.to_be_bytes()[..], &[0; SMALL.0 - 8]].concat();
        let message = Outgoing { stream: 2, ..Outgoing::new(MessageMode::Ordered, payload, token) };
        assert!(world.send_batch(0, 1, message));
        sent.insert(token, world.now);
        for _ in 0..20 {
            seen.watch(&mut world, 10 * MS);
            for message in &world.members[1].received[got..] {
                if message.stream == 2 {
                    let token = u64::from_be_bytes(*message.payload.first_chunk().expect("numbered"));
                    seen.small.push(world.now.since(sent[&token]));
                } else {
                    done = Some(world.now);
                }
            }
            got = world.members[1].received.len();
        }
    }
    let least = (bulk * DATAGRAM.0 / DATAGRAM.1 + sent.len() * SMALL.1) as f64 * 8.0 / slow.bits as f64;
    seen.goodput = least / done.expect("just seen").since(begun).as_secs_f64();
    seen.again = counted(&world) - again;
    seen.small.sort_unstable();
    seen
}

const SLOW: Slow = Slow {
    bits: 100_000,
    queue: 12_000,
    delay: Duration::from_millis(20),
    members: 2,
    adapters: 1,
    shared: Shared::Uplink,
    congestion: Congestion::Cubic,
};

/// Bulk fills a slow link, and waits for no more than a few datagrams of its own.
#[test]
fn bulk_on_a_slow_link_leaves_room_for_small_messages() {
    for (seed, queue, delay) in [(1, 12_000, 10), (2, 12_000, 50), (3, 30_000, 20), (4, 60_000, 10)] {
        let slow = Slow { queue, delay: delay * MS, ..SLOW };
        check(slow, seed, 1_600 * MS);
    }
    check(Slow { bits: 256_000, ..SLOW }, 5, SECOND);
    // Its few packets are no measure of less than a few datagrams, of 185 ms each.
    check(Slow { bits: 64_000, queue: 8_000, ..SLOW }, 6, 3_200 * MS);
}

fn check(slow: Slow, seed: u64, longest: Duration) {
    let seen = run(slow, seed, 200_000);
    assert!(seen.goodput > 0.8, "{slow:?}: {:.2} of what is possible", seen.goodput);
    assert!(seen.p99() < longest, "{slow:?}: small messages take {:?}", seen.p99());
    assert_eq!(seen.dead, 0, "{slow:?}");
}

/// What waits in a queue is not sent once more by another path, and probes of all paths leave room.
#[test]
fn paths_that_share_a_slow_link_do_not_fill_it_with_copies() {
    for shared in [Shared::Nothing, Shared::Uplink] {
        for queue in [12_000, 30_000] {
            let slow = Slow { queue, adapters: 2, shared, ..SLOW };
            // How slow a path is, is known in most worlds by then, not in all.
            let seen: Vec<Seen> = (1..=5).map(|seed| run(slow, seed, 200_000)).collect();
            // Probes of eight paths take some.
            let goodput = median(seen.iter().map(|seen| (seen.goodput * 100.0) as u64));
            assert!(goodput > 75, "{slow:?}: {goodput} % of what is possible");
            let small = median(seen.iter().map(Seen::p99));
            assert!(small < 2 * SECOND, "{slow:?}: small messages take {small:?}");
            let again = median(seen.iter().map(|seen| seen.again));
            assert!(again < 10, "{slow:?}: {again} fragments went again");
        }
    }
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.swap_remove(values.len() / 2)
}

/// The same with a model of the path.
#[test]
fn a_model_of_a_slow_path_leaves_room_too() {
    for (seed, queue) in [(1, 12_000), (2, 60_000)] {
        let slow = Slow { queue, congestion: Congestion::Bbr, ..SLOW };
        check(slow, seed, 3 * SECOND);
    }
}

/// Members whose answers wait in a queue are not dead: two minutes in which bulk fills the one link that all share.
#[test]
fn nobody_dies_behind_a_slow_link() {
    for (members, adapters) in [(2, 1), (2, 2), (3, 1)] {
        for (seed, queue) in [(1, 12_000), (2, 30_000), (3, 60_000)] {
            let slow = Slow { members, adapters, queue, shared: Shared::All, ..SLOW };
            let mut world = slow.world(seed);
            assert!(world.run_until(120 * SECOND, World::converged), "{slow:?}: no convergence");
            world.run_for(LEARNT);
            let mut seen = Seen::default();
            let message = Outgoing::new(MessageMode::Reliable, vec![7; 2 << 20], 0);
            assert!(world.send_batch(0, 1, message));
            for _ in 0..2_400 {
                seen.watch(&mut world, 50 * MS);
            }
            assert_eq!(seen.dead, 0, "{slow:?}");
            assert!(seen.suspected <= 4, "{slow:?}: {} suspected", seen.suspected);
            world.kill(1);
            let id = world.members[1].id;
            let found = world.run_until(60 * SECOND, |world| !core(world, 0).is_live(id));
            assert!(found, "{slow:?}: the dead is not found");
        }
    }
}

/// Where few datagrams fit into the round trip, a queue that others make is not taken for the path's own delay.
#[test]
fn three_who_share_a_slow_link_trust_each_other() {
    for queue in [30_000, 60_000] {
        let mut seen = Seen::default();
        for seed in 1..=12 {
            let slow = Slow { members: 3, queue, shared: Shared::All, ..SLOW };
            let mut world = slow.world(seed);
            assert!(world.run_until(120 * SECOND, World::converged), "{slow:?}: no convergence");
            world.run_for(LEARNT);
            let message = Outgoing::new(MessageMode::Reliable, vec![7; 2 << 20], 0);
            assert!(world.send_batch(0, 1, message));
            (0..2_400).for_each(|_| seen.watch(&mut world, 50 * MS));
        }
        assert_eq!(seen.dead, 0, "{queue} bytes of queue");
        assert!(seen.suspected <= 48, "{queue} bytes of queue: {} suspected in 24 minutes", seen.suspected);
    }
}
