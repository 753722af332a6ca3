//! The kernel's TCP, plaintext; `congestion=` names the congestion control.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::worker::{Counts, Options, ready};

const CHUNK: usize = 1 << 20;

/// Counts what arrives on one connection.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.peer()?)?;
    let counts = Counts::new();
    ready(&counts)?;
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let bytes = stream.read(&mut buffer)?;
        counts.add(0, bytes as u64);
        if bytes == 0 {
            // The sender is done; the control thread ends this process.
            std::thread::park();
        }
    }
}

/// Sends for ever.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    let remote: SocketAddr = options.peer()?;
    let mut socket = Socket::new(Domain::for_address(remote), Type::STREAM, None)?;
    socket.set_tcp_congestion(options.value::<String>("congestion")?.as_bytes())?;
    socket.connect(&remote.into())?;
    ready(&Counts::new())?;
    let buffer = vec![0x5a; CHUNK];
    loop {
        socket.write_all(&buffer)?;
    }
}
