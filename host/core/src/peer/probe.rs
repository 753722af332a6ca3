//! Probing the paths, and what time brings.

use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::failover::PathState;

use super::{IDLE, Peer, QUIET, Surroundings, TRAFFIC_MEMORY, apply_health};
use crate::crypto::Aead;
use crate::delivery::outbox::Via;
use crate::path::Path;
use crate::path::health::HealthEvent;
use crate::path::receive::MAX_ACK_DELAY;
use crate::time::Instant;

/// Pongs that may wait on one path; more pings are not answered.
const MAX_PONGS: usize = 32;
/// The paths of a member that membership takes for dead are probed this seldom.
const DEAD_INTERVAL: Duration = Duration::from_secs(2);
/// And those that answer but carried no message lately: a message that finds its path broken moves to the next.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);

impl<A: Aead> Peer<A> {
    pub(super) fn handle_ping(
        &mut self,
        now: Instant,
        token: u32,
        padding: u16,
        ends: (SocketAddr, SocketAddr),
    ) {
        let Some(at) = self.path_between(ends) else { return };
        if self.paths[at].pongs_due.len() < MAX_PONGS {
            self.paths[at].pongs_due.push_back(token);
        }
        if padding == 0 && self.is_crossed() {
            self.answer_everywhere(at, token);
        }
        // Sizes are probed when it suits the prober alone.
        self.beat |= padding == 0 && self.is_probed_seldom(at, now);
    }

    /// No path is known to work both ways: one of the others may lead back.
    fn answer_everywhere(&mut self, but: usize, token: u32) {
        let others = self.paths.iter_mut().enumerate().filter(|(at, _)| *at != but);
        for (_, path) in others.filter(|(_, path)| path.pongs_due.len() < MAX_PONGS) {
            path.pongs_due.push_back(token);
        }
    }

    /// Whether either end probed a path that carries nothing, for which it woke this node, since the last call.
    pub(crate) fn take_beat(&mut self) -> bool {
        core::mem::take(&mut self.beat)
    }

    /// The node is awake: paths that are probed seldom are probed now where that would be due until `horizon`. So both
    /// ends' probes of a path come to share their datagrams. Whether there is anything to send.
    pub(crate) fn handle_beat(&mut self, now: Instant, horizon: Instant, probe_all: bool) -> bool {
        self.shrink(now);
        let mut any = false;
        for at in 0..self.paths.len() {
            let path = &self.paths[at];
            let soon = path.next_probe <= horizon && !path.health.adapter_down();
            if soon && self.is_probed(now, probe_all) && self.is_probed_seldom(at, now) {
                self.probe_path(at, now);
                any = true;
            }
        }
        any
    }

    fn probe_path(&mut self, at: usize, now: Instant) {
        self.paths[at].ping_due = true;
        self.paths[at].next_probe = now + self.probe_interval(at, now);
    }

    pub(super) fn handle_pong(
        &mut self,
        now: Instant,
        token: u32,
        ends: (SocketAddr, SocketAddr),
        env: &mut Surroundings<'_>,
    ) {
        let Some(at) = self.path_between(ends) else { return };
        let path = &mut self.paths[at];
        let before = path.mtu.confirmed();
        if let Some(sent) = path.mtu.handle_pong(token, now)
            && path.recovery.is_idle_since(sent)
            && path.recovery.measures(sent)
        {
            if path.rtt.note_full(now.since(sent), now) {
                path.mtu.probe_again(now);
            }
            path.ping_due |= path.rtt.doubts(now.since(sent));
            path.recovery.note_full(&path.rtt, path.datagram());
        }
        if path.mtu.confirmed() != before {
            self.ask_sizing.push(path.id);
        }
        self.look_at_width(at, now, env);
        let path = &mut self.paths[at];
        let Some(ping) = path.pings.iter().position(|&(sent, _)| sent == token) else {
            return self.handle_detoured_pong(now, token, env);
        };
        let (_, sent) = path.pings[ping];
        path.pings.drain(..=ping);
        if path.pings.is_empty() {
            path.pings.shrink_to(1);
        }
        path.answered = path.answered.max(Some(sent));
        if path.recovery.measures(sent) {
            path.rtt.sample(now.since(sent), Duration::ZERO, now);
            if path.recovery.is_idle_since(sent) && !path.mtu.is_probing() {
                path.rtt.note_short(now.since(sent), sent);
            }
        }
        path.recovery.note_pong();
        self.handle_reply(at, now, env);
    }

