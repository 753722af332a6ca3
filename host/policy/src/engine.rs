//! The two wasmtime engines, and the ticker behind their deadlines.
//!
//! Fuel slows a guest down by up to 2-3 times but is deterministic, so only `assignment` pays for
//! it; the other kinds run on an engine with epochs alone (about 10%).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig};

use crate::aot::AotCache;
use crate::limits::{Limits, MAX_TABLE_ELEMENTS};
use crate::places::{Place, Places};

/// Stack one guest call may use, in bytes, on the thread that asks. Deeper recursion traps.
pub const MAX_STACK_BYTES: usize = 1 << 20;

/// Instances of the engine with fuel at one time: a thread that asks has one, and a node has fewer such threads. Where
/// there are more, they wait.
const SLOTS: u32 = 16;
/// Bytes of a slot that are zeroed in place when its instance ends; what is beyond goes back to the kernel.
const RESIDENT_BYTES: usize = 2 << 20;
/// The host's own record of an instance, which grows with the number of functions. wasmtime's default, 1 MiB, is
/// meant for many thousand instances.
const MAX_INSTANCE_BYTES: usize = 64 << 20;

/// Length of an epoch. Deadlines are this coarse.
const TICK: Duration = Duration::from_millis(1);
/// How many ticks the ticker stays awake after the last call, so that a burst of calls wakes it once.
const LINGER_TICKS: u32 = 4;

/// The compiler and runtime that all plugins share. Cheap to clone; the ticker thread ends with the
/// last clone (and the last plugin, which holds one).
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    cache: Option<AotCache>,
    metered: wasmtime::Engine,
    timed: wasmtime::Engine,
    places: Places,
    ticker: Arc<Ticker>,
    thread: Option<JoinHandle<()>>,
}

/// The engine could not be set up; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refuses its configuration on this machine.
    #[error("the WebAssembly engine cannot run on this machine: {0}")]
    Unsupported(String),
    /// The thread that enforces deadlines did not start.
    #[error("the thread that enforces policy deadlines did not start: {0}")]
    Ticker(#[from] std::io::Error),
}

impl Engine {
    /// Sets up both engines and a parked ticker thread.
    ///
    /// # Errors
    /// The machine is not one wasmtime can compile for, or no thread can be started.
    pub fn new() -> Result<Self, EngineError> {
        Self::start(None)
    }

    /// The same; what was compiled before is taken from the cache.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_cache(cache: AotCache) -> Result<Self, EngineError> {
        Self::start(Some(cache))
    }

    fn start(cache: Option<AotCache>) -> Result<Self, EngineError> {
        let engine = |fuel| {
            let config = config(fuel);
            // Where the address space is too narrow for slots, each instance is mapped when it starts.
            let pooled = fuel.then(|| wasmtime::Engine::new(config.clone().allocation_strategy(slots())));
            pooled
                .and_then(Result::ok)
                .map_or_else(|| wasmtime::Engine::new(&config), Ok)
                .map_err(|error| EngineError::Unsupported(format!("{error:#}")))
        };
        let (metered, timed) = (engine(true)?, engine(false)?);
        let ticker = Arc::new(Ticker::default());
        let thread = std::thread::Builder::new().name("policy-ticker".into()).spawn({
            let (ticker, engines) = (Arc::clone(&ticker), [metered.clone(), timed.clone()]);
            move || ticker.run(&engines)
        })?;
        Ok(Self(Arc::new(Inner {
            cache,
            metered,
            timed,
            places: Places::new(SLOTS),
            ticker,
            thread: Some(thread),
        })))
    }

    /// The engine with fuel, or the one without.
    pub(crate) fn wasmtime(&self, metered: bool) -> &wasmtime::Engine {
        if metered { &self.0.metered } else { &self.0.timed }
    }

    /// One to compile with for [`wasmtime`](Self::wasmtime), and to be dropped then: it keeps the memory that its largest
    /// function took (measured: 50 MB for a Python).
    pub(crate) fn compiler(&self, metered: bool) -> wasmtime::Result<wasmtime::Engine> {
        wasmtime::Engine::new(&config(metered))
    }

    /// Waits for a place for an instance of the engine with fuel.
    pub(crate) fn place(&self) -> Place {
        self.0.places.take()
    }

    pub(crate) fn cache(&self) -> Option<&AotCache> {
        self.0.cache.as_ref()
    }

    /// Keeps epochs ticking until the guard is dropped. Take it before arming a deadline.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let mut state = self.0.ticker.lock();
        state.calls += 1;
        if state.parked {
            self.0.ticker.wake.notify_one();
        }
        Watch(&self.0.ticker)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Epochs after which a call that may take `limit` is interrupted; one more than fit, since the
/// first tick may be due at once.
pub(crate) fn ticks(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
}

