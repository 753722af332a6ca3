//! Paths whose delay varies, or grows: none of it is taken for a slow link.

use std::net::IpAddr;
use std::time::Duration;

use overlan_core::{Config, Congestion};
use overlan_sim::{InOrder, Link, Network, World};
use overlan_wire::{BootId, MessageMode};

use crate::common::{MS, SECOND, address};

/// Two members that have been idle together for a minute.
fn pair(seed: u64, network: Network, adapters: usize, congestion: Congestion) -> World {
    let mut world = World::new(seed, network);
    for index in 0..2 {
        let mut config = Config::new(format!("n{index}"), BootId::default(), [0; 32]);
        if index > 0 {
            config.seeds = vec![(address(0, 0), 7400).into()];
        }
        config.congestion = congestion;
        let own: Vec<String> = (0..adapters).map(|adapter| address(index, adapter).to_string()).collect();
        world.add_with(config, &own.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert!(world.run_until(20 * SECOND, World::converged));
    world.run_for(60 * SECOND);
    world
}

/// Links of so many bits per second between the two, with queues that hold what they carry in 100 ms.
fn links(bits: u64) -> Vec<Link> {
    let (one, other): (IpAddr, IpAddr) = (address(0, 0), address(1, 0));
    let queue = usize::try_from(bits / 80).expect("a queue that fits");
    [(one, other), (other, one)].map(|pair| Link::new(bits, queue, [pair])).to_vec()
}

/// How long messages of half a MiB take, sent as fast as they are taken.
fn bulk(world: &mut World, messages: usize) -> Duration {
    let (begun, mut sent) = (world.now, 0);
    while world.members[1].received.len() < messages {
        assert!(world.now.since(begun) < 200 * SECOND, "it does not come");
        while sent < messages && world.send(0, 1, MessageMode::Reliable, vec![0; 1 << 19], sent as u64) {
            sent += 1;
        }
        world.run_for(5 * MS);
    }
    world.now.since(begun)
}

#[test]
fn bulk_is_as_fast_where_the_delay_varies() {
    let cases = [
        (Congestion::Cubic, 20, 10, 1_500),
        (Congestion::Cubic, 1, 20, 6_000),
        (Congestion::Bbr, 20, 10, 6_000),
        (Congestion::Bbr, 1, 20, 6_000),
    ];
    for (congestion, delay, jitter, most) in cases {
        for seed in 1..4 {
            let network = Network { delay: delay * MS, jitter: jitter * MS, ..Network::default() };
            let took = bulk(&mut pair(seed, network, 1, congestion), 12);
            assert!(took < most * MS, "{congestion:?}, {delay} ms and up to {jitter}: {took:?}");
        }
    }
}

/// A radio link's delay varies though nothing overtakes anything, and none of it is a queue of ours: the link is filled.
#[test]
fn a_link_whose_delay_varies_in_order_is_filled() {
    for (congestion, delay, jitter, most) in [
        (Congestion::Cubic, 1, 5, 6_500),
        (Congestion::Cubic, 1, 10, 6_500),
        (Congestion::Cubic, 20, 5, 6_500),
        (Congestion::Cubic, 20, 10, 6_500),
        // The delay varies as much as a long queue would: slow start ends early.
        (Congestion::Cubic, 10, 30, 15_000),
        (Congestion::Bbr, 20, 10, 6_500),
    ] {
        let order = Some(InOrder::default());
        let network = Network {
            delay: delay * MS,
            jitter: jitter * MS,
            in_order: order,
            links: links(50_000_000),
            ..Network::default()
        };
        let took = bulk(&mut pair(1, network, 1, congestion), 40);
        let case = format!("{congestion:?}, {delay} ms and up to {jitter}");
        assert!(took < most * MS, "3.6 s at the link's rate: {took:?}, {case}");
    }
}

/// As where a radio's turn comes each so many milliseconds, and all that waits arrives at once.
#[test]
fn a_link_that_delivers_in_turns_is_filled() {
    for (delay, turn) in [(1, 5), (1, 10), (20, 5), (20, 10), (20, 30)] {
        let network =
            Network { delay: delay * MS, turn: turn * MS, links: links(50_000_000), ..Network::default() };
        let took = bulk(&mut pair(1, network, 1, Congestion::Cubic), 40);
        assert!(took < 6_500 * MS, "3.6 s at the link's rate: {took:?}, {delay} ms, each {turn}");
    }
}

/// The round trip of a slow and long path varies by a datagram's time and more, whatever is in flight.
#[test]
fn a_slow_and_long_link_is_filled() {
    for (bits, delay, messages, most) in
        [(1_000_000, 100, 4, 27), (1_000_000, 300, 4, 30), (10_000_000, 100, 40, 26)]
    {
        let network = Network { delay: delay * MS, jitter: MS, links: links(bits), ..Network::default() };
        let took = bulk(&mut pair(1, network, 1, Congestion::Cubic), messages);
        assert!(took < most * SECOND, "18 s at the link's rate: {took:?}, {bits} bit/s, {delay} ms");
    }
}

/// Small messages each 20 ms over two paths; the first is cut.
#[test]
fn a_cut_path_is_found_as_fast_whether_its_delay_varies_or_not() {
    for (delay, jitter, most) in [(1, 0, 40), (20, 0, 130), (5, 20, 200), (20, 40, 600)] {
        for seed in 0..4 {
            let network = Network { delay: delay * MS, jitter: jitter * MS, ..Network::default() };
            let mut world = pair(seed, network, 2, Congestion::Cubic);
            world.run_for(131 * MS * seed as u32);
            let (mut sent, mut longest) = (Vec::new(), Duration::ZERO);
            for tick in 0..300 {
                if tick == 150 {
                    world.network.dead.insert(address(0, 0));
                }
                world.send(0, 1, MessageMode::Reliable, vec![0; 100], tick);
                sent.push(world.now);
                for _ in 0..4 {
                    world.run_for(5 * MS);
                    let next = sent.get(world.members[1].received.len());
                    longest = longest.max(next.map_or(Duration::ZERO, |&at| world.now.since(at)));
                }
            }
            assert!(longest < most * MS, "{delay} ms and up to {jitter}: {longest:?}");
        }
    }
}

/// A link of 1 Mbit/s that has become 360 ms longer is filled nevertheless.
#[test]
fn a_model_of_a_slow_path_follows_when_it_becomes_longer() {
    let (one, other): (IpAddr, IpAddr) = (address(0, 0), address(1, 0));
    let links = [(one, other), (other, one)].map(|pair| Link::new(1_000_000, 60_000, [pair])).to_vec();
    let network = Network { delay: 20 * MS, jitter: MS, links, ..Network::default() };
    let mut world = pair(1, network, 1, Congestion::Bbr);
    world.network.delay = 200 * MS;
    world.run_for(60 * SECOND);
    let took = bulk(&mut world, 2);
    assert!(took < 12 * SECOND, "8.4 s at the link's rate: {took:?}");
}
