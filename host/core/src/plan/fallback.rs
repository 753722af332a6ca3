//! Who owns what when no plugin says so.

use alloc::vec::Vec;
use core::cmp::Reverse;

use overlan_contract::assignment::{Answer, MAX_REPLICAS, Node, Question};

/// The attribute that makes a node take more than its share, or less: a whole number from 1 to
/// [`MAX_CAPACITY`]; [`DEFAULT_CAPACITY`] where it is absent or no such number.
pub const CAPACITY: &str = "capacity";
/// The capacity of an ordinary node.
pub const DEFAULT_CAPACITY: u64 = 100;
/// The largest capacity.
pub const MAX_CAPACITY: u64 = 1_000_000;

/// Weighted rendezvous hashing: each node draws a number for each duty from both names, the highest own it.
/// A node that comes or goes moves only what it gains or loses. Integers only; the same on every host; the
/// answer passes [`validate`](overlan_contract::assignment::validate).
pub fn fallback_assignment(question: &Question) -> Answer {
    let nodes: Vec<(u32, &Node, u64, u64)> = (0u32..)
        .zip(&question.nodes)
        .filter(|(_, node)| node.live)
        .map(|(index, node)| (index, node, hash(node.id.as_bytes(), 0), capacity(node)))
        .collect();
    // The score only grows with the draw: where all weigh the same, the draws alone give the same order.
    let alike = nodes.iter().all(|(.., capacity)| nodes.first().is_some_and(|first| first.3 == *capacity));
    let owners = question.responsibilities.iter().map(|duty| {
        let name = hash(duty.name.as_bytes(), 1);
        let wanted = duty.replicas.min(MAX_REPLICAS) as usize;
        // The highest so far, in order.
        let mut ranked: Vec<(Reverse<(u64, u64)>, u32)> = Vec::with_capacity(wanted.min(nodes.len()));
        for &(index, node, id, capacity) in &nodes {
            let draw = mix(id ^ name);
            let most = if alike { (0, draw) } else { (score_ceiling(draw, capacity), u64::MAX) };
            let full = ranked.len() == wanted;
            // Nearly all are out of the race by a bound of their score.
            if full && ranked.last().is_none_or(|(lowest, _)| Reverse(most) > *lowest) {
                continue;
            }
            if !node.meets(&duty.requires) {
                continue;
            }
            let score = if alike { 0 } else { score(draw, capacity) };
            let entry = (Reverse((score, draw)), index);
            ranked.insert(ranked.partition_point(|other| *other < entry), entry);
            ranked.truncate(wanted);
        }
        ranked.into_iter().map(|(_, index)| index).collect()
    });
    Answer { owners: owners.collect() }
}

fn capacity(node: &Node) -> u64 {
    let text = node.attributes.iter().find(|(key, _)| key == CAPACITY).map(|(_, value)| value);
    text.and_then(|text| text.parse().ok())
        .filter(|value| (1..=MAX_CAPACITY).contains(value))
        .unwrap_or(DEFAULT_CAPACITY)
}

/// `capacity / -log2(draw / 2^64)`: the draw of the weighted rendezvous, in fixed point.
fn score(draw: u64, capacity: u64) -> u64 {
    (capacity << 40) / minus_log2(draw).max(1)
}

/// No score is above it: `1 - u <= -log2(u)`.
fn score_ceiling(draw: u64, capacity: u64) -> u64 {
    (capacity << 40) / (!draw >> (64 - PLACES)).max(1)
}

/// Binary places of a logarithm.
const PLACES: u32 = 20;

/// `-log2(x / 2^64)` with [`PLACES`]: the whole part counts leading zeros, each squaring of the mantissa gives one more place.
fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let zeros = x.leading_zeros();
    let mut mantissa = x << zeros;
    let mut log2 = u64::from(63 - zeros);
    for _ in 0..PLACES {
        let square = u128::from(mantissa) * u128::from(mantissa);
        log2 <<= 1;
        if square >> 127 == 1 {
            log2 |= 1;
            mantissa = (square >> 64) as u64;
        } else {
            mantissa = (square >> 63) as u64;
        }
    }
    (64u64 << PLACES) - log2
}

/// FNV-1a, mixed: short names that differ in one digit must not land near each other.
fn hash(bytes: &[u8], salt: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ salt;
    mix(bytes.iter().fold(start, |h, &byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// The finaliser of SplitMix64.
fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::question;

    #[test]
    fn no_score_is_above_the_ceiling() {
        for turn in 0..100_000_u64 {
            let (draw, capacity) = (mix(turn) >> (turn % 64), 1 + mix(!turn) % MAX_CAPACITY);
            for draw in [draw, !draw] {
                assert!(score(draw, capacity) <= score_ceiling(draw, capacity), "{draw:#x}, {capacity}");
            }
        }
    }

    #[test]
    fn the_highest_scores_own_a_duty() {
        for alike in [false, true] {
            let mut question = question(40, 60);
            if alike {
                question.nodes.iter_mut().for_each(|node| node.attributes.retain(|(key, _)| key != CAPACITY));
            }
            let answer = fallback_assignment(&question);
            for (duty, owners) in question.responsibilities.iter().zip(answer.owners) {
                let may = |(_, node): &(u32, &Node)| node.live && node.meets(&duty.requires);
                let mut ranked: Vec<_> = (0..).zip(&question.nodes).filter(may).collect();
                ranked.sort_by_key(|(_, node)| {
                    let draw = mix(hash(node.id.as_bytes(), 0) ^ hash(duty.name.as_bytes(), 1));
                    Reverse((score(draw, capacity(node)), draw))
                });
                let expected = ranked.iter().map(|&(index, _)| index).take(duty.replicas as usize);
                assert_eq!(owners, expected.collect::<Vec<u32>>(), "{}", duty.name);
            }
        }
    }
}
