//! Sockets on the loopback interface, without privileges.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::common::{V4, V6, bind, receive, run, send_all};
use overlan_udp::{BindError, Impairment, Options, RecvBatch, SendError, Socket};

#[test]
fn echo_by_v4_and_v6() {
    for ip in [V4, V6] {
        run(async {
            let (a, b) = (bind(ip), bind(ip));
            assert_eq!(a.send(b"ping", 1200, b.local()).unwrap(), 4);
            let (bytes, remote, destination, interface) = receive(&b, 1).await.remove(0);
            assert_eq!((&bytes[..], remote, destination), (&b"ping"[..], a.local(), Some(ip)));
            assert!(interface.is_some());
            b.send(b"pong", 4, remote).unwrap();
            assert_eq!(receive(&a, 1).await[0].0, b"pong");
        });
    }
}

/// 40 segments, the last shorter; once by segmentation offload, once without.
#[test]
fn a_batch_arrives_as_its_datagrams() {
    for (ip, offload) in [(V4, true), (V4, false), (V6, true), (V6, false)] {
        run(async {
            let (a, b) = (bind(ip), bind(ip));
            a.set_segmentation_offload(offload);
            let datagrams: Vec<u8> = (0..39 * 1200 + 77).map(|index| (index % 251) as u8).collect();
            send_all(&a, &datagrams, 1200, b.local()).await;
            let received = receive(&b, 40).await;
            assert_eq!(received.len(), 40);
            for (index, (datagram, expected)) in received.iter().zip(datagrams.chunks(1200)).enumerate() {
                assert!(datagram.0 == expected, "datagram {index} of {ip}, offload {offload}");
            }
            assert_eq!(a.segmentation_offload(), offload, "nobody refused it");
        });
    }
}

/// More than one call takes, in segments (64) and in bytes (65,507).
#[test]
fn large_batches_are_split() {
    run(async {
        let (a, b) = (bind(V4), bind(V4));
        for (segment, count) in [(10, 200), (9_000, 20), (65_507, 3)] {
            let datagrams: Vec<u8> = (0..segment * count).map(|index| (index / segment) as u8).collect();
            send_all(&a, &datagrams, segment, b.local()).await;
            let received = receive(&b, count).await;
            assert_eq!(received.len(), count);
            for (index, datagram) in received.iter().enumerate() {
                assert!(datagram.0.len() == segment && datagram.0[0] == index as u8, "{index}");
            }
        }
        assert_eq!(a.send(&[], 1200, b.local()).unwrap(), 0);
        assert_eq!(a.send(&[7], 0, b.local()).unwrap(), 1, "a segment has a byte at least");
    });
}

