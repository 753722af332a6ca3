//! The core in virtual time: the same state machine that the node runs, over a network whose faults are
//! drawn from a seed. The same seed gives the same trace, byte for byte.
//!
//! [`World`] holds the members and the datagrams under way; [`Network`] says what happens to a datagram; [`Insider`]
//! breaks the rules with valid keys. Policies are answered by the core's native fallbacks unless a [`World::policy`] is
//! set.

pub mod forged;
mod insider;
mod network;
mod world;

pub use insider::Insider;
pub use network::{HEADERS, InOrder, Link, Network};
pub use world::{Member, World};
