//! What a guest may use. Every figure has a default that the shipped policies and the Python and
//! JavaScript starters stay well below.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::engine::MAX_STACK_BYTES;

const MIB: u64 = 1 << 20;

/// Limits on one plugin. All members of a cluster must use the same for `assignment`: whether a
/// plan comes about or faults depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest plugin file in bytes. Default 64 MiB: a componentized Python is 18 MB. Compile time
    /// grows with size (about 0.4 s a MB on one core).
    pub file_bytes: usize,
    /// How long a compilation is waited for. Nothing interrupts it: who waits gives up, and it ends
    /// on its thread. Default 120 s.
    pub compile_deadline: Duration,
    /// Linear memory in bytes, all memories of an instance together. Default 256 MiB.
    pub memory_bytes: usize,
    /// Table elements, all tables of an instance together (a pointer each). Default 100,000.
    pub table_elements: usize,
    /// Core instances in one component instance. Default 64: languages link their runtime from
    /// about twenty.
    pub instances: usize,
    /// Linear memories in one component instance; each reserves 4 GiB of address space. Default 8.
    pub memories: usize,
    /// Tables in one component instance. Default 32.
    pub tables: usize,
    /// Fuel for starting an instance, and what every `assignment` question gets before
    /// [`fuel_per_pair`](Self::fuel_per_pair). Most instructions take one, what takes a processor longer takes more (a
    /// branch 3, a call 4, a division 4 to 20); growing a memory or table 255, and as much for each page asked for,
    /// refused or not; a line of the log 1,000, and one for each of its bytes. Default 500,000,000, which a loop of any
    /// one instruction uses up in 0.1 to 0.5 s (measured at 1 to 5 units a nanosecond; interpreters run at 7), but loads
    /// that no cache holds (0.07). Lower finds loops sooner, higher lets slower languages do more.
    pub fuel_base: u64,
    /// Fuel an `assignment` question gets on top for each pair of a node and a responsibility. The
    /// budget thus depends on the question alone and is equal on every member. Default 3,000: the Python and JavaScript
    /// starters take 1,300.
    pub fuel_per_pair: u64,
    /// The most fuel any question gets. Default 4,000,000,000. It must run out before
    /// [`assignment_deadline`](Self::assignment_deadline) is over, as far as that can be.
    pub fuel_max: u64,
    /// How long an `assignment` answer may take, its instance's start included. A backstop that no honest
    /// machine should hit before fuel runs out, because it is not deterministic. Default 60 s; a node, whose
    /// cluster does not wait as long for a plan, lowers it.
    pub assignment_deadline: Duration,
    /// How long an answer of the other kinds may take. Default 250 ms.
    pub deadline: Duration,
    /// How long an instance may take to start and take its configuration. Default 5 s.
    pub start_deadline: Duration,
    /// Bytes that one call may hand to the host as lists and strings, checked before they are
    /// copied. Default 8 MiB; the largest valid answer is under 3 MiB.
    pub answer_bytes: usize,
    /// Elements of all lists in an answer. Default 1,048,576; the largest valid answer has half of that.
    pub answer_items: usize,
    /// Log lines kept of one call, and four times as many of a minute; the rest are counted. Default 16.
    pub log_lines: u32,
    /// Bytes kept of a log line, and of a sentence a plugin refuses with. Default 1,024.
    pub log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            file_bytes: 64 * MIB,
            compile_deadline: Duration::from_secs(120),
            memory_bytes: 256 * MIB,
            table_elements: 100_000,
            instances: 64,
            memories: 8,
            tables: 32,
            fuel_base: 500_000_000,
            fuel_per_pair: 3_000,
            fuel_max: 4_000_000_000,
            assignment_deadline: Duration::from_secs(60),
            deadline: Duration::from_millis(250),
            start_deadline: Duration::from_secs(5),
            answer_bytes: 8 * MIB,
            answer_items: MIB,
            log_lines: 16,
            log_line_bytes: 1_024,
        }
    }
}

/// A limit that a deployer sets by name.
struct Setting {
    name: &'static str,
    range: RangeInclusive<u64>,
    /// Whether an `assignment` answer may depend on it.
    semantic: bool,
    read: fn(&Limits) -> u64,
    write: fn(&mut Limits, u64),
}