    /// Traffic leaves a path that carries less than the base datagram, and comes back to one that does again.
    fn look_at_width(&mut self, at: usize, now: Instant, env: &mut Surroundings<'_>) {
        if self.paths[at].note_width(now) {
            self.ask_failover = true;
            self.choose_active(now, env);
        }
    }

    /// The kernel refused a datagram as larger than its link carries. That is no sign of trouble on the path.
    pub(crate) fn handle_too_large(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        size: usize,
        env: &mut Surroundings<'_>,
    ) {
        let Some(at) = self.path_between(ends) else { return };
        let path = &mut self.paths[at];
        let before = path.mtu.confirmed();
        path.mtu.refuse(size, now);
        if path.mtu.confirmed() != before {
            self.ask_sizing.push(path.id);
        }
        self.look_at_width(at, now, env);
    }

    /// A pong for another path's ping. That path keeps the ping: its own pong may be on its way.
    fn handle_detoured_pong(&mut self, now: Instant, token: u32, env: &mut Surroundings<'_>) {
        let asked = |path: &Path| path.pings.iter().any(|&(sent, _)| sent == token);
        if let Some(at) = self.paths.iter().position(asked) {
            self.handle_detour(at, now, env);
        }
    }

    /// A reply to what went by one path came by another. It counts only where no path works both ways, lest it hide
    /// that this one does not.
    pub(super) fn handle_detour(&mut self, at: usize, now: Instant, env: &mut Surroundings<'_>) {
        if self.is_crossed() && apply_health(self.id, &mut self.paths[at], HealthEvent::Detour, now, env) {
            self.ask_failover = true;
            self.choose_active(now, env);
        }
    }

    /// Whether its paths are probed now.
    pub(crate) fn is_probed(&self, now: Instant, all: bool) -> bool {
        all || self.last_traffic.is_some_and(|last| now.since(last) < TRAFFIC_MEMORY)
    }

    /// Whether its paths are probed, and one answers, or is only late.
    pub(crate) fn answers(&self, now: Instant, probe_all: bool) -> bool {
        let up = |path: &Path| matches!(path.state(), PathState::Up | PathState::Suspect);
        self.is_open() && self.is_probed(now, probe_all) && self.paths.iter().any(up)
    }

