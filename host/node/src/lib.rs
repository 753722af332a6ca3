//! A node of an Overlan cluster: the tokio runtime round the core.
//!
//! [`Node::start`] gives a [`NodeHandle`]: send, listen, watch, list, swap policies, leave. Everything a node does is
//! also served on a Unix socket: the control API is HTTP (`CONTROL.md`), messages pass over the application stream
//! (`APPSOCKET.md`); [`client`] speaks both. This crate decides nothing about the protocol, that is the core's.
//!
//! Threads: the driver owns the core and the sockets; one worker for each policy kind; a service thread watches the
//! kernel, keeps the routes and serves the Unix socket. They exchange bounded queues and `watch` values.
//!
//! Reading order: [`config`], [`adapters`] (which are used), `state` (the state directory), `driver`, `policy`,
//! `journal` (of policy questions), `kernel` (adapters and routes), `keyring`, `node` (start), `handle`, `receipt`, `control`, [`app`] (the application
//! stream), [`client`].

pub mod adapters;
pub mod app;
pub mod bench;
pub mod client;
pub mod config;

mod control;
pub mod document;
mod driver;
mod handle;
mod journal;
mod kernel;
mod keyring;
mod last_known;
mod node;
mod policy;
mod problems;
mod receipt;
pub mod rollout;
mod state;
mod watch;

pub use app::{Origin, Received, ReceivedRun};
pub use config::{Config, ConfigError};
pub use driver::{ListenOptions, Listener, MemberOutcome, SendFailure, SendOptions, Streams};
pub use handle::{IdentityTaken, NodeHandle, NodeStatus, Stopped};
pub use journal::JournalStatus;
pub use kernel::plan_for;
pub use keyring::{KeyView, KeyringChange, KeyringFailure, MAX_KEY_FILE};
pub use node::{Node, StartError};
pub use policy::{
    Change, Changes, Compare, Difference, Pair, PlanComparison, PolicyError, PolicyShadow, PolicyStatus,
    PolicyTotals, ProbationStatus,
};
pub use receipt::{BatchReceipt, Receipt};
pub use state::{StateError, random, read_bounded};
pub use watch::{Watch, WatchEvent};

pub use overlan_contract::{Attributes, Kind, assignment::Responsibility};
pub use overlan_core::{Congestion, DocumentId, Event, Fate, OwnershipChange, status};
pub use overlan_journal as policy_journal;
pub use overlan_netlink as netlink;
pub use overlan_plugins_dist as plugins;
pub use overlan_policy as policy_host;
pub use overlan_seal::OperatorKey;
pub use overlan_udp::Impairment;
pub use overlan_wire::limits::MAX_MESSAGE;
pub use overlan_wire::{Digest, KeyId, MessageMode, NodeId};

/// A new cluster key, as the text of a key file.
pub fn new_cluster_key() -> String {
    overlan_seal::Keyring::generate(random()).to_text().to_string()
}
