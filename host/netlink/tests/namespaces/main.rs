//! The crate against the kernel, each test in a network namespace of its own. Needs root and `ip`; says loudly when it
//! skips.

mod adapters;
mod lab;
mod routes;
