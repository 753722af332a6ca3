//! What arrives: datagrams of the session and their frames.

use core::net::SocketAddr;

use overlan_contract::failover::PathState;
use overlan_wire::frame::{Accepted, Frames, Run};
use overlan_wire::{Ack, Fragment, Frame, PacketNumber, PathId, SessionId};

use super::session::nonce;
use super::{MAX_SPACES, Peer, Space, Surroundings, apply_health};
use crate::crypto::Aead;
use crate::delivery::inbox::Taken;
use crate::delivery::outbox::Via;
use crate::path::health::HealthEvent;
use crate::path::receive::ReceiveSpace;
use crate::path::recovery::Outcome;
use crate::time::Instant;

/// What is known of a packet before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) path: PathId,
    pub(crate) number: PacketNumber,
    /// It came marked CE (RFC 3168).
    pub(crate) marked: bool,
}

impl<A: Aead> Peer<A> {
    /// Takes one datagram of the session: decrypts and applies it.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        session: SessionId,
        Packet { path, number, marked }: Packet,
        (header, sealed): (&[u8], &mut [u8]),
        env: &mut Surroundings<'_>,
    ) {
        let replayed = match self.space_at(path) {
            Ok(at) => !self.spaces[at].received.is_new(number),
            Err(_) => path.0 < self.space_floor,
        };
        if replayed {
            env.counters.dropped_replayed += 1;
            return;
        }
        let Some(aead) = self.session.receiver(session) else {
            env.counters.dropped_unknown_session += 1;
            return;
        };
        let Some(len) = aead.open(nonce(path, number), header, sealed) else {
            env.counters.dropped_forged += 1;
            return;
        };
        if self.session.note_received(session, now) {
            self.opened(now);
        }
        let own = self.path_between(ends);
        let own_id = own.map(|at| self.paths[at].id);
        let space = self.space(path);
        space.own = own_id;
        let in_sequence = space.received.note(number, now);
        if marked {
            space.received.note_marked();
        }
        match own {
            Some(at) => self.paths[at].received += 1,
            None => env.counters.received_off_path += 1,
        }
        self.bound_spaces();
        let mut wants_ack = false;
        for frame in Frames::new(&sealed[..len]) {
            match frame {
                Ok(frame) => wants_ack |= self.handle_frame(now, ends, &frame, env),
                Err(_) => env.counters.dropped_malformed += 1,
            }
        }
        if wants_ack {
            self.touch(now);
            if let Ok(at) = self.space_at(path) {
                self.spaces[at].received.owe(in_sequence, now);
            }
        }
    }

    /// Where the space of one of the peer's paths is, or belongs.
    pub(super) fn space_at(&self, path: PathId) -> Result<usize, usize> {
        self.spaces.binary_search_by_key(&path, |space| space.path)
    }

    /// The space of one of the peer's paths.
    fn space(&mut self, path: PathId) -> &mut Space {
        let at = self.space_at(path).unwrap_or_else(|at| {
            self.spaces.reserve_exact(1);
            self.spaces.insert(at, Space { path, received: ReceiveSpace::default(), own: None });
            at
        });
        &mut self.spaces[at]
    }

    /// Path ids are never used twice, so that what is forgotten are the spaces silent for longest; ids up to theirs
    /// open no new space, lest old packets be replayed.
    fn bound_spaces(&mut self) {
        while self.spaces.len() > MAX_SPACES {
            let silent = self.spaces.iter().enumerate().min_by_key(|(_, space)| space.received.last_at);
            let Some((at, _)) = silent else { return };
            let path = self.spaces.remove(at).path;
            self.space_floor = self.space_floor.max(path.0.saturating_add(1));
        }
    }

    /// Returns whether the frame wants an acknowledgement.
    fn handle_frame(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        frame: &Frame<'_>,
        env: &mut Surroundings<'_>,
    ) -> bool {
        match frame {
            Frame::Ping { token, padding } => self.handle_ping(now, *token, *padding, ends),
            Frame::Pong { token } => self.handle_pong(now, *token, ends, env),
            Frame::Ack(ack) => self.handle_ack(now, ack, ends, env),
            Frame::Fragment(fragment) => {
                self.handle_fragment(now, fragment, ends, env);
                return true;
            }
            Frame::Run(run) => {
                self.handle_run(run, ends, env);
                return true;
            }
            Frame::Accepted(accepted) => {
                self.handle_accepted(accepted, env);
                return true;
            }
            Frame::CountAsked { .. } | Frame::Count { .. } => self.handle_count(frame),
            // Cluster frames do not belong in a data datagram.
            _ => env.counters.dropped_malformed += 1,
        }
        false
    }

    fn handle_fragment(
        &mut self,
        now: Instant,
        fragment: &Fragment<'_>,
        ends: (SocketAddr, SocketAddr),
        env: &mut Surroundings<'_>,
    ) {
        match self.inbox.handle_fragment(fragment, ends, now) {
            Taken::New => {}
            Taken::Duplicate => env.counters.fragments_duplicate += 1,
            Taken::Refused => env.counters.dropped_limit += 1,
        }
        env.counters.unreliable_dropped += self.inbox.take_dropped();
    }

    fn handle_run(&mut self, run: &Run<'_>, ends: (SocketAddr, SocketAddr), env: &mut Surroundings<'_>) {
        let taken = self.inbox.handle_run(run, ends);
        env.counters.fragments_duplicate += taken.duplicate;
        env.counters.dropped_limit += taken.refused;
        env.counters.unreliable_dropped += self.inbox.take_dropped();
    }

    fn handle_accepted(&mut self, accepted: &Accepted<'_>, env: &mut Surroundings<'_>) {
        if !self.outbox.handle_accepted(accepted) {
            env.counters.dropped_malformed += 1;
        }
        self.report(env);
    }

    fn handle_ack(
        &mut self,
        now: Instant,
        ack: &Ack,
        ends: (SocketAddr, SocketAddr),
        env: &mut Surroundings<'_>,
    ) {
        let Some(at) = self.paths.iter().position(|path| path.id == ack.path) else {
            // Of a path that went away, unless there never was one.
            env.counters.dropped_malformed += u64::from(ack.path.0 >= self.next_path);
            return;
        };
        let path = &mut self.paths[at];
        if ack.ranges.first().is_some_and(|&(_, largest)| largest >= path.recovery.peek_number()) {
            env.counters.dropped_malformed += 1;
            return;
        }
        let datagram = path.datagram();
        let mut outcome = core::mem::take(env.outcome);
        path.recovery.handle_ack(ack, &mut path.rtt, datagram, now, &mut outcome);
        if outcome.progress && (path.local, path.remote) == ends {
            self.handle_reply(at, now, env);
        } else if outcome.progress && path.health.one_way() {
            self.handle_detour(at, now, env);
        }
        self.settle(at, &outcome, now);
        outcome.clear();
        *env.outcome = outcome;
    }

    /// Acts on what an acknowledgement or a timeout brought to light.
    pub(super) fn settle(&mut self, at: usize, outcome: &Outcome, now: Instant) {
        for &content in &outcome.acked {
            self.outbox.handle_acked(content);
        }
        self.paths[at].mtu.note_passed(outcome.largest_acked);
        if let Some(large) = outcome.large {
            self.paths[at].mtu.suspect(large, now);
        }
        // The path lives: its own window takes what it lost, unless another is better.
        self.requeue(outcome.lost.iter().copied(), Via::Any);
    }

    /// A reply came by the path: it works both ways.
    pub(super) fn handle_reply(&mut self, at: usize, now: Instant, env: &mut Surroundings<'_>) {
        let path = &mut self.paths[at];
        let before = path.state();
        if apply_health(self.id, path, HealthEvent::Reply, now, env) {
            if before != PathState::Suspect {
                path.mtu.restart(now);
            }
            self.ask_failover = true;
            self.choose_active(now, env);
        }
    }
}
