//! The tokio runtime round the core.
pub mod config;
