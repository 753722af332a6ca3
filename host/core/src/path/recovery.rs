//! Loss recovery and congestion control of one path (RFC 9002; NewReno, its appendix B).
//!
//! Beside the RFC's loss detection there is lateness: content of a packet that got no answer within
//! the failover policy's reply timeout is offered to another path while the packet still counts as
//! in flight here.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use arrayvec::ArrayVec;
use overlan_wire::{Ack, PacketNumber};

use super::rtt::RttEstimator;
use crate::delivery::Content;
use crate::time::Instant;

/// RFC 9002 section 6.1.1.
const PACKET_THRESHOLD: u64 = 3;
/// Initial window in datagrams (RFC 9002 section 7.2).
const INITIAL_DATAGRAMS: usize = 10;
/// Minimum window in datagrams (RFC 9002 section 7.2).
const MINIMUM_DATAGRAMS: usize = 2;
/// Largest window in bytes: bounds the packets remembered.
const MAX_WINDOW: usize = 16 << 20;
/// Loss is averaged over about this many packets.
const LOSS_MEMORY: u64 = 256;
/// Probe timeouts double at most this often.
const MAX_BACKOFF: u32 = 6;

/// What a packet carried that must arrive.
pub(crate) type Contents = ArrayVec<Content, 4>;

/// One packet that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct SentPacket {
    at: Instant,
    size: usize,
    /// Already offered to another path.
    late: bool,
    contents: Contents,
}

/// What an acknowledgement or the passing of time brought to light.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) acked: Vec<Content>,
    /// To be sent again on any path.
    pub(crate) lost: Vec<Content>,
    /// Whether anything was newly acknowledged.
    pub(crate) progress: bool,
    /// A packet above the base datagram was lost or late.
    pub(crate) large: bool,
    /// Size of the largest packet newly acknowledged.
    pub(crate) largest_acked: usize,
}

/// Packet numbers, packets in flight and the congestion window of one path.
#[derive(Debug)]
pub(crate) struct Recovery {
    next: u64,
    sent: BTreeMap<u64, SentPacket>,
    largest_acked: Option<u64>,
    loss_time: Option<Instant>,
    in_flight: usize,
    window: usize,
    slow_start_until: usize,
    recovery_start: Option<Instant>,
    backoff: u32,
    /// Something that provokes an acknowledgement is to be sent, whatever the window says.
    probe_due: bool,
    last_sent: Instant,
    lost_count: u64,
    /// Lost per million, averaged.
    loss_ppm: u64,
}

