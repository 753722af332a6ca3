//! Building datagrams.

use alloc::vec::Vec;
use core::time::Duration;

use arrayvec::ArrayVec;
use overlan_contract::failover::{Mode, PathState};
use overlan_wire::frame::{ACCEPTED_HEADER, FRAGMENT_HEADER, FRAME_HEADER};
use overlan_wire::limits::{MAX_DATAGRAM, TAG};
use overlan_wire::packet::DATA_HEADER;
use overlan_wire::{Ack, Frame};

use super::Peer;
use crate::crypto::Aead;
use crate::delivery::Content;
use crate::delivery::outbox::{MIN_FRAGMENT, Next, Space, Take};
use crate::event::Transmit;
use crate::path::recovery::{CIPHER_BLOCK, Contents};
use crate::time::Instant;

/// Segments in one offloaded send (the kernel's UDP_MAX_SEGMENTS is 64 on older kernels).
const MAX_SEGMENTS: usize = 64;
/// Acknowledgements of other paths repeated beside an owed one, in case that their own got lost.
const MAX_CROSS_ACKS: usize = 3;
/// How long after its last packet a path's acknowledgement is repeated.
const CROSS_ACK_MEMORY: Duration = Duration::from_secs(1);
/// Room that the frames of a little content take in a datagram.
const MIN_DATAGRAM: usize = DATA_HEADER + TAG + FRAGMENT_HEADER + MIN_FRAGMENT;
/// Shares of paths are counted in this fraction of a byte per weight.
const SHARE_SCALE: u128 = 1_000_000;

/// A datagram under construction.
struct Draft {
    at: usize,
    start: usize,
    /// Largest size it may reach, tag included.
    limit: usize,
    wants_ack: bool,
    contents: Contents,
}

impl Draft {
    fn room(&self, buffer: &[u8]) -> usize {
        (self.start + self.limit).saturating_sub(TAG + buffer.len())
    }

    /// Bytes it has now, tag included.
    fn size(&self, buffer: &[u8]) -> usize {
        buffer.len() - self.start + TAG
    }
}

