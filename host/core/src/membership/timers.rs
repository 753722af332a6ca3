//! When membership has something to do. Foca's timers are stretched by the local-health factor of Lifeguard (Dadgar et
//! al., 2018): an observer that runs late itself gives others more time.
//!
//! Probes keep the beat that all else of an idle node goes with (see [`Core`](crate::Core)): a member that is probed
//! probes as well, with the same wake-up, where its own probe would be due soon. What foca's timers would do in vain
//! wakes nobody.

use alloc::vec::Vec;
use core::time::Duration;

use foca::State;
use overlan_wire::{BootId, NodeId};

use super::identity::Identity;
use super::{LONELY_ANNOUNCE, Membership, PROBE_RTT};
use crate::time::Instant;

/// An answer is waited for half as much again as answers took, and this much longer.
const PROBE_SPARE: Duration = Duration::from_millis(50);
/// One that answers probes of its paths meanwhile is given this much more, again and again: what it says is lost or late.
const RESPITE: Duration = Duration::from_millis(500);
/// Timers that may be queued.
const MAX_TIMERS: usize = 65_536;
/// A timer that fires later than this says that the local node is slow.
const SLOW: Duration = Duration::from_millis(100);
/// Largest local-health factor (Lifeguard: 8).
const MAX_HEALTH: u32 = 8;

