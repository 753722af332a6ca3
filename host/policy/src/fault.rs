//! Why a question got no answer.

use std::time::Duration;

use overlan_contract::Violation;
use rustix::io::Errno;
use wasmtime::{Trap, WasmBacktrace};

use crate::guest::State;

/// Why a question got no answer. The instance that failed is gone; the next question gets a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The guest trapped, or broke the rules of the component model.
    #[error("the policy crashed: {cause}{}", after_words(.last_words.as_deref()))]
    Trap {
        /// What happened, and in which function if the file names it.
        cause: String,
        /// The last line it logged as an error in this call, usually the panic message.
        last_words: Option<String>,
    },
    /// The answer was late; the guest was interrupted.
    #[error("the policy was interrupted: no answer within {} ms (limit answer_ms; while it starts, start_ms)", .0.as_millis())]
    Deadline(Duration),
    /// It used up its fuel; the guest was interrupted.
    #[error(
        "the policy was interrupted: it used up its {0} units of fuel without an answer (limits fuel_base, fuel_per_pair and \
         fuel_max)"
    )]
    OutOfFuel(u64),
    /// It failed after asking for more memory, tables or instances than it may have.
    #[error("the policy ran out of what it may use: {0}")]
    MemoryLimit(String),
    /// It handed over more data in one call than the host copies; nothing was copied.
    #[error("the policy handed over more than {0} bytes in one call (limit answer_bytes)")]
    AnswerTooLarge(usize),
    /// Its answer has more list elements than it may have.
    #[error(
        "the policy's answer has {items} list elements, more than the {limit} it may have (limit answer_items)"
    )]
    TooManyItems {
        /// Elements of all lists in the answer.
        items: usize,
        /// The limit.
        limit: usize,
    },
    /// This host lacks what an instance takes; the policy may be sound.
    #[error("this host cannot run the policy: {0}")]
    Host(String),
    /// The policy itself says that it cannot answer (or, on a restart, rejects its configuration).
    #[error("the policy refused: {0}")]
    Refused(String),
    /// The answer breaks rules of the contract.
    #[error("the policy's answer is invalid: {}", first(.0))]
    Invalid(Vec<Violation>),
}

/// The kinds of [`Fault`], for counters and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// [`Fault::Trap`].
    Trap,
    /// [`Fault::Deadline`].
    Deadline,
    /// [`Fault::OutOfFuel`].
    OutOfFuel,
    /// [`Fault::MemoryLimit`].
    MemoryLimit,
    /// [`Fault::AnswerTooLarge`] and [`Fault::TooManyItems`].
    AnswerTooLarge,
    /// [`Fault::Host`].
    Host,
    /// [`Fault::Refused`].
    Refused,
    /// [`Fault::Invalid`].
    Invalid,
}

impl FaultKind {
    /// Its name in listings and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            FaultKind::Trap => "trap",
            FaultKind::Deadline => "deadline",
            FaultKind::OutOfFuel => "out_of_fuel",
            FaultKind::MemoryLimit => "memory_limit",
            FaultKind::AnswerTooLarge => "answer_too_large",
            FaultKind::Host => "host",
            FaultKind::Refused => "refused",
            FaultKind::Invalid => "invalid",
        }
    }
}

impl Fault {
    /// Which counter it belongs to.
    pub const fn kind(&self) -> FaultKind {
        match self {
            Fault::Trap { .. } => FaultKind::Trap,
            Fault::Deadline(_) => FaultKind::Deadline,
            Fault::OutOfFuel(_) => FaultKind::OutOfFuel,
            Fault::MemoryLimit(_) => FaultKind::MemoryLimit,
            Fault::AnswerTooLarge(_) | Fault::TooManyItems { .. } => FaultKind::AnswerTooLarge,
            Fault::Host(_) => FaultKind::Host,
            Fault::Refused(_) => FaultKind::Refused,
            Fault::Invalid(_) => FaultKind::Invalid,
        }
    }

    /// Reads the error of a call, with what the store noticed while it ran.
    pub(crate) fn of_call(error: &wasmtime::Error, state: &State, deadline: Duration, fuel: u64) -> Self {
        // These have no type of their own in wasmtime 48; the words come from its
        // `HostcallFuelExhausted` and `StoreOpaque::bump_resource_counts`.
        let text = error.root_cause().to_string();
        let trap = error.downcast_ref::<Trap>();
        if let Some(lack) = lack(error) {
            return Fault::Host(lack);
        }
        match trap {
            Some(Trap::Interrupt) => return Fault::Deadline(deadline),
            Some(Trap::OutOfFuel) => return Fault::OutOfFuel(fuel),
            _ if text.contains("fuel allocated for hostcalls") => {
                return Fault::AnswerTooLarge(state.limits().answer_bytes);
            }
            _ if text.contains("resource limit exceeded") => return Fault::MemoryLimit(text),
            _ => {}
        }
        if let Some(denied) = state.denied() {
            return Fault::MemoryLimit(denied);
        }
        let mut cause = match trap {
            Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            None => text,
        };
        let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
        if let Some(function) = frames.iter().find_map(|frame| frame.func_name()) {
            cause.push_str(" in ");
            cause.push_str(&state.clip(function));
        }
        Fault::Trap { cause, last_words: state.last_words() }
    }
}

/// What the system refused to the engine, and what to do, where that is why it failed.
pub(crate) fn lack(error: &wasmtime::Error) -> Option<String> {
    let cause = error.root_cause();
    let io = || cause.downcast_ref().and_then(Errno::from_io_error);
    let errno = cause.downcast_ref().copied().or_else(io)?;
    let cure = match errno {
        Errno::MFILE => "raise its limit of open files (`ulimit -n`, `LimitNOFILE=`)",
        Errno::NFILE => "raise the system's limit of open files (`fs.file-max`)",
        _ => "give this host more memory, or raise its limits of it (`ulimit -v`, `vm.max_map_count`)",
    };
    Some(format!("{errno}; {cure}"))
}

fn after_words(words: Option<&str>) -> String {
    words.map(|words| format!(", after it logged: {words}")).unwrap_or_default()
}

/// One rule says what to correct; all of them would be cut where room is short, as between members.
fn first(violations: &[Violation]) -> String {
    match violations {
        [] => String::new(),
        [only] => only.to_string(),
        [first, more @ ..] => format!("{first} (and {} more rules are broken)", more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_rules_the_first_is_told() {
        let violation = |field: &str| Violation {
            field: field.to_owned(),
            value: "9".to_owned(),
            rule: "it must be from 1 to 8".to_owned(),
        };
        let told = |fields: &[&str]| {
            Fault::Invalid(fields.iter().map(|field| violation(field)).collect()).to_string()
        };
        assert_eq!(told(&["a"]), "the policy's answer is invalid: a is 9; it must be from 1 to 8");
        assert!(
            told(&["a", "b", "c"]).ends_with("a is 9; it must be from 1 to 8 (and 2 more rules are broken)")
        );
    }
}
