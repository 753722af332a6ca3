//! Loss recovery of one path (RFC 9002).
//!
//! Beside the RFC's loss detection there is lateness: content of a packet that got no answer within
//! the failover policy's reply timeout is offered to another path while the packet still counts as
//! in flight here.

mod flow;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::{Ack, PacketNumber};

pub(crate) use self::flow::{CIPHER_BLOCK, Large, Outcome};
use super::congestion;
pub(crate) use super::flight::Contents;
use super::rtt::RttEstimator;
use crate::config::Congestion;
use crate::delivery::Content;
use crate::time::Instant;
use flow::Flow;

/// Packet numbers of one path.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    /// Packets sent before tell nothing of the round trip: this node did not run for a while.
    slept_until: Instant,
}

impl Numbers {
    /// Whether the answer to what was sent then tells of the round trip.
    fn measures(&self, sent: Instant) -> bool {
        sent >= self.slept_until
    }
}

/// Packet numbers, packets in flight and the congestion window of one path.
#[derive(Debug)]
pub(crate) struct Recovery {
    numbers: Numbers,
    congestion: Congestion,
    /// Made with the first packet that wants an acknowledgement: most paths carry probes alone.
    flow: Option<Box<Flow>>,
}

impl Recovery {
    pub(crate) fn new(congestion: Congestion) -> Self {
        Recovery { numbers: Numbers::default(), congestion, flow: None }
    }

    fn flow(&mut self) -> &mut Flow {
        self.flow.get_or_insert_with(|| Box::new(Flow::new(self.congestion)))
    }

    /// The number the next packet will get.
    pub(crate) fn peek_number(&self) -> PacketNumber {
        PacketNumber(self.numbers.next)
    }

    /// Takes the number of the next packet. Packets that want no acknowledgement only do this.
    pub(crate) fn next_number(&mut self) -> PacketNumber {
        let number = self.numbers.next;
        self.numbers.next += 1;
        PacketNumber(number)
    }

    /// Notes a packet that wants an acknowledgement.
    pub(crate) fn note_sent(&mut self, number: PacketNumber, size: usize, contents: Contents, now: Instant) {
        self.flow().note_sent(number, size, contents, now);
    }

    /// Whether packets may be sent together; see [`together`](super::together).
    pub(crate) fn may_bundle(&self, now: Instant) -> bool {
        self.flow.as_ref().is_none_or(|flow| flow.may_bundle(now))
    }

    /// The last packets, from this one on, were sent together.
    pub(crate) fn note_bundle(&mut self, first: PacketNumber) {
        let count = self.numbers.next - first.0;
        if let Some(flow) = self.flow.as_mut().filter(|_| count > 1) {
            flow.note_bundle(first, count);
        }
    }

