//! What a policy may say while it works.

use std::cell::RefCell;

/// Severity of a line.
///
/// ```
/// use overlan_plugin_sdk::Level;
///
/// assert!(Level::Error > Level::Debug);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For the policy's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd; the answer stands.
    Warn,
    /// Something is wrong.
    Error,
}

/// Where lines go: the node's log under the host, a [`Recorder`] in tests.
///
/// The host keeps at most 1,024 bytes of a line, so many lines of a call and of a minute (limit `log_lines`), and counts the
/// others.
///
/// ```
/// use overlan_plugin_sdk::{Level, Log, Recorder};
///
/// fn smallest(mtu: u32, log: &dyn Log) -> bool {
///     if mtu < 1_280 {
///         log.warn(&format!("an MTU of {mtu} is below what IPv6 needs"));
///     }
///     mtu < 1_280
/// }
///
/// let log = Recorder::default();
/// assert!(smallest(576, &log) && log.lines()[0].0 == Level::Warn);
/// ```
pub trait Log {
    /// Writes one line.
    fn write(&self, level: Level, message: &str);

    /// Writes a line for the policy's author.
    fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }

    /// Writes a line worth knowing.
    fn info(&self, message: &str) {
        self.write(Level::Info, message);
    }

    /// Writes that something is odd.
    fn warn(&self, message: &str) {
        self.write(Level::Warn, message);
    }

    /// Writes that something is wrong.
    fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }
}

/// Drops every line.
///
/// ```
/// use overlan_plugin_sdk::{Discard, Log};
///
/// Discard.error("nobody hears it");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Log for Discard {
    fn write(&self, _: Level, _: &str) {}
}

/// Keeps every line, for tests to look at.
///
/// ```
/// use overlan_plugin_sdk::{Level, Log, Recorder};
///
/// let log = Recorder::default();
/// log.warn("odd");
/// assert_eq!(log.lines(), [(Level::Warn, "odd".to_owned())]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    lines: RefCell<Vec<(Level, String)>>,
}

impl Recorder {
    /// The lines so far, oldest first.
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.lines.borrow().clone()
    }
}

impl Log for Recorder {
    fn write(&self, level: Level, message: &str) {
        self.lines.borrow_mut().push((level, message.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorder_keeps_order_and_level() {
        let log = Recorder::default();
        log.debug("a");
        log.info("b");
        log.warn("c");
        log.error("d");
        let expected = [(Level::Debug, "a"), (Level::Info, "b"), (Level::Warn, "c"), (Level::Error, "d")];
        assert_eq!(log.lines(), expected.map(|(level, line)| (level, line.to_owned())));
    }
}
