//! What the host keeps for one instance: its limits, and the log it may write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wasmtime::component::Linker;
use wasmtime::{ResourceLimiter, StoreContextMut, Trap};

use crate::bindings::log::Level;
use crate::inspect::CONTRACT_VERSION;
use crate::limits::{LOG_FUEL, Limits};
use crate::lines::LineBudget;

/// The data of an instance's store.
pub struct State {
    plugin: Arc<str>,
    limits: Arc<Limits>,
    memory: Usage,
    table: Usage,
    denied: Option<String>,
    /// What the plugin wrote over time, in all its instances.
    budget: Arc<Mutex<LineBudget>>,
    /// Logged in this call, and written of them.
    lines: u32,
    written: u32,
    last_words: Option<String>,
    /// The last words are not written yet: if the call ends in a crash, its fault has them.
    held: bool,
}

/// How many calls' worth of [`Limits::log_lines`] a plugin may write in a minute.
const CALLS_A_MINUTE: u32 = 4;

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
    pub(crate) fn new(plugin: Arc<str>, limits: Arc<Limits>, budget: Arc<Mutex<LineBudget>>) -> Self {
        Self {
            plugin,
            limits,
            memory: Usage::default(),
            table: Usage::default(),
            denied: None,
            budget,
            lines: 0,
            written: 0,
            last_words: None,
            held: false,
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

    /// Lines logged in this call, left-out ones included.
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
        (self.lines, self.written, self.last_words, self.held) = (0, 0, None, false);
        self.denied = None;
    }

    /// Writes the last words, unless the call's fault tells them, and says how many lines were left out.
    pub(crate) fn end_call(&mut self, told: bool) {
        if told {
            self.held = false;
        }
        self.write_held();
        let left_out = self.budget().handle_end(Instant::now);
        if let Some(left_out) = left_out {
            tracing::warn!(plugin = &*self.plugin, left_out, "the policy logs too much; lines were left out");
        }
    }

    /// Text of a guest made fit for a log: bounded, and on one line without control characters.
    pub(crate) fn clip(&self, text: &str) -> String {
        let end = text.floor_char_boundary(self.limits.log_line_bytes);
        text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn log(&mut self, level: Level, message: &str) {
        self.write_held();
        self.lines = self.lines.saturating_add(1);
        match level {
            Level::Error => (self.last_words, self.held) = (Some(self.clip(message)), true),
            Level::Debug | Level::Info | Level::Warn => self.write(level, message),
        }
    }

    fn write_held(&mut self) {
        if std::mem::take(&mut self.held)
            && let Some(words) = self.last_words.clone()
        {
            self.write(Level::Error, &words);
        }
    }

    /// Writes a line if somebody reads such lines, and if the call and the minute have room for it.
    fn write(&mut self, level: Level, message: &str) {
        let read = match level {
            Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
            Level::Info => tracing::enabled!(tracing::Level::INFO),
            Level::Warn => tracing::enabled!(tracing::Level::WARN),
            Level::Error => tracing::enabled!(tracing::Level::ERROR),
        };
        if !read {
            return;
        }
        let of_call = self.limits.log_lines;
        if self.written >= of_call {
            return self.budget().leave_out();
        }
        if !self.budget().take(Instant::now(), of_call.saturating_mul(CALLS_A_MINUTE)) {
            return;
        }
        self.written += 1;
        let (plugin, message) = (&*self.plugin, self.clip(message));
        match level {
            Level::Debug => tracing::debug!(plugin, "{message}"),
            Level::Info => tracing::info!(plugin, "{message}"),
            Level::Warn => tracing::warn!(plugin, "{message}"),
            Level::Error => tracing::error!(plugin, "{message}"),
        }
    }

    /// Counts and an instant, valid after any panic.
    fn budget(&self) -> MutexGuard<'_, LineBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
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
