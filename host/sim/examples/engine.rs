//! What the engine itself costs: two cores, sealed, hand each other datagrams in memory, with no kernel between them.
//! Prints the processor's time and allocations for each message and datagram once caches and buffers are warm, and the
//! memory that a peer takes when it is idle.
//!
//! `cargo run --release -p overlan-sim --example engine`

use std::alloc::System;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use nix::time::{ClockId, clock_gettime};
use overlan_core::{Arrivals, Core, Outgoing};
use overlan_seal::Seal;
use overlan_sim::{Network, World};
use overlan_wire::MessageMode;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Messages that are open at a time.
const OPEN_BYTES: usize = 2 << 20;

fn main() {
    println!("| case | ns a message | ns a datagram | Gbit/s | allocations a datagram |");
    println!("| --- | --- | --- | --- | --- |");
    run("1 MiB reliable", MessageMode::Reliable, 1 << 20, 4_000);
    run("64 B reliable", MessageMode::Reliable, 64, 8_000_000);
    run("64 B ordered", MessageMode::Ordered, 64, 8_000_000);
    run("64 B unreliable", MessageMode::Unreliable, 64, 8_000_000);
    let (few, many) = (idle_member(4), idle_member(8));
    println!(
        "\nan idle member of 4: {} KiB of heap; each further peer: {} bytes",
        few >> 10,
        (many - few) / 4
    );
}

/// Heap that a member of so many holds after a minute of nothing.
fn idle_member(members: usize) -> usize {
    let region = Region::new(ALLOCATOR);
    let mut world = World::new(1, Network::with_delay(Duration::from_micros(20)));
    for member in 0..members {
        let address = format!("10.0.0.{}", member + 1);
        world.add(&format!("m{member}"), &[&address], &["10.0.0.1"]);
    }
    world.run_for(Duration::from_secs(60));
    assert!(world.converged());
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / members
}

fn run(case: &str, mode: MessageMode, size: usize, count: usize) {
    let mut pair = Pair::new();
    let payload = Bytes::from(vec![7; size]);
    pair.transfer(mode, &payload, count / 10);
    let (region, start, before) = (Region::new(ALLOCATOR), cpu_time(), pair.datagrams);
    pair.transfer(mode, &payload, count);
    let (elapsed, allocations) = (cpu_time() - start, region.change().allocations);
    let datagrams = pair.datagrams - before;
    println!(
        "| {case} | {:.0} | {:.0} | {:.2} | {:.3} |",
        elapsed.as_nanos() as f64 / count as f64,
        elapsed.as_nanos() as f64 / datagrams as f64,
        (size * count * 8) as f64 / elapsed.as_nanos() as f64,
        allocations as f64 / datagrams as f64,
    );
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("Linux has it").into()
}

struct Pair {
    cores: [Core<Seal>; 2],
    now: overlan_core::Instant,
    datagrams: u64,
    buffer: Vec<u8>,
}

impl Pair {
    /// Two members that have found each other and their path's MTU.
    fn new() -> Self {
        let network = Network::with_delay(Duration::from_micros(20));
        let mut world = World::new(1, network);
        world.add("a", &["10.0.0.1"], &[]);
        world.add("b", &["10.0.0.2"], &["10.0.0.1"]);
        world.run_for(Duration::from_secs(20));
        assert!(world.converged());
        let mut cores = world.members.iter_mut().map(|member| member.core.take().expect("it runs"));
        let cores = [cores.next().expect("two"), cores.next().expect("two")];
        Pair { cores, now: world.now, datagrams: 0, buffer: Vec::with_capacity(1 << 16) }
    }

    /// Hands over what one core has to send, as a driver would: whole batches.
    fn carry(&mut self, from: usize) -> bool {
        let [a, b] = &mut self.cores;
        let (from, to) = if from == 0 { (a, b) } else { (b, a) };
        let mut any = false;
        while let Some(transmit) = from.poll_transmit(self.now, &mut self.buffer) {
            any = true;
            let ends: (SocketAddr, SocketAddr) = (transmit.remote, transmit.local);
            for datagram in self.buffer.chunks_mut(transmit.segment) {
                self.datagrams += 1;
                to.handle_datagram(self.now, ends.0, ends.1, datagram);
            }
        }
        any
    }

    fn transfer(&mut self, mode: MessageMode, payload: &Bytes, count: usize) {
        let to = self.cores[1].id();
        let most = (OPEN_BYTES / payload.len()).clamp(2, 1_000);
        let (mut queued, mut received) = (0, 0);
        while received < count {
            while queued < count && queued - received < most {
                let message = Outgoing::new(mode, payload.clone(), queued as u64);
                self.cores[0].send(self.now, to, message).expect("there is room");
                queued += 1;
            }
            let mut any = self.carry(0);
            let count = |arrivals: &mut Arrivals<'_>| {
                received += arrivals.take_run(usize::MAX).1.len();
                ControlFlow::Continue(())
            };
            self.cores[1].poll_messages(self.now, |_| true, count);
            any |= self.carry(1);
            while self.cores[0].poll_fate().is_some() {}
            self.now = self.now + Duration::from_micros(20);
            if !any {
                for core in &mut self.cores {
                    if core.poll_timeout().is_some_and(|due| due <= self.now) {
                        core.handle_timeout(self.now);
                    }
                }
            }
        }
    }
}