    /// This node did not run for a while: answers of before come late by its own fault.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.numbers.slept_until = now;
    }

    /// Whether the answer to what was sent then tells of the round trip.
    pub(crate) fn measures(&self, sent: Instant) -> bool {
        self.numbers.measures(sent)
    }

    /// A full datagram alone took so long: a window for more than the path holds and a short queue is not tried first.
    pub(crate) fn note_full(&mut self, rtt: &RttEstimator, datagram: usize) {
        let (Some((smoothed, ..)), passage) = (rtt.measured(), rtt.passage()) else { return };
        if let Some(held) = smoothed.as_micros().checked_div(passage.as_micros()) {
            self.flow().start_with(held as usize, datagram);
        }
    }

    /// Nothing has waited for an acknowledgement since.
    pub(crate) fn is_idle_since(&self, since: Instant) -> bool {
        self.flow.as_ref().is_none_or(|flow| flow.is_idle_since(since))
    }

    /// A ping was answered: the path works both ways, and what it carries needs no longer patience than at first.
    pub(crate) fn note_pong(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.note_pong();
        }
    }

    /// Whether a probe for an acknowledgement is to be sent.
    pub(crate) fn probe_due(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.probe_due())
    }

    /// Bytes that may be sent now, given the path's datagram size. Ask when something waits: where the pacer holds a
    /// datagram back, [`next_deadline`](Self::next_deadline) says until when.
    pub(crate) fn room(&mut self, datagram: usize, now: Instant) -> usize {
        match &mut self.flow {
            Some(flow) => flow.room(datagram, now),
            None => congestion::initial_window(datagram),
        }
    }

    pub(crate) fn loss_ppm(&self) -> u32 {
        self.flow.as_ref().map_or(0, |flow| flow.loss_ppm())
    }

    pub(crate) fn lost_count(&self) -> u64 {
        self.flow.as_ref().map_or(0, |flow| flow.lost_count())
    }

    /// Takes an acknowledgement of this path's packets. The caller has refused numbers never sent.
    pub(crate) fn handle_ack(
        &mut self,
        ack: &Ack,
        rtt: &mut RttEstimator,
        datagram: usize,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        if let Some(flow) = &mut self.flow {
            flow.handle_ack(ack, &self.numbers, rtt, datagram, now, outcome);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_deadline(
        &self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
    ) -> Option<Instant> {
        self.flow.as_ref()?.next_deadline(rtt, reply_timeout, has_alternate)
    }

    /// Time has passed: what is lost, late (its reply timeout is over; it matters only where
    /// another path could carry it), or to be probed for.
    pub(crate) fn handle_timeout(
        &mut self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
        datagram: usize,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        if let Some(flow) = &mut self.flow {
            flow.handle_timeout(rtt, reply_timeout, has_alternate, datagram, now, outcome);
        }
    }

    /// The path is down: nothing is in flight on it any more. Returns what no other path carries.
    pub(crate) fn abandon(&mut self) -> Vec<Content> {
        self.flow.as_mut().map(|flow| flow.abandon(self.congestion)).unwrap_or_default()
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Contents {
        [Content::Accepted { stream: 0 }].into_iter().collect()
    }

    /// A window full of packets that were lost while the path was cut for a moment: probes go on until an answer
    /// shows what was lost, and the window opens again.
    #[test]
    fn a_window_of_lost_packets_opens_again() {
        let (mut recovery, mut rtt) = (Recovery::new(Congestion::Cubic), RttEstimator::default());
        rtt.sample(Duration::from_millis(1), Duration::ZERO, Instant::ZERO);
        let (mut now, mut outcome) = (Instant::ZERO, Outcome::default());
        while recovery.room(1_200, now) >= 1_200 {
            let number = recovery.next_number();
            recovery.note_sent(number, 1_200, accepted(), now);
        }
        let reply_timeout = Duration::from_millis(20);
        for _ in 0..3 {
            now = recovery.next_deadline(&rtt, reply_timeout, true).expect("a probe is due");
            while !recovery.probe_due() {
                recovery.handle_timeout(&rtt, reply_timeout, true, 1_200, now, &mut outcome);
                now = recovery.next_deadline(&rtt, reply_timeout, true).expect("a probe is due");
            }
            assert_eq!(recovery.room(1_200, now), 0);
            let number = recovery.next_number();
            recovery.note_sent(number, 60, accepted(), now);
            assert!(!recovery.probe_due());
        }
        let number = PacketNumber(recovery.peek_number().0 - 1);
        let path = overlan_wire::PathId(0);
        let ack = Ack { path, delay_us: 0, ce: 0, ranges: [(number, number)].into_iter().collect() };
        outcome.clear();
        recovery.handle_ack(&ack, &mut rtt, 1_200, now + Duration::from_millis(1), &mut outcome);
        assert!(outcome.progress);
        assert!(recovery.room(1_200, now) >= 1_200);
    }

    /// Packets that wait in one queue: while answers to the first come, the others are neither late nor to be probed for.
    #[test]
    fn what_waits_in_a_queue_is_not_late() {
        let (mut recovery, mut rtt) = (Recovery::new(Congestion::Cubic), RttEstimator::default());
        let (short, full) = (Duration::from_millis(40), Duration::from_millis(160));
        rtt.sample(short, Duration::ZERO, Instant::ZERO);
        (0..8).for_each(|_| rtt.note_short(short, Instant::ZERO));
        (0..4).for_each(|_| _ = rtt.note_full(full, Instant::ZERO));
        assert_eq!(rtt.passage(), full - short);
        let mut numbers = Vec::new();
        for _ in 0..8 {
            let number = recovery.next_number();
            recovery.note_sent(number, 1_200, accepted(), Instant::ZERO);
            numbers.push(number);
        }
        let reply_timeout = Duration::from_millis(200);
        let (path, mut now, mut outcome) = (overlan_wire::PathId(0), Instant::ZERO, Outcome::default());
        for number in numbers {
            now = now + Duration::from_millis(120);
            recovery.handle_timeout(&rtt, reply_timeout, true, 1_200, now, &mut outcome);
            assert!(outcome.late.is_empty() && !recovery.probe_due(), "{number:?}");
            let ack = Ack { path, delay_us: 0, ce: 0, ranges: [(number, number)].into_iter().collect() };
            recovery.handle_ack(&ack, &mut rtt, 1_200, now, &mut outcome);
        }
    }
}
