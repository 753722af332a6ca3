//! Deterministic tools for choosing among nodes: a stable hash, a mixer of pairs, and weighted
//! rendezvous costs in fixed point.
//!
//! Everything here is integer arithmetic, so that members on different processors, and a native
//! test and the WASM component, compute the same bits.
//!
//! Weighted rendezvous hashing gives each (node, duty) pair a number `u`, uniform in (0, 1], and the
//! duty to the node with the smallest `-log(u) / weight`: an exponential race, which each node wins
//! with a probability proportional to its weight, and in which the loss of a node moves its duties
//! alone. Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"
//! (IEEE/ACM Transactions on Networking 6(1), 1998); Schindelhauer and Schomaker, "Weighted
//! distributed hash tables" (SPAA 2005), the logarithmic method.
//!
//! ```
//! use overlan_plugin_sdk::score::{Weight, cost, hash, mix};
//!
//! let weights = [1, 3].map(Weight::new);
//! let winner = |duty: u64| {
//!     let duty = hash(2, &duty.to_le_bytes());
//!     (0..2).min_by_key(|&node| cost(mix(hash(1, &[node as u8]), duty), weights[node]))
//! };
//! let won = (0..1_000).filter(|&duty| winner(duty) == Some(1)).count();
//! assert!((700..800).contains(&won), "three of four duties to the heavier");
//! ```

use twox_hash::XxHash64;

/// Hashes bytes with XXH64, a published algorithm: equal on all platforms and in all versions.
///
/// Not keyed against attackers: whoever may choose node ids or names freely can steer it.
///
/// ```
/// assert_eq!(overlan_plugin_sdk::score::hash(0, b"abc"), 0x44bc_2cf5_ad77_0999);
/// ```
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// Mixes two hashes made with different seeds into one of the pair: the finaliser of splitmix64
/// (Steele, Lea and Flood, OOPSLA 2014; constants of Stafford's mix 13). Costs two multiplications, so
/// nodes and duties are hashed once each and only pairs are mixed.
///
/// ```
/// use overlan_plugin_sdk::score::{hash, mix};
///
/// let (node, duty) = (hash(1, b"a"), hash(2, b"shard-7"));
/// assert_ne!(mix(node, duty), mix(hash(1, b"b"), duty));
/// ```
#[inline]
pub const fn mix(node: u64, duty: u64) -> u64 {
    let mut z = node ^ duty;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A node's share in the race, kept as its reciprocal. Depends on nothing but the number it was made
/// of, so that a node that leaves cannot shift the others' costs by rounding.
///
/// ```
/// use overlan_plugin_sdk::score::Weight;
///
/// assert_eq!(Weight::new(0), Weight::new(1));
/// assert_eq!(Weight::new(5_000), Weight::new(Weight::MAX));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    reciprocal: u32,
}

impl Weight {
    /// Largest weight; above it the reciprocal would be too coarse (1 in 65,536 here).
    pub const MAX: u32 = 1_024;

    /// A weight of 1 to [`Weight::MAX`]; others are clamped to that.
    pub const fn new(weight: u32) -> Self {
        let weight = if weight == 0 {
            1
        } else if weight > Self::MAX {
            Self::MAX
        } else {
            weight
        };
        Weight { reciprocal: ((1 << 26) - 1) / weight }
    }
}

/// The cost of a pair: `-log2(u) / weight` in fixed point, where `u = (hash | 1) / 2^64`. The smallest
/// cost wins; break ties by node id.
///
/// ```
/// use overlan_plugin_sdk::score::{Weight, cost, cost_floor, mix};
///
/// let pair = mix(1, 2);
/// assert!(cost(pair, Weight::new(10)) < cost(pair, Weight::new(1)), "the heavier is cheaper");
/// assert!(cost_floor(pair, Weight::new(1)) <= cost(pair, Weight::new(1)));
/// ```
#[inline]
pub const fn cost(hash: u64, weight: Weight) -> u64 {
    // At most 2^38 times less than 2^26.
    negative_log2(hash) * weight.reciprocal as u64
}

/// A lower bound of [`cost`] for one multiplication: `1 - u <= -log2(u)`. Most pairs of a large
/// cluster are out of the race by it.
///
/// ```
/// use overlan_plugin_sdk::score::{Weight, cost, cost_floor, mix};
///
/// let (pair, weight) = (mix(1, 2), Weight::new(3));
/// assert!(cost_floor(pair, weight) <= cost(pair, weight));
/// ```
#[inline]
pub const fn cost_floor(hash: u64, weight: Weight) -> u64 {
    (!hash >> 32) * weight.reciprocal as u64
}

