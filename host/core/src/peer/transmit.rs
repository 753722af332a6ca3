//! Building datagrams.

use alloc::vec::Vec;
use core::time::Duration;

use overlan_contract::failover::PathState;
use overlan_wire::frame::{FRAGMENT_HEADER, FRAME_HEADER};
use overlan_wire::limits::{MAX_DATAGRAM, TAG};
use overlan_wire::packet::DATA_HEADER;
use overlan_wire::{Ack, Frame};

use super::Peer;
use crate::crypto::Aead;
use crate::delivery::outbox::Take;
use crate::event::Transmit;
use crate::path::recovery::Content;
use crate::time::Instant;

/// Segments in one offloaded send (the kernel's UDP_MAX_SEGMENTS is 64 on older kernels).
const MAX_SEGMENTS: usize = 64;
/// Acknowledgements of other paths repeated beside an owed one, in case that their own got lost.
const MAX_CROSS_ACKS: usize = 3;
/// How long after its last packet a path's acknowledgement is repeated.
const CROSS_ACK_MEMORY: Duration = Duration::from_secs(1);
/// Shares of paths are counted in this fraction of a byte per weight.
const SHARE_SCALE: u128 = 1_000_000;
/// A fragment smaller than this is not worth starting at the end of a datagram.
const MIN_FRAGMENT: usize = 64;

/// A datagram under construction.
struct Draft {
    at: usize,
    start: usize,
    /// Largest size it may reach, tag included.
    limit: usize,
    wants_ack: bool,
    contents: Vec<Content>,
}

impl Draft {
    fn room(&self, buffer: &[u8]) -> usize {
        (self.start + self.limit).saturating_sub(TAG + buffer.len())
    }
}