#[test]
fn recv_does_not_wait_for_the_runtime_to_notice() {
    run(async {
        let (a, b) = (bind(V4), bind(V4));
        let mut batch = RecvBatch::new();
        assert_eq!(b.recv(&mut batch).unwrap_err().kind(), ErrorKind::WouldBlock);
        a.send(b"now", 3, b.local()).unwrap();
        // No await since: the runtime has polled nothing.
        assert_eq!(b.recv(&mut batch).unwrap(), 1);
        assert_eq!(batch.datagrams().next().unwrap().bytes, b"now");
        assert_eq!(b.recv(&mut batch).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(batch.datagrams().count(), 0);
    });
}

#[test]
fn nothing_stays_behind_where_more_came_than_the_last_time() {
    run(async {
        let receiver = bind(V4);
        let remote = receiver.local();
        let mut batch = RecvBatch::new();
        for round in 1..40 {
            // From many sockets, so that receive offload does not join them.
            let senders: Vec<Socket> =
                (0..if round % 2 == 0 { 3 * round } else { 1 }).map(|_| bind(V4)).collect();
            for sender in &senders {
                sender.send(b"x", 1, remote).unwrap();
            }
            // All of it came before the runtime notices: there is one readiness for all of it.
            let mut received = 0;
            while received < senders.len() {
                receiver.readable().await.unwrap();
                while let Ok(count) = receiver.try_recv(&mut batch) {
                    received += count;
                }
            }
        }
    });
}

#[test]
fn empty_datagrams_are_left_out() {
    run(async {
        let b = bind(V4);
        let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        plain.send_to(b"", b.local()).unwrap();
        plain.send_to(b"x", b.local()).unwrap();
        assert_eq!(receive(&b, 1).await[0].0, b"x");
    });
}

#[test]
fn bind_errors_say_what_to_do() {
    run(async {
        let taken = bind(V4);
        let error = Socket::bind(taken.local(), &Options::default()).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == taken.local()), "{error}");
        assert!(error.to_string().contains("ss -ulpn"), "{error}");

        // 192.0.2.0/24 is for documentation (RFC 5737).
        let error = Socket::bind("192.0.2.1:0".parse().unwrap(), &Options::default()).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress(_)), "{error}");
        let any = SocketAddr::new(V4, 0);
        let error = Socket::bind(any, &Options { dscp: 64, ..Options::default() }).unwrap_err();
        assert!(matches!(error, BindError::Dscp(64)), "{error}");
        let absent = Options { device: Some("absent0"), ..Options::default() };
        match Socket::bind(any, &absent) {
            Err(BindError::NoSuchDevice(name)) => assert_eq!(name, "absent0"),
            Ok(socket) => assert!(!socket.device_bound(), "an older kernel checks the privilege first"),
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn a_v6_socket_leaves_the_v4_port_alone() {
    run(async {
        let six = Socket::bind("[::]:0".parse().unwrap(), &Options::default()).unwrap();
        let four = SocketAddr::new(V4, six.local().port());
        match Socket::bind(four, &Options::default()) {
            Ok(_) => {}
            Err(BindError::InUse(_)) if std::net::UdpSocket::bind(four).is_err() => {
                eprintln!("SKIPPED: another process has the port {}", four.port());
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn a_device_is_bound_or_said_not_to_be() {
    run(async {
        let options = Options { device: Some("lo"), ..Options::default() };
        let a = Socket::bind(SocketAddr::new(V4, 0), &options).unwrap();
        eprintln!("bound to lo: {}", a.device_bound());
        assert!(!bind(V4).device_bound(), "none was asked for");
        a.send(b"x", 1, a.local()).unwrap();
        assert_eq!(receive(&a, 1).await[0].0, b"x");
    });
}

#[test]
fn send_errors_are_told_apart() {
    run(async {
        let a = bind(V4);
        let error = a.send(&vec![0; 65_508], 65_508, a.local()).unwrap_err();
        assert!(matches!(error, SendError::TooLarge), "{error}");
        // A v4 socket to a v6 address: EAFNOSUPPORT, a bug of the caller.
        assert!(matches!(a.send(b"x", 1, "[::1]:9".parse().unwrap()), Err(SendError::Other(_))));
        assert!(a.segmentation_offload());
    });
}

#[test]
fn buffers_are_enlarged_and_reported() {
    run(async {
        let small = Options { buffer_bytes: 16 << 10, ..Options::default() };
        let small = Socket::bind(SocketAddr::new(V4, 0), &small).unwrap();
        let large = bind(V4);
        let (small, large_recv) = (small.recv_buffer_bytes().unwrap(), large.recv_buffer_bytes().unwrap());
        eprintln!("asked for {} KiB, given {} KiB", overlan_udp::BUFFER_BYTES >> 10, large_recv >> 10);
        assert!(small < large_recv);
        assert!(large.send_buffer_bytes().unwrap() > small);
    });
}

#[test]
fn an_impairment_drops_silently() {
    run(async {
        let (a, b) = (bind(V4), bind(V4));
        let mut batch = RecvBatch::new();

        a.set_impairment(Impairment::DropOut);
        assert_eq!(a.send(b"lost", 4, b.local()).unwrap(), 4);
        assert_eq!(b.recv(&mut batch).unwrap_err().kind(), ErrorKind::WouldBlock);
        b.send(b"in", 2, a.local()).unwrap();
        assert_eq!(receive(&a, 1).await[0].0, b"in");

        a.set_impairment(Impairment::DropIn);
        b.send(b"lost", 4, a.local()).unwrap();
        assert_eq!(a.recv(&mut batch).unwrap(), 0);
        assert_eq!(batch.datagrams().count(), 0);
        a.send(b"out", 3, b.local()).unwrap();
        assert_eq!(receive(&b, 1).await[0].0, b"out");

        a.set_impairment(Impairment::DropBoth);
        a.send(b"lost", 4, b.local()).unwrap();
        b.send(b"lost", 4, a.local()).unwrap();
        assert_eq!(a.recv(&mut batch).unwrap(), 0);

        a.set_impairment(Impairment::None);
        a.send(b"back", 4, b.local()).unwrap();
        assert_eq!(receive(&b, 1).await[0].0, b"back", "what was dropped stays lost");
    });
}
