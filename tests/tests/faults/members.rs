//! Members that stop, die, or do not see each other.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use overlan_tests::cluster::{Cluster, NAMES, SETTLED};
use overlan_tests::lab::faults::Hit;
use overlan_tests::lab::{Plan, Router};
use overlan_tests::skip_without_root;
use overlan_tests::traffic::{Stream, assert_delivers, measure};
use overlan_tests::wait::{stays, wait_until};

const STREAM: Stream = Stream { mode: "reliable", count: 600, interval_ms: 5, size: 64 };
/// Silence between healthy members that somebody else's trouble may cause on a busy machine.
const UNTROUBLED_MS: f64 = 500.0;

fn three() -> Cluster {
    Cluster::started_in_lab(Plan::default(), |_, config| config.set_policy("failover", "builtin:fast"))
}

fn nobody_down(cluster: &Cluster, viewers: &[usize]) -> bool {
    viewers.iter().all(|&viewer| NAMES[..3].iter().all(|name| cluster.nodes[viewer].state_of(name) != "down"))
}

#[test]
fn two_members_that_only_the_third_sees_both_of_do_not_flap() {
    skip_without_root!();
    let cluster = three();
    for router in Router::BOTH {
        cluster.lab().drop_silently(router, Hit::one_way(0, 1));
        cluster.lab().drop_silently(router, Hit::one_way(1, 0));
    }
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[2], Stream { mode: "ordered", ..STREAM }, || {});
    assert_eq!((outcome.lost, outcome.doubled, outcome.out_of_order), (0, 0, 0));
    stays("nobody is down for anybody", Duration::from_secs(6), || nobody_down(&cluster, &[0, 1, 2]));
    Router::BOTH.into_iter().for_each(|router| cluster.lab().heal(router));
    cluster.wait_settled();
    assert_delivers(&cluster.nodes[0], &cluster.nodes[1], "ordered");
}

#[test]
fn a_stopped_third_member_troubles_nobody() {
    skip_without_root!();
    let cluster = three();
    let third = &cluster.nodes[2];
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || {
        third.signal(Signal::SIGSTOP);
        stays("the healthy ones", Duration::from_secs(2), || {
            cluster.nodes[0].state_of("b") == "alive" && cluster.nodes[1].state_of("a") == "alive"
        });
        third.signal(Signal::SIGCONT);
    });
    println!("third member stopped for 2 s: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    assert!(outcome.gap_ms <= UNTROUBLED_MS, "{outcome:?}");
    cluster.wait_settled();
    stays("nobody is down afterwards", Duration::from_secs(3), || nobody_down(&cluster, &[0, 1, 2]));
    assert_delivers(&cluster.nodes[0], third, "reliable");
}

#[test]
fn a_killed_third_member_leaves_no_silence_between_the_others() {
    skip_without_root!();
    let mut cluster = three();
    let mut third = cluster.nodes.pop().expect("three members");
    let outcome = measure(&cluster.nodes[0], &cluster.nodes[1], STREAM, || third.kill());
    println!("third member killed: {outcome:?}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0));
    assert!(outcome.gap_ms <= UNTROUBLED_MS, "{outcome:?}");
    cluster.nodes[0].wait_state("c", "down", Duration::from_secs(20));
    assert_eq!(cluster.nodes[0].state_of("b"), "alive");
}

#[test]
fn after_all_links_were_down_members_rejoin_and_agree() {
    skip_without_root!();
    let cluster = three();
    let routers = |dead| Router::BOTH.into_iter().for_each(|router| cluster.lab().router_dead(router, dead));
    routers(true);
    let others_down = |viewer: usize| {
        let others = (0..3).filter(|&other| other != viewer);
        others.map(|other| cluster.nodes[viewer].state_of(NAMES[other])).all(|state| state == "down")
    };
    let lonely = || (0..3).map(others_down).collect::<Vec<_>>();
    wait_until("all to be alone", Duration::from_secs(30), lonely, |alone| !alone.contains(&false));
    // Longer than every timeout that declares death.
    stays("alone", Duration::from_secs(12), || others_down(0));
    routers(false);
    cluster.wait_settled();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        assert_delivers(&cluster.nodes[from], &cluster.nodes[to], "ordered");
    }
}

/// A state directory that was copied brings the identity with it: the node is not let in and stops, and says why, as the
/// member that it asked does in its status; messages to the original go on.
#[test]
fn a_node_with_a_copied_identity_gives_way() {
    let mut cluster = Cluster::started_on_loopback(2, |_, _| {});
    let mut copy = cluster.config(2);
    let copied = copy.folder.join("state");
    std::fs::create_dir_all(&copied).expect("a folder");
    for entry in std::fs::read_dir(cluster.nodes[1].config.folder.join("state")).expect("its state") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("its type").is_file() {
            std::fs::copy(entry.path(), copied.join(entry.file_name())).expect("a copy");
        }
    }
    copy.name = NAMES[1].to_owned();
    cluster.launch(2, copy);
    let begun = Instant::now();
    while !cluster.nodes[2].has_ended() {
        assert_delivers(&cluster.nodes[0], &cluster.nodes[1], "ordered");
        assert!(begun.elapsed() < SETTLED, "it does not give way");
    }
    let status = cluster.nodes[2].wait_end(Duration::from_secs(1));
    assert_eq!(status.code(), Some(1));
    assert!(cluster.nodes[2].log().contains("state_dir of its own"), "{}", cluster.nodes[2].log());
    let said = cluster.nodes[0].problems();
    assert!(said.contains("the live member b is not let in (at 127."), "{said}");
    assert_eq!(cluster.nodes[0].digest(), cluster.nodes[1].digest());
    assert_eq!(cluster.nodes[0].state_of("b"), "alive");
}
