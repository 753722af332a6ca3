//! Round trips over raw UDP: by tokio, asleep between datagrams; and spinning on a socket that never blocks.

use std::io::ErrorKind::WouldBlock;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::worker::{Counts, Options, ready};

/// A datagram that does not come back is given up after this long.
const PATIENCE: Duration = Duration::from_millis(200);
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn spin_receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    until: Option<Instant>,
) -> std::io::Result<Option<SocketAddr>> {
    loop {
        match socket.recv_from(buffer) {
            Ok((_, from)) => return Ok(Some(from)),
            Err(error) if error.kind() == WouldBlock => {
                if until.is_some_and(|until| until <= Instant::now()) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Echoes.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    let local: SocketAddr = options.peer()?;
    let mut buffer = vec![0; options.size()?];
    let counts = Counts::new();
    if options.flag("spin") {
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        ready(&counts)?;
        loop {
            if let Some(from) = spin_receive(&socket, &mut buffer, None)? {
                socket.send_to(&buffer, from)?;
            }
        }
    }
    crate::runtime()?.block_on(async {
        let socket = tokio::net::UdpSocket::bind(local).await?;
        ready(&counts)?;
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await?;
            socket.send_to(&buffer[..bytes], from).await?;
        }
    })
}

/// Asks and measures.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    let remote = options.peer()?;
    let mut buffer = vec![0; options.size()?];
    let counts = Counts::new();
    if options.flag("spin") {
        let socket = UdpSocket::bind(ANY)?;
        socket.set_nonblocking(true)?;
        ready(&counts)?;
        loop {
            let sent = Instant::now();
            socket.send_to(&buffer, remote)?;
            if spin_receive(&socket, &mut buffer, Some(sent + PATIENCE))?.is_some() {
                counts.latency(sent.elapsed());
            }
        }
    }
    crate::runtime()?.block_on(async {
        let socket = tokio::net::UdpSocket::bind(ANY).await?;
        socket.connect(remote).await?;
        ready(&counts)?;
        loop {
            let sent = Instant::now();
            socket.send(&buffer).await?;
            if let Ok(received) = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await {
                received?;
                counts.latency(sent.elapsed());
            }
        }
    })
}
