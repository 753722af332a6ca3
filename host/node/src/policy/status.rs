//! What the control API tells of policies, and why one was not changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlan_contract::{Attributes, Kind};
use overlan_policy::{BreakerState, Counters, LimitError, Probation, Use};
use serde::{Deserialize, Serialize};

use super::prepare::millis;

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
    /// SHA-256 over what answers depend on, which members compare: the component, its configuration, and the limits of
    /// `assignment`; empty for the native fallback.
    pub digest: String,
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
    /// Where it is new: what it still has to show before a fault no longer brings the one before it back.
    pub probation: Option<ProbationStatus>,
    /// How often a plugin of this kind failed its probation and was rolled back.
    pub rollbacks: u64,
    /// The last time: which gave way and why, in a sentence. `plugin` tells what answers.
    pub last_rollback: Option<String>,
    /// The `digest` of the plugin that gave way then.
    #[serde(default)]
    pub last_rollback_digest: Option<String>,
    /// What all plugins of this kind did since the node started.
    pub totals: PolicyTotals,
    /// Each limit by its name in the configuration, and the most that the plugin used of it.
    pub limits: BTreeMap<String, Use>,
}

/// What a new plugin still has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationStatus {
    /// Valid answers to come.
    pub answers_left: u32,
    /// Milliseconds until its time is over.
    pub ends_in_ms: u64,
    /// Faults that end it in failure; `None`: only an open breaker does, which also does before so many.
    #[serde(default)]
    pub faults_left: Option<u32>,
    /// Whether the native fallback comes back then; else the plugin before it.
    #[serde(default)]
    pub replaced_native: bool,
    #[serde(skip)]
    ends: Option<Instant>,
}

impl ProbationStatus {
    /// `origin` is where the probation's clock starts.
    pub(super) fn new(probation: &Probation, replaced_native: bool, origin: Instant) -> Self {
        let status = ProbationStatus {
            answers_left: probation.answers_left(),
            ends_in_ms: 0,
            faults_left: probation.faults_left(),
            replaced_native,
            ends: origin.checked_add(probation.ends()),
        };
        status.now()
    }

    /// The same, some time later.
    pub(super) fn now(self) -> Self {
        let ends_in = self.ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()));
        ProbationStatus { ends_in_ms: millis(ends_in), ..self }
    }
}

/// Counts over all plugins of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTotals {
    /// Questions put to a plugin.
    pub questions: u64,
    /// Valid answers.
    pub answers: u64,
    /// Questions not put, because a plugin failed too often, or they had waited too long.
    pub skipped: u64,
    /// Faults by kind: `trap`, `deadline`, `out_of_fuel`, `memory_limit`, `answer_too_large`, `refused`, `invalid`.
    pub faults: BTreeMap<String, u64>,
}

pub(super) fn totals(counters: &Counters) -> PolicyTotals {
    PolicyTotals {
        questions: counters.questions,
        answers: counters.answers,
        skipped: counters.skipped,
        faults: counters.faults.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect(),
    }
}

pub(super) fn breaker_name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed { .. } => "closed",
        BreakerState::Open { .. } => "open",
        BreakerState::HalfOpen { .. } => "half-open",
    }
}

impl PolicyStatus {
    /// Of a kind that no plugin answers.
    pub(super) fn native(kind: Kind) -> Self {
        PolicyStatus {
            kind,
            plugin: "native".to_owned(),
            sha256: String::new(),
            config: Vec::new(),
            digest: String::new(),
            previous: None,
            breaker: "closed".to_owned(),
            questions: 0,
            answers: 0,
            faults: 0,
            last_fault: None,
            last_us: 0,
            max_us: 0,
            fuel: None,
            probation: None,
            rollbacks: 0,
            last_rollback: None,
            last_rollback_digest: None,
            totals: PolicyTotals::default(),
            limits: BTreeMap::new(),
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
    /// This host lacks what loading it takes; the file may be sound.
    #[error("{0}")]
    Host(String),
    /// A limit that there is not.
    #[error(transparent)]
    Limit(#[from] LimitError),
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
    /// Nothing shadows.
    #[error("no policy shadows {0}")]
    NoShadow(Kind),
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}