impl Recovery {
    pub(crate) fn new() -> Self {
        Recovery {
            next: 0,
            sent: BTreeMap::new(),
            largest_acked: None,
            loss_time: None,
            in_flight: 0,
            window: 0,
            slow_start_until: usize::MAX,
            recovery_start: None,
            backoff: 0,
            probe_due: false,
            last_sent: Instant::ZERO,
            lost_count: 0,
            loss_ppm: 0,
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
        self.in_flight += size;
        self.probe_due = false;
        self.last_sent = now;
        self.sent.insert(number.0, SentPacket { at: now, size, late: false, contents });
    }

    /// Whether a probe for an acknowledgement is to be sent.
    pub(crate) fn probe_due(&self) -> bool {
        self.probe_due
    }

    /// Bytes that may be sent now, given the path's datagram size.
    pub(crate) fn room(&mut self, datagram: usize) -> usize {
        if self.window == 0 {
            self.window = INITIAL_DATAGRAMS * datagram;
        }
        self.window.max(MINIMUM_DATAGRAMS * datagram).saturating_sub(self.in_flight)
    }

    pub(crate) fn loss_ppm(&self) -> u32 {
        self.loss_ppm.min(1_000_000) as u32
    }

    pub(crate) fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// Takes an acknowledgement of this path's packets. The caller has refused numbers never sent.
    pub(crate) fn handle_ack(
        &mut self,
        ack: &Ack,
        rtt: &mut RttEstimator,
        datagram: usize,
        now: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut newest = None;
        for &(PacketNumber(low), PacketNumber(high)) in &ack.ranges {
            let numbers: Vec<u64> = self.sent.range(low..=high).map(|(&number, _)| number).collect();
            for number in numbers {
                let packet = self.sent.remove(&number).expect("just listed");
                newest = newest.max(Some((number, packet.at)));
                self.on_acked(&packet, datagram);
                outcome.largest_acked = outcome.largest_acked.max(packet.size);
                outcome.acked.extend(packet.contents);
                outcome.progress = true;
            }
        }
        if let Some((number, at)) = newest {
            let largest = ack.ranges.first().map(|(_, high)| high.0);
            if largest == Some(number) {
                rtt.sample(now.since(at), Duration::from_micros(ack.delay_us.into()));
            }
            self.largest_acked = self.largest_acked.max(Some(number));
            self.backoff = 0;
            self.detect_loss(rtt, datagram, now, &mut outcome);
        }
        outcome
    }

    fn on_acked(&mut self, packet: &SentPacket, datagram: usize) {
        self.in_flight -= packet.size;
        self.average_loss(false);
        if self.recovery_start.is_some_and(|start| packet.at <= start) {
            return;
        }
        // Grow only while the window is what limits (RFC 9002 section 7.8).
        if self.in_flight + packet.size + 2 * datagram < self.window {
            return;
        }
        if self.window < self.slow_start_until {
            self.window += packet.size;
        } else {
            self.window += (datagram * packet.size / self.window).max(1);
        }
        self.window = self.window.min(MAX_WINDOW);
    }

    /// RFC 9002 section 6.1.
    fn detect_loss(&mut self, rtt: &RttEstimator, datagram: usize, now: Instant, outcome: &mut Outcome) {
        self.loss_time = None;
        let Some(largest) = self.largest_acked else { return };
        let delay = rtt.loss_delay();
        let mut lost = Vec::new();
        for (&number, packet) in self.sent.range(..largest) {
            if largest - number >= PACKET_THRESHOLD || packet.at + delay <= now {
                lost.push(number);
            } else {
                self.loss_time = Some(packet.at + delay);
                break;
            }
        }
        for number in lost {
            let packet = self.sent.remove(&number).expect("just listed");
            self.on_lost(&packet, datagram, now);
            outcome.large |= packet.size > overlan_wire::limits::BASE_DATAGRAM;
            if !packet.late {
                outcome.lost.extend(packet.contents);
            }
        }
    }

    fn on_lost(&mut self, packet: &SentPacket, datagram: usize, now: Instant) {
        self.in_flight -= packet.size;
        self.lost_count += 1;
        self.average_loss(true);
        if self.recovery_start.is_none_or(|start| packet.at > start) {
            self.recovery_start = Some(now);
            self.window = (self.window / 2).max(MINIMUM_DATAGRAMS * datagram);
            self.slow_start_until = self.window;
        }
    }

    fn average_loss(&mut self, lost: bool) {
        let sample = if lost { 1_000_000 } else { 0 };
        self.loss_ppm = (self.loss_ppm * (LOSS_MEMORY - 1) + sample) / LOSS_MEMORY;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_deadline(
        &self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
    ) -> Option<Instant> {
        let oldest = self
            .sent
            .values()
            .find(|packet| !packet.late)
            .map(|packet| packet.at + reply_timeout)
            .filter(|_| has_alternate);
        let probe = (!self.sent.is_empty()).then(|| self.probe_deadline(rtt));
        [self.loss_time, oldest, probe].into_iter().flatten().min()
    }

    fn probe_deadline(&self, rtt: &RttEstimator) -> Instant {
        self.last_sent + rtt.probe_timeout() * (1 << self.backoff)
    }

    /// Time has passed: what is lost, late (its reply timeout is over; it matters only where
    /// another path could carry it), or to be probed for. Returns the outcome and the contents to send
    /// once more.
    pub(crate) fn handle_timeout(
        &mut self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
        datagram: usize,
        now: Instant,
    ) -> (Outcome, Vec<Content>) {
        let mut outcome = Outcome::default();
        if self.loss_time.is_some_and(|at| at <= now) {
            self.detect_loss(rtt, datagram, now, &mut outcome);
        }
        let mut late = Vec::new();
        for packet in self.sent.values_mut() {
            if !has_alternate || packet.at + reply_timeout > now {
                break;
            }
            if !packet.late {
                packet.late = true;
                outcome.large |= packet.size > overlan_wire::limits::BASE_DATAGRAM;
                late.extend(packet.contents.iter().copied());
            }
        }
        if !self.sent.is_empty() && self.probe_deadline(rtt) <= now {
            // RFC 9002 section 6.2.4: send something that provokes an acknowledgement, so that what is lost is found
            // lost and leaves the window. What is oldest is offered again too; its first copy still counts.
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
            self.probe_due = true;
            self.last_sent = now;
            if let Some(packet) = self.sent.values_mut().next() {
                late.extend(packet.contents.iter().copied());
                packet.late = true;
            }
        }
        (outcome, late)
    }

    /// The path is down: nothing is in flight on it any more. Returns what no other path carries.
    pub(crate) fn abandon(&mut self) -> Vec<Content> {
        self.in_flight = 0;
        self.loss_time = None;
        self.backoff = 0;
        self.probe_due = false;
        self.window = 0;
        self.slow_start_until = usize::MAX;
        self.recovery_start = None;
        let sent = core::mem::take(&mut self.sent);
        sent.into_values().filter(|packet| !packet.late).flat_map(|packet| packet.contents).collect()
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
        let mut now = Instant::ZERO;
        while recovery.room(1_200) >= 1_200 {
            let number = recovery.next_number();
            recovery.note_sent(number, 1_200, accepted(), now);
        }
        let reply_timeout = Duration::from_millis(20);
        for _ in 0..3 {
            now = recovery.next_deadline(&rtt, reply_timeout, true).expect("a probe is due");
            while !recovery.probe_due() {
                recovery.handle_timeout(&rtt, reply_timeout, true, 1_200, now);
                now = recovery.next_deadline(&rtt, reply_timeout, true).expect("a probe is due");
            }
            assert_eq!(recovery.room(1_200), 0);
            let number = recovery.next_number();
            recovery.note_sent(number, 60, accepted(), now);
            assert!(!recovery.probe_due());
        }
        let number = PacketNumber(recovery.peek_number().0 - 1);
        let ack = Ack { path: overlan_wire::PathId(0), delay_us: 0, ranges: alloc::vec![(number, number)] };
        let outcome = recovery.handle_ack(&ack, &mut rtt, 1_200, now + Duration::from_millis(1));
        assert!(outcome.progress);
        assert!(recovery.room(1_200) >= 1_200);
    }
}
