//! The policy host: WASM components behind typed questions. The only crate that knows wasmtime.
//!
//! A [`Plugin`] is one component of one [`Policy`] kind ([`Assignment`], [`Sizing`], [`Failover`]).
//! It is loaded from a file's bytes with an explanation of whatever is wrong with them
//! ([`LoadError`], [`inspect()`]), asked questions in the contract's types, and can only answer validly
//! or give a [`Fault`]. A [`Slot`] holds the active plugin of a kind and the one before it, counts,
//! and stops asking a plugin that keeps failing.
//!
//! What this crate never does: open files (but those of its own [`AotCache`]), decide the fallback (the core keeps the last good
//! decision or its native policy), read the wall clock (measured durations aside), trust a value a
//! guest produced, load code that it did not compile itself, grant a guest WASI.
//!
//! Every call blocks its thread: ask from a worker, never from the thread that drives the protocol.
//! That thread needs a stack of 2 MiB (the standard library's default) or more, since guests run on
//! it and may use [`MAX_STACK_BYTES`].
//!
//! Reading order: [`Engine`], [`Limits`], [`Plugin`], [`Fault`], [`Slot`], [`Probation`],
//! [`AotCache`].

mod aot;
mod bindings;
mod breaker;
mod componentize;
mod convert;
mod engine;
mod fault;
mod guest;
mod inspect;
mod kind;
mod limits;
mod lines;
mod load_error;
mod needs;
mod pack;
mod places;
mod plugin;
mod probation;
mod slot;
mod usage;

pub use aot::{AotCache, AotError, MAX_CACHE_BYTES};
pub use breaker::{BreakerConfig, BreakerState};
pub use engine::{Engine, EngineError, MAX_STACK_BYTES};
pub use fault::{Fault, FaultKind};
pub use inspect::{CONTRACT_TRACK, CONTRACT_VERSION, Form, Report, component, inspect};
pub use kind::{Assignment, Failover, Policy, Sizing};
pub use limits::{LimitError, Limits};
pub use lines::LineBudget;
pub use load_error::LoadError;
pub use plugin::{Answered, Compiled, Plugin, check};
pub use probation::{Probation, ProbationConfig, Verdict};
pub use slot::{Counters, NoAnswer, Slot};
pub use usage::{AnswerSize, Use};