impl<A: Aead> Peer<A> {
    /// Appends datagrams for one path to `buffer`, which is empty; `None` where nothing is to be sent now.
    pub(crate) fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.control_transmit(now, buffer).or_else(|| self.data_transmit(now, buffer))
    }

    /// Probes, replies and acknowledgements, each on its path.
    fn control_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        for at in 0..self.paths.len() {
            let path = &mut self.paths[at];
            if path.health.adapter_down() {
                path.ping_due = false;
                path.pongs_due.clear();
                continue;
            }
            if path.state() == PathState::Up
                && let Some(size) = path.mtu.due(now)
            {
                return Some(self.mtu_probe(at, size, now, buffer));
            }
            let path = &self.paths[at];
            if path.ping_due || !path.pongs_due.is_empty() || path.recovery.probe_due() {
                return Some(self.single(at, now, buffer));
            }
        }
        let owed: Vec<usize> = self
            .spaces
            .values()
            .filter(|space| space.received.owed)
            .filter_map(|space| self.ack_route(space, now))
            .collect();
        if let Some(&at) = owed.first() {
            return Some(self.single(at, now, buffer));
        }
        // Nowhere to send them: the peer will ask again.
        for space in self.spaces.values_mut() {
            space.received.owed = false;
        }
        if self.inbox.accepted_changed()
            && let Some(at) = self.active_index(now)
        {
            return Some(self.single(at, now, buffer));
        }
        None
    }

    /// The path a space is acknowledged on: the one its packets came by, unless that looks broken.
    fn ack_route(&self, space: &super::Space, now: Instant) -> Option<usize> {
        let own = self.path_between((space.local, space.remote));
        let usable = |at: &usize| {
            let path = &self.paths[*at];
            !path.health.adapter_down() && matches!(path.state(), PathState::Up | PathState::Unverified)
        };
        own.filter(usable)
            .or_else(|| self.active_index(now))
            .or(own.filter(|&at| !self.paths[at].health.adapter_down()))
    }

    fn mtu_probe(&mut self, at: usize, size: usize, now: Instant, buffer: &mut Vec<u8>) -> Transmit {
        let token = self.next_token();
        let draft = self.start(at, size, buffer);
        let padding = size - DATA_HEADER - TAG - FRAME_HEADER - 4;
        Frame::Ping { token, padding: u16::try_from(padding).unwrap_or(u16::MAX) }.emit(buffer);
        self.paths[at].mtu.note_sent(token, size, now);
        self.finish(draft, now, buffer)
    }

    /// One datagram of control frames, filled up with what else may go on that path.
    fn single(&mut self, at: usize, now: Instant, buffer: &mut Vec<u8>) -> Transmit {
        let mut draft = self.start(at, self.paths[at].datagram(), buffer);
        self.put_control(&mut draft, now, buffer);
        if Some(at) == self.active_index(now) {
            let take = self.take_for(at, true, now);
            self.put_fragments(&mut draft, take, buffer);
        }
        self.finish(draft, now, buffer)
    }

    /// Messages: new ones on the active path, late ones on its alternate, copies where they belong.
    fn data_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let active =
            self.spreads().then(|| self.spread_index(now)).flatten().or_else(|| self.active_index(now))?;
        if self.spreads() {
            // Start-time fair queueing: a path that was away does not make up for it.
            let path = &mut self.paths[active];
            path.spread_share = path.spread_share.max(self.spread_clock);
            self.spread_clock = path.spread_share;
        }
        let take = self.take_for(active, true, now);
        if let Some(transmit) = self.bulk(active, take, now, buffer) {
            return Some(transmit);
        }
        let id = self.paths[active].id;
        if let Some(alternate) = self.alternate(id, now) {
            let take = Take {
                path: self.paths[alternate].id,
                fresh: false,
                last_resort: false,
                instead_of: Some(id),
            };
            if let Some(transmit) = self.bulk(alternate, take, now, buffer) {
                return Some(transmit);
            }
        }
        for copy in self.copies(id) {
            let at = self.paths.iter().position(|path| path.id == copy)?;
            let take = Take { path: copy, fresh: false, last_resort: false, instead_of: None };
            if let Some(transmit) = self.bulk(at, take, now, buffer) {
                return Some(transmit);
            }
        }
        None
    }

    fn take_for(&self, at: usize, fresh: bool, now: Instant) -> Take {
        let path = self.paths[at].id;
        Take { path, fresh, last_resort: self.alternate(path, now).is_none(), instead_of: None }
    }

    /// As many equal datagrams as policy, window and offload allow.
    fn bulk(&mut self, at: usize, take: Take, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let datagram = self.paths[at].datagram();
        let most = (self.paths[at].sizing.burst as usize).clamp(datagram, MAX_DATAGRAM);
        let mut transmit = None;
        for _ in 0..MAX_SEGMENTS {
            if buffer.len() + datagram > most && transmit.is_some() {
                break;
            }
            if !self.outbox.has_work(take)
                || self.paths[at].recovery.room(datagram) < MIN_FRAGMENT + FRAGMENT_HEADER
            {
                break;
            }
            let mut draft = self.start(at, datagram, buffer);
            if transmit.is_none() {
                self.put_control(&mut draft, now, buffer);
            }
            self.put_fragments(&mut draft, take, buffer);
            if buffer.len() == draft.start + DATA_HEADER {
                buffer.truncate(draft.start);
                break;
            }
            let more = self.outbox.has_work(take)
                && buffer.len() - draft.start + TAG + FRAGMENT_HEADER + MIN_FRAGMENT > datagram;
            if more {
                // Equal segments: zero bytes are padding.
                buffer.resize(draft.start + datagram - TAG, 0);
            }
            let sent = self.finish(draft, now, buffer);
            let full = sent.segment == datagram;
            transmit.get_or_insert(sent);
            if !full {
                break;
            }
        }
        transmit
    }

    fn start(&self, at: usize, limit: usize, buffer: &mut Vec<u8>) -> Draft {
        let path = &self.paths[at];
        let start = buffer.len();
        self.session.header(path.id, path.recovery.peek_number()).emit(buffer);
        Draft { at, start, limit, wants_ack: false, contents: Vec::new() }
    }

    fn put_control(&mut self, draft: &mut Draft, now: Instant, buffer: &mut Vec<u8>) {
        for ack in self.acks_for(draft.at, now) {
            // One that does not fit stays owed: the next datagram carries it.
            if draft.room(buffer) >= FRAME_HEADER + 8 + 16 * ack.ranges.len() {
                if let Some(space) = self.spaces.get_mut(&ack.path) {
                    space.received.owed = false;
                }
                Frame::Ack(ack).emit(buffer);
            }
        }
        let path = &mut self.paths[draft.at];
        while draft.room(buffer) >= FRAME_HEADER + 4
            && let Some(token) = path.pongs_due.pop_front()
        {
            Frame::Pong { token }.emit(buffer);
        }
        if path.ping_due && draft.room(buffer) >= FRAME_HEADER + 4 {
            let token = self.next_token();
            self.paths[draft.at].note_ping(token, now);
            Frame::Ping { token, padding: 0 }.emit(buffer);
        }
        let usual = self.inbox.accepted_changed()
            && (Some(draft.at) == self.active_index(now) || self.active_index(now).is_none());
        // It wants an acknowledgement and can always be said once more: it serves as the probe, too.
        if usual || self.paths[draft.at].recovery.probe_due() {
            let accepted = self.inbox.take_accepted();
            if draft.room(buffer) >= FRAME_HEADER + 16 + accepted.bitmap.len() {
                Frame::Accepted(accepted).emit(buffer);
                draft.wants_ack = true;
                draft.contents.push(Content::Accepted);
            } else {
                self.inbox.owe_accepted();
            }
        }
    }

    /// Acknowledgements owed on this path, and a few recent ones of others.
    fn acks_for(&self, at: usize, now: Instant) -> Vec<Ack> {
        let (owed, others): (Vec<_>, Vec<_>) = self
            .spaces
            .iter()
            .partition(|(_, space)| space.received.owed && self.ack_route(space, now) == Some(at));
        let mut acks: Vec<Ack> =
            owed.iter().filter_map(|(id, space)| space.received.ack(**id, now)).collect();
        if !acks.is_empty() {
            let recent = others.iter().filter(|(_, space)| {
                !space.received.owed && now.since(space.received.last_at) < CROSS_ACK_MEMORY
            });
            let repeated = recent.filter_map(|(id, space)| space.received.ack(**id, now));
            acks.extend(repeated.take(MAX_CROSS_ACKS));
        }
        acks
    }

    fn put_fragments(&mut self, draft: &mut Draft, take: Take, buffer: &mut Vec<u8>) {
        let path = &mut self.paths[draft.at];
        let coalesce = path.sizing.coalesce as usize;
        let datagram = path.datagram();
        let window = path.recovery.room(datagram);
        let mut first = true;
        while first || buffer.len() - draft.start + TAG < coalesce {
            let room = draft.room(buffer).min(window.saturating_sub(buffer.len() - draft.start + TAG));
            if room < FRAGMENT_HEADER + MIN_FRAGMENT || !self.outbox.has_work(take) {
                break;
            }
            let taken = self.outbox.take_fragment(take, room - FRAGMENT_HEADER, |fragment| {
                Frame::Fragment(fragment).emit(buffer);
            });
            let Some(content) = taken else { break };
            first = false;
            draft.wants_ack = true;
            if let Some(content) = content {
                draft.contents.push(content);
                if take.fresh {
                    for copy in self.copies(take.path) {
                        self.outbox.copy(content, copy);
                    }
                }
            }
        }
    }

    fn finish(&mut self, draft: Draft, now: Instant, buffer: &mut Vec<u8>) -> Transmit {
        let path = &mut self.paths[draft.at];
        let number = path.recovery.next_number();
        let (header, text) = buffer[draft.start..].split_at_mut(DATA_HEADER);
        let tag = self.session.seal(path.id, number, header, text);
        buffer.extend_from_slice(&tag);
        let size = buffer.len() - draft.start;
        path.sent += 1;
        if draft.wants_ack && matches!(self.mode, overlan_contract::failover::Mode::Spread(_)) {
            path.spread_share += size as u128 * SHARE_SCALE / u128::from(path.weight.max(1));
        }
        if draft.wants_ack {
            path.recovery.note_sent(number, size, draft.contents, now);
            path.health.note_asked(now);
        }
        Transmit { local: path.local, remote: path.remote, dscp: path.dscp, segment: size }
    }

    fn next_token(&mut self) -> u32 {
        self.next_ping = self.next_ping.wrapping_add(1);
        self.next_ping
    }
}
