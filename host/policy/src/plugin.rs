//! A loaded plugin: what it is, and how it is asked.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use overlan_contract::Kind;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::engine::{Engine, MAX_STACK_BYTES, ticks};
use crate::fault::{Fault, lack};
use crate::guest::{State, add_log};
use crate::inspect::{Report, examine, inspect, one_line, sha256};
use crate::kind::{Assignment, Failover, Policy, Sizing};
use crate::limits::{Limits, STACK_BYTES, millis};
use crate::lines::LineBudget;
use crate::load_error::LoadError;
use crate::needs;
use crate::places::Place;
use crate::usage::{HighWater, Use};

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
    used: HighWater,
    /// Of all its instances.
    lines: Arc<Mutex<LineBudget>>,
    /// The instance of a kind that keeps it; empty before the first question and after a fault.
    kept: Option<Running<P>>,
    /// Where the last question was packed, for the next.
    room: Vec<u8>,
    memory_bytes: usize,
    was_fresh: bool,
}

struct Running<P: Policy> {
    store: Store<State>,
    guest: P::Guest,
    /// Nothing was asked of it yet.
    fresh: bool,
    /// Given back after the store is gone.
    _place: Option<Place>,
}

/// A policy that is compiled: any number of plugins may be started of it.
pub struct Compiled<P: Policy> {
    name: Arc<str>,
    report: Report,
    engine: Engine,
    pre: InstancePre<State>,
    indices: P::Indices,
    time: Duration,
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
        Compiled::new(engine, name, file, &limits)?.start(config, limits)
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

    /// The limits it was loaded with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Each limit by the name it is set by ([`Limits::set`]), and the most it has used of it; `stack_bytes` is the same
    /// for all plugins. Fuel counts against `fuel_base` first, and what an answer took beyond it, for each pair of a
    /// node and a responsibility, against `fuel_per_pair`.
    pub fn usage(&self) -> Vec<(&'static str, Use)> {
        let (limits, used) = (&self.limits, &self.used);
        let of = |used: u64, limit: u64| Use { used: Some(used), limit, fixed: false };
        let bytes = |used: usize, limit: usize| of(used as u64, limit as u64);
        let time = |used: Duration, limit: Duration| of(millis(used), millis(limit));
        let deadline = if P::METERED { limits.assignment_deadline } else { limits.deadline };
        let mut all = vec![
            ("file_bytes", bytes(self.report.size_bytes, limits.file_bytes)),
            ("compile_ms", time(used.compile, limits.compile_deadline)),
            ("memory_bytes", bytes(used.memory_bytes, limits.memory_bytes)),
            ("table_elements", bytes(used.table_elements, limits.table_elements)),
            (STACK_BYTES, Use { used: None, limit: MAX_STACK_BYTES as u64, fixed: true }),
            ("start_ms", time(used.start, limits.start_deadline)),
            ("answer_ms", time(used.answer, deadline)),
            ("answer_bytes", bytes(used.answer_bytes, limits.answer_bytes)),
            ("answer_items", bytes(used.answer_items, limits.answer_items)),
            ("log_lines", of(used.log_lines.into(), limits.log_lines.into())),
        ];
        if P::METERED {
            let fuel = used.fuel;
            all.extend([
                ("fuel_base", of(fuel.base, limits.fuel_base)),
                ("fuel_per_pair", of(fuel.per_pair, limits.fuel_per_pair)),
                ("fuel_max", of(fuel.most, limits.fuel_max)),
            ]);
        }
        all
    }