fn config(fuel: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(fuel)
        .operator_cost(costs())
        .epoch_interruption(true)
        .max_wasm_stack(MAX_STACK_BYTES)
        // Equal questions get equal answers on every member, whatever its processor.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    config
}

/// Fuel that instructions take: as wasmtime has it, one for most, and one for each byte or element of those that take
/// many; more for what takes a processor as long as several others, so that a loop uses up its fuel in about the same
/// time whatever it does (`cargo run --release -p overlan-guests --example fuel`). Growing is work of the host and takes
/// the most that can be said. What fuel can't bound are loads from memory that no cache holds.
fn costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    (costs.MemoryGrow, costs.TableGrow, costs.variable.memory_grow_per_page) = (u8::MAX, u8::MAX, u8::MAX);
    let c = &mut costs;
    let dear: [(u8, &mut [&mut u8]); 5] = [
        (3, &mut [&mut c.Br, &mut c.BrIf, &mut c.BrTable]),
        (
            4,
            &mut [
                &mut c.Call,
                &mut c.CallIndirect,
                &mut c.CallRef,
                &mut c.ReturnCall,
                &mut c.ReturnCallIndirect,
                &mut c.ReturnCallRef,
            ],
        ),
        (
            4,
            &mut [
                &mut c.I32DivS,
                &mut c.I32DivU,
                &mut c.I32RemS,
                &mut c.I32RemU,
                &mut c.I64DivS,
                &mut c.I64DivU,
                &mut c.I64RemS,
                &mut c.I64RemU,
            ],
        ),
        (
            12,
            &mut [
                &mut c.F32Ceil,
                &mut c.F32Floor,
                &mut c.F32Trunc,
                &mut c.F32Nearest,
                &mut c.F64Ceil,
                &mut c.F64Floor,
                &mut c.F64Trunc,
                &mut c.F64Nearest,
                &mut c.F32x4Ceil,
                &mut c.F32x4Floor,
                &mut c.F32x4Trunc,
                &mut c.F32x4Nearest,
                &mut c.F64x2Ceil,
                &mut c.F64x2Floor,
                &mut c.F64x2Trunc,
                &mut c.F64x2Nearest,
            ],
        ),
        (
            20,
            &mut [
                &mut c.F32Div,
                &mut c.F32Sqrt,
                &mut c.F64Div,
                &mut c.F64Sqrt,
                &mut c.F32x4Div,
                &mut c.F32x4Sqrt,
                &mut c.F64x2Div,
                &mut c.F64x2Sqrt,
            ],
        ),
    ];
    for (fuel, operators) in dear {
        operators.iter_mut().for_each(|cost| **cost = fuel);
    }
    costs
}

/// Memory for the instances of the engine with fuel, which live for one question each: slots that stay mapped, so that a
/// fresh instance, zeroed as ever, costs few page faults. Slots are address space; what they hold resident is what
/// guests used of [`RESIDENT_BYTES`]. They fit whatever limits can be set by name; of core instances, memories and
/// tables the default limits, which the store holds an instance to, of this engine as of the other.
fn slots() -> InstanceAllocationStrategy {
    let limits = Limits::default();
    let (instances, memories, tables) =
        (limits.instances as u32, limits.memories as u32, limits.tables as u32);
    let mut slots = PoolingAllocationConfig::new();
    slots
        .total_component_instances(SLOTS)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .total_core_instances(SLOTS * instances)
        .max_core_instances_per_component(u32::MAX)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .total_memories(SLOTS * memories)
        .max_memories_per_component(u32::MAX)
        .max_memories_per_module(memories)
        .max_memory_size(1 << 32)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .total_tables(SLOTS * tables)
        .max_tables_per_component(u32::MAX)
        .max_tables_per_module(tables)
        .table_elements(MAX_TABLE_ELEMENTS as usize)
        .table_keep_resident(RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(slots)
}

/// A call under way; see [`Engine::watch`].
pub(crate) struct Watch<'a>(&'a Ticker);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.lock().calls -= 1;
    }
}

#[derive(Default)]
struct Ticker {
    state: Mutex<TickerState>,
    wake: Condvar,
}

#[derive(Default)]
struct TickerState {
    calls: usize,
    parked: bool,
    stop: bool,
}

impl Ticker {
    /// The state is three plain values, valid after any panic.
    fn lock(&self) -> MutexGuard<'_, TickerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, engines: &[wasmtime::Engine]) {
        let mut idle_ticks = 0;
        let mut state = self.lock();
        while !state.stop {
            idle_ticks = if state.calls > 0 { 0 } else { idle_ticks + 1 };
            state.parked = idle_ticks > LINGER_TICKS;
            state = if state.parked {
                self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let (state, _) = self.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
                for engine in engines {
                    engine.increment_epoch();
                }
                state
            };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ticker.lock().stop = true;
        self.ticker.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It runs none of our callers' code; a panic there has been reported already.
            let _ = thread.join();
        }
    }
}
