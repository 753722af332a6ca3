//! Paths that drop what is larger than the datagram that every path should carry, or than less: MTU holes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlan_core::Outgoing;
use overlan_sim::{Network, World};
use overlan_wire::MessageMode;

use crate::common::{MS, SECOND, address, core, lan, two};

/// Which way a hole lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Both,
    There,
    Back,
}

/// Drops what is larger than `most` between two addresses; or ends that.
fn dig(world: &mut World, (one, other): (IpAddr, IpAddr), way: Way, most: Option<usize>) {
    let there = (way != Way::Back).then_some((one, other));
    let back = (way != Way::There).then_some((other, one));
    for pair in there.into_iter().chain(back) {
        match most {
            Some(most) => _ = world.network.holes.insert(pair, most),
            None => _ = world.network.holes.remove(&pair),
        }
    }
}

fn primary() -> (IpAddr, IpAddr) {
    (address(0, 0), address(1, 0))
}

const SIZES: [usize; 6] = [40, 700, 1_100, 5_000, 40_000, 9];

/// What a run of messages showed.
#[derive(Debug, Default)]
struct Seen {
    /// The longest wait by size.
    longest: BTreeMap<usize, Duration>,
    sent: u64,
    open: BTreeMap<u64, (Duration, usize)>,
    got: usize,
    doubled: u32,
}

impl Seen {
    fn longest(&self) -> Duration {
        self.longest.values().copied().max().unwrap_or_default()
    }

    /// Sends both ways a message each 10 ms for so long, each size on a stream of its own.
    fn run(&mut self, world: &mut World, duration: Duration) {
        let end = world.now + duration;
        while world.now < end {
            let token = self.sent;
            self.sent += 1;
            let size = SIZES[token as usize % SIZES.len()];
            let mut payload = vec![0; size.max(8)];
            payload[..8].copy_from_slice(&token.to_be_bytes());
            let stream = (token % SIZES.len() as u64) as u16;
            let mode = if token.is_multiple_of(5) { MessageMode::Ordered } else { MessageMode::Reliable };
            let message = Outgoing { stream, ..Outgoing::new(mode, payload, token) };
            assert!(world.send_batch(0, 1, message));
            self.open.insert(token, (Duration::from_nanos(world.now.as_nanos()), size));
            for _ in 0..5 {
                world.run_for(2 * MS);
                self.look(world);
            }
        }
    }

    fn look(&mut self, world: &World) {
        let now = Duration::from_nanos(world.now.as_nanos());
        let came = world.members[1].received[self.got..]
            .iter()
            .map(|message| u64::from_be_bytes(*message.payload.first_chunk().expect("numbered")));
        for token in came {
            match self.open.remove(&token) {
                Some((at, size)) => self.note(size, now - at),
                None => self.doubled += 1,
            }
        }
        self.got = world.members[1].received.len();
        for (at, size) in self.open.values().copied().collect::<Vec<_>>() {
            self.note(size, now - at);
        }
    }

    fn note(&mut self, size: usize, wait: Duration) {
        let longest = self.longest.entry(size).or_default();
        *longest = (*longest).max(wait);
    }

    /// Lets what is under way arrive: nothing lost, nothing doubled.
    fn finish(&mut self, world: &mut World, what: &str) {
        for _ in 0..1_000 {
            if self.open.is_empty() {
                break;
            }
            world.run_for(10 * MS);
            self.look(world);
        }
        assert_eq!((self.open.len(), self.doubled), (0, 0), "{what}: lost, doubled");
    }
}

/// Two members that know each other and their paths.
fn met(seed: u64, adapters: usize, network: Network) -> World {
    let mut world = two(seed, adapters, network);
    assert!(world.run_until(60 * SECOND, World::converged));
    world.run_for(10 * SECOND);
    world
}

/// Each path's datagram, and whether it carries traffic.
fn paths(world: &World, member: usize) -> Vec<(u32, bool)> {
    let paths = core(world, member).paths(world.now);
    paths.into_iter().map(|path| (path.datagram, path.active)).collect()
}

