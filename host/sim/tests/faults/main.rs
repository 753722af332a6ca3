//! Seeded runs against single promises: what must hold whatever dies, and when.

mod common;
mod delivery;
mod far;
mod flow;
mod holes;
mod jitter;
mod large;
mod membership;
mod modes;
mod refused;
mod sizes;
mod slow;
mod streams;
