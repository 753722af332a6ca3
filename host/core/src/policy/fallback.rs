//! The native fallback of each kind: what stands while no plugin has given a valid answer. The one for
//! assignment is [`plan::fallback`](crate::plan).

use overlan_contract::failover::{Answer, Mode, PathState, Question, Rtt, Timing};
use overlan_contract::sizing;

/// Datagrams as large as the link carries, 64 of them in a burst: what one segmented send of the kernel takes.
pub fn sizing(mtu: u32, overhead: u32) -> sizing::Answer {
    let datagram = mtu.saturating_sub(overhead).clamp(sizing::MIN_DATAGRAM, sizing::MAX_DATAGRAM);
    sizing::Answer { datagram, coalesce: datagram, burst: (64 * datagram).clamp(datagram, sizing::MAX_BURST) }
}

/// Probes each 200 ms; a reply is late after twice the round trip and its spread, at least 20 ms;
/// three misses; hold-down of 5 s, doubled by each flap up to 5 minutes.
pub fn timing(rtt: Option<Rtt>, flaps: u32) -> Timing {
    let reply_timeout_us = rtt.map_or(100_000, |rtt| {
        let spread = rtt.variance_us.saturating_mul(4).max(1_000);
        rtt.smoothed_us
            .saturating_mul(2)
            .saturating_add(spread)
            .saturating_add(10_000)
            .clamp(20_000, 1_000_000)
    });
    let hold_down_ms = 5_000u32.saturating_mul(1 << flaps.saturating_sub(1).min(6)).min(300_000);
    Timing { probe_interval_us: 200_000, reply_timeout_us, misses: 3, hold_down_ms }
}

/// Table order, dead paths last, passive.
pub fn failover(question: &Question) -> Answer {
    let mut order: alloc::vec::Vec<u32> = (0..question.paths.len() as u32).collect();
    order.sort_by_key(|&index| question.paths[index as usize].state == PathState::Down);
    let timings = question.paths.iter().map(|path| timing(path.rtt, path.flaps)).collect();
    Answer { order, mode: Mode::Passive, timings }
}
