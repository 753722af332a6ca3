//! What the program logs, and how much of it.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place in the code that are logged at once: more than a cluster of some hundred members logs of its
/// paths as it comes up.
const BURST: u32 = 1_000;
/// After them, one each.
const PAUSE: Duration = Duration::from_millis(200);

/// Logs to standard error from now on: by `RUST_LOG`, or else from this level on.
pub(crate) fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(Limited::default())
        .init();
}

/// Lets each place in the code log [`BURST`] lines at once and one each [`PAUSE`], so that what happens all the time (a
/// link that flaps, another node with the same identity) does not fill disks and hide the rest. What is left out is
/// counted.
#[derive(Default)]
struct Limited {
    format: Format,
    places: Mutex<HashMap<Identifier, Allowance>>,
}

impl<S, N> FormatEvent<S, N> for Limited
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let allowed = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            places.entry(event.metadata().callsite()).or_insert_with(|| Allowance::new(now)).take(now)
        };
        let Some(left_out) = allowed else { return Ok(()) };
        if left_out > 0 {
            writeln!(to, "({left_out} lines like the next one were left out: they came too often)")?;
        }
        self.format.format_event(ctx, to, event)
    }
}

/// What a place may log.
struct Allowance {
    lines: u32,
    /// When the last line was added.
    added: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { lines: BURST, added: now, left_out: 0 }
    }

    /// Takes a line: how many were left out before it, or none where it is left out itself.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let more = now.duration_since(self.added).as_nanos() / PAUSE.as_nanos();
        let more = u32::try_from(more).unwrap_or(BURST).min(BURST);
        if more > 0 {
            self.lines = (self.lines + more).min(BURST);
            self.added = if self.lines == BURST { now } else { self.added + PAUSE * more };
        }
        if let Some(lines) = self.lines.checked_sub(1) {
            self.lines = lines;
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_then_a_line_each_pause() {
        let begun = Instant::now();
        let mut allowance = Allowance::new(begun);
        for _ in 0..BURST {
            assert_eq!(allowance.take(begun), Some(0));
        }
        assert_eq!(allowance.take(begun), None);
        assert_eq!(allowance.take(begun + PAUSE / 2), None);
        assert_eq!(allowance.take(begun + PAUSE), Some(2));
        assert_eq!(allowance.take(begun + PAUSE * 3 / 2), None);
        // What half a pause saved is not lost.
        assert_eq!(allowance.take(begun + PAUSE * 2), Some(1));
        let rested = begun + PAUSE * (BURST + 7);
        for _ in 0..BURST {
            assert_eq!(allowance.take(rested), Some(0));
        }
        assert_eq!(allowance.take(rested), None);
    }
}
