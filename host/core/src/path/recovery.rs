//! Loss recovery and congestion control of one path (RFC 9002; NewReno, its appendix B).
//!
//! Beside the RFC's loss detection there is lateness: content of a packet that got no answer within
//! the failover policy's reply timeout is offered to another path while the packet still counts as
//! in flight here.

use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::{Ack, PacketNumber};

pub(crate) use super::flight::Contents;
use super::flight::{Flight, SentPacket};
use super::rtt::RttEstimator;
use crate::delivery::Content;
use crate::time::Instant;

/// RFC 9002 section 6.1.1.
const PACKET_THRESHOLD: u64 = 3;
/// Initial window in datagrams (RFC 9002 section 7.2).
const INITIAL_DATAGRAMS: usize = 10;
/// Minimum window in datagrams (RFC 9002 section 7.2).
const MINIMUM_DATAGRAMS: usize = 2;
/// Largest window in bytes.
const MAX_WINDOW: usize = 16 << 20;
/// Loss is averaged over about this many packets.
const LOSS_MEMORY: u64 = 256;
/// Probe timeouts double at most this often.
const MAX_BACKOFF: u32 = 6;

/// What an acknowledgement or the passing of time brought to light. One is used over and over.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) acked: Vec<Content>,
    /// To be sent again on any path.
    pub(crate) lost: Vec<Content>,
    /// Late: to be sent once more, on another path if there is one.
    pub(crate) late: Vec<Content>,
    /// Whether anything was newly acknowledged.
    pub(crate) progress: bool,
    /// A packet above the base datagram was lost or late.
    pub(crate) large: bool,
    /// Size of the largest packet newly acknowledged.
    pub(crate) largest_acked: usize,
}

impl Outcome {
    /// Empties it, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.acked.clear();
        self.lost.clear();
        self.late.clear();
        (self.progress, self.large, self.largest_acked) = (false, false, 0);
    }
}

/// Packets lost, in all and per million on average.
#[derive(Debug, Default)]
struct LossRate {
    count: u64,
    ppm: u64,
}

impl LossRate {
    fn note(&mut self, lost: bool) {
        self.count += u64::from(lost);
        let sample = if lost { 1_000_000 } else { 0 };
        self.ppm = (self.ppm * (LOSS_MEMORY - 1) + sample) / LOSS_MEMORY;
    }
}

/// The congestion window.
#[derive(Debug)]
struct Window {
    bytes: usize,
    slow_start_until: usize,
    recovery_start: Option<Instant>,
}

impl Window {
    const NEW: Window = Window { bytes: 0, slow_start_until: usize::MAX, recovery_start: None };

    fn on_acked(&mut self, packet: &SentPacket, in_flight: usize, datagram: usize) {
        if self.recovery_start.is_some_and(|start| packet.at <= start) {
            return;
        }
        // Grow only while the window is what limits (RFC 9002 section 7.8).
        if in_flight + 2 * datagram < self.bytes {
            return;
        }
        if self.bytes < self.slow_start_until {
            self.bytes += packet.size;
        } else {
            self.bytes += (datagram * packet.size / self.bytes).max(1);
        }
        self.bytes = self.bytes.min(MAX_WINDOW);
    }

    fn on_lost(&mut self, packet: &SentPacket, datagram: usize, now: Instant) {
        if self.recovery_start.is_none_or(|start| packet.at > start) {
            self.recovery_start = Some(now);
            self.bytes = (self.bytes / 2).max(MINIMUM_DATAGRAMS * datagram);
            self.slow_start_until = self.bytes;
        }
    }
}

/// Packet numbers, packets in flight and the congestion window of one path.
#[derive(Debug)]
pub(crate) struct Recovery {
    next: u64,
    flight: Flight,
    window: Window,
    loss: LossRate,
    largest_acked: Option<u64>,
    loss_time: Option<Instant>,
    /// Packets below it were offered to another path.
    late_below: u64,
    backoff: u32,
    /// Something that provokes an acknowledgement is to be sent, whatever the window says.
    probe_due: bool,
    last_sent: Instant,
}

impl Recovery {
    pub(crate) fn new() -> Self {
        Recovery {
            next: 0,
            flight: Flight::default(),
            window: Window::NEW,
            loss: LossRate::default(),
            largest_acked: None,
            loss_time: None,
            late_below: 0,
            backoff: 0,
            probe_due: false,
            last_sent: Instant::ZERO,
        }
    }

    /// The number the next packet will get.
    pub(crate) fn peek_number(&self) -> PacketNumber {
        PacketNumber(self.next)
    }

    /// Takes the number of the next packet. Packets that want no acknowledgement only do this.
    pub(crate) fn next_number(&mut self) -> PacketNumber {
        let number = self.next;
        self.next += 1;
        PacketNumber(number)
    }

    /// Notes a packet that wants an acknowledgement.
    pub(crate) fn note_sent(&mut self, number: PacketNumber, size: usize, contents: Contents, now: Instant) {
        self.probe_due = false;
        self.last_sent = now;
        self.flight.push(SentPacket::new(number.0, now, size, contents));
    }