/// Bytes of frames that a full datagram of this size holds.
fn full_text(datagram: usize) -> usize {
    (datagram - DATA_HEADER - TAG) / CIPHER_BLOCK * CIPHER_BLOCK
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
                && let Some((size, paired)) = path.mtu.due(now)
            {
                path.ping_due |= paired;
                return Some(self.mtu_probe(at, size, now, buffer));
            }
            let path = &self.paths[at];
            if path.ping_due || !path.pongs_due.is_empty() || path.recovery.probe_due() {
                return Some(self.single(at, now, buffer));
            }
        }
        let mut due = self.spaces.iter().filter(|space| space.received.ack_due(now));
        if let Some(at) = due.find_map(|space| self.ack_route(space, now)) {
            return Some(self.single(at, now, buffer));
        }
        // Nowhere to send them: the peer will ask again.
        for space in self.spaces.iter_mut().filter(|space| space.received.ack_due(now)) {
            space.received.note_acked();
        }
        // What was accepted waits for the consumer's answer to carry it, as acknowledgements do.
        self.accepted_since = self.inbox.changed().map(|_| self.accepted_since.unwrap_or(now));
        if self.accepted_deadline().is_some_and(|at| at <= now)
            && let Some(at) = self.active_index(now)
        {
            return Some(self.single(at, now, buffer));
        }
        None
    }

    /// The path a space is acknowledged on: the one its packets came by, unless that looks broken.
    fn ack_route(&self, space: &super::Space, now: Instant) -> Option<usize> {
        let own = self.paths.iter().position(|path| Some(path.id) == space.own);
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
        if Some(at) == self.active_index(now) && self.paths[at].state() != PathState::Unverified {
            let take = self.take_for(at, true, now);
            self.put_messages(&mut draft, take, now, buffer);
        }
        self.finish(draft, now, buffer)
    }

    /// Messages: new ones on the active path, late ones on its alternate, copies where they belong.
    fn data_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let active =
            self.spreads().then(|| self.spread_index(now)).flatten().or_else(|| self.active_index(now))?;
        // An address that has not answered a probe yet gets no more than probes (RFC 9000 section 8.2).
        if self.paths[active].state() == PathState::Unverified {
            return None;
        }
        if self.spreads() {
            // Start-time fair queueing: a path that was away does not make up for it.
            let path = &mut self.paths[active];
            path.spread_share = path.spread_share.max(self.spread_clock);
            self.spread_clock = path.spread_share;
        }
        let id = self.paths[active].id;
        // Before more is sent: a copy serves while the first is on its way.
        for copy in self.copies(id) {
            let take = Take { path: copy, fresh: false, last_resort: false, instead_of: None };
            if let Some(at) = self.paths.iter().position(|path| path.id == copy)
                && let Some(transmit) = self.bulk(at, take, now, buffer)
            {
                return Some(transmit);
            }
        }
        let take = self.take_for(active, true, now);
        if let Some(transmit) = self.bulk(active, take, now, buffer) {
            return Some(transmit);
        }
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
        let whole_blocks = DATA_HEADER + TAG + full_text(datagram);
        let mut transmit: Option<Transmit> = None;
        let (mut payload, mut next) = (None, self.outbox.next(take));
        let first_number = self.paths[at].recovery.peek_number();
        let segments = if self.paths[at].recovery.may_bundle(now) { MAX_SEGMENTS } else { 1 };
        for turn in 1..=segments {
            let limit = transmit.map_or(whole_blocks, |transmit| transmit.segment);
            let full = buffer.len() + limit > most && transmit.is_some();
            if full {
                break;
            }
            // Pieces of large messages wait for a window that takes whole datagrams; little goes while it fits.
            let (whole, least) = match next {
                Next::Nothing => break,
                Next::Again => (None, MIN_DATAGRAM),
                Next::Whole(len) => (Some(len), (MIN_DATAGRAM + len).min(datagram)),
                Next::Piece => (None, datagram),
            };
            let window = self.paths[at].recovery.room(datagram, now);
            if window < least {
                break;
            }
            // Small ones, each in a datagram of its own, make segments where they are equal.
            if limit < whole_blocks && whole != payload {
                break;
            }
            payload = whole;
            let mut draft = self.start(at, limit, buffer);
            if transmit.is_none() {
                self.put_control(&mut draft, now, buffer);
            }
            let enough = self.put_messages(&mut draft, take, now, buffer);
            if buffer.len() == draft.start + DATA_HEADER {
                buffer.truncate(draft.start);
                break;
            }
            next = self.outbox.next(take);
            let more = next != Next::Nothing && turn < segments;
            if more && !enough && window >= limit {
                // Equal segments: zero bytes are padding. (One that the window cut short is the last.)
                buffer.resize(draft.start + limit - TAG, 0);
            }
            let sent = self.finish(draft, now, buffer);
            let first = transmit.get_or_insert(sent);
            if !more || sent.segment < first.segment {
                break;
            }
        }
        self.paths[at].recovery.note_bundle(first_number);
        transmit
    }

    fn start(&self, at: usize, limit: usize, buffer: &mut Vec<u8>) -> Draft {
        let path = &self.paths[at];
        let start = buffer.len();
        self.session.header(path.id, path.recovery.peek_number()).emit(buffer);
        Draft { at, start, limit, wants_ack: false, contents: Contents::new() }
    }

    fn put_control(&mut self, draft: &mut Draft, now: Instant, buffer: &mut Vec<u8>) {
        self.put_acks(draft, now, buffer);
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
        Self::put_counts(&mut self.counts, draft.room(buffer), buffer);
        let active = self.active_index(now);
        if active.is_none() || active == Some(draft.at) {
            while let Some(stream) = self.inbox.changed() {
                if !self.put_accepted(draft, stream, buffer) {
                    break;
                }
            }
        }
        // It wants an acknowledgement and can always be said once more: it serves as the probe, too.
        if self.paths[draft.at].recovery.probe_due() && !draft.wants_ack {
            self.put_accepted(draft, 0, buffer);
        }
    }

    /// What was accepted of a stream; `false` where it does not fit.
    fn put_accepted(&mut self, draft: &mut Draft, stream: u16, buffer: &mut Vec<u8>) -> bool {
        if draft.contents.is_full() {
            return false;
        }
        let room = draft.room(buffer);
        let most = (draft.limit - DATA_HEADER - TAG).saturating_sub(ACCEPTED_HEADER);
        let told = self.inbox.tell_accepted(stream, most, |accepted| {
            let fits = ACCEPTED_HEADER + accepted.bitmap.len() <= room;
            if fits {
                Frame::Accepted(accepted).emit(buffer);
            }
            fits
        });
        if told {
            draft.wants_ack = true;
            draft.contents.push(Content::Accepted { stream });
        }
        told
    }

    /// Acknowledgements owed on this path, and a few recent ones of others. One that does not fit stays owed.
    fn put_acks(&mut self, draft: &Draft, now: Instant, buffer: &mut Vec<u8>) {
        // What an empty datagram of a narrow path holds.
        let most_ranges = Ack::ranges_in(draft.limit - DATA_HEADER - TAG);
        let mut put = |space: &super::Space| {
            let Some(mut ack) = space.received.ack(space.path, now) else { return true };
            ack.ranges.truncate(most_ranges);
            let fits = draft.room(buffer) >= ack.encoded_len();
            if fits {
                Frame::Ack(ack).emit(buffer);
            }
            fits
        };
        let mut acked = ArrayVec::<usize, 8>::new();
        for (at, space) in self.spaces.iter().enumerate().filter(|(_, space)| space.received.is_owed()) {
            if !acked.is_full() && self.ack_route(space, now) == Some(draft.at) && put(space) {
                acked.push(at);
            }
        }
        if acked.is_empty() {
            return;
        }
        let recent = self.spaces.iter().filter(|space| {
            !space.received.is_owed() && now.since(space.received.last_at) < CROSS_ACK_MEMORY
        });
        for space in recent.take(MAX_CROSS_ACKS) {
            put(space);
        }
        for at in acked {
            self.spaces[at].received.note_acked();
        }
    }

    /// Fills the datagram with messages; whether it ends because the policy wants no more of them in one.
    fn put_messages(&mut self, draft: &mut Draft, take: Take, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let path = &mut self.paths[draft.at];
        let coalesce = path.sizing.coalesce as usize;
        let datagram = path.datagram();
        let window = path.recovery.room(datagram, now);
        let full = full_text(datagram);
        let mut first = true;
        while !draft.contents.is_full() {
            let size = draft.size(buffer);
            let budget = coalesce.saturating_sub(size);
            if !first && budget == 0 {
                return true;
            }
            let room = draft.room(buffer).min(window.saturating_sub(size));
            let space = Space { room, full, budget };
            let Some(content) = self.outbox.emit(take, space, buffer) else { break };
            first = false;
            // Unreliable messages are acknowledged too: they count for the path's window (RFC 9221 section 5.2).
            draft.wants_ack = true;
            let Some(content) = content else { continue };
            draft.contents.push(content);
            if take.fresh && self.mode == Mode::Active {
                for copy in self.copies(take.path) {
                    self.outbox.copy(content, copy);
                }
            }
        }
        !first && draft.size(buffer) >= coalesce
    }

    fn finish(&mut self, draft: Draft, now: Instant, buffer: &mut Vec<u8>) -> Transmit {
        let spreads = self.spreads();
        let path = &mut self.paths[draft.at];
        let number = path.recovery.next_number();
        let (header, text) = buffer[draft.start..].split_at_mut(DATA_HEADER);
        let tag = self.session.seal(path.id, number, header, text);
        buffer.extend_from_slice(&tag);
        let size = buffer.len() - draft.start;
        path.sent += 1;
        if draft.wants_ack && spreads {
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
