//! Doing things inside a namespace.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use std::os::fd::AsRawFd as _;

/// Runs `work` on a thread of its own inside a network namespace. Sockets it returns stay there.
///
/// # Panics
/// Where the namespace cannot be entered, or as `work` does.
pub fn namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let joined = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("entering {path}: {error}"));
            work()
        });
        thread.join()
    });
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A UDP socket inside a namespace.
///
/// # Panics
/// Where the address cannot be bound.
pub fn udp_socket(name: &str, address: SocketAddr) -> UdpSocket {
    namespace(name, || UdpSocket::bind(address).unwrap_or_else(|error| panic!("binding {address}: {error}")))
}

/// Sends an IPv4 packet, header included, out of a namespace: its source may be anybody's.
///
/// # Panics
/// Where the packet is none or the kernel refuses it.
pub fn send_raw(name: &str, packets: &[Vec<u8>]) {
    namespace(name, || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).expect("a raw socket");
        for packet in packets {
            let octets: [u8; 4] = packet[16..20].try_into().expect("four bytes");
            let to = SockaddrIn::new(octets[0], octets[1], octets[2], octets[3], 0);
            sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).expect("a raw packet");
        }
    });
}

/// An IPv4 packet that carries a UDP datagram.
///
/// # Panics
/// Where the addresses are not IPv4, or the payload too long.
pub fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(target)) = (from.ip(), to.ip()) else { panic!("not IPv4") };
    let udp_length = u16::try_from(8 + payload.len()).expect("it fits a datagram");
    let mut packet = vec![0x45, 0];
    // The kernel completes total length, identification and header checksum.
    packet.extend_from_slice(&[0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&target.octets());
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&udp_length.to_be_bytes());
    // Checksum 0: none (RFC 768).
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    packet
}
