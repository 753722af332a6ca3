//! What the control API tells of policies, and why one was not changed.

use overlan_contract::{Attributes, Kind};
use serde::{Deserialize, Serialize};

/// One kind of policy, as the control API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Which decision.
    pub kind: Kind,
    /// The active plugin: `builtin:NAME` or a file's name; `native` where the fallback answers.
    pub plugin: String,
    /// SHA-256 of the component; empty for the native fallback.
    pub sha256: String,
    /// What it was configured with.
    pub config: Attributes,
    /// The plugin that a rollback brings back.
    pub previous: Option<String>,
    /// `closed` (it is asked), `open` or `half-open` (it failed too often).
    pub breaker: String,
    /// Questions put to it.
    pub questions: u64,
    /// Valid answers.
    pub answers: u64,
    /// Failures of any sort.
    pub faults: u64,
    /// The last of them.
    pub last_fault: Option<String>,
    /// Microseconds that the last answer took.
    pub last_us: u64,
    /// The longest of them.
    pub max_us: u64,
    /// Units of fuel of the last answer, where the kind is metered.
    pub fuel: Option<u64>,
}

impl PolicyStatus {
    /// Of a kind that no plugin answers.
    pub(super) fn native(kind: Kind) -> Self {
        PolicyStatus {
            kind,
            plugin: "native".to_owned(),
            sha256: String::new(),
            config: Vec::new(),
            previous: None,
            breaker: "closed".to_owned(),
            questions: 0,
            answers: 0,
            faults: 0,
            last_fault: None,
            last_us: 0,
            max_us: 0,
            fuel: None,
        }
    }
}

/// Why a policy was not changed. The active one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not shipped.
    #[error("no plugin `{0}` is shipped; `overlan policy list` names them")]
    UnknownBuiltin(String),
    /// The file won't do.
    #[error("{0}")]
    Load(String),
    /// It did not answer what this node was asked lately.
    #[error("the policy fails on a question that this node asked lately: {0}")]
    SelfTest(String),
    /// Compiling takes too long.
    #[error("the policy was not compiled within {0} ms; build it smaller, or raise the limit compile_ms")]
    CompileDeadline(u64),
    /// Others are being compiled.
    #[error("other policies are still being compiled; try again when they are done")]
    Busy,
    /// There is nothing to go back to.
    #[error("there is no earlier {0} plugin to go back to")]
    NothingBefore(Kind),
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}
