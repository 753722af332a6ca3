//! The application stream: messages in and out of a node over its Unix socket.

pub mod frame;
mod message;
mod server;

pub use frame::{Frame, FrameError, Target};
pub use message::{Origin, Received, ReceivedRun};
pub(crate) use server::{refuse, serve};
