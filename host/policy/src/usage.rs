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
    /// Fuel of the answer that came nearest to its budget, and that budget.
    pub(crate) fuel: Option<(u64, u64)>,
}

impl HighWater {
    /// After a call of the guest, however it ended.
    pub(crate) fn note(&mut self, state: &State) {
        self.memory_bytes = self.memory_bytes.max(state.memory_bytes());
        self.table_elements = self.table_elements.max(state.table_elements());
        self.log_lines = self.log_lines.max(state.log_lines());
    }

    pub(crate) fn note_fuel(&mut self, used: u64, budget: u64) {
        let nearer = |(known, of): (u64, u64)| {
            u128::from(used) * u128::from(of) >= u128::from(known) * u128::from(budget)
        };
        if self.fuel.is_none_or(nearer) {
            self.fuel = Some((used, budget));
        }
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
