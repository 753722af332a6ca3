//! What a socket puts on the wire: DSCP, DF, sizes. The parts in a network namespace of their own need
//! root and skip loudly without it.

use std::io::{IoSliceMut, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use crate::common::{V4, V6, bind, receive, run};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use overlan_udp::{Options, SendError, Socket};

/// Sends by a socket and reads the DSCP at a plain one, on the loopback interface.
#[test]
fn the_dscp_arrives() {
    for ip in [V4, V6] {
        run(async {
            let plain = std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
            plain.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            match ip {
                IpAddr::V4(_) => setsockopt(&plain, sockopt::IpRecvTos, &true).unwrap(),
                IpAddr::V6(_) => setsockopt(&plain, sockopt::Ipv6RecvTClass, &true).unwrap(),
            }
            let remote = plain.local_addr().unwrap();
            let options = Options { dscp: 46, ..Options::default() };
            let socket = Socket::bind(SocketAddr::new(ip, 0), &options).unwrap();
            socket.send(b"one", 3, remote).unwrap();
            assert_eq!(received_traffic_class(&plain), 46 << 2 | 0b10);

            socket.set_dscp(10).unwrap();
            socket.send(&[0; 300], 100, remote).unwrap();
            for _ in 0..3 {
                assert_eq!(received_traffic_class(&plain), 10 << 2 | 0b10, "of a segmented send");
            }
            assert!(socket.set_dscp(64).is_err());
            assert_eq!(socket.dscp(), 10);
        });
    }
}

fn received_traffic_class(socket: &std::net::UdpSocket) -> u8 {
    let mut bytes = [0; 2048];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(i32, u8, [u8; 64]);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())
            .unwrap();
    message
        .cmsgs()
        .unwrap()
        .find_map(|message| match message {
            ControlMessageOwned::Ipv4Tos(class) => Some(class),
            ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).ok(),
            _ => None,
        })
        .expect("the traffic class was asked for")
}

/// Runs `test` in a network namespace whose loopback interface has this MTU.
fn in_namespace(mtu: u16, test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        // Namespaces belong to threads: this one's ends with it.
        let thread = scope.spawn(|| {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                eprintln!("SKIPPED: no network namespace without root ({error})");
                return;
            }
            if ip(&format!("link set lo up mtu {mtu}")) {
                test();
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip` with these words in the thread's namespace; says loudly where that does not work.
fn ip(words: &str) -> bool {
    let done = match Command::new("ip").args(words.split(' ')).status() {
        Ok(status) if status.success() => return true,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    eprintln!("SKIPPED: `ip {words}` does not work here: {done}");
    false
}

/// Datagrams to a neighbour whose link address is unknown stay charged to the sender: the buffer fills,
/// takes what it takes, and empties when the neighbour becomes known.
#[test]
fn a_full_buffer_takes_a_part_and_tells_when_there_is_room() {
    in_namespace(1_500, || {
        if !ip("link add left type veth peer name right")
            || !ip("link set left up")
            || !ip("link set right up")
            || !ip("address add 192.0.2.1/24 dev left")
        {
            return;
        }
        run(async {
            let small = Options { buffer_bytes: 64 << 10, ..Options::default() };
            let socket = Socket::bind("192.0.2.1:0".parse().unwrap(), &small).unwrap();
            let silent = "192.0.2.2:9".parse().unwrap();
            let datagrams = vec![1; 200 * 1200];
            let accepted = socket.send(&datagrams, 1200, silent).unwrap();
            assert!(
                0 < accepted && accepted < datagrams.len() && accepted.is_multiple_of(1200),
                "{accepted}"
            );
            let refused = socket.send(&datagrams[accepted..], 1200, silent).unwrap_err();
            assert!(matches!(refused, SendError::WouldBlock), "{refused}");

            assert!(ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev left"));
            socket.writable().await.unwrap();
            assert!(socket.send(&datagrams[accepted..], 1200, silent).unwrap() > 0);
        });
    });
}

/// At MTU 1,500 the largest payload is 1,472 bytes by IPv4 and 1,452 by IPv6; a byte more is TooLarge,
/// alone or in a batch, and condemns nobody's segmentation offload.
#[test]
fn a_datagram_above_the_mtu_is_too_large() {
    for (ip, largest) in [(V4, 1_472), (V6, 1_452)] {
        in_namespace(1_500, || {
            run(async {
                let (a, b) = (bind(ip), bind(ip));
                let bytes = vec![7; 10 * (largest + 1)];
                for above in [&bytes[..=largest], &bytes[..]] {
                    let error = a.send(above, largest + 1, b.local()).unwrap_err();
                    assert!(matches!(error, SendError::TooLarge), "{error}");
                    assert!(a.segmentation_offload());
                }
                assert_eq!(a.send(&bytes[..largest], largest, b.local()).unwrap(), largest);
                assert_eq!(a.send(&bytes[..5 * largest], largest, b.local()).unwrap(), 5 * largest);
                assert!(a.segmentation_offload());
                assert!(receive(&b, 6).await.iter().all(|datagram| datagram.0.len() == largest));
            });
        });
    }
}

/// No route but loopback's: ENETUNREACH.
#[test]
fn no_route_is_unreachable() {
    in_namespace(1_500, || {
        run(async {
            let any = Socket::bind("0.0.0.0:0".parse().unwrap(), &Options::default()).unwrap();
            let error = any.send(b"x", 1, "192.0.2.1:9".parse().unwrap()).unwrap_err();
            assert!(matches!(error, SendError::Unreachable(_)), "{error}");
        });
    });
}

/// A packet socket sees the IP headers themselves.
#[test]
fn df_and_dscp_stand_in_the_header() {
    in_namespace(1_500, || {
        const ETH_P_ALL: i32 = 0x0003;
        let mut capture = socket2::Socket::new(
            socket2::Domain::PACKET,
            socket2::Type::DGRAM,
            Some(socket2::Protocol::from(i32::from((ETH_P_ALL as u16).to_be()))),
        )
        .unwrap();
        capture.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        run(async {
            let options = Options { device: Some("lo"), dscp: 34, ..Options::default() };
            let a = Socket::bind(SocketAddr::new(V4, 0), &options).unwrap();
            assert!(a.device_bound());
            a.send(&[9; 100], 100, a.local()).unwrap();
            let mut packet = [0; 2048];
            loop {
                let len = capture.read(&mut packet).expect("the datagram passes lo");
                if packet[0] >> 4 == 4 && len == 20 + 8 + 100 {
                    break;
                }
            }
            assert_eq!(packet[1], 34 << 2 | 0b10, "DSCP, and ECT(0)");
            assert_eq!(packet[6] & 0xe0, 0x40, "DF set, no more fragments");
        });
    });
}
