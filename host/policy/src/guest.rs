//! What the host keeps for one instance: its limits, and the log it may write.

use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{ResourceLimiter, StoreContextMut, Trap};

use crate::bindings::log::Level;
use crate::inspect::CONTRACT_VERSION;
use crate::limits::{LOG_FUEL, Limits};

/// The data of an instance's store.
pub struct State {
    plugin: Arc<str>,
    limits: Arc<Limits>,
    memory: Usage,
    table: Usage,
    denied: Option<String>,
    lines: u32,
    last_words: Option<String>,
}

/// Sum over all memories, or all tables, of the instance.
#[derive(Default)]
struct Usage {
    total: usize,
    /// Size of the growth granted last, to be taken back if it fails.
    granted: usize,
}

impl Usage {
    fn grant(&mut self, current: usize, desired: usize, limit: usize) -> bool {
        let delta = desired.saturating_sub(current);
        let fits = self.total.checked_add(delta).is_some_and(|total| total <= limit);
        self.granted = if fits { delta } else { 0 };
        self.total += self.granted;
        fits
    }

    fn take_back(&mut self) {
        self.total -= std::mem::take(&mut self.granted);
    }
}

impl State {
    pub(crate) fn new(plugin: Arc<str>, limits: Arc<Limits>) -> Self {
        Self {
            plugin,
            limits,
            memory: Usage::default(),
            table: Usage::default(),
            denied: None,
            lines: 0,
            last_words: None,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Linear memory that the instance has.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.total
    }

    /// Table elements that the instance has.
    pub(crate) fn table_elements(&self) -> usize {
        self.table.total
    }

    /// Lines logged in this call, dropped ones included.
    pub(crate) fn log_lines(&self) -> u32 {
        self.lines
    }

    /// What it asked for and did not get in this call, as half a sentence.
    pub(crate) fn denied(&self) -> Option<String> {
        self.denied.clone()
    }

    pub(crate) fn last_words(&self) -> Option<String> {
        self.last_words.clone()
    }

    /// Starts the count of log lines anew.
    pub(crate) fn begin_call(&mut self) {
        (self.lines, self.last_words, self.denied) = (0, None, None);
    }

    /// Says how many lines were dropped.
    pub(crate) fn end_call(&self) {
        let dropped = self.lines.saturating_sub(self.limits.log_lines);
        if dropped > 0 {
            tracing::warn!(plugin = &*self.plugin, dropped, "the policy logs too much; lines were dropped");
        }
    }

    /// Text of a guest made fit for a log: bounded, and on one line without control characters.
    pub(crate) fn clip(&self, text: &str) -> String {
        let end = text.floor_char_boundary(self.limits.log_line_bytes);
        text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn log(&mut self, level: Level, message: &str) {
        self.lines = self.lines.saturating_add(1);
        let last = matches!(level, Level::Error);
        if self.lines > self.limits.log_lines && !last {
            return;
        }
        let (plugin, message) = (&*self.plugin, self.clip(message));
        if self.lines <= self.limits.log_lines {
            match level {
                Level::Debug => tracing::debug!(plugin, "{message}"),
                Level::Info => tracing::info!(plugin, "{message}"),
                Level::Warn => tracing::warn!(plugin, "{message}"),
                Level::Error => tracing::error!(plugin, "{message}"),
            }
        }
        if last {
            self.last_words = Some(message);
        }
    }
}

/// Gives policies their log. Where the engine counts fuel, a line takes some for the host's work, so that a loop of them
/// ends after as many on every member.
pub(crate) fn add_log(linker: &mut Linker<State>, metered: bool) -> wasmtime::Result<()> {
    let write = move |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
        if metered {
            let left = store.get_fuel()?.checked_sub(LOG_FUEL + message.len() as u64);
            store.set_fuel(left.unwrap_or(0))?;
            left.ok_or(Trap::OutOfFuel)?;
        }
        store.data_mut().log(level, &message);
        Ok(())
    };
    linker.instance(&format!("overlan:policy/log@{CONTRACT_VERSION}"))?.func_wrap("write", write)
}

/// Growth beyond the limit is refused as the WebAssembly specification has it (`memory.grow`
/// returns -1), so that a guest can cope; that it was refused explains a trap that follows.
impl ResourceLimiter for State {
    fn memory_growing(&mut self, now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = self.memory.grant(now, wanted, self.limits.memory_bytes);
        if !fits {
            let limit = self.limits.memory_bytes;
            self.denied = Some(format!(
                "a memory of {wanted} bytes was refused, the limit memory_bytes is {limit} in all"
            ));
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.take_back();
        Ok(())
    }

    fn table_growing(&mut self, now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = self.table.grant(now, wanted, self.limits.table_elements);
        if !fits {
            let limit = self.limits.table_elements;
            self.denied = Some(format!(
                "a table of {wanted} elements was refused, the limit table_elements is {limit} in all"
            ));
        }
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.table.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }

    fn memories(&self) -> usize {
        self.limits.memories
    }
}
