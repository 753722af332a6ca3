//! The packets of one path that want acknowledgements, and what its congestion controller and pacer learn of them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use overlan_wire::limits::LEAST_DATAGRAM;
use overlan_wire::{Ack, PacketNumber};

use super::Numbers;
use crate::config::Congestion;
use crate::delivery::Content;
use crate::path::congestion::{Controller, Delivery, Sign, bbr::delivery_rate};
use crate::path::flight::{Contents, Delivered, Flight, SentPacket};
use crate::path::pacer::Pacer;
use crate::path::rtt::RttEstimator;
use crate::path::together::Together;
use crate::time::Instant;

/// RFC 9002 section 6.1.1.
const PACKET_THRESHOLD: u64 = 3;
/// Packets found lost that are remembered, in case they come after all; older ones are lost.
const MAX_OVERTAKEN: usize = 128;
/// A path on which nothing was overtaken for so long keeps the order again.
const REORDERS_FOR: Duration = Duration::from_secs(10);
/// How long a packet of a path that does not keep the order is waited for at most, in round trips and in all.
const MAX_PATIENCE: (u32, Duration) = (8, Duration::from_millis(200));
/// Lost packets in a row that span so many probe timeouts are persistent congestion (RFC 9002 section 7.6.1).
const PERSISTENT_TIMEOUTS: u32 = 3;
/// Full datagrams that a slow path may carry before the next answer comes: those of others, too.
const NEXT_ANSWER: u32 = 4;
/// Ciphers take whole blocks of so many bytes fastest: a full datagram is filled with no part of one.
pub(crate) const CIPHER_BLOCK: usize = 16;
/// Datagrams that a slow path may queue at first.
const FIRST_QUEUE: usize = 2;
/// Loss is averaged over about this many packets.
const LOSS_MEMORY: u64 = 256;
/// Probe timeouts double at most this often.
const MAX_BACKOFF: u32 = 6;

/// Contents that there is room for from one acknowledgement to the next: seldom does one bring more to light.
const KEPT_CONTENTS: usize = 4_096;

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
    /// Packets above the least datagram that were lost or late.
    pub(crate) large: Option<Large>,
    /// Size of the largest packet newly acknowledged.
    pub(crate) largest_acked: usize,
}

/// Large packets that did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Large {
    /// Size of the smallest.
    pub(crate) size: usize,
    /// When the newest was sent.
    pub(crate) sent: Instant,
}

impl Outcome {
    fn note_missed(&mut self, size: usize, sent: Instant) {
        if size > LEAST_DATAGRAM {
            let others = self.large.unwrap_or(Large { size, sent });
            self.large = Some(Large { size: size.min(others.size), sent: sent.max(others.sent) });
        }
    }

