//! The bindings of `wit/` and the conversion between its types and the contract's. Only
//! built for `wasm32`; called by what `export!` emits, not by authors.

mod facts;

pub mod assignment;
pub mod failover;
pub mod sizing;

use std::cell::RefCell;
use std::panic;

use serde::de::DeserializeOwned;

use crate::{Config, ConfigError, Level, Log};

pub use wit_bindgen::rt;

/// The policy of this instance, once configured.
pub struct Slot<P>(RefCell<Option<P>>);

impl<P> Slot<P> {
    /// Not configured yet.
    pub const fn new() -> Self {
        Slot(RefCell::new(None))
    }

    /// Makes the policy, and lets a later panic say in the node's log what it was.
    pub fn configure(
        &self,
        pairs: Vec<(String, String)>,
        make: impl FnOnce(&Config) -> Result<P, ConfigError>,
    ) -> Result<(), String> {
        panic::set_hook(Box::new(|info| HostLog.error(&info.to_string())));
        let policy = make(&Config::from(pairs)).map_err(|error| error.to_string())?;
        *self.0.borrow_mut() = Some(policy);
        Ok(())
    }

    /// Asks the policy.
    pub fn decide<A>(&self, ask: impl FnOnce(&mut P, &dyn Log) -> Result<A, String>) -> Result<A, String> {
        match self.0.borrow_mut().as_mut() {
            Some(policy) => ask(policy, &HostLog),
            None => Err("asked before it was configured".to_owned()),
        }
    }
}

/// A question that came in one piece.
///
/// # Errors
/// The host packed another record than this policy knows.
pub fn unpack<Q: DeserializeOwned>(packed: Vec<u8>) -> Result<Q, String> {
    postcard::from_bytes(&packed).map_err(|error| format!("the packed question cannot be read: {error}"))
}

/// The node's log.
struct HostLog;

impl Log for HostLog {
    fn write(&self, level: Level, message: &str) {
        use assignment::overlan::policy::log;
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        log::write(level, message);
    }
}
