//! The policy contract in plain Rust: what a policy is asked, what it may answer, and the validator
//! that every answer passes before anything acts on it.
//!
//! These types mirror `wit/` (package `overlan:policy@0.1.0`) field by field, so that the native
//! host, the simulator, plugin authors' tests and the WASM boundary speak of one thing. Nothing
//! here performs I/O, reads a clock or draws a random number.
//!
//! Reading order: [`Adapter`] (the facts every question carries), [`assignment`], [`sizing`],
//! [`failover`], then [`Violation`].
#![no_std]

extern crate alloc;

pub mod assignment;
pub mod failover;
pub mod sizing;

mod facts;
mod violation;

pub use facts::{Adapter, AdapterStatus, Attributes, Kind, UnknownKind};
pub use violation::{MAX_VIOLATIONS, Violation};
