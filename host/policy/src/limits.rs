//! What a guest may use. Every figure has a default that the shipped policies and the Python and
//! JavaScript starters stay well below.

use std::time::Duration;

/// Limits on one plugin. All members of a cluster must use the same for `assignment`: whether a
/// plan comes about or faults depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest plugin file in bytes. Default 64 MiB: a componentized Python is 18 MB. Compile time
    /// grows with size (about 0.4 s a MB on one core).
    pub file_bytes: usize,
    /// How long a compilation is waited for. Nothing interrupts it: who waits gives up, and it ends on its thread.
    /// Default 120 s.
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
    /// Fuel (about one per instruction) for starting an instance, and what every `assignment`
    /// question gets before [`fuel_per_pair`](Self::fuel_per_pair). Default 1,000,000,000, which an
    /// endless loop burns in 1.5 s (measured at 0.7 units a nanosecond). Lower finds loops sooner, higher lets slower
    /// languages do more.
    pub fuel_base: u64,
    /// Fuel an `assignment` question gets on top for each pair of a node and a responsibility. The
    /// budget thus depends on the question alone and is equal on every member. Default 2,000.
    pub fuel_per_pair: u64,
    /// The most fuel any question gets. Default 20,000,000,000, about half a minute: it must run out
    /// before [`assignment_deadline`](Self::assignment_deadline) does.
    pub fuel_max: u64,
    /// How long an `assignment` answer may take. A backstop that no honest machine should hit
    /// before fuel runs out, because it is not deterministic. Default 60 s.
    pub assignment_deadline: Duration,
    /// How long an answer of the other kinds may take. Default 250 ms.
    pub deadline: Duration,
    /// How long an instance may take to start and take its configuration. Default 5 s.
    pub start_deadline: Duration,
    /// Bytes that one call may hand to the host as lists and strings, checked before they are
    /// copied. Default 8 MiB; the largest valid answer is under 3 MiB.
    pub answer_bytes: usize,
    /// Log lines kept of one call; the rest are counted. Default 16.
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
            fuel_base: 1_000_000_000,
            fuel_per_pair: 2_000,
            fuel_max: 20_000_000_000,
            assignment_deadline: Duration::from_secs(60),
            deadline: Duration::from_millis(250),
            start_deadline: Duration::from_secs(5),
            answer_bytes: 8 * MIB,
            log_lines: 16,
            log_line_bytes: 1_024,
        }
    }
}
