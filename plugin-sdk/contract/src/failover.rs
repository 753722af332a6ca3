//! The order of the paths to a peer, and when a path is late or dead.
//!
//! ```
//! use std::ops::RangeInclusive;
//!
//! use overlan_contract::failover::{HOLD_DOWN_MS, MAX_PATHS, MISSES, PROBE_INTERVAL_US, REPLY_TIMEOUT_US};
//! use overlan_contract::failover::{Timing, WEIGHT};
//!
//! let within = |value: u32, range: RangeInclusive<u32>| value.clamp(*range.start(), *range.end());
//! let timing = Timing {
//!     probe_interval_us: within(5_000, PROBE_INTERVAL_US),
//!     reply_timeout_us: within(2_500, REPLY_TIMEOUT_US),
//!     misses: within(0, MISSES),
//!     hold_down_ms: within(86_400_000, HOLD_DOWN_MS),
//! };
//! assert_eq!((timing.probe_interval_us, timing.misses, timing.hold_down_ms), (10_000, 1, 3_600_000));
//! // What a strategy may count on: the weights of all paths add up in 32 bits.
//! assert!(WEIGHT.end().checked_mul(MAX_PATHS as u32).is_some());
//! ```

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::violation::Violations;
use crate::{Adapter, Attributes, Violation};

/// Most paths one question may carry.
pub const MAX_PATHS: usize = 64;
/// Probe interval in microseconds: 10 ms to 60 s.
pub const PROBE_INTERVAL_US: core::ops::RangeInclusive<u32> = 10_000..=60_000_000;
/// Reply timeout in microseconds: 1 ms (RFC 9002 granularity) to 60 s.
pub const REPLY_TIMEOUT_US: core::ops::RangeInclusive<u32> = 1_000..=60_000_000;
/// Missed replies in a row before a path is down.
pub const MISSES: core::ops::RangeInclusive<u32> = 1..=100;
/// Hold-down in milliseconds: 0 to one hour.
pub const HOLD_DOWN_MS: core::ops::RangeInclusive<u32> = 0..=3_600_000;
/// Weight of a path in [`Mode::Spread`].
pub const WEIGHT: core::ops::RangeInclusive<u32> = 0..=1_000_000;

/// What this observer knows of a path.
///
/// ```
/// use overlan_contract::failover::PathState::{Down, Suspect, Up, Unverified};
///
/// // A path whose reply is late is still better than one that never gave any.
/// let rank = |state| [Up, Suspect, Unverified, Down].iter().position(|&liked| liked == state);
/// let mut states = [Down, Unverified, Suspect, Up];
/// states.sort_by_key(|&state| rank(state));
/// assert_eq!(states, [Up, Suspect, Unverified, Down]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathState {
    /// No reply was ever heard on it.
    Unverified,
    /// Replies arrive in time.
    Up,
    /// A reply is late, fewer than `misses` in a row.
    Suspect,
    /// `misses` replies in a row are missing, or an adapter at one end is down.
    Down,
}

/// Round-trip time, in microseconds (RFC 9002 section 5).
///
/// ```
/// use overlan_contract::failover::{REPLY_TIMEOUT_US, Rtt};
///
/// let rtt = Rtt { smoothed_us: 20_000, variance_us: 500, min_us: 18_000 };
/// // The probe timeout of RFC 9002 section 6.2.1.
/// let margin = rtt.variance_us.saturating_mul(4).max(*REPLY_TIMEOUT_US.start());
/// assert_eq!(rtt.smoothed_us.saturating_add(margin), 22_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtt {
    /// Smoothed.
    pub smoothed_us: u32,
    /// Mean deviation.
    pub variance_us: u32,
    /// Smallest seen.
    pub min_us: u32,
}

/// One path: from a local adapter to a remote address.
///
/// ```
/// use overlan_contract::failover::{HOLD_DOWN_MS, Path, PathState};
///
#[doc = eth0!()]
/// let path = Path {
///     local: eth0.clone(),
///     remote: eth0,
///     rtt: None,
///     loss_ppm: 0,
///     state: PathState::Up,
///     since_ms: 60_000,
///     flaps: 3,
///     attributes: vec![],
/// };
/// // The more often it went down, the longer it must stay well before traffic returns.
/// let hold_down_ms = 5_000_u32.saturating_mul(1 << path.flaps.min(10)).min(*HOLD_DOWN_MS.end());
/// assert_eq!(hold_down_ms, 40_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// The adapter it leaves by.
    pub local: Adapter,
    /// The peer's adapter it arrives at.
    pub remote: Adapter,
    /// Round-trip time, once measured.
    pub rtt: Option<Rtt>,
    /// Loss over the recent past in packets per million, 0..=1_000_000.
    #[serde(default)]
    pub loss_ppm: u32,
    /// What this observer knows of it.
    pub state: PathState,
    /// Milliseconds since the state last changed.
    pub since_ms: u64,
    /// How often it went down in the last ten minutes.
    #[serde(default)]
    pub flaps: u32,
    /// Facts without a field of their own.
    #[serde(default)]
    pub attributes: Attributes,
}

/// The question, for all paths to one peer.
///
/// ```
/// use overlan_contract::failover::{Path, Question};
///
#[doc = path!()]
/// let lossy = Path { loss_ppm: 20_000, ..path.clone() };
/// let question = Question { paths: vec![lossy, path], ..Question::default() };
/// let mut order: Vec<u32> = (0..question.paths.len() as u32).collect();
/// order.sort_by_key(|&index| question.paths[index as usize].loss_ppm);
/// assert_eq!(order, [1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// In table order: for each of the peer's addresses in its order of preference, the local
    /// adapters in ours.
    pub paths: Vec<Path>,
    /// For strategies that want to break ties at random.
    #[serde(default)]
    pub seed: u64,
    /// Facts without a field of their own.
    #[serde(default)]
    pub attributes: Attributes,
}

