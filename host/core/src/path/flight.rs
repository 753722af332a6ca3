//! The packets of one path that wait for their acknowledgement, in a ring ordered by number.
//!
//! What is acknowledged or lost leaves at the front. Loss detection resolves all but the newest few packets below the
//! largest acknowledged one, so that a walk from the front touches what is newly resolved, and little else.

use alloc::collections::VecDeque;

use arrayvec::ArrayVec;
use overlan_wire::PacketNumber;

use crate::delivery::Content;
use crate::time::Instant;

/// What a packet carried that must arrive.
pub(crate) type Contents = ArrayVec<Content, 4>;

/// Most packets in flight: bounds the memory of a path whose packets are small.
pub(crate) const MAX_PACKETS: usize = 65_536;

/// What had arrived at some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) bytes: u64,
    /// When the last acknowledgement came.
    pub(crate) at: Instant,
    /// When the newest of these packets was sent.
    pub(crate) sent_at: Instant,
}

/// One packet that wants an acknowledgement.
#[derive(Debug)]
pub(crate) struct SentPacket {
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) size: usize,
    /// Bytes that had arrived when it was sent, when the last of them did, and when the packet that told so was sent:
    /// what delivery rates are measured from.
    pub(crate) delivered: Delivered,
    /// Acknowledged or lost: it only waits for its turn to leave the ring.
    resolved: bool,
    pub(crate) contents: Contents,
}

impl SentPacket {
    pub(crate) fn new(
        number: u64,
        at: Instant,
        size: usize,
        contents: Contents,
        delivered: Delivered,
    ) -> Self {
        SentPacket { number, at, size, delivered, resolved: false, contents }
    }
}

/// The ring. Its first packet is never resolved.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    packets: VecDeque<SentPacket>,
    bytes: usize,
}

impl Flight {
    /// Adds a packet, numbered above all before.
    pub(crate) fn push(&mut self, packet: SentPacket) {
        debug_assert!(self.packets.back().is_none_or(|last| last.number < packet.number));
        self.bytes += packet.size;
        self.packets.push_back(packet);
    }

    /// Bytes that are neither acknowledged nor lost.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.packets.len() >= MAX_PACKETS
    }

    /// The oldest packet.
    pub(crate) fn oldest(&self) -> Option<&SentPacket> {
        self.packets.front()
    }

    /// A packet, unless it is resolved.
    pub(crate) fn get(&self, number: u64) -> Option<&SentPacket> {
        self.from(number).next().filter(|packet| packet.number == number)
    }

    /// Unresolved packets from a number on.
    pub(crate) fn from(&self, number: u64) -> impl Iterator<Item = &SentPacket> {
        let at = match self.packets.front() {
            Some(first) if first.number < number => self.packets.partition_point(|held| held.number < number),
            _ => 0,
        };
        self.packets.range(at..).filter(|packet| !packet.resolved)
    }

    /// Resolves the packets in these ranges, descending as an acknowledgement has them. Call
    /// [`sweep`](Self::sweep) afterwards.
    pub(crate) fn acknowledge(
        &mut self,
        ranges: &[(PacketNumber, PacketNumber)],
        mut acked: impl FnMut(&SentPacket),
    ) {
        let mut ascending = ranges.iter().rev().map(|&(low, high)| (low.0, high.0));
        let Some((mut low, mut high)) = ascending.next() else { return };
        for packet in &mut self.packets {
            while high < packet.number {
                let Some(next) = ascending.next() else { return };
                (low, high) = next;
            }
            if packet.number >= low && !packet.resolved {
                packet.resolved = true;
                self.bytes -= packet.size;
                acked(packet);
            }
        }
    }

    /// Takes packets off the front: what is resolved, and what `lost` says of, up to the first it does not. `lost`
    /// also learns whether the packet before was lost, too.
    pub(crate) fn sweep(&mut self, mut lost: impl FnMut(&SentPacket, bool) -> bool) {
        let mut in_row = false;
        while let Some(packet) = self.packets.front() {
            if !packet.resolved {
                if !lost(packet, in_row) {
                    break;
                }
                self.bytes -= packet.size;
            }
            in_row = !packet.resolved;
            self.packets.pop_front();
        }
    }

    /// Empties it, packet by packet.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = SentPacket> {
        self.bytes = 0;
        core::mem::take(&mut self.packets).into_iter().filter(|packet| !packet.resolved)
    }

    /// Nothing happens: gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        self.packets.shrink_to_fit();
    }
}