    /// The smoothed round trip of the path that carries traffic, once measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let path = self.path(self.active?)?;
        path.rtt.measured().map(|(smoothed, ..)| smoothed)
    }

    /// What a few datagrams in a queue take on the path that carries traffic.
    pub(crate) fn queue(&self) -> Duration {
        self.active.and_then(|id| self.path(id)).map(Path::queue).unwrap_or_default()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_deadline(&self, now: Instant, probe_all: bool) -> Option<Instant> {
        let probed = self.is_probed(now, probe_all);
        // What is owed, and sizes to try, wait for a session.
        let open = self.session.is_open();
        let paths = self.paths.iter().filter(|path| !path.health.adapter_down()).flat_map(|path| {
            let has_alternate = self.alternate(path.id, now).is_some();
            [
                path.next_deadline(has_alternate, open),
                probed.then_some(path.next_probe),
                path.health.held_until(now),
            ]
        });
        let acks = self.spaces.iter().filter_map(|space| space.received.ack_deadline()).filter(|_| open);
        let accepted = self.accepted_deadline().filter(|_| open && self.active_index(now).is_some());
        paths.flatten().chain(acks).chain(accepted).chain(self.outbox.next_deadline()).min()
    }

    /// When what was accepted is told in a datagram of its own.
    pub(super) fn accepted_deadline(&self) -> Option<Instant> {
        self.accepted_since.map(|since| since + MAX_ACK_DELAY)
    }

    /// What membership says of the peer: the paths of the dead are probed seldom.
    pub(crate) fn set_alive(&mut self, alive: bool, now: Instant) {
        if alive && !self.alive {
            for path in &mut self.paths {
                path.next_probe = path.next_probe.min(now);
            }
        }
        self.alive = alive;
    }

    /// This node itself was asleep: nobody is late on that account.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.health.forgive(now);
            path.recovery.forgive(now);
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, probe_all: bool, env: &mut Surroundings<'_>) {
        let probed = self.is_probed(now, probe_all);
        for at in 0..self.paths.len() {
            if !self.paths[at].health.adapter_down() {
                self.path_timeout(at, now, probed, env);
            }
        }
        self.outbox.expire(now);
        self.report(env);
        self.shrink(now);
        self.choose_active(now, env);
    }

    /// Gives back memory that a burst took, once there was no traffic for a while.
    fn shrink(&mut self, now: Instant) {
        if !self.shrunk && self.last_traffic.is_none_or(|last| now.since(last) >= IDLE) {
            self.shrunk = true;
            self.inbox.shrink();
            self.outbox.shrink();
            self.paths.iter_mut().for_each(|path| path.recovery.shrink());
        }
    }

    fn path_timeout(&mut self, at: usize, now: Instant, probed: bool, env: &mut Surroundings<'_>) {
        self.check_late(at, now, env);
        let id = self.paths[at].id;
        let has_alternate = self.alternate(id, now).is_some();
        let path = &mut self.paths[at];
        let (reply_timeout, datagram) = (path.reply_timeout(), path.datagram());
        let mut outcome = core::mem::take(env.outcome);
        path.recovery.handle_timeout(&path.rtt, reply_timeout, has_alternate, datagram, now, &mut outcome);
        let alive = path.state() == PathState::Up;
        let before = path.mtu.confirmed();
        path.mtu.handle_timeout(now, path.probe_waits(), alive, path.answered);
        if path.mtu.confirmed() != before {
            self.ask_sizing.push(id);
        }
        self.look_at_width(at, now, env);
        self.settle(at, &outcome, now);
        env.counters.retransmissions += outcome.late.len() as u64;
        self.requeue(outcome.late.iter().copied(), Via::Not(id));
        outcome.clear();
        *env.outcome = outcome;
        let path = &mut self.paths[at];
        if probed && path.next_probe <= now {
            self.probe_path(at, now);
            self.beat |= self.is_probed_seldom(at, now);
        }
    }

    /// Nothing is under way, and nothing was lately.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.last_traffic.is_none_or(|last| now.since(last) >= QUIET) && self.outbox.is_settled()
    }

    /// How often a path is probed: as its policy says, or more seldom where nothing depends on it.
    pub(super) fn probe_interval(&self, at: usize, now: Instant) -> Duration {
        let seldom = if self.alive { QUIET_INTERVAL } else { DEAD_INTERVAL };
        let least = if self.is_probed_seldom(at, now) { seldom } else { Duration::ZERO };
        self.paths[at].probe_interval().max(least)
    }

    /// Nothing depends on the path: it is probed more seldom than its policy says.
    fn is_probed_seldom(&self, at: usize, now: Instant) -> bool {
        !self.alive || self.paths[at].state() == PathState::Up && self.is_quiet(now)
    }

    /// A reply is late: one miss, and the path is asked again at once.
    fn check_late(&mut self, at: usize, now: Instant, env: &mut Surroundings<'_>) {
        let path = &mut self.paths[at];
        let Some(since) = path.health.waiting_since() else { return };
        if now < since + path.reply_timeout() {
            return;
        }
        env.counters.late_replies += 1;
        let changed = apply_health(self.id, path, HealthEvent::Late, now, env);
        match path.state() {
            PathState::Suspect => path.ping_due = true,
            // The next probe asks again.
            PathState::Down | PathState::Unverified => path.health.stop_waiting(),
            PathState::Up => {}
        }
        if !changed {
            return;
        }
        self.ask_failover = true;
        if self.paths[at].state() == PathState::Down {
            self.abandon(at);
        }
    }

    /// The socket refused a datagram: as good as a late reply.
    pub(crate) fn handle_send_failure(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        env: &mut Surroundings<'_>,
    ) {
        if let Some(at) = self.path_between(ends)
            && apply_health(self.id, &mut self.paths[at], HealthEvent::Late, now, env)
        {
            self.ask_failover = true;
            if self.paths[at].state() == PathState::Down {
                self.abandon(at);
            }
            self.choose_active(now, env);
        }
    }
}
