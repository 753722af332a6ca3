//! The lab itself, shown by plain sockets: what it claims to cut is cut, and nothing else.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overlan_tests::lab::capture::{Capture, What};
use overlan_tests::lab::faults::Hit;
use overlan_tests::lab::{Family, Lab, Plan, Router, Routing, inside};
use overlan_tests::{skip_without_root, wait::wait_for};

const PORT: u16 = 7400;

/// Sockets of all members on one adapter.
fn sockets(lab: &Lab, adapter: usize) -> Vec<UdpSocket> {
    let socket = |member| {
        let socket = inside::udp_socket(&lab.member(member), (lab.address(member, adapter), PORT).into());
        socket.set_read_timeout(Some(Duration::from_millis(150))).expect("a timeout");
        socket
    };
    (0..lab.plan.members).map(socket).collect()
}

/// Whether a datagram from one member reaches another; late ones of earlier calls do not count.
fn reaches(sockets: &[UdpSocket], from: usize, to: usize) -> bool {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let text = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
    let target = sockets[to].local_addr().expect("an address");
    if sockets[from].send_to(text.as_bytes(), target).is_err() {
        return false;
    }
    let mut buffer = [0; 64];
    let mut arrivals = std::iter::from_fn(|| {
        sockets[to].recv_from(&mut buffer).ok().map(|(length, _)| buffer[..length].to_vec())
    });
    arrivals.any(|payload| payload == text.as_bytes())
}

fn assert_all_reach(sockets: &[UdpSocket]) {
    for from in 0..sockets.len() {
        for to in (0..sockets.len()).filter(|&to| to != from) {
            assert!(reaches(sockets, from, to), "{from} does not reach {to}");
        }
    }
}

fn with_defaults(family: Family) -> Lab {
    Lab::new(Plan { family, routing: Routing::Defaults, rp_filter: 1, ..Plan::default() })
}

#[test]
fn members_reach_each_other_only_through_routers() {
    skip_without_root!();
    for family in [Family::V4, Family::V6] {
        let lab = with_defaults(family);
        let first = sockets(&lab, 0);
        assert_all_reach(&first);
        assert!(lab.forwarded(Router::First, 0, 1).packets >= 1, "{family:?}");
        assert_eq!(lab.forwarded(Router::Second, 0, 1).packets, 0, "{family:?}");
    }
}

#[test]
fn without_routes_nobody_is_reached() {
    skip_without_root!();
    let lab = Lab::new(Plan::default());
    let first = sockets(&lab, 0);
    assert!(!reaches(&first, 0, 1));
    assert!(!reaches(&first, 1, 0));
    assert_eq!(
        inside::namespace(&lab.member(0), || std::fs::read_to_string("/proc/net/route")
            .map(|r| r.lines().count()))
        .ok(),
        Some(3),
        "a heading and two subnets"
    );
}

#[test]
fn faults_hit_what_they_say_and_heal() {
    skip_without_root!();
    let lab = with_defaults(Family::V4);
    let first = sockets(&lab, 0);
    lab.drop_silently(Router::First, Hit::one_way(0, 1));
    assert!(!reaches(&first, 0, 1));
    assert!(reaches(&first, 1, 0));
    assert!(reaches(&first, 0, 2));
    lab.heal(Router::First);
    assert_all_reach(&first);
    lab.lose(Router::First, Hit::ALL, 50);
    let arrived = (0..40).filter(|_| reaches(&first, 2, 0)).count();
    assert!((5..36).contains(&arrived), "{arrived} of 40 at 50% loss");
    lab.heal(Router::First);
    lab.link_down(0, 0);
    assert!(!reaches(&first, 0, 1));
    lab.link_up(0, 0);
    wait_for("the first adapter to carry again", Duration::from_secs(5), || {
        reaches(&first, 0, 1).then_some(())
    });
    lab.unplug(1, 0);
    assert!(!reaches(&first, 0, 1));
    lab.plug(1, 0);
    wait_for("the cable to carry again", Duration::from_secs(5), || reaches(&first, 0, 1).then_some(()));
    lab.address_delete(2, 0);
    assert!(!reaches(&first, 0, 2));
    lab.address_add(2, 0);
    wait_for("the address to be back", Duration::from_secs(5), || reaches(&first, 0, 2).then_some(()));
    lab.router_dead(Router::First, true);
    assert!(!reaches(&first, 0, 1));
}

#[test]
fn linked_routers_join_first_and_second_adapters() {
    skip_without_root!();
    let plan = Plan { routing: Routing::Defaults, routers_linked: true, ..Plan::default() };
    let lab = Lab::new(plan);
    let (first, second) = (sockets(&lab, 0), sockets(&lab, 1));
    let target = second[1].local_addr().expect("an address");
    first[0].send_to(b"across", target).expect("sent");
    let mut buffer = [0; 64];
    assert_eq!(second[1].recv_from(&mut buffer).expect("received").0, 6);
}

#[test]
fn a_capture_sees_datagrams_and_packets_can_be_forged() {
    skip_without_root!();
    let lab = with_defaults(Family::V4);
    let first = sockets(&lab, 0);
    let capture = Capture::start(&lab.router(Router::First));
    first[0].send_to(b"hello", first[1].local_addr().expect("bound")).expect("sent");
    let mut buffer = [0; 64];
    first[1].recv_from(&mut buffer).expect("received");
    let seen = capture.take();
    let carried =
        seen.iter().find(|packet| matches!(packet.what, What::Udp { payload: 5, .. })).expect("seen");
    assert_eq!(carried.payload(), b"hello");
    assert!(seen.iter().all(|packet| matches!(packet.what, What::Udp { .. } | What::Upkeep)), "{seen:?}");

    let (from, to) = (first[0].local_addr().expect("bound"), first[1].local_addr().expect("bound"));
    inside::send_raw(&lab.router(Router::First), &[inside::udp_packet(from, to, b"forged")]);
    let (length, sender) = first[1].recv_from(&mut buffer).expect("the forged datagram");
    assert_eq!((&buffer[..length], sender), (&b"forged"[..], from));
}

#[test]
fn nothing_is_left_behind() {
    skip_without_root!();
    let lab = Lab::new(Plan { members: 1, ..Plan::default() });
    let name = lab.member(0);
    assert!(std::path::Path::new("/run/netns").join(&name).exists());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = lab;
        std::panic::panic_any("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
}
