//! The application stream: messages in and out of a node over its Unix socket.

pub mod frame;
mod server;

pub use frame::{Frame, FrameError, Received, Target};
pub(crate) use server::serve;
