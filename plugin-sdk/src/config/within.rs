//! Numbers that lie in their range by construction.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

/// A whole number from `MIN` to `MAX`, both included.
///
/// ```
/// use overlan_plugin_sdk::Within;
///
/// const INTERVAL_MS: Within<10, 60_000> = Within::new(200);
/// assert_eq!(INTERVAL_MS.value(), 200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Within<MIN, MAX> {
    /// A value known to lie in the range, for defaults.
    ///
    /// # Panics
    /// When it does not; at compile time where it is a constant.
    pub const fn new(value: u32) -> Self {
        assert!(MIN <= value && value <= MAX, "the value lies outside the range");
        Within(value)
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WithinVisitor)
    }
}

/// Reads the number from a string, so that every error can name the range.
struct WithinVisitor<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Visitor<'_> for WithinVisitor<MIN, MAX> {
    type Value = Within<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.parse() {
            Ok(value) if (MIN..=MAX).contains(&value) => Ok(Within(value)),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