    /// Asks one question. Blocks until the answer or the deadline.
    ///
    /// # Errors
    /// Why there is no valid answer. The instance is dropped; the next question gets a new one.
    pub fn ask(&mut self, question: &P::Question) -> Result<Answered<P::Answer>, Fault> {
        // Whoever else is asked is waited for on nobody's time.
        let place = self.place();
        let begun = Instant::now();
        let budget = P::budget(question, &self.limits);
        let mut running = match self.kept.take() {
            Some(running) => running,
            None => {
                self.was_fresh = true;
                let deadline = self.limits.start_deadline;
                self.start(place, if P::METERED { deadline.min(budget.deadline) } else { deadline })?
            }
        };
        self.was_fresh = std::mem::replace(&mut running.fresh, false);
        let fuel = budget.fuel.unwrap_or(0);
        // An instance for this question alone is part of the answer.
        let started = if P::METERED { begun.elapsed() } else { Duration::ZERO };
        let (store, deadline) = (&mut running.store, budget.deadline.saturating_sub(started));
        let answer = Self::call(&self.engine, &mut self.used, store, deadline, fuel, |store| {
            P::decide(&running.guest, store, question, &mut self.room)
        });
        let answer = answer.map_err(|fault| match fault {
            Fault::Deadline(_) => Fault::Deadline(budget.deadline),
            fault => fault,
        });
        self.memory_bytes = running.store.data().memory_bytes();
        let used = budget.fuel.map(|fuel| fuel.saturating_sub(running.store.get_fuel().unwrap_or(0)));
        if let Some(used) = used {
            self.used.fuel.note(used, self.limits.fuel_base, budget.pairs);
        }
        let elapsed = begun.elapsed();
        self.used.answer = self.used.answer.max(elapsed);
        let answer = answer?;
        let size = P::size(&answer);
        self.used.note_answer(size);
        if size.items > self.limits.answer_items {
            return Err(Fault::TooManyItems { items: size.items, limit: self.limits.answer_items });
        }
        P::validate(question, &answer).map_err(Fault::Invalid)?;
        if !P::METERED {
            self.kept = Some(running);
        }
        Ok(Answered { answer, fuel: used, elapsed })
    }

    /// Forgets what the guest remembers of earlier questions, where the kind keeps an instance.
    ///
    /// # Errors
    /// The new instance does not start; the next question tries again.
    pub fn restart(&mut self) -> Result<(), Fault> {
        self.kept = None;
        if !P::METERED {
            self.kept = Some(self.start(None, self.limits.start_deadline)?);
        }
        Ok(())
    }

    /// How long one more instance takes to start and to take its configuration.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn time_start(&mut self) -> Result<Duration, Fault> {
        let place = self.place();
        let begun = Instant::now();
        self.start(place, self.limits.start_deadline).map(|_| begun.elapsed())
    }

    /// Whether the question asked last was the first of its instance, so that none before it can have coloured
    /// what came of it.
    pub fn was_fresh(&self) -> bool {
        self.was_fresh
    }

    /// Linear memory of the instance asked last, in bytes, all its memories together.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// A place for an instance of a metered kind.
    fn place(&self) -> Option<Place> {
        P::METERED.then(|| self.engine.place())
    }

    /// A new instance, in this place, that has taken the configuration.
    fn start(&mut self, place: Option<Place>, deadline: Duration) -> Result<Running<P>, Fault> {
        let begun = Instant::now();
        let mut store = Store::new(
            self.pre.engine(),
            State::new(Arc::clone(&self.name), Arc::clone(&self.limits), Arc::clone(&self.lines)),
        );
        store.limiter(|state| state);
        store.set_hostcall_fuel(self.limits.answer_bytes);
        let fuel = self.limits.fuel_base;
        let guest = Self::call(&self.engine, &mut self.used, &mut store, deadline, fuel, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            let guest = P::load(&self.indices, store, &instance)?;
            Ok(P::configure(&guest, store, &self.config)?.map(|()| guest))
        });
        self.used.start = self.used.start.max(begun.elapsed());
        if P::METERED {
            self.used.fuel.note(fuel.saturating_sub(store.get_fuel().unwrap_or(0)), fuel, 0);
        }
        Ok(Running { store, guest: guest?, fresh: true, _place: place })
    }

    /// Runs guest code with its limits armed right before, so that waiting is not billed to it.
    fn call<T>(
        engine: &Engine,
        used: &mut HighWater,
        store: &mut Store<State>,
        deadline: Duration,
        fuel: u64,
        run: impl FnOnce(&mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Fault> {
        store.data_mut().begin_call();
        if P::METERED {
            store.set_fuel(fuel).map_err(|error| Fault::of_call(&error, store.data(), deadline, fuel))?;
        }
        let watch = engine.watch();
        store.set_epoch_deadline(ticks(deadline));
        let outcome = run(store);
        drop(watch);
        let outcome = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(Fault::Refused(store.data().clip(&reason))),
            Err(error) => Err(Fault::of_call(&error, store.data(), deadline, fuel)),
        };
        // A crash tells its last words itself.
        let told = matches!(&outcome, Err(Fault::Trap { last_words: Some(_), .. }));
        store.data_mut().end_call(told);
        used.note(store.data());
        outcome
    }
}

