//! What really passes through a namespace: every packet on every interface but loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};

use super::inside;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const LOOPBACK_HARDWARE: u16 = 772;

/// One captured packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What it is.
    pub what: What,
    /// The packet from its IP header on.
    pub bytes: Vec<u8>,
}

/// What a packet is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A UDP datagram, with the length of its payload.
    Udp {
        /// Source.
        from: SocketAddr,
        /// Destination.
        to: SocketAddr,
        /// Bytes of payload.
        payload: usize,
    },
    /// ARP, ICMP or ICMPv6: the network's own upkeep.
    Upkeep,
    /// Another IP protocol, or an IP fragment.
    Ip(u8),
    /// Another EtherType.
    Ether(u16),
}

/// A running capture; the kernel queues until it is read.
#[derive(Debug)]
pub struct Capture(OwnedFd);

impl Capture {
    /// Starts to capture in a namespace.
    ///
    /// # Panics
    /// Where packet sockets are not allowed.
    pub fn start(namespace: &str) -> Capture {
        inside::namespace(namespace, || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let packet = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)
                .expect("a packet socket");
            setsockopt(&packet, sockopt::RcvBufForce, &(64 << 20)).expect("a large receive buffer");
            Capture(packet)
        })
    }

    /// What came since the last call. A router sees each forwarded packet twice: in and out.
    ///
    /// # Panics
    /// Where the socket fails.
    pub fn take(&self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 70_000];
        // A bound, should packets come faster than they are read.
        while packets.len() < 1_000_000 {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((length, Some(link))) if link.hatype() != LOOPBACK_HARDWARE => {
                    let bytes = buffer[..length].to_vec();
                    packets.push(Packet { what: classify(u16::from_be(link.protocol()), &bytes), bytes });
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => panic!("reading a capture: {error}"),
            }
        }
        packets
    }

    /// The UDP ports and the kinds of other packets seen since the last call.
    pub fn take_kinds(&self) -> (BTreeSet<u16>, BTreeSet<What>) {
        let (mut ports, mut others) = (BTreeSet::new(), BTreeSet::new());
        for packet in self.take() {
            match packet.what {
                What::Udp { from, to, .. } => ports.extend([from.port(), to.port()]),
                What::Upkeep => {}
                other => {
                    others.insert(other);
                }
            }
        }
        (ports, others)
    }
}

impl Packet {
    /// The UDP payload.
    ///
    /// # Panics
    /// Where it is not UDP.
    pub fn payload(&self) -> &[u8] {
        let What::Udp { payload, .. } = self.what else { panic!("not UDP: {:?}", self.what) };
        &self.bytes[self.bytes.len() - payload..]
    }
}

fn classify(ether: u16, packet: &[u8]) -> What {
    match ether {
        ARP => What::Upkeep,
        IPV4 => v4(packet),
        IPV6 => v6(packet),
        other => What::Ether(other),
    }
}

fn v4(packet: &[u8]) -> What {
    let header = usize::from(packet[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"));
    match packet[9] {
        ICMP => What::Upkeep,
        UDP if !fragment => udp(address(12), address(16), &packet[header..]),
        other => What::Ip(other),
    }
}

fn v6(packet: &[u8]) -> What {
    let address =
        |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes"));
    match packet[6] {
        ICMPV6 => What::Upkeep,
        // Multicast listener reports travel behind a hop-by-hop header.
        0 if packet[40] == ICMPV6 => What::Upkeep,
        UDP => udp(address(8), address(24), &packet[40..]),
        other => What::Ip(other),
    }
}

fn udp(from: IpAddr, to: IpAddr, datagram: &[u8]) -> What {
    let port = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    let payload = datagram.len() - 8;
    What::Udp { from: (from, port(0)).into(), to: (to, port(2)).into(), payload }
}

/// Drops whatever is queued, without looking at it.
impl Capture {
    /// Forgets what came so far.
    pub fn clear(&self) {
        let mut buffer = [0; 64];
        for _ in 0..1_000_000 {
            if nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_err() {
                break;
            }
        }
    }
}
