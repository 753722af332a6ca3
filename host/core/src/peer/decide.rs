//! Policy questions about the peer's paths, and what the answers change.

use alloc::vec::Vec;
use core::time::Duration;

use overlan_contract::failover::Mode;
use overlan_contract::{failover, sizing};
use overlan_wire::{Adapter, PathId};

use super::{Peer, SETTLING, SETTLING_PAUSE, Surroundings};
use crate::crypto::Aead;
use crate::path::Path;
use crate::table::{adapter_at, contract_adapter};
use crate::time::Instant;

/// Where nothing is sent, round trips are news at most this often.
const QUIET_PAUSE: Duration = Duration::from_secs(10);

impl<A: Aead> Peer<A> {
    /// Applies a sizing decision.
    pub(crate) fn apply_sizing(&mut self, path: PathId, answer: sizing::Answer) {
        if let Some(path) = self.paths.iter_mut().find(|held| held.id == path) {
            path.sizing = answer;
        }
    }

    /// Applies a failover decision about the paths that were asked about.
    pub(crate) fn apply_failover(
        &mut self,
        now: Instant,
        asked: &[PathId],
        answer: &failover::Answer,
        env: &mut Surroundings<'_>,
    ) {
        let position = |id: PathId| asked.iter().position(|&asked| asked == id);
        for own in 0..self.paths.len() {
            let Some(at) = position(self.paths[own].id) else { continue };
            self.paths[own].timing = answer.timings[at];
            let latest = now + self.probe_interval(own, now);
            let path = &mut self.paths[own];
            path.next_probe = path.next_probe.min(latest);
            if let Mode::Spread(weights) = &answer.mode {
                path.weight = weights[at];
            }
        }
        // Paths that appeared meanwhile keep table order behind the others.
        let rank = |path: &Path| {
            position(path.id).and_then(|at| answer.order.iter().position(|&index| index as usize == at))
        };
        let mut order: Vec<usize> = (0..self.paths.len()).collect();
        order.sort_by_key(|&at| rank(&self.paths[at]).unwrap_or(usize::MAX));
        self.order = order;
        if self.mode == Mode::Active && answer.mode != Mode::Active {
            self.paths.iter().for_each(|path| self.outbox.drop_copies(path.id));
        }
        self.mode = answer.mode.clone();
        self.choose_active(now, env);
    }

    /// Whether facts changed enough to ask again: a state at once, round trips after `pause`.
    pub(crate) fn wants_failover(&self, now: Instant, pause: Duration) -> bool {
        let Some((asked, spoken_of)) = &self.last_question else { return !self.paths.is_empty() };
        let pause = if self.is_quiet(now) { QUIET_PAUSE } else { pause };
        let recent = |path: &Path| now.since(path.health.since()) < SETTLING;
        self.ask_failover
            || now.since(*asked) >= pause && *spoken_of != self.coarse_rtts()
            || now.since(*asked) >= SETTLING_PAUSE && self.paths.iter().any(recent)
    }

    /// Round trips with their spread in steps of about a quarter: what a reply timeout, which is never below a
    /// millisecond, depends on.
    fn coarse_rtts(&self) -> Vec<u32> {
        let coarse = |path: &Path| {
            let (smoothed, variance, _) = path.rtt.measured()?;
            let micros = (smoothed + 4 * variance).as_micros().max(1_000);
            let exponent = micros.ilog2();
            Some(exponent * 4 + (micros >> (exponent - 2)) as u32 % 4)
        };
        self.paths.iter().map(|path| coarse(path).unwrap_or(0)).collect()
    }

    /// The failover question as facts stand, with the adapters that the paths were paired of.
    pub(crate) fn failover_question(
        &mut self,
        now: Instant,
        seed: u64,
        adapters: (&[Adapter], &[Adapter]),
    ) -> Option<failover::Question> {
        let micros = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        let paths = self.paths.iter().map(|path| {
            let (local, remote) = ends(path, adapters)?;
            Some(failover::Path {
                local,
                remote,
                rtt: path.rtt.measured().map(|(smoothed, variance, min)| failover::Rtt {
                    smoothed_us: micros(smoothed),
                    variance_us: micros(variance),
                    min_us: micros(min),
                }),
                loss_ppm: path.recovery.loss_ppm(),
                state: path.state(),
                since_ms: u64::try_from(now.since(path.health.since()).as_millis()).unwrap_or(u64::MAX),
                flaps: path.flaps(now),
                attributes: Vec::new(),
            })
        });
        let paths = paths.collect::<Option<_>>()?;
        self.ask_failover = false;
        self.last_question = Some((now, self.coarse_rtts()));
        Some(failover::Question { paths, seed, attributes: Vec::new() })
    }

    /// The sizing question for one path, with the adapters that the paths were paired of.
    pub(crate) fn sizing_question(
        &self,
        path: PathId,
        adapters: (&[Adapter], &[Adapter]),
    ) -> Option<sizing::Question> {
        let path = self.path(path)?;
        let (local, remote) = ends(path, adapters)?;
        let discovered = path.mtu.confirmed() > overlan_wire::limits::BASE_DATAGRAM;
        Some(sizing::Question {
            local,
            remote,
            path_mtu: discovered.then(|| path.mtu.confirmed() as u32 + path.overhead()),
            rtt_us: path
                .rtt
                .measured()
                .map(|(smoothed, ..)| u32::try_from(smoothed.as_micros()).unwrap_or(u32::MAX)),
            loss_ppm: path.recovery.loss_ppm(),
            overhead: path.overhead(),
            attributes: Vec::new(),
        })
    }
}

/// What policies see of a path's two ends, among ours and the peer's.
fn ends(
    path: &Path,
    (ours, theirs): (&[Adapter], &[Adapter]),
) -> Option<(overlan_contract::Adapter, overlan_contract::Adapter)> {
    let ends = (adapter_at(ours, path.local)?, adapter_at(theirs, path.remote)?);
    Some((contract_adapter(ends.0), contract_adapter(ends.1)))
}