impl<P: Policy> Compiled<P> {
    /// The part of [`Plugin::load`] that takes processor time and has no deadline. `name` stands in logs.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn new(engine: &Engine, name: &str, file: &[u8], limits: &Limits) -> Result<Self, LoadError> {
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
        needs::check(&component, limits)?;
        let begun = Instant::now();
        let pre = prepare(engine, P::METERED, &component)?;
        let time = begun.elapsed();
        let indices = P::indices(&pre).map_err(contract)?;
        Ok(Self { name: name.into(), report, engine: engine.clone(), pre, indices, time })
    }

    /// Starts a plugin and hands it its configuration.
    ///
    /// # Errors
    /// It does not start, or rejects its configuration.
    pub fn start(&self, config: &[(String, String)], limits: Limits) -> Result<Plugin<P>, LoadError> {
        let deadline = limits.start_deadline;
        let mut plugin = Plugin {
            name: self.name.clone(),
            report: self.report.clone(),
            engine: self.engine.clone(),
            pre: self.pre.clone(),
            indices: self.indices.clone(),
            config: config.to_vec(),
            limits: Arc::new(limits),
            used: HighWater { compile: self.time, ..HighWater::default() },
            lines: Arc::default(),
            kept: None,
            room: Vec::new(),
            memory_bytes: 0,
            was_fresh: true,
        };
        let started = plugin.start(plugin.place(), deadline).map_err(|fault| match fault {
            Fault::Refused(reason) => LoadError::Configuration(reason),
            Fault::Host(lack) => LoadError::Engine(lack),
            fault => LoadError::Start(fault),
        })?;
        plugin.kept = (!P::METERED).then_some(started);
        Ok(plugin)
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

fn prepare(engine: &Engine, metered: bool, component: &[u8]) -> Result<InstancePre<State>, LoadError> {
    let component = compile(engine, metered, component)?;
    let mut linker = Linker::new(engine.wasmtime(metered));
    add_log(&mut linker, metered).map_err(contract)?;
    linker.instantiate_pre(&component).map_err(contract)
}

fn compile(engine: &Engine, metered: bool, component: &[u8]) -> Result<Component, LoadError> {
    let wasmtime = engine.wasmtime(metered);
    let cache = engine.cache().map(|cache| (cache, sha256(component)));
    if let Some(cached) = cache.as_ref().and_then(|(cache, sha256)| cache.load(wasmtime, sha256)) {
        return Ok(cached);
    }
    let compiler = engine.compiler(metered).map_err(|error| {
        LoadError::Engine(
            lack(&error).unwrap_or_else(|| format!("{}; give this host more memory", cause(&error))),
        )
    })?;
    let code = compiler.precompile_component(component);
    drop(compiler);
    give_back();
    let code = code.map_err(|error| LoadError::Malformed(cause(&error)))?;
    #[expect(unsafe_code, reason = "wasmtime trusts compiled code blindly")]
    // SAFETY: it is what the same release of wasmtime has just compiled, with the same settings.
    let compiled = unsafe { Component::deserialize(wasmtime, &code) };
    let compiled = compiled.map_err(|error| match lack(&error) {
        Some(lack) => LoadError::Engine(lack),
        None => LoadError::TooMuch(format!("{}; build it with fewer and smaller modules", cause(&error))),
    })?;
    if let Some((cache, sha256)) = cache {
        cache.store(wasmtime, &sha256, &code);
    }
    Ok(compiled)
}

fn cause(error: &wasmtime::Error) -> String {
    one_line(&error.root_cause().to_string())
}

/// Compiling takes hundreds of megabytes for a large component, in many pieces, which glibc would keep for the thread's
/// next ones.
fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library's function")]
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn contract(error: wasmtime::Error) -> LoadError {
    LoadError::Contract(one_line(&format!("{error:#}")))
}