    /// Whether a probe for an acknowledgement is to be sent.
    pub(crate) fn probe_due(&self) -> bool {
        self.probe_due
    }

    /// Bytes that may be sent now, given the path's datagram size.
    pub(crate) fn room(&mut self, datagram: usize) -> usize {
        if self.flight.is_full() {
            return 0;
        }
        if self.window.bytes == 0 {
            self.window.bytes = INITIAL_DATAGRAMS * datagram;
        }
        self.window.bytes.max(MINIMUM_DATAGRAMS * datagram).saturating_sub(self.flight.bytes())
    }

    pub(crate) fn loss_ppm(&self) -> u32 {
        self.loss.ppm.min(1_000_000) as u32
    }

    pub(crate) fn lost_count(&self) -> u64 {
        self.loss.count
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
        let Some(&(_, PacketNumber(largest))) = ack.ranges.first() else { return };
        if let Some(packet) = self.flight.get(largest) {
            rtt.sample(now.since(packet.at), Duration::from_micros(ack.delay_us.into()));
        }
        let mut newest = None;
        // What was in flight when the acknowledgement came.
        let mut in_flight = self.flight.bytes();
        self.flight.acknowledge(&ack.ranges, |packet| {
            newest = Some(packet.number);
            self.loss.note(false);
            self.window.on_acked(packet, in_flight, datagram);
            in_flight -= packet.size;
            outcome.largest_acked = outcome.largest_acked.max(packet.size);
            outcome.acked.extend_from_slice(&packet.contents);
        });
        if newest.is_none() {
            return;
        }
        outcome.progress = true;
        self.largest_acked = self.largest_acked.max(newest);
        self.backoff = 0;
        self.detect_loss(rtt, datagram, now, outcome);
    }

    /// RFC 9002 section 6.1.
    fn detect_loss(&mut self, rtt: &RttEstimator, datagram: usize, now: Instant, outcome: &mut Outcome) {
        self.loss_time = None;
        let Some(largest) = self.largest_acked else { return };
        let delay = rtt.loss_delay();
        self.flight.sweep(|packet| {
            if packet.number >= largest {
                return false;
            }
            if largest - packet.number < PACKET_THRESHOLD && packet.at + delay > now {
                self.loss_time = Some(packet.at + delay);
                return false;
            }
            self.loss.note(true);
            self.window.on_lost(packet, datagram, now);
            outcome.large |= packet.size > overlan_wire::limits::BASE_DATAGRAM;
            if packet.number >= self.late_below {
                outcome.lost.extend_from_slice(&packet.contents);
            }
            true
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_deadline(
        &self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
    ) -> Option<Instant> {
        let late = has_alternate.then(|| self.flight.from(self.late_below).next()).flatten();
        let late = late.map(|packet| packet.at + reply_timeout);
        let probe = (!self.flight.is_empty()).then(|| self.probe_deadline(rtt));
        [self.loss_time, late, probe].into_iter().flatten().min()
    }

    fn probe_deadline(&self, rtt: &RttEstimator) -> Instant {
        self.last_sent + rtt.probe_timeout() * (1 << self.backoff)
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
        if self.loss_time.is_some_and(|at| at <= now) {
            self.detect_loss(rtt, datagram, now, outcome);
        }
        if has_alternate {
            let late =
                self.flight.from(self.late_below).take_while(|packet| packet.at + reply_timeout <= now);
            for packet in late {
                self.late_below = packet.number + 1;
                outcome.large |= packet.size > overlan_wire::limits::BASE_DATAGRAM;
                outcome.late.extend_from_slice(&packet.contents);
            }
        }
        if let Some(oldest) = self.flight.oldest()
            && self.probe_deadline(rtt) <= now
        {
            // RFC 9002 section 6.2.4: send something that provokes an acknowledgement, so that what is lost is found
            // lost and leaves the window. What is oldest is offered again too; its first copy still counts.
            self.late_below = self.late_below.max(oldest.number + 1);
            outcome.late.extend_from_slice(&oldest.contents);
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
            self.probe_due = true;
            self.last_sent = now;
        }
    }

    /// The path is down: nothing is in flight on it any more. Returns what no other path carries.
    pub(crate) fn abandon(&mut self) -> Vec<Content> {
        self.loss_time = None;
        self.backoff = 0;
        self.probe_due = false;
        self.window = Window::NEW;
        let late_below = self.late_below;
        let unsent = self.flight.drain().filter(|packet| packet.number >= late_below);
        unsent.flat_map(|packet| packet.contents).collect()
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        self.flight.shrink();
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
        let (mut recovery, mut rtt) = (Recovery::new(), RttEstimator::default());
        rtt.sample(Duration::from_millis(1), Duration::ZERO);
        let (mut now, mut outcome) = (Instant::ZERO, Outcome::default());
        while recovery.room(1_200) >= 1_200 {
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
            assert_eq!(recovery.room(1_200), 0);
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
        assert!(recovery.room(1_200) >= 1_200);
    }
}
