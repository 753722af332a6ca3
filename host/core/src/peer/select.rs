//! Which path carries what.

use overlan_contract::failover::{Mode, PathState};
use overlan_wire::PathId;

use super::{Peer, Surroundings};
use crate::crypto::Aead;
use crate::event::Event;
use crate::path::Path;
use crate::time::Instant;

/// Paths that a cluster datagram is tried on at once.
const TRIES: usize = 4;

/// How fit a path is to carry traffic; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// It answers, or is only late, and is not held down.
    Good,
    /// It answers again but must prove itself first.
    HeldDown,
    /// It carries less than the base datagram, which some of what members send needs.
    Narrow,
    /// What it carries is answered by other paths.
    OneWay,
    /// Nothing is known of it: better than nothing.
    Untried,
}

fn fitness(path: &Path, now: Instant) -> Option<Fitness> {
    if path.health.adapter_down() {
        return None;
    }
    match path.state() {
        PathState::Up | PathState::Suspect if path.health.one_way() => Some(Fitness::OneWay),
        PathState::Up | PathState::Suspect if path.is_narrow() => Some(Fitness::Narrow),
        PathState::Up | PathState::Suspect if path.health.held_down(now) => Some(Fitness::HeldDown),
        PathState::Up | PathState::Suspect => Some(Fitness::Good),
        PathState::Unverified => Some(Fitness::Untried),
        PathState::Down => None,
    }
}

impl<A: Aead> Peer<A> {
    /// Ranks the usable paths, the fittest first, then in the policy's order.
    fn rank_paths(&mut self, now: Instant) {
        let mut ranked = core::mem::take(&mut self.ranked);
        let fitness = |at: &usize| self.paths.get(*at).and_then(|path| fitness(path, now));
        ranked.clear();
        ranked.extend(self.order.iter().copied().filter(|at| fitness(at).is_some()));
        ranked.sort_by_key(fitness);
        self.ranked = ranked;
    }

    /// Usable paths, the fittest first, as they were last ranked: whatever has gone since is left out.
    fn ranked(&self, now: Instant) -> impl Iterator<Item = usize> {
        let usable = move |at: &usize| self.paths.get(*at).and_then(|path| fitness(path, now)).is_some();
        self.ranked.iter().copied().filter(usable)
    }

    /// Chooses the path for new traffic again, after states, order or hold-downs changed.
    pub(crate) fn choose_active(&mut self, now: Instant, env: &mut Surroundings<'_>) {
        self.rank_paths(now);
        let Some(&best) = self.ranked.first() else { return };
        let best = &self.paths[best];
        if self.active == Some(best.id) {
            return;
        }
        // A path still being tried does not displace one of the same rank: no flapping before contact.
        let from = self.active.and_then(|id| self.path(id)).map(|path| (path.local, path.remote));
        if from.is_some() {
            env.counters.failovers += 1;
        }
        env.events.push_back(Event::Moved { node: self.id, from, to: (best.local, best.remote) });
        self.active = Some(best.id);
    }

    /// The active path, where it can carry traffic now.
    pub(super) fn active_index(&self, now: Instant) -> Option<usize> {
        let at = self.paths.iter().position(|path| Some(path.id) == self.active)?;
        fitness(&self.paths[at], now).map(|_| at)
    }

    /// The best path other than this one that is known to answer.
    pub(super) fn alternate(&self, than: PathId, now: Instant) -> Option<usize> {
        self.ranked(now).find(|&at| {
            let path = &self.paths[at];
            path.id != than && path.state() == PathState::Up
        })
    }

    /// In spread mode, the path whose turn it is.
    pub(super) fn spread_index(&self, now: Instant) -> Option<usize> {
        self.ranked(now)
            .filter(|&at| {
                let path = &self.paths[at];
                let whole = !path.health.held_down(now) && !path.is_narrow();
                path.weight > 0 && path.state() == PathState::Up && whole
            })
            .min_by_key(|&at| self.paths[at].spread_share)
    }

    /// The other paths that carry copies in active mode.
    pub(super) fn copies(&self, than: PathId) -> alloc::vec::Vec<PathId> {
        if self.mode != Mode::Active {
            return alloc::vec::Vec::new();
        }
        let up = self.paths.iter().filter(|path| path.state() == PathState::Up && path.id != than);
        up.map(|path| path.id).collect()
    }

    /// Whether all paths were tried and none works both ways.
    pub(super) fn is_crossed(&self) -> bool {
        self.paths.iter().all(|path| path.state() == PathState::Down || path.health.one_way())
    }

    pub(super) fn spreads(&self) -> bool {
        matches!(self.mode, Mode::Spread(_))
    }

    pub(crate) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.iter().find(|path| path.id == id)
    }

    /// Place of a path in the policy's order.
    pub(crate) fn rank(&self, id: PathId) -> usize {
        self.order
            .iter()
            .position(|&at| self.paths.get(at).is_some_and(|path| path.id == id))
            .unwrap_or(self.order.len())
    }

    /// Addresses to try for a cluster datagram: the active path alone where it is known to answer, else
    /// every usable path (a few), so that an alternate may bring it through.
    pub(crate) fn cluster_routes(&self, now: Instant) -> alloc::vec::Vec<usize> {
        let mut ranked = self.ranked(now).peekable();
        if let Some(&best) = ranked.peek()
            && self.paths[best].state() == PathState::Up
        {
            return alloc::vec![best];
        }
        let tried: alloc::vec::Vec<usize> = ranked.take(TRIES).collect();
        if !tried.is_empty() {
            return tried;
        }
        self.open_routes()
    }

    /// Whether all its paths are known to be down. One that nothing was ever heard on may work.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.paths.iter().all(|path| path.state() == PathState::Down)
    }

    /// Addresses to try, whatever is known of them: a few that are not down at this end.
    pub(crate) fn open_routes(&self) -> alloc::vec::Vec<usize> {
        let open = |at: &usize| !self.paths[*at].health.adapter_down();
        (0..self.paths.len()).filter(open).take(TRIES).collect()
    }
}
