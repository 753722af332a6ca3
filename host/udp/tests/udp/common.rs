//! What the suites share.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use overlan_udp::{Options, RecvBatch, SendError, Socket};

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Runs `test` on one thread's runtime, as the node does, 10 s at most.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), test).await.expect("the test takes too long");
    });
}

pub(crate) fn bind(ip: IpAddr) -> Socket {
    Socket::bind(SocketAddr::new(ip, 0), &Options::default()).unwrap()
}

/// Sends everything, waiting for room.
pub(crate) async fn send_all(socket: &Socket, datagrams: &[u8], segment: usize, remote: SocketAddr) {
    let mut sent = 0;
    while sent < datagrams.len() {
        match socket.send(&datagrams[sent..], segment, remote) {
            Ok(bytes) => sent += bytes,
            Err(SendError::WouldBlock) => socket.writable().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Payload, sender, destination, interface.
pub(crate) type Received = (Vec<u8>, SocketAddr, Option<IpAddr>, Option<u32>);

/// Waits for `count` datagrams.
pub(crate) async fn receive(socket: &Socket, count: usize) -> Vec<Received> {
    let mut batch = RecvBatch::new();
    let mut received = Vec::new();
    while received.len() < count {
        match socket.recv(&mut batch) {
            Ok(datagrams) => {
                let before = received.len();
                received.extend(batch.datagrams().map(|datagram| {
                    (datagram.bytes.to_vec(), datagram.remote, datagram.destination, datagram.interface)
                }));
                assert_eq!(received.len() - before, datagrams);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    received
}