/// How traffic uses the paths.
///
/// ```
/// use overlan_contract::failover::{Mode, WEIGHT};
///
/// /// In proportion to the speed of the paths in Mbit/s, where all are known.
/// fn mode(speeds: &[u32]) -> Mode {
///     match speeds.contains(&0) {
///         true => Mode::Passive,
///         false => Mode::Spread(speeds.iter().map(|&speed| speed.min(*WEIGHT.end())).collect()),
///     }
/// }
///
/// assert_eq!(mode(&[1_000, 10_000]), Mode::Spread(vec![1_000, 10_000]));
/// assert_eq!(mode(&[1_000, 0]), Mode::Passive);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The first usable path in order carries all.
    Passive,
    /// Every usable path carries everything; the receiver drops the copies.
    Active,
    /// Traffic is spread over the usable paths by weight, one for each path in question order.
    Spread(Vec<u32>),
}

/// Timing of one path.
///
/// ```
/// use overlan_contract::failover::Timing;
///
/// let usual = Timing { probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000 };
/// // A lossy path gets more chances, in the same time.
/// let lossy = Timing { misses: 6, probe_interval_us: usual.probe_interval_us / 2, ..usual };
/// assert_eq!(lossy.misses * lossy.probe_interval_us, usual.misses * usual.probe_interval_us);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// How often the path is probed, in microseconds; see [`PROBE_INTERVAL_US`].
    pub probe_interval_us: u32,
    /// When a reply is late, in microseconds; see [`REPLY_TIMEOUT_US`].
    pub reply_timeout_us: u32,
    /// Late replies in a row before the path is down; see [`MISSES`].
    pub misses: u32,
    /// How long a path that came back must stay well before traffic returns, in milliseconds; see
    /// [`HOLD_DOWN_MS`].
    pub hold_down_ms: u32,
}

/// The answer.
///
/// ```
/// use overlan_contract::failover::{Answer, Mode, Timing};
///
/// let timing = Timing { probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000 };
/// let answer = Answer { order: vec![2, 0, 1], mode: Mode::Passive, timings: vec![timing; 3] };
/// // While path 2 is down, all goes by path 0.
/// let usable = [true, true, false];
/// assert_eq!(answer.order.iter().find(|&&path| usable[path as usize]), Some(&0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// All paths, as indices into the question, most preferred first.
    pub order: Vec<u32>,
    /// How traffic uses them.
    pub mode: Mode,
    /// One for each path, in question order.
    pub timings: Vec<Timing>,
}

/// Checks an answer as if it had come from the network.
///
/// ```
/// # use overlan_contract::failover::{Answer, Mode, Question, Timing, validate};
#[doc = path!()]
/// # let timing = Timing { probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000 };
/// let question = Question { paths: vec![path; 2], ..Question::default() };
/// let answer = |order: &[u32]| Answer { order: order.into(), mode: Mode::Active, timings: vec![timing; 2] };
/// assert_eq!(validate(&question, &answer(&[1, 0])), Ok(()));
/// let violations = validate(&question, &answer(&[1, 1])).unwrap_err();
/// assert_eq!(violations[0].to_string(), "order[1] is 1; each path is named once");
/// ```
///
/// # Errors
/// The rules it breaks: `order` is a permutation, one timing for each path, all in range.
pub fn validate(question: &Question, answer: &Answer) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    let count = question.paths.len();
    check_order(count, &answer.order, &mut violations);
    if let Mode::Spread(weights) = &answer.mode {
        if weights.len() != count {
            violations.add("mode.spread", format!("a list of {}", weights.len()), one_for_each(count));
        } else if count > 0 && weights.iter().all(|&weight| weight == 0) {
            violations.add("mode.spread", "all zero", "some path needs a weight above 0");
        }
        for (index, &weight) in weights.iter().enumerate() {
            violations.check_range(format_args!("mode.spread[{index}]"), weight, WEIGHT);
        }
    }
    if answer.timings.len() != count {
        violations.add("timings", format!("a list of {}", answer.timings.len()), one_for_each(count));
    }
    for (index, timing) in answer.timings.iter().enumerate() {
        violations.check_range(
            format_args!("timings[{index}].probe_interval_us"),
            timing.probe_interval_us,
            PROBE_INTERVAL_US,
        );
        violations.check_range(
            format_args!("timings[{index}].reply_timeout_us"),
            timing.reply_timeout_us,
            REPLY_TIMEOUT_US,
        );
        violations.check_range(format_args!("timings[{index}].misses"), timing.misses, MISSES);
        violations.check_range(
            format_args!("timings[{index}].hold_down_ms"),
            timing.hold_down_ms,
            HOLD_DOWN_MS,
        );
    }
    violations.finish()
}

fn check_order(count: usize, order: &[u32], violations: &mut Violations) {
    if order.len() != count {
        violations.add("order", format!("a list of {}", order.len()), one_for_each(count));
    }
    let mut seen = vec![false; count];
    for (place, &path) in order.iter().enumerate().take(count) {
        match seen.get_mut(path as usize) {
            None => {
                violations.add(format!("order[{place}]"), path, format!("path indices are below {count}"))
            }
            Some(true) => violations.add(format!("order[{place}]"), path, "each path is named once"),
            Some(place) => *place = true,
        }
    }
}

fn one_for_each(count: usize) -> alloc::string::String {
    format!("it must have one entry for each of the {count} paths")
}
