//! Datagrams that nobody sent so: counted, dropped, while traffic goes on.

use std::net::SocketAddr;

use overlan_tests::cluster::Cluster;
use overlan_tests::fuzz::Random;
use overlan_tests::lab::capture::{Capture, What};
use overlan_tests::lab::{Plan, Router, inside};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, measure};

const STREAM: Stream = Stream { mode: "ordered", count: 600, interval_ms: 5, size: 64 };

/// Real datagrams from the first member to the second.
fn real(capture: &Capture, from: SocketAddr, to: SocketAddr) -> Vec<Vec<u8>> {
    let packets = capture.take();
    let ours = packets
        .iter()
        .filter(|packet| matches!(packet.what, What::Udp { from: f, to: t, .. } if f == from && t == to));
    ours.map(|packet| packet.payload().to_vec()).collect()
}

#[test]
fn truncated_flipped_oversized_and_replayed_datagrams_harm_nothing() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan::default(), |_, _| {});
    let router = cluster.lab().router(Router::First);
    let (from, to) = (cluster.seed(0), cluster.seed(1));
    let capture = Capture::start(&router);
    measure(&cluster.nodes[0], &cluster.nodes[1], Stream { count: 200, ..STREAM }, || {});
    let genuine = real(&capture, from, to);
    assert!(genuine.len() >= 200, "{} datagrams captured", genuine.len());

    let mut random = Random::new(7);
    let mut hostile = Vec::new();
    for datagram in &genuine {
        hostile.push(datagram[..random.below(datagram.len())].to_vec());
        let mut flipped = datagram.clone();
        let at = random.below(flipped.len());
        flipped[at] ^= 1 << random.below(8);
        hostile.push(flipped);
        hostile.push([&datagram[..], &[0; 64]].concat());
        hostile.push(datagram.clone());
    }
    hostile.push(Vec::new());
    let packets: Vec<Vec<u8>> =
        hostile.iter().map(|datagram| inside::udp_packet(from, to, datagram)).collect();

    let receiver = &cluster.nodes[1];
    let counters = ["dropped_malformed", "dropped_forged", "dropped_replayed"];
    let before = counters.map(|name| receiver.counter(name));
    let outcome = measure(&cluster.nodes[0], receiver, STREAM, || {
        for batch in packets.chunks(50) {
            inside::send_raw(&router, batch);
        }
        send_oversized(&router, to);
    });
    assert_eq!((outcome.lost, outcome.doubled), (0, 0), "{outcome:?}");
    let after = counters.map(|name| receiver.counter(name));
    for (name, (before, after)) in counters.iter().zip(before.into_iter().zip(after)) {
        assert!(after > before, "{name} counts: {before}, then {after}");
    }
    let counted: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    assert!(counted >= hostile.len() as u64 / 2, "{counted} of {} counted", hostile.len());
    cluster.wait_settled();
}

/// Datagrams of nonsense, as large as there are, and as many as fit a second.
fn send_oversized(router: &str, to: SocketAddr) {
    let socket = inside::udp_socket(router, "0.0.0.0:0".parse().expect("an address"));
    for fill in [0x00, 0x01, 0xff] {
        socket.send_to(&vec![fill; 60_000], to).expect("a fragmented datagram");
    }
}

#[test]
fn whoever_has_no_key_gets_no_answer() {
    skip_without_root!();
    let cluster = Cluster::started_in_lab(Plan { members: 1, ..Plan::default() }, |_, _| {});
    let router = cluster.lab().router(Router::First);
    let prober = inside::udp_socket(&router, (cluster.lab().gateway(0, 0), 9_999).into());
    prober.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a timeout");
    let mut random = Random::new(11);
    for length in (0..200).chain([1_200, 1_472]) {
        let mut nonsense: Vec<u8> = (0..length).map(|_| random.byte()).collect();
        // The right version and kind, so that it is looked at.
        nonsense
            .iter_mut()
            .zip([1, 1 + random.below(3) as u8, 0, 0])
            .for_each(|(byte, wanted)| *byte = wanted);
        prober.send_to(&nonsense, cluster.seed(0)).expect("sent");
    }
    let mut buffer = [0; 2_000];
    let answer = prober.recv_from(&mut buffer);
    assert!(answer.is_err(), "nonsense was answered: {answer:?}");
}
