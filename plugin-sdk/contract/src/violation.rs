//! What an answer got wrong.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::ops::RangeInclusive;

/// One rule that an answer breaks: the field, the value found, and what would be valid.
///
/// ```
/// use overlan_contract::Violation;
///
/// let rule = "it must be from 1200 to 1472".into();
/// let violation = Violation { field: "datagram".into(), value: "9000".into(), rule };
/// assert_eq!(violation.to_string(), "datagram is 9000; it must be from 1200 to 1472");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; {rule}")]
pub struct Violation {
    /// Path of the field, for example `owners[3][0]`.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What a valid value looks like.
    pub rule: String,
}

/// At most this many violations are reported for one answer; more would only bury the first.
///
/// ```
/// use overlan_contract::MAX_VIOLATIONS;
/// use overlan_contract::failover::{Answer, Mode, Question, validate};
///
/// // Each of these weights is above what is allowed.
/// let answer = Answer { order: vec![], mode: Mode::Spread(vec![u32::MAX; 1_000]), timings: vec![] };
/// assert_eq!(validate(&Question::default(), &answer).unwrap_err().len(), MAX_VIOLATIONS);
/// ```
pub const MAX_VIOLATIONS: usize = 16;

/// Collects violations up to [`MAX_VIOLATIONS`].
#[derive(Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn add(&mut self, field: impl ToString, value: impl ToString, rule: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(Violation { field: field.to_string(), value: value.to_string(), rule: rule.into() });
        }
    }

    /// Adds a violation unless `value` lies in `range`; only then is the field's name put together.
    pub(crate) fn check_range(&mut self, field: impl Display, value: u32, range: RangeInclusive<u32>) {
        if !range.contains(&value) {
            self.add(field, value, alloc::format!("it must be from {} to {}", range.start(), range.end()));
        }
    }

    pub(crate) fn finish(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
