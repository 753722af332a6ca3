//! The policy contract in plain Rust: what a policy is asked, what it may answer, and the validator
//! that every answer passes before anything acts on it.
//!
//! These types mirror `wit/` (package `overlan:policy@0.1.0`) field by field, so that the native
//! host, the simulator, plugin authors' tests and the WASM boundary speak of one thing. Nothing
//! here performs I/O, reads a clock or draws a random number.
//!
//! Reading order: [`Adapter`] (the facts every question carries), [`assignment`], [`sizing`],
//! [`failover`], then [`Violation`].
//!
//! ```
//! use overlan_contract::assignment::{Answer, Question, Responsibility, validate};
//!
//! let duty = Responsibility { name: "shard-7".into(), replicas: 2, weight_milli: 1_000, requires: vec![] };
//! let question = Question { responsibilities: vec![duty], ..Question::default() };
//! assert_eq!(validate(&question, &Answer { owners: vec![vec![]] }), Ok(()), "no node is there to own it");
//! let violations = validate(&question, &Answer { owners: vec![vec![4]] }).unwrap_err();
//! assert_eq!(violations[1].to_string(), "owners[0][0] (shard-7) is 4; node indices are below 0");
//! ```
#![no_std]

extern crate alloc;

// Hidden lines of examples.

/// An adapter `eth0`, as [`Adapter`] shows it.
macro_rules! eth0 {
    () => {
        "# let eth0 = overlan_contract::Adapter {
#     name: \"eth0\".into(), kind: \"ether\".into(),
#     address: \"10.1.0.2\".parse().unwrap(), prefix_length: 24, mtu: 1_500, speed: 1_000,
#     class_of_service: \"\".into(), dscp: 0, status: overlan_contract::AdapterStatus::Up, attributes: vec![],
# };"
    };
}

/// A healthy `path`, as [`failover::Path`] shows it.
macro_rules! path {
    () => {
        concat!(
            eth0!(),
            "
# let path = overlan_contract::failover::Path {
#     local: eth0.clone(), remote: eth0, rtt: None, loss_ppm: 0, flaps: 0,
#     state: overlan_contract::failover::PathState::Up, since_ms: 60_000, attributes: vec![],
# };"
        )
    };
}

/// A `question` about a path's sizes, as [`sizing::Question`] shows it.
macro_rules! sized_path {
    () => {
        concat!(
            eth0!(),
            "
# let question = overlan_contract::sizing::Question {
#     local: eth0.clone(), remote: eth0, path_mtu: Some(1_400), rtt_us: Some(200), loss_ppm: 0,
#     overhead: 28, attributes: vec![],
# };"
        )
    };
}

pub mod assignment;
pub mod failover;
pub mod sizing;

mod facts;
mod violation;

pub use facts::{Adapter, AdapterStatus, Attributes, Kind, UnknownKind};
pub use violation::{MAX_VIOLATIONS, Violation};
