//! Adapters and routes of the Linux kernel, over rtnetlink.
//!
//! What this crate does: list the adapters of this host ([`snapshot`]), tell at once when they change ([`Watch`]), work
//! out which kernel routes make each path leave by its own adapter ([`plan()`], a pure function), and bring the kernel
//! there and keep it there ([`Reconciler`]).
//!
//! What it never does: touch a route or a rule that does not carry our protocol number ([`PROTOCOL`]), install a whole
//! subnet because a remote member said so, remember what it believes the kernel to hold (each call takes a new
//! snapshot), send or receive a datagram.
//!
//! # Whose routes are whose
//!
//! Four marks, all of them kept by the kernel and none by us, so that a node killed with `kill -9` finds its leftovers
//! when it starts again, and two nodes on one host never touch each other's:
//!
//! | mark | value | says |
//! | --- | --- | --- |
//! | `protocol` | [`PROTOCOL`] = 111 | some Overlan node installed it |
//! | `metric` (routes) | the [`Owner`], by default the node's UDP port | which node |
//! | `table` | [`TABLE_BASE`] + owner * 1000 + slot; or main, for configured subnets | which adapter address |
//! | `priority` (rules) | [`PRIORITY_BASE`] + slot | the same slot |
//!
//! Node 7400 uses tables 1007400000 to 1007400999. For `ip route` to print a name in place of the number, put this
//! line into `/etc/iproute2/rt_protos.d/overlan.conf` (or `/etc/iproute2/rt_protos`):
//!
//! ```text
//! 111     overlan
//! ```
//!
//! In reading order: `network` (prefixes), `adapter` and `kind` (what the kernel has), `watch` and `event` (what
//! changes), `route` (the vocabulary of routes), `plan` (what we want), `diff` (what is to be done), `reconcile`
//! (doing it), `message` and `kernel` (netlink itself), `admin` and `error`.

mod adapter;
mod admin;
mod diff;
mod error;
mod event;
mod kernel;
mod kind;
mod message;
mod network;
mod plan;
mod reconcile;
mod route;
mod watch;

pub use adapter::{Adapter, snapshot};
pub use admin::can_admin;
pub use error::Error;
pub use network::{InvalidNetwork, Network};
pub use plan::{Desired, LocalAddress, MAX_ADDRESSES, MAX_HOST_ROUTES, Plan, Subnet, plan};
pub use reconcile::{Reconciler, Report, clear_all, installed};
pub use route::{
    Entry, Installed, InvalidOwner, Owner, PRIORITY_BASE, PROTOCOL, Refusal, Route, Rule, SLOTS, TABLE_BASE,
    TABLE_MAIN,
};
pub use watch::{Change, MAX_MESSAGES_PER_CHANGE, Watch};