impl Membership {
    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|(&(at, _), _)| at);
        let indirect = self.indirect.as_ref().map(|&(at, _)| at);
        let gossip = self.gossip_due();
        let announce = self.is_lonely().then_some(self.next_announce);
        let renewal = self.wants_renewal().then_some(self.next_renewal);
        let timers = timer.into_iter().chain(indirect).chain(self.probe_due());
        timers.chain(gossip).chain(announce).chain(renewal).min()
    }

    /// When it has something to do that others can be done together with.
    pub(crate) fn beat_due(&self) -> Option<Instant> {
        let announce = self.is_lonely().then_some(self.next_announce);
        self.probe_due().into_iter().chain(announce).min()
    }

    /// When the next member is to be probed.
    fn probe_due(&self) -> Option<Instant> {
        let &(at, _) = self.probe.as_ref()?;
        Some(if self.leads && self.binding.borrow().probes.answered { at - self.lead } else { at })
    }

    /// When gossip is to be sent, if there is any.
    fn gossip_due(&self) -> Option<Instant> {
        let backlog = self.foca.updates_backlog() + self.foca.custom_broadcast_backlog();
        self.gossip.as_ref().filter(|_| backlog > 0).map(|&(at, _)| at)
    }

    /// Nobody is active, and somebody is wanted; or nobody has answered under the present identity: what two say that
    /// take another at once goes to those that they were.
    fn is_lonely(&self) -> bool {
        !self.left && (self.foca.num_members() == 0 || self.probe.is_none())
    }

    /// Fires what is due. `candidate` is a member of the table to announce to when nobody is active; `answers` says
    /// whether probes of the paths to a member's boot are answered.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        candidate: Option<NodeId>,
        answers: impl Fn(NodeId, BootId) -> bool,
    ) {
        while let Some(entry) = self.timers.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let timer = entry.remove();
            match &timer {
                foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. }
                    if answers(member_id.node(), member_id.boot())
                        && self.is_suspect(member_id, *incarnation) =>
                {
                    self.put_off(timer, now);
                }
                _ => self.fire(timer, now),
            }
        }
        if let Some((_, timer)) = self.indirect.take_if(|&mut (at, _)| at <= now) {
            self.effects.retries.extend(self.ping.take());
            self.fire(timer, now);
        }
        if self.probe_due().is_some_and(|at| at <= now) {
            self.probe(now, true);
        }
        if self.gossip_due().is_some_and(|at| at <= now)
            && let Some((_, timer)) = self.gossip.take()
        {
            self.fire(timer, now);
        }
        if now >= self.next_announce && self.is_lonely() {
            self.next_announce = now + LONELY_ANNOUNCE;
            if let Some(node) = candidate {
                self.announce(now, node);
            }
        }
    }

    /// Lets a suspect live on for a while. Each probe that it misses has a timer of its own: one is enough.
    fn put_off(&mut self, timer: foca::Timer<Identity>, now: Instant) {
        if !self.timers.values().any(|held| *held == timer) {
            self.queue(now + RESPITE, timer);
        }
    }

    /// Whether a member has not objected to a suspicion yet.
    fn is_suspect(&self, identity: &Identity, incarnation: u16) -> bool {
        let mut members = self.foca.iter_membership_state();
        let member = members.find(|member| member.id() == identity);
        member.is_some_and(|member| (member.state(), member.incarnation()) == (State::Suspect, incarnation))
    }

    /// The node is awake for something that can be done together with others: what would be due until `horizon` and
    /// may well be earlier. `leads`: nobody else woke it.
    pub(crate) fn handle_beat(&mut self, now: Instant, horizon: Instant, leads: bool) {
        let announces = |_: &(Instant, u64), timer: &mut foca::Timer<Identity>| {
            matches!(timer, foca::Timer::PeriodicAnnounce(_) | foca::Timer::PeriodicAnnounceDown(_))
        };
        let early: Vec<_> = self.timers.extract_if(..=(horizon, u64::MAX), announces).collect();
        for (_, timer) in early {
            self.fire(timer, now);
        }
        if self.is_lonely() && self.next_announce <= horizon {
            self.next_announce = self.next_announce.min(now);
        }
        // A member that has not answered yet keeps its time to do so.
        if self.binding.borrow().probes.answered && self.probe_due().is_some_and(|at| at <= horizon) {
            self.probe(now, leads);
        }
    }

    /// Lets foca judge the last probe and send the next.
    fn probe(&mut self, now: Instant, leads: bool) {
        let Some((at, timer)) = self.probe.take() else { return };
        self.health = if now.since(at) > SLOW {
            (self.health + 1).min(MAX_HEALTH)
        } else {
            self.health.saturating_sub(1)
        };
        self.leads = leads;
        self.fire(timer, now);
        let target = self.binding.borrow().probes.target();
        self.ping = self.effects.sends.back().filter(|(to, _)| Some(*to) == target).cloned();
        let suspect = self.suspects().find(|member| Some(member.id().node()) == target);
        if let Some(told) = suspect.and_then(|suspect| self.suspicion(suspect)) {
            // Before the probe, so that the answer objects.
            self.effects.sends.push_front(told);
        }
    }

    pub(super) fn fire(&mut self, timer: foca::Timer<Identity>, now: Instant) {
        self.binding.borrow_mut().now = now;
        let result = self.foca.handle_timer(timer, &mut self.effects);
        self.note(result);
        self.settle(now);
    }

    pub(super) fn queue(&mut self, at: Instant, timer: foca::Timer<Identity>) {
        if self.timers.len() >= MAX_TIMERS {
            self.errors += 1;
            return;
        }
        self.timers.insert((at, self.next_timer), timer);
        self.next_timer += 1;
    }

    /// Gives others more time where their answers take longer, and when this node is slow itself (Lifeguard's local
    /// health).
    pub(super) fn stretch(&self, timer: &foca::Timer<Identity>, after: Duration) -> Duration {
        let more = match timer {
            foca::Timer::SendIndirectProbe { probed_id, .. } => self.far(probed_id.node()),
            // An answer by way of others takes as long again.
            foca::Timer::ProbeRandomMember(_) => 2 * self.far_target(),
            // It hears of it, and its objection comes back.
            foca::Timer::ChangeSuspectToDown { member_id, .. } => 2 * self.far(member_id.node()),
            _ => return after,
        };
        // Not both at once: a slow node takes others for far, too.
        after * (1 + self.health) + more
    }

    /// How much more than [`PROBE_RTT`] a member's answer is waited for.
    fn far(&self, node: NodeId) -> Duration {
        let trip = self.binding.borrow().trip(node);
        (trip * 3 / 2 + PROBE_SPARE).saturating_sub(PROBE_RTT)
    }

    /// The same of the member that is probed.
    fn far_target(&self) -> Duration {
        let target = self.binding.borrow().probes.target();
        target.map_or(Duration::ZERO, |node| self.far(node))
    }
}
