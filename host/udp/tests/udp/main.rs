//! Sockets against the kernel of this machine.

mod common;
mod loopback;
#[cfg(target_os = "linux")]
mod wire;
