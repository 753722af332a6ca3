//! Making a plugin ready beside the active one: compiled and tested, while nothing changes yet.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use overlan_contract::{Attributes, Kind};
use overlan_core::policy::Question;
use overlan_policy::{Assignment, Compiled, Engine, Failover, Limits, LoadError, ProbationConfig, Sizing};
use overlan_wire::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::decision::{AnyPlugin, Decision};
use super::status::PolicyError;

/// How much a compilation may get in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// At the start, when everything waits for it; no probation, as there is nothing to go back to.
    Start,
    /// What answers is to be replaced soon.
    Urgent,
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

/// What it takes to make a plugin ready.
pub(super) struct Preparation {
    pub(super) engine: Engine,
    pub(super) candidate: Candidate,
    pub(super) limits: Limits,
    /// What it is tested on.
    pub(super) questions: Vec<Arc<Question>>,
    pub(super) priority: Priority,
    /// Held to the end, also of a compilation that nobody waits for any more.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Preparation {
    /// Compiles on one thread and tests on another: the first may have the lowest priority, but to the second deadlines
    /// apply, which only tell something of a plugin that gets processor time. wasmtime can't be interrupted, so a
    /// compilation that takes too long is refused, goes on, and serves the cache at most.
    pub(super) async fn run(self) -> Result<Prepared, PolicyError> {
        match self.candidate.kind {
            Kind::Assignment => self.run_kind::<Assignment>().await,
            Kind::Sizing => self.run_kind::<Sizing>().await,
            Kind::Failover => self.run_kind::<Failover>().await,
        }
    }

    async fn run_kind<P: Decision>(self) -> Result<Prepared, PolicyError> {
        let Preparation { engine, candidate, limits, questions, priority, permit } = self;
        let deadline = limits.compile_deadline;
        let compilation = on_a_thread("policy-compile", move || {
            if priority == Priority::Background {
                // Linux gives each thread a priority of its own; where it refuses, compiling is merely less polite.
                let _ = rustix::process::setpriority_process(None, 19);
            }
            let Candidate { name, wasm, config, .. } = candidate;
            let compiled = Compiled::<P>::new(&engine, &name, &wasm, &limits);
            compiled.map(|compiled| (compiled, config, limits, permit))
        })?;
        let compiled = timeout(deadline, compilation).await;
        let compiled = compiled.map_err(|_| PolicyError::CompileDeadline(millis(deadline)))?;
        let compiled = compiled.map_err(|_| PolicyError::Stopped)?;
        let (compiled, config, limits, permit) = compiled.map_err(load_error)?;
        let test = on_a_thread("policy-test", move || {
            let _permit = permit;
            test(&compiled, config, limits, &questions)
        })?;
        test.await.unwrap_or(Err(PolicyError::Stopped))
    }
}

/// Does something on a thread of this one's priority; the receiver fails if it panics.
fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, PolicyError> {
    let (done, outcome) = oneshot::channel();
    // Guests run on its stack.
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(8 << 20);
    let spawned = thread.spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    });
    spawned.map_err(|error| PolicyError::Host(format!("no thread to compile and test on: {error}")))?;
    Ok(outcome)
}

/// Starts a plugin and puts the questions to it.
fn test<P: Decision>(
    compiled: &Compiled<P>,
    config: Attributes,
    limits: Limits,
    questions: &[Arc<Question>],
) -> Result<Prepared, PolicyError> {
    let mut plugin = compiled.start(&config, limits).map_err(load_error)?;
    let failed = |fault: overlan_policy::Fault| PolicyError::SelfTest(fault.to_string());
    for question in questions {
        P::test(&mut plugin, question).map_err(failed)?;
    }
    // What it remembers of the test must not colour its first decisions.
    plugin.restart().map_err(failed)?;
    let digest = digest(P::KIND, plugin.sha256(), &config, plugin.limits());
    Ok(Prepared {
        kind: P::KIND,
        loaded: Loaded { plugin: P::wrap(plugin), config, digest },
        probation: None,
    })
}

fn load_error(error: LoadError) -> PolicyError {
    match error {
        LoadError::Engine(_) => PolicyError::Host(error.to_string()),
        error => PolicyError::Load(error.to_string()),
    }
}

/// What an answer depends on beside the question: the component, its configuration, and the limits that are not the
/// default.
pub(super) fn digest(kind: Kind, sha256: &str, config: &Attributes, limits: &Limits) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    add(sha256);
    // Tells the pairs of the configuration from the limits.
    add(&config.len().to_string());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_configuration_from_limits() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let other = {
            let mut limits = Limits::default();
            limits.set("fuel_base", 7).unwrap();
            limits
        };
        let of = |sha256, config: &[(String, String)], limits: &Limits| {
            digest(Kind::Assignment, sha256, &config.to_vec(), limits)
        };
        let plain = Limits::default();
        let digests = [
            of("ab", &[], &plain),
            of("ab", &[pair("fuel_base", "7")], &plain),
            of("ab", &[], &other),
            of("ab", &[pair("fuel_base", "77")], &plain),
            of("ab", &[pair("fuel_base7", "7")], &plain),
            of("ac", &[], &plain),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    /// A compilation may be starved; what a deadline applies to may not.
    #[tokio::test]
    async fn work_has_the_priority_of_whoever_wants_it() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let starved = on_a_thread("x", move || {
            rustix::process::setpriority_process(None, 19).unwrap();
            nice()
        });
        assert_eq!(starved.unwrap().await.unwrap(), 19);
        assert_eq!(on_a_thread("y", nice).unwrap().await.unwrap(), nice());
    }
}
