//! A loaded plugin: what it is, and how it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overlan_contract::Kind;
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use crate::bindings::log;
use crate::engine::{Engine, ticks};
use crate::fault::Fault;
use crate::guest::State;
use crate::inspect::{Report, examine, inspect, one_line};
use crate::kind::{Assignment, Failover, Policy, Sizing};
use crate::limits::Limits;
use crate::load_error::LoadError;

/// A compiled policy that has taken its configuration once, ready to be asked.
///
/// Questions go through [`ask`](Self::ask), usually by way of a [`Slot`](crate::Slot). A second
/// plugin may be asked the same question beside the active one: nothing is shared but the engine.
pub struct Plugin<P: Policy> {
    name: Arc<str>,
    report: Report,
    engine: Engine,
    pre: InstancePre<State>,
    indices: P::Indices,
    config: Vec<(String, String)>,
    limits: Arc<Limits>,
    /// The instance of a kind that keeps it; empty before the first question and after a fault.
    kept: Option<Running<P>>,
}

struct Running<P: Policy> {
    store: Store<State>,
    guest: P::Guest,
}

/// A valid answer and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<A> {
    /// The answer; it has passed the contract's validator.
    pub answer: A,
    /// Fuel that answering used, where the kind is metered; equal on every member.
    pub fuel: Option<u64>,
    /// Time it took, starting the instance and converting included. Differs from run to run.
    pub elapsed: Duration,
}

impl<A> Answered<A> {
    /// The same with another form of the answer.
    pub fn map<B>(self, form: impl FnOnce(A) -> B) -> Answered<B> {
        Answered { answer: form(self.answer), fuel: self.fuel, elapsed: self.elapsed }
    }
}

impl<P: Policy> Plugin<P> {
    /// Checks, compiles, starts and configures a plugin. Blocks for the compilation (about 0.4 s a
    /// MB), so call it away from the driver.
    ///
    /// `name` stands in logs; `config` is handed to the plugin's `configure`.
    ///
    /// # Errors
    /// Whatever is wrong with the file, its start or its configuration.
    pub fn load(
        engine: &Engine,
        name: &str,
        file: &[u8],
        config: &[(String, String)],
        limits: Limits,
    ) -> Result<Self, LoadError> {
        if file.len() > limits.file_bytes {
            return Err(LoadError::TooLarge { size: file.len(), limit: limits.file_bytes });
        }
        let (mut report, component) = examine(file);
        if let Some(problem) = report.problem.take() {
            return Err(problem);
        }
        match report.kind {
            Some(found) if found != P::KIND => return Err(LoadError::WrongKind { found, needed: P::KIND }),
            Some(_) => {}
            None => return Err(LoadError::NotAPolicy { exports: report.exports }),
        }
        let pre = prepare(engine.wasmtime(P::METERED), &component)?;
        let indices = P::indices(&pre).map_err(contract)?;
        let mut plugin = Self {
            name: name.into(),
            report,
            engine: engine.clone(),
            pre,
            indices,
            config: config.to_vec(),
            limits: Arc::new(limits),
            kept: None,
        };
        let started = plugin.start().map_err(|fault| match fault {
            Fault::Refused(reason) => LoadError::Configuration(reason),
            fault => LoadError::Start(fault),
        })?;
        plugin.kept = (!P::METERED).then_some(started);
        Ok(plugin)
    }

    /// The kind of question it answers.
    pub const fn kind(&self) -> Kind {
        P::KIND
    }

