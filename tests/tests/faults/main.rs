//! Faults that other cluster software is known to suffer from, and clients that break the rules, against the
//! real binary. What must hold: nothing lost, nothing doubled, nobody falsely down, one table in the end.

mod clients;
mod keys;
mod links;
mod members;
mod mtu;
mod policies;