/// A hole in the first path while messages of all sizes are under way: they go in smaller datagrams at once, by another path
/// where there is one, and by the first again when it is whole.
#[test]
fn a_hole_holds_up_nothing() {
    for (adapters, most, way) in [
        (1, 1_000, Way::Both),
        (1, 600, Way::Both),
        (1, 600, Way::There),
        (1, 1_000, Way::Back),
        (2, 1_000, Way::Both),
        (2, 600, Way::There),
        (2, 600, Way::Back),
        (2, 1_195, Way::Both),
    ] {
        let what = format!("{adapters} adapters, {most} bytes pass, {way:?}");
        let mut world = met(1, adapters, Network { delay: 2 * MS, ..lan() });
        let mut seen = Seen::default();
        seen.run(&mut world, SECOND);
        dig(&mut world, primary(), way, Some(most));
        seen.run(&mut world, 5 * SECOND);
        if way != Way::Back {
            let (datagram, active) = paths(&world, 0)[0];
            assert!(datagram as usize <= most && datagram as usize + 16 > most, "{what}: {datagram}");
            assert_eq!(active, adapters == 1, "{what}");
        }
        dig(&mut world, primary(), way, None);
        seen.run(&mut world, 10 * SECOND);
        seen.finish(&mut world, &what);
        assert!(seen.longest() < 200 * MS, "{what}: {:?}", seen.longest);
        assert_eq!(paths(&world, 0)[0], (1_472, true), "{what}: it comes back");
    }
}

/// Loss, evenly or in bursts, is no hole: no size shrinks and no path is left for it.
#[test]
fn loss_is_no_hole() {
    for (loss, burst, seeds) in [(150_000, false, 3), (300_000, false, 3), (20_000, true, 2)] {
        for seed in 0..seeds {
            let mut world = met(seed, 2, Network { delay: 2 * MS, ..lan() });
            let mut seen = Seen::default();
            for tick in 0..40 {
                // Half of them, or all, for a third of a second.
                let bad = [500_000, 1_000_000][tick % 2];
                world.network.loss_ppm = if burst && tick % 4 > 1 { bad } else { loss };
                seen.run(&mut world, 330 * MS);
                for member in 0..2 {
                    for path in core(&world, member).paths(world.now) {
                        assert_eq!(path.datagram, 1_472, "{loss} {burst} {seed}: {tick}");
                    }
                }
            }
            world.network.loss_ppm = 0;
            seen.finish(&mut world, "loss");
        }
    }
}

/// Members meet, agree on tables, and send, through a hole that was there before them.
#[test]
fn members_meet_through_a_hole() {
    for (adapters, most) in [(1, 1_000), (1, 600), (2, 600)] {
        let mut world = World::new(1, lan());
        dig(&mut world, primary(), Way::Both, Some(most));
        for (member, name) in ["a", "b"].into_iter().enumerate() {
            let own: Vec<String> =
                (0..adapters).map(|adapter| address(member, adapter).to_string()).collect();
            let seeds: &[&str] = if member == 0 { &[] } else { &["10.0.0.2"] };
            world.add(name, &own.iter().map(String::as_str).collect::<Vec<_>>(), seeds);
        }
        assert!(world.run_until(5 * SECOND, World::converged), "{adapters} adapters, {most}");
        let mut seen = Seen::default();
        seen.run(&mut world, 8 * SECOND);
        seen.finish(&mut world, "from the first");
        assert!(seen.longest() < 3 * SECOND, "{adapters} adapters, {most}: {:?}", seen.longest);
        assert!(world.converged(), "{adapters} adapters, {most}");
    }
}

/// The kernel says that the own link carries less: that is believed at once, though no probe was lost.
#[test]
fn what_the_kernel_refuses_is_sent_in_smaller_datagrams() {
    for adapters in [1, 2] {
        let mut world = met(1, adapters, Network { delay: 2 * MS, ..lan() });
        let mut seen = Seen::default();
        world.network.refused.insert(address(0, 0), 700);
        seen.run(&mut world, 3 * SECOND);
        world.network.refused.clear();
        seen.run(&mut world, 9 * SECOND);
        seen.finish(&mut world, "refused");
        assert!(seen.longest() < 100 * MS, "{adapters} adapters: {:?}", seen.longest);
        assert_eq!(paths(&world, 0)[0], (1_472, true), "{adapters} adapters");
    }
}

/// A filter on the way that goes by length sees what is sent together as one packet, and drops it though each datagram would
/// pass: they go alone then.
#[test]
fn a_filter_that_sees_offloaded_sends_whole_is_passed() {
    for (adapters, most) in [(1, 1_272), (1, 1_000), (1, 600), (2, 1_272), (2, 600)] {
        let what = format!("{adapters} adapters, {most} bytes");
        let mut world = met(1, adapters, Network { delay: MS, ..lan() });
        let mut seen = Seen::default();
        seen.run(&mut world, SECOND);
        for adapter in 0..adapters {
            let (one, other) = (address(0, adapter), address(1, adapter));
            dig(&mut world, (one, other), Way::Both, Some(most));
            world.network.filters.extend([((one, other), most), ((other, one), most)]);
        }
        seen.run(&mut world, 8 * SECOND);
        seen.finish(&mut world, &what);
        assert!(seen.longest() < 200 * MS, "{what}: {:?}", seen.longest);
    }
}
