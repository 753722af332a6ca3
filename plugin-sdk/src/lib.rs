//! Write an Overlan policy: one struct, one trait, one macro.
//!
//! ```
//! use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, sizing};
//!
//! /// Always the smallest datagram.
//! struct Smallest;
//!
//! impl Sizing for Smallest {
//!     fn configure(config: &Config) -> Result<Self, ConfigError> {
//!         config.expect_empty()?;
//!         Ok(Smallest)
//!     }
//!
//!     fn decide(&mut self, _: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
//!         let datagram = sizing::MIN_DATAGRAM;
//!         Ok(sizing::Answer { datagram, coalesce: datagram, burst: 10 * datagram })
//!     }
//! }
//!
//! overlan_plugin_sdk::export!(sizing: Smallest);
//! ```
//!
//! Built for `wasm32-unknown-unknown` as a `cdylib`, the macro emits the exports of the world
//! `sizing-policy` in `wit/policy.wit`; `overlan policy build` does that and makes the module a component.
//! Built natively it emits nothing but a check of the types, so the logic unit-tests without wasm
//! and any number of policies link into one binary.
//!
//! A policy must answer equal questions equally on every member: no clock, no randomness, no
//! `HashMap` iteration, and scores in integers or fixed point ([`score`]), never in floating-point
//! logarithms, which differ between C libraries.
//!
//! Reading order: the traits [`Assignment`], [`Sizing`] and [`Failover`]; the questions and answers
//! in [`assignment`], [`sizing`] and [`failover`]; [`Config`]; [`Log`]; then the tools [`score`],
//! [`placement`] and [`testkit`].
//!
//! `unsafe` is in one place, where a plugin reads its question (`packed`): it lends the strings and lists of the
//! question instead of copying them, for a copy takes longer than some strategies do.

// The generated exports name this crate by its path, from here and from plugin crates alike.
#[cfg(target_arch = "wasm32")]
extern crate self as overlan_plugin_sdk;

mod config;
mod export;
mod log;
pub mod placement;
mod policy;
pub mod score;
pub mod testkit;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod glue;
#[cfg(any(target_arch = "wasm32", test))]
#[doc(hidden)]
pub mod packed;

pub use config::{Config, ConfigError, Within};
pub use log::{Discard, Level, Log, Recorder};
pub use overlan_contract::{Adapter, AdapterStatus, Attributes, Kind, Violation};
pub use overlan_contract::{assignment, failover, sizing};
pub use policy::{Assignment, Failover, Sizing};