    /// The name it was loaded under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its file is: digest, size, version of the contract, imports and exports.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// SHA-256 of its file, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.report.sha256
    }

    /// Asks one question. Blocks until the answer or the deadline.
    ///
    /// # Errors
    /// Why there is no valid answer. The instance is dropped; the next question gets a new one.
    pub fn ask(&mut self, question: &P::Question) -> Result<Answered<P::Answer>, Fault> {
        let begun = Instant::now();
        let mut running = match self.kept.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let budget = P::budget(question, &self.limits);
        let fuel = budget.fuel.unwrap_or(0);
        let answer = self.call(&mut running.store, budget.deadline, fuel, |store| {
            P::decide(&running.guest, store, question)
        })?;
        P::validate(question, &answer).map_err(Fault::Invalid)?;
        let used = budget.fuel.map(|fuel| fuel.saturating_sub(running.store.get_fuel().unwrap_or(0)));
        if !P::METERED {
            self.kept = Some(running);
        }
        Ok(Answered { answer, fuel: used, elapsed: begun.elapsed() })
    }

    /// Forgets what the guest remembers of earlier questions, where the kind keeps an instance.
    ///
    /// # Errors
    /// The new instance does not start; the next question tries again.
    pub fn restart(&mut self) -> Result<(), Fault> {
        self.kept = None;
        if !P::METERED {
            self.kept = Some(self.start()?);
        }
        Ok(())
    }

    /// A new instance that has taken the configuration.
    fn start(&self) -> Result<Running<P>, Fault> {
        let mut store =
            Store::new(self.pre.engine(), State::new(Arc::clone(&self.name), Arc::clone(&self.limits)));
        store.limiter(|state| state);
        store.set_hostcall_fuel(self.limits.answer_bytes);
        let guest = self.call(&mut store, self.limits.start_deadline, self.limits.fuel_base, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            let guest = P::load(&self.indices, store, &instance)?;
            Ok(P::configure(&guest, store, &self.config)?.map(|()| guest))
        })?;
        Ok(Running { store, guest })
    }

    /// Runs guest code with its limits armed right before, so that waiting is not billed to it.
    fn call<T>(
        &self,
        store: &mut Store<State>,
        deadline: Duration,
        fuel: u64,
        run: impl FnOnce(&mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Fault> {
        store.data_mut().begin_call();
        if P::METERED {
            store.set_fuel(fuel).map_err(|error| Fault::of_call(&error, store.data(), deadline, fuel))?;
        }
        let watch = self.engine.watch();
        store.set_epoch_deadline(ticks(deadline));
        let outcome = run(store);
        drop(watch);
        store.data().end_call();
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(Fault::Refused(store.data().clip(&reason))),
            Err(error) => Err(Fault::of_call(&error, store.data(), deadline, fuel)),
        }
    }
}

impl<P: Policy> std::fmt::Debug for Plugin<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("kind", &P::KIND).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Loads a file as whatever kind it is, to see whether it would do: compiles it, starts it, hands
/// it `config`, and throws it away.
///
/// # Errors
/// As [`Plugin::load`].
pub fn check(
    engine: &Engine,
    file: &[u8],
    config: &[(String, String)],
    limits: Limits,
) -> Result<Report, LoadError> {
    if file.len() > limits.file_bytes {
        return Err(LoadError::TooLarge { size: file.len(), limit: limits.file_bytes });
    }
    let report = inspect(file);
    match (&report.problem, report.kind) {
        (Some(problem), _) => return Err(problem.clone()),
        (None, Some(Kind::Assignment)) => {
            drop(Plugin::<Assignment>::load(engine, "check", file, config, limits)?);
        }
        (None, Some(Kind::Sizing)) => drop(Plugin::<Sizing>::load(engine, "check", file, config, limits)?),
        (None, Some(Kind::Failover)) => {
            drop(Plugin::<Failover>::load(engine, "check", file, config, limits)?)
        }
        (None, None) => return Err(LoadError::NotAPolicy { exports: report.exports }),
    }
    Ok(report)
}

fn prepare(engine: &wasmtime::Engine, component: &[u8]) -> Result<InstancePre<State>, LoadError> {
    let component = Component::from_binary(engine, component)
        .map_err(|error| LoadError::Malformed(one_line(&error.root_cause().to_string())))?;
    let mut linker = Linker::new(engine);
    log::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(contract)?;
    linker.instantiate_pre(&component).map_err(contract)
}

fn contract(error: wasmtime::Error) -> LoadError {
    LoadError::Contract(one_line(&format!("{error:#}")))
}