/// A bound of [`cost_floor`] for a bound of [`cost`]: where the floor is above the one, the cost is above the other.
/// For `1 - u <= -ln(u)`, a floor is no more than its cost times `ln(2)`.
#[inline]
pub(crate) const fn floor_of(cost: u64) -> u64 {
    /// `ln(2)` with 32 fractional bits, rounded up.
    const LN_2: u64 = 2_977_044_472;
    // Rounded up, too; below 2^64.
    ((cost >> 32) + 1) * LN_2
}

/// `-log2((hash | 1) / 2^64)` with 32 fractional bits, never below the true value: chords of a concave
/// function, rounded down, lie under it. The relative error stays below 0.5%.
const fn negative_log2(hash: u64) -> u64 {
    let odd = hash | 1;
    let zeros = odd.leading_zeros();
    let normal = odd << zeros;
    let segment = ((normal << 1) >> 56) as usize;
    let within = (normal << 9) >> 32;
    let low = LOG2[segment];
    let fraction = low + (((LOG2[segment + 1] - low) * within) >> 32);
    ((1 + zeros as u64) << 32) - fraction
}

/// `log2(1 + i / 256)` with 32 fractional bits, rounded down.
static LOG2: [u64; 257] = log2_table();

const fn log2_table() -> [u64; 257] {
    let mut table = [0; 257];
    let mut i = 0;
    while i < 256 {
        table[i] = log2_fraction(i as u128);
        i += 1;
    }
    table[256] = 1 << 32;
    table
}

/// Bit by bit: squaring a number of 1 to 2 doubles its logarithm; passing 2 yields a 1.
const fn log2_fraction(i: u128) -> u64 {
    const ONE: u128 = 1 << 63;
    let mut x = ONE + (i << 55);
    let mut fraction = 0;
    let mut bit = 0;
    while bit < 32 {
        x = (x * x) >> 63;
        fraction <<= 1;
        if x >= 2 * ONE {
            fraction |= 1;
            x >>= 1;
        }
        bit += 1;
    }
    fraction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of the xxHash specification and its reference implementation.
        assert_eq!(hash(0, b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(0, b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn the_costs_stay_what_they_were() {
        // A change here moves responsibilities when a cluster is upgraded member by member.
        assert_eq!(mix(1, 2), 2_185_194_620_014_831_856);
        assert_eq!(cost(mix(1, 2), Weight::new(10)), 88_703_844_862_834_656);
        assert_eq!(negative_log2(u64::MAX), 1);
        assert_eq!(negative_log2(0), 64 << 32);
    }

    #[test]
    fn logarithms_are_close_and_never_low() {
        for shift in 0..63 {
            for step in 0..997_u64 {
                let hash = (u64::MAX - step * (u64::MAX / 1_994)) >> shift;
                let truth = 64.0 - ((hash | 1) as f64).log2();
                let found = negative_log2(hash) as f64 / 2_f64.powi(32);
                assert!(found >= truth - 1e-9, "{hash:#x}: {found} < {truth}");
                assert!(found <= truth * 1.005 + 1e-9, "{hash:#x}: {found} > {truth}");
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 2, 10, 87];
        let mut wins = [0_u32; 4];
        for duty in 0..100_000_u64 {
            let duty = hash(7, &duty.to_le_bytes());
            let winner = (0..4)
                .min_by_key(|&node| cost(mix(hash(9, &[node as u8]), duty), Weight::new(weights[node])));
            wins[winner.unwrap()] += 1;
        }
        for (wins, weight) in wins.into_iter().zip(weights) {
            let expected = f64::from(weight) * 1_000.0;
            // Four standard deviations of a binomial count, and the error of the logarithm.
            let tolerance = 4.0 * expected.sqrt() + 0.005 * expected;
            assert!((f64::from(wins) - expected).abs() < tolerance, "{wins} for weight {weight}");
        }
    }

    proptest! {
        #[test]
        fn the_floor_is_a_floor(hash: u64, weight in 0_u32..2_000) {
            let weight = Weight::new(weight);
            prop_assert!(cost_floor(hash, weight) <= cost(hash, weight));
            prop_assert!(cost_floor(hash, weight) <= floor_of(cost(hash, weight)));
        }
    }
}
