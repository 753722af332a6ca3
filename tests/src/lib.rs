//! What Overlan's suites share. It drives the real binary over its command line and knows nothing of
//! its insides; the suites stand in `tests/`.
//!
//! Reading order: [`skip`] (what happens where root or a tool is missing), [`wait`] (bounded waiting),
//! [`binary`] (finds `overlan` and runs its commands), [`lab`] (members and routers as network
//! namespaces, and faults between them), [`config`] (configuration files), [`node`] (a running
//! member), [`cluster`] (several, in a lab or on loopback), [`traffic`] (streams of messages, and the
//! gap a fault leaves in them), [`corpus`] (bytes of earlier versions), [`fuzz`] (mutated input for every decoder).
//!
//! Everything that is created is removed on drop, on panic too; only processes started here are ended,
//! each by its process id.

pub mod binary;
pub mod cluster;
pub mod config;
pub mod corpus;
pub mod fuzz;
pub mod json;
pub mod lab;
pub mod node;
pub mod skip;
pub mod traffic;
pub mod wait;

/// The folder of the package whose test, example or benchmark runs. Looked up as it runs: what was compiled may come
/// from a build cache that it shares with a checkout elsewhere.
pub fn package() -> std::path::PathBuf {
    // Cargo and nextest set it; without them the tests start where they are, in the package.
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into()).into()
}
