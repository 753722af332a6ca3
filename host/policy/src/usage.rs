//! What a plugin has used of what it may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::State;

/// One limit, and the most that the plugin has used of it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// `None` where it is not measured (the stack).
    pub used: Option<u64>,
    /// What it may use.
    pub limit: u64,
    /// It is the same for all plugins and cannot be set.
    #[serde(default)]
    pub fixed: bool,
}

/// High-water marks over the life of a plugin.
#[derive(Clone, Debug, Default)]
pub(crate) struct HighWater {
    pub(crate) compile: Duration,
    pub(crate) start: Duration,
    pub(crate) answer: Duration,
    pub(crate) memory_bytes: usize,
    pub(crate) table_elements: usize,
    pub(crate) answer_bytes: usize,
    pub(crate) answer_items: usize,
    pub(crate) log_lines: u32,
    pub(crate) fuel: FuelUse,
}

/// The most fuel that calls drew of each of the limits it comes from: what a call gets for itself (`fuel_base`) before
/// what it gets for each pair of a node and a responsibility (`fuel_per_pair`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FuelUse {
    pub(crate) base: u64,
    pub(crate) per_pair: u64,
    /// In all.
    pub(crate) most: u64,
}

impl FuelUse {
    /// A call on so many pairs used fuel, `fuel_base` being `base`.
    pub(crate) fn note(&mut self, used: u64, base: u64, pairs: u64) {
        self.base = self.base.max(used.min(base));
        self.per_pair = self.per_pair.max(used.saturating_sub(base).div_ceil(pairs.max(1)));
        self.most = self.most.max(used);
    }
}

impl HighWater {
    /// After a call of the guest, however it ended.
    pub(crate) fn note(&mut self, state: &State) {
        self.memory_bytes = self.memory_bytes.max(state.memory_bytes());
        self.table_elements = self.table_elements.max(state.table_elements());
        self.log_lines = self.log_lines.max(state.log_lines());
    }

    pub(crate) fn note_answer(&mut self, size: AnswerSize) {
        self.answer_items = self.answer_items.max(size.items);
        self.answer_bytes = self.answer_bytes.max(size.bytes);
    }
}

/// How much an answer is, as the component model passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSize {
    /// Elements of all lists in it.
    pub items: usize,
    /// Bytes of these elements.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuel_is_drawn_of_the_base_first() {
        let mut fuel = FuelUse::default();
        fuel.note(400, 500, 0);
        assert_eq!(fuel, FuelUse { base: 400, per_pair: 0, most: 400 });
        fuel.note(531, 500, 10);
        assert_eq!(fuel, FuelUse { base: 500, per_pair: 4, most: 531 });
        fuel.note(10, 500, 1_000);
        assert_eq!(fuel, FuelUse { base: 500, per_pair: 4, most: 531 });
    }
}