/// Each by its name, in the order listings show them.
const SETTINGS: [Setting; 12] = [
    Setting {
        name: "file_bytes",
        range: 1..=64 * MIB,
        semantic: false,
        read: |limits| limits.file_bytes as u64,
        write: |limits, value| limits.file_bytes = value as usize,
    },
    Setting {
        name: "compile_ms",
        range: 1..=3_600_000,
        semantic: false,
        read: |limits| millis(limits.compile_deadline),
        write: |limits, value| limits.compile_deadline = Duration::from_millis(value),
    },
    Setting {
        name: "memory_bytes",
        range: 65_536..=4_096 * MIB,
        semantic: true,
        read: |limits| limits.memory_bytes as u64,
        write: |limits, value| limits.memory_bytes = value as usize,
    },
    Setting {
        name: "table_elements",
        range: 0..=MAX_TABLE_ELEMENTS,
        semantic: true,
        read: |limits| limits.table_elements as u64,
        write: |limits, value| limits.table_elements = value as usize,
    },
    Setting {
        name: "fuel_base",
        range: 1..=MAX_FUEL,
        semantic: true,
        read: |limits| limits.fuel_base,
        write: |limits, value| limits.fuel_base = value,
    },
    Setting {
        name: "fuel_per_pair",
        range: 0..=MAX_FUEL,
        semantic: true,
        read: |limits| limits.fuel_per_pair,
        write: |limits, value| limits.fuel_per_pair = value,
    },
    Setting {
        name: "fuel_max",
        range: 1..=MAX_FUEL,
        semantic: true,
        read: |limits| limits.fuel_max,
        write: |limits, value| limits.fuel_max = value,
    },
    Setting {
        name: "answer_ms",
        range: 1..=600_000,
        semantic: false,
        read: |limits| millis(limits.deadline),
        // A plugin is of one kind, which reads one of them.
        write: |limits, value| {
            limits.deadline = Duration::from_millis(value);
            limits.assignment_deadline = limits.deadline;
        },
    },
    Setting {
        name: "start_ms",
        range: 1..=600_000,
        semantic: false,
        read: |limits| millis(limits.start_deadline),
        write: |limits, value| limits.start_deadline = Duration::from_millis(value),
    },
    Setting {
        name: "answer_bytes",
        range: 64..=64 * MIB,
        semantic: true,
        read: |limits| limits.answer_bytes as u64,
        write: |limits, value| limits.answer_bytes = value as usize,
    },
    Setting {
        name: "answer_items",
        range: 1..=16 * MIB,
        semantic: true,
        read: |limits| limits.answer_items as u64,
        write: |limits, value| limits.answer_items = value as usize,
    },
    Setting {
        name: "log_lines",
        range: 0..=10_000,
        semantic: false,
        read: |limits| limits.log_lines.into(),
        write: |limits, value| limits.log_lines = value as u32,
    },
];

/// Name of the limit [`MAX_STACK_BYTES`], which wasmtime has for an engine, not for a plugin.
pub(crate) const STACK_BYTES: &str = "stack_bytes";
/// The most that `table_elements` can be set to.
pub(crate) const MAX_TABLE_ELEMENTS: u64 = 10_000_000;
/// Fuel that a line of the log takes beside that for its bytes.
pub(crate) const LOG_FUEL: u64 = 1_000;
/// About 40 hours of an endless loop.
const MAX_FUEL: u64 = 100_000_000_000_000;

/// A limit cannot be set so. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is none of this name.
    #[error("there is no limit `{name}`; the limits of a policy are {}", names())]
    Unknown {
        /// The name given.
        name: String,
    },
    /// It is one that all plugins share.
    #[error("the limit {name} is {value} for all plugins and cannot be set")]
    Fixed {
        /// Of the limit.
        name: &'static str,
        /// What it is.
        value: u64,
    },
    /// No sense, or no safety, in this value.
    #[error("the limit {name} is {value}; it must be from {least} to {most}")]
    Range {
        /// Of the limit.
        name: &'static str,
        /// The value given.
        value: u64,
        /// Smallest value it takes.
        least: u64,
        /// Largest value it takes.
        most: u64,
    },
}

impl Limits {
    /// Sets one limit by its name in configuration files; the unit is in the name.
    ///
    /// # Errors
    /// There is no such limit, it cannot be set, or it does not take the value.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitError> {
        if name == STACK_BYTES {
            return Err(LimitError::Fixed { name: STACK_BYTES, value: MAX_STACK_BYTES as u64 });
        }
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| LimitError::Unknown { name: name.to_owned() })?;
        let (least, most) = (*setting.range.start(), *setting.range.end());
        if !setting.range.contains(&value) {
            return Err(LimitError::Range { name: setting.name, value, least, most });
        }
        (setting.write)(self, value);
        Ok(())
    }

    /// The limits that an `assignment` answer may depend on and that are not the default: members
    /// whose plugins are equal but for these may get different answers.
    pub fn semantics(&self) -> Vec<(&'static str, u64)> {
        let default = Limits::default();
        let differs = |setting: &&Setting| (setting.read)(self) != (setting.read)(&default);
        let semantic = SETTINGS.iter().filter(|setting| setting.semantic).filter(differs);
        semantic.map(|setting| (setting.name, (setting.read)(self))).collect()
    }
}

fn names() -> String {
    SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_what_it_wrote() {
        for setting in &SETTINGS {
            for value in [*setting.range.start(), *setting.range.end()] {
                let mut limits = Limits::default();
                limits.set(setting.name, value).unwrap();
                assert_eq!((setting.read)(&limits), value, "{}", setting.name);
            }
            let mut limits = Limits::default();
            let error = limits.set(setting.name, setting.range.end() + 1).unwrap_err();
            assert!(error.to_string().contains(setting.name), "{error}");
            assert_eq!(limits, Limits::default());
        }
        let error = Limits::default().set("fule", 1).unwrap_err().to_string();
        assert!(error.contains("`fule`") && error.contains("fuel_base"), "{error}");
        let fixed = Limits::default().set("stack_bytes", 2 << 20).unwrap_err();
        assert_eq!(fixed.to_string(), "the limit stack_bytes is 1048576 for all plugins and cannot be set");
    }

    #[test]
    fn what_changes_answers_is_named() {
        assert_eq!(Limits::default().semantics(), []);
        let mut limits = Limits::default();
        limits.set("log_lines", 1).unwrap();
        limits.set("answer_ms", 1).unwrap();
        limits.set("fuel_base", 7).unwrap();
        assert_eq!(limits.semantics(), [("fuel_base", 7)]);
    }
}
