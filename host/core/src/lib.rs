//! The sans-IO protocol of Overlan: everything a member decides and remembers, and no networking
//! code, clock, thread or hidden randomness.
//!
//! [`Core`] takes datagrams, adapter facts, messages to send, policy answers and the time; it gives
//! datagrams, messages, events, policy questions and desired routes. The same core runs under the
//! tokio node, in the simulator and under the fuzzers.
//!
//! Reading order: [`time`], [`crypto`] (what the core asks of cryptography), [`config`], [`document`], [`event`],
//! [`policy`] (questions, answers, native fallbacks), `table`, `membership`, `path`, `delivery`,
//! [`plan`], then `engine`, which ties them together, and [`status`], what it shows of itself.
#![no_std]

extern crate alloc;

pub mod config;
pub mod crypto;
pub mod document;
pub mod event;
pub mod plan;
pub mod policy;
pub mod status;
pub mod time;

mod delivery;
mod engine;
mod membership;
mod path;
mod peer;
mod sighting;
mod table;

pub use config::{Config, Congestion};
pub use delivery::arrivals::{Arrivals, Payloads};
pub use delivery::marks::Marks;
pub use engine::{ApplyError, Core, LastKnown};
pub use event::{Event, Fate, FateReport, Message, Outgoing, OwnershipChange, SendError, Transmit};
pub use overlan_wire::DocumentId;
pub use time::Instant;