    /// Empties it, and keeps its memory, but for what a burst took.
    pub(crate) fn clear(&mut self) {
        for contents in [&mut self.acked, &mut self.lost, &mut self.late] {
            contents.clear();
            contents.shrink_to(KEPT_CONTENTS);
        }
        (self.progress, self.large, self.largest_acked) = (false, None, 0);
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

/// What was found lost lately, in case it comes after all: whether packets overtake each other on the path. (RFC 9002
/// section 6.1 leaves it to the sender to adapt; this is after RACK, RFC 8985 section 6.2, and RFC 4015.)
#[derive(Debug, Default)]
struct Overtaken {
    /// Packets found lost, ascending, with when they were sent.
    lost: VecDeque<(u64, Instant)>,
    /// When the window shrank last, from which of these on it did so, and how many of those have not come.
    shrank: Option<(Instant, u64, usize)>,
    /// How long after it was sent the latest of them came, and when it did.
    patience: Option<(Duration, Instant)>,
}

impl Overtaken {
    /// How long a packet is waited for, where the path does not keep the order.
    fn patience(&self, rtt: &RttEstimator, now: Instant) -> Option<Duration> {
        let (patience, at) = self.patience?;
        let most = (rtt.loss_delay() * MAX_PATIENCE.0).min(MAX_PATIENCE.1);
        (now.since(at) < REORDERS_FOR).then(|| patience.min(most))
    }

    fn push(&mut self, packet: &SentPacket) {
        if self.lost.len() == MAX_OVERTAKEN
            && let Some((number, _)) = self.lost.pop_front()
        {
            // It is lost for good, and the window shrank for it.
            self.shrank = self.shrank.filter(|(_, first, _)| number < *first);
        }
        self.lost.push_back((packet.number, packet.at));
    }

    /// So many were found lost at once, the newest sent at `newest`.
    fn note_lost(&mut self, count: usize, newest: Instant, now: Instant) {
        match &mut self.shrank {
            Some((at, _, open)) if newest <= *at => *open += count,
            shrank => {
                let first = self.lost.get(self.lost.len().saturating_sub(count));
                *shrank = first.filter(|_| count < MAX_OVERTAKEN).map(|&(first, _)| (now, first, count));
            }
        }
    }

    /// How many came after all, and whether all did for which the window shrank last.
    fn take(&mut self, ranges: &[(PacketNumber, PacketNumber)], now: Instant) -> (u64, bool) {
        let reaches = |&(lowest, _): &(PacketNumber, PacketNumber)| {
            self.lost.back().is_some_and(|(last, _)| *last >= lowest.0)
        };
        if !ranges.last().is_some_and(reaches) {
            return (0, false);
        }
        let mut ascending = ranges.iter().rev().peekable();
        let (mut came, mut open) = (0, self.shrank.map_or((u64::MAX, 0), |(_, first, open)| (first, open)));
        let mut patience = self.patience.map_or(Duration::ZERO, |(patience, _)| patience);
        self.lost.retain(|&(number, at)| {
            while ascending.next_if(|(_, high)| high.0 < number).is_some() {}
            let arrived = ascending.peek().is_some_and(|(low, _)| low.0 <= number);
            if arrived {
                came += 1;
                open.1 = open.1.saturating_sub(usize::from(number >= open.0));
                patience = patience.max(now.since(at) * 9 / 8);
            }
            !arrived
        });
        if came > 0 {
            self.patience = Some((patience, now));
        }
        let undone = self.shrank.is_some() && open.1 == 0;
        self.shrank = self.shrank.filter(|_| !undone).map(|(at, first, _)| (at, first, open.1));
        (came, undone)
    }
}

/// Packets in flight and the congestion window of one path.
#[derive(Debug)]
pub(super) struct Flow {
    flight: Flight,
    controller: Controller,
    pacer: Pacer,
    delivered: Delivered,
    /// Packets from this one on belong to the next round trip.
    round_end: u64,
    /// The window or the pacer held the sender back since the last acknowledgement.
    limited: bool,
    /// Packets that arrived marked CE, as the peer counts; `None` once it counted what was never sent.
    marked: Option<u64>,
    loss: LossRate,
    /// While there is something to remember.
    overtaken: Option<Box<Overtaken>>,
    largest_acked: Option<u64>,
    loss_time: Option<Instant>,
    together: Together,
    /// Packets below it were offered to another path.
    late_below: u64,
    backoff: u32,
    /// Something that provokes an acknowledgement is to be sent, whatever the window says.
    probe_due: bool,
    last_sent: Instant,
}

impl Flow {
    pub(super) fn new(congestion: Congestion) -> Self {
        Flow {
            flight: Flight::default(),
            controller: Controller::new(congestion),
            pacer: Pacer::NEW,
            delivered: Delivered::default(),
            round_end: 0,
            limited: false,
            marked: Some(0),
            loss: LossRate::default(),
            overtaken: None,
            largest_acked: None,
            loss_time: None,
            together: Together::default(),
            late_below: 0,
            backoff: 0,
            probe_due: false,
            last_sent: Instant::ZERO,
        }
    }

    /// Notes a packet that wants an acknowledgement.
    pub(super) fn note_sent(&mut self, number: PacketNumber, size: usize, contents: Contents, now: Instant) {
        self.probe_due = false;
        self.last_sent = now;
        if self.flight.is_empty() {
            // What an idle time brought is no rate.
            (self.delivered.at, self.delivered.sent_at) = (now, now);
        }
        self.pacer.note_sent(size);
        self.flight.push(SentPacket::new(number.0, now, size, contents, self.delivered));
    }

    /// Whether packets may be sent together: not after a probe timeout, until something arrives, and not where they are lost
    /// together.
    pub(super) fn may_bundle(&self, now: Instant) -> bool {
        self.backoff == 0 && self.together.may(now)
    }

    /// So many packets, from this one on, were sent together.
    pub(super) fn note_bundle(&mut self, first: PacketNumber, count: u64) {
        self.together.note_sent(first.0, count);
    }

    /// So many datagrams are on the path when it is full: a window for more than these and a short queue is not tried first.
    pub(super) fn start_with(&mut self, held: usize, datagram: usize) {
        self.controller.start_at(datagram.saturating_mul(FIRST_QUEUE + held), datagram);
    }

    /// Nothing has waited for an acknowledgement since.
    pub(super) fn is_idle_since(&self, since: Instant) -> bool {
        self.flight.is_empty() && self.delivered.at.max(self.last_sent) <= since
    }

    /// A ping was answered: the path works both ways, and what it carries needs no longer patience than at first.
    pub(super) fn note_pong(&mut self) {
        self.backoff = 0;
    }

    /// Whether a probe for an acknowledgement is to be sent.
    pub(super) fn probe_due(&self) -> bool {
        self.probe_due
    }

    /// Bytes that may be sent now, given the path's datagram size. Ask when something waits: where the pacer holds a
    /// datagram back, [`next_deadline`](Self::next_deadline) says until when.
    pub(super) fn room(&mut self, datagram: usize, now: Instant) -> usize {
        if self.flight.is_full() {
            return 0;
        }
        let window = self.controller.window(datagram).saturating_sub(self.flight.bytes());
        let pace = self.pacer.room(datagram, now);
        self.pacer.set_wanted((window >= datagram && pace < datagram).then_some(datagram));
        self.limited |= window.min(pace) < datagram;
        window.min(pace)
    }

    pub(super) fn loss_ppm(&self) -> u32 {
        self.loss.ppm.min(1_000_000) as u32
    }

    pub(super) fn lost_count(&self) -> u64 {
        self.loss.count
    }

    /// Takes an acknowledgement of this path's packets. The caller has refused numbers never sent.
    pub(super) fn handle_ack(
        &mut self,
        ack: &Ack,
        numbers: &Numbers,
        rtt: &mut RttEstimator,
        datagram: usize,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        let Some(&(_, PacketNumber(largest))) = ack.ranges.first() else { return };
        let mut sample = None;
        if let Some(packet) = self.flight.get(largest).filter(|packet| numbers.measures(packet.at)) {
            let taken = rtt.sample(now.since(packet.at), Duration::from_micros(ack.delay_us.into()), now);
            if packet.size.saturating_add(CIPHER_BLOCK) > datagram {
                rtt.bound_passage(taken);
            }
            sample = Some(taken);
        }
        if let Some(overtaken) = &mut self.overtaken {
            let (came, undone) = overtaken.take(&ack.ranges, now);
            self.loss.count -= came;
            if came > 0 {
                self.together.note_overtaken();
            }
            if undone {
                self.controller.on_sign(Sign::Reordered, now, datagram, now);
            }
        }
        let before = self.flight.bytes();
        let mut newest = None;
        self.flight.acknowledge(&ack.ranges, |packet| {
            newest = Some((packet.number, packet.at, packet.delivered));
            self.loss.note(false);
            outcome.largest_acked = outcome.largest_acked.max(packet.size);
            outcome.acked.extend_from_slice(&packet.contents);
        });
        let Some((number, sent_at, delivered)) = newest else { return };
        outcome.progress = true;
        self.largest_acked = self.largest_acked.max(Some(number));
        self.backoff = 0;
        let bytes = before - self.flight.bytes();
        self.delivered = Delivered { bytes: self.delivered.bytes + bytes as u64, at: now, sent_at };
        self.note_marked(ack.ce, numbers.next, sent_at, datagram, now);
        self.together.note_arrived(&ack.ranges);
        self.detect_loss(rtt, datagram, now, outcome);
        let round = number >= self.round_end;
        if round {
            self.round_end = numbers.next;
        }
        let Some((smoothed, ..)) = rtt.measured() else { return };
        self.controller.on_delivery(&Delivery {
            now,
            bytes,
            in_flight: (before, self.flight.bytes()),
            sent_at,
            limited: self.limited,
            round,
            rtt: sample,
            smoothed,
            min_rtt: match self.controller {
                Controller::Cubic(_) => rtt.base(),
                // It empties the queue itself to see it.
                Controller::Bbr(_) => rtt.recent_min(),
            },
            passage: rtt.passage(),
            rate: delivery_rate(
                self.delivered.bytes - delivered.bytes,
                sent_at.since(delivered.sent_at),
                now.since(delivered.at),
            ),
            datagram,
        });
        if round {
            self.limited = false;
        }
        self.pacer.set_rate(self.controller.pacing_rate(smoothed, datagram));
    }

    /// The peer's count of packets marked CE rose (RFC 9002 section 7.1). A count above what was ever sent is
    /// broken, and means nothing any more (RFC 9000 section 13.4.2).
    fn note_marked(&mut self, ce: u64, sent: u64, sent_at: Instant, datagram: usize, now: Instant) {
        let Some(known) = self.marked else { return };
        if ce > sent {
            self.marked = None;
        } else if ce > known {
            self.marked = Some(ce);
            self.controller.on_sign(Sign::Marked, sent_at, datagram, now);
        }
    }

    /// RFC 9002 section 6.1.
    fn detect_loss(&mut self, rtt: &RttEstimator, datagram: usize, now: Instant, outcome: &mut Outcome) {
        self.loss_time = None;
        let Some(largest) = self.largest_acked else { return };
        let patience = self.overtaken.as_ref().and_then(|overtaken| overtaken.patience(rtt, now));
        // Packets may be overtaken by any number of others then.
        let threshold = if patience.is_some() { u64::MAX } else { PACKET_THRESHOLD };
        let delay = patience.unwrap_or_default().max(rtt.loss_delay());
        let persistent = rtt.measured().map(|_| rtt.probe_timeout() * PERSISTENT_TIMEOUTS);
        let (mut bytes, mut newest, mut row_start, mut longest) = (0, None, now, Duration::ZERO);
        let mut found = 0;
        self.flight.sweep(|packet, in_row| {
            if packet.number >= largest {
                return false;
            }
            if largest - packet.number < threshold && packet.at + delay > now {
                self.loss_time = Some(packet.at + delay);
                return false;
            }
            if !in_row {
                row_start = packet.at;
            }
            longest = longest.max(packet.at.since(row_start));
            bytes += packet.size;
            newest = Some(packet.at);
            self.loss.note(true);
            found += 1;
            self.overtaken.get_or_insert_default().push(packet);
            outcome.note_missed(packet.size, packet.at);
            if packet.number >= self.late_below {
                outcome.lost.extend_from_slice(&packet.contents);
            }
            true
        });
        let Some(newest) = newest else { return };
        let in_flight =
            |first, count| self.flight.from(first).next().is_some_and(|next| next.number < first + count);
        self.together.note_lost(in_flight, now);
        if let Some(overtaken) = &mut self.overtaken {
            overtaken.note_lost(found, newest, now);
        }
        self.controller.on_sign(Sign::Loss { bytes }, newest, datagram, now);
        if persistent.is_some_and(|span| longest > span) {
            self.controller.on_sign(Sign::Persistent, newest, datagram, now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_deadline(
        &self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
    ) -> Option<Instant> {
        let late = has_alternate.then(|| self.flight.from(self.late_below).next()).flatten();
        let late = late.map(|packet| (packet.at + reply_timeout).max(self.answered_until(rtt)));
        let probe = (!self.flight.is_empty()).then(|| self.probe_deadline(rtt));
        [self.loss_time, late, probe, self.pacer.next_deadline()].into_iter().flatten().min()
    }

    fn probe_deadline(&self, rtt: &RttEstimator) -> Instant {
        (self.last_sent + rtt.probe_timeout() * (1 << self.backoff)).max(self.answered_until(rtt))
    }

    /// While answers to others come on a slow path, a packet waits in the same queue; and where it was lost, they tell.
    fn answered_until(&self, rtt: &RttEstimator) -> Instant {
        self.delivered.at + NEXT_ANSWER * rtt.passage()
    }

    /// Time has passed: what is lost, late (its reply timeout is over; it matters only where
    /// another path could carry it), or to be probed for.
    pub(super) fn handle_timeout(
        &mut self,
        rtt: &RttEstimator,
        reply_timeout: Duration,
        has_alternate: bool,
        datagram: usize,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        if self.pacer.next_deadline().is_some_and(|at| at <= now) {
            // Whoever still has something to send asks again.
            self.pacer.set_wanted(None);
        }
        if self.loss_time.is_some_and(|at| at <= now) {
            self.detect_loss(rtt, datagram, now, outcome);
        }
        if has_alternate {
            let answered = self.answered_until(rtt);
            let late = self
                .flight
                .from(self.late_below)
                .take_while(|packet| (packet.at + reply_timeout).max(answered) <= now);
            for packet in late {
                self.late_below = packet.number + 1;
                outcome.note_missed(packet.size, packet.at);
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
            for packet in self.flight.from(oldest.number) {
                outcome.note_missed(packet.size, packet.at);
            }
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
            self.probe_due = true;
            self.last_sent = now;
        }
    }

    /// The path is down: nothing is in flight on it any more. Returns what no other path carries.
    pub(super) fn abandon(&mut self, congestion: Congestion) -> Vec<Content> {
        self.loss_time = None;
        self.backoff = 0;
        self.probe_due = false;
        self.overtaken = None;
        self.together.abandon();
        self.controller = Controller::new(congestion);
        self.pacer = Pacer::NEW;
        let late_below = self.late_below;
        let unsent = self.flight.drain().filter(|packet| packet.number >= late_below);
        unsent.flat_map(|packet| packet.contents).collect()
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(super) fn shrink(&mut self) {
        self.overtaken = None;
        self.flight.shrink();
    }
}
