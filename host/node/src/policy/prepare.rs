//! Making a plugin ready beside the active one: compiled and tested, while nothing changes yet.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use overlan_contract::{Attributes, Kind};
use overlan_core::policy::Question;
use overlan_policy::{Assignment, Engine, Failover, Limits, Plugin, ProbationConfig, Sizing};
use overlan_wire::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::decision::{AnyPlugin, Decision};
use super::status::PolicyError;

/// How much a compilation may get in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// At the start, when everything waits for it.
    Normal,
    /// Beside running traffic: whatever processor time is left over.
    Background,
}

/// A plugin to make ready: the component's bytes, under a name for listings.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) wasm: Vec<u8>,
    pub(crate) config: Attributes,
    /// Limits of its own, by name, over those of its kind.
    pub(crate) limits: Vec<(String, u64)>,
}

/// A plugin that is compiled and has answered what this node was asked lately. Nothing has changed yet:
/// [`Policies::commit`](super::Policies::commit) makes it active between two questions, dropping it abandons it.
pub(crate) struct Prepared {
    pub(super) kind: Kind,
    pub(super) loaded: Loaded,
    /// How it has to prove itself once it is active.
    pub(super) probation: Option<ProbationConfig>,
}

impl Prepared {
    /// What members compare: the digest of the component, of its configuration, and of the limits that an answer
    /// depends on.
    pub(crate) fn digest(&self) -> Digest {
        self.loaded.digest
    }
}

/// What a worker swaps in.
pub(super) struct Loaded {
    pub(super) plugin: AnyPlugin,
    pub(super) config: Attributes,
    pub(super) digest: Digest,
}

/// Compiles and tests on a thread of its own, which holds `permit` to its end: wasmtime can't be interrupted, so a
/// compilation that takes too long is refused, goes on, and serves the cache at most.
pub(super) async fn prepare(
    engine: Engine,
    candidate: Candidate,
    limits: Limits,
    questions: Vec<Arc<Question>>,
    priority: Priority,
    permit: OwnedSemaphorePermit,
) -> Result<Prepared, PolicyError> {
    let (compiled, compile_end) = oneshot::channel();
    let (reply, outcome) = oneshot::channel();
    let deadline = limits.compile_deadline;
    let work = move || {
        let _permit = permit;
        if priority == Priority::Background {
            // Linux gives each thread a priority of its own; where it refuses, compiling is merely less polite.
            let _ = rustix::process::setpriority_process(None, 19);
        }
        let prepared = match candidate.kind {
            Kind::Assignment => load::<Assignment>(&engine, candidate, limits, &questions, compiled),
            Kind::Sizing => load::<Sizing>(&engine, candidate, limits, &questions, compiled),
            Kind::Failover => load::<Failover>(&engine, candidate, limits, &questions, compiled),
        };
        let _ = reply.send(prepared);
    };
    let spawned = thread::Builder::new().name("policy-compile".into()).stack_size(8 << 20).spawn(work);
    spawned.map_err(|error| PolicyError::Load(format!("no thread to compile on: {error}")))?;
    // An error comes by `outcome`; it ends the other channel, too.
    if timeout(deadline, compile_end).await.is_err() {
        return Err(PolicyError::CompileDeadline(millis(deadline)));
    }
    outcome.await.unwrap_or(Err(PolicyError::Stopped))
}

fn load<P: Decision>(
    engine: &Engine,
    candidate: Candidate,
    limits: Limits,
    questions: &[Arc<Question>],
    compiled: oneshot::Sender<()>,
) -> Result<Prepared, PolicyError> {
    let Candidate { kind, name, wasm, config, .. } = candidate;
    let mut plugin = Plugin::<P>::load(engine, &name, &wasm, &config, limits)
        .map_err(|error| PolicyError::Load(error.to_string()))?;
    drop(wasm);
    if compiled.send(()).is_err() {
        // Nobody waits any more.
        return Err(PolicyError::Stopped);
    }
    let failed = |fault: overlan_policy::Fault| PolicyError::SelfTest(fault.to_string());
    for question in questions {
        P::test(&mut plugin, question).map_err(failed)?;
    }
    // What it remembers of the test must not colour its first decisions.
    plugin.restart().map_err(failed)?;
    let digest = digest(kind, plugin.sha256(), &config, plugin.limits());
    Ok(Prepared { kind, loaded: Loaded { plugin: P::wrap(plugin), config, digest }, probation: None })
}

/// What an answer depends on beside the question. Limits count for `assignment` alone, and only where they are not the
/// default.
pub(super) fn digest(kind: Kind, sha256: &str, config: &Attributes, limits: &Limits) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    add(sha256);
    for (key, value) in config {
        add(key);
        add(value);
    }
    if kind == Kind::Assignment {
        for (name, value) in limits.semantics() {
            add(name);
            add(&value.to_string());
        }
    }
    Digest(hash.finalize().into())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
