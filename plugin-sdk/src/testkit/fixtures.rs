//! The questions that `overlan policy test` asks: ordinary ones, and those at the edges of the contract.

use super::{adapter, cluster, node, path, paths, random_cluster, responsibility, sized_path};
use crate::failover::{PathState, Rtt};
use crate::{Adapter, AdapterStatus, assignment, failover, sizing};

/// A question with a name that says what it is about.
///
/// ```
/// use overlan_plugin_sdk::testkit::{self, Fixture};
///
/// let own = Fixture { name: "two-nodes-one-duty", question: testkit::cluster(2, 1) };
/// assert_eq!(own.question.nodes.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture<Q> {
    /// What it is about, fit for a file name.
    pub name: &'static str,
    /// The question.
    pub question: Q,
}

fn fixture<Q>(name: &'static str, question: Q) -> Fixture<Q> {
    Fixture { name, question }
}

/// Questions about who is responsible for what.
///
/// ```
/// use overlan_plugin_sdk::testkit;
///
/// let fixtures = testkit::assignment_fixtures();
/// assert!(fixtures.iter().any(|fixture| fixture.question.nodes.len() == 1_000));
/// ```
pub fn assignment_fixtures() -> Vec<Fixture<assignment::Question>> {
    let mut dead_owners = cluster(5, 20);
    for (duty, previous) in dead_owners.previous.iter_mut().enumerate() {
        *previous = vec![duty as u32 % 5, (duty as u32 + 1) % 5];
    }
    dead_owners.nodes[0].live = false;
    dead_owners.nodes[3].live = false;

    let mut all_dead = cluster(3, 8);
    all_dead.nodes.iter_mut().for_each(|node| node.live = false);

    let mut unmet = cluster(4, 6);
    unmet.responsibilities.iter_mut().for_each(|duty| duty.requires = pairs(&[("site", "nowhere")]));

    let mut sites = cluster(9, 24);
    for (index, node) in sites.nodes.iter_mut().enumerate() {
        node.attributes = pairs(&[("site", if index % 3 == 0 { "x" } else { "y" })]);
    }
    for (index, duty) in sites.responsibilities.iter_mut().enumerate() {
        duty.requires = if index % 2 == 0 { pairs(&[("site", "x")]) } else { Vec::new() };
    }

    let mut adapters_down = cluster(6, 24);
    for node in adapters_down.nodes.iter_mut().step_by(2) {
        node.adapters.iter_mut().for_each(|adapter| adapter.status = AdapterStatus::Down);
    }

    let mut no_adapters = cluster(4, 12);
    no_adapters.nodes[1].adapters.clear();

    let mut weights = cluster(5, 30);
    for (index, duty) in weights.responsibilities.iter_mut().enumerate() {
        duty.weight_milli = [0, 1, 1_000, 250_000, u32::MAX][index % 5];
    }

    let mut replicas = cluster(40, 16);
    replicas.responsibilities.iter_mut().for_each(|duty| duty.replicas = assignment::MAX_REPLICAS);

    let mut speeds = cluster(6, 60);
    for (index, node) in speeds.nodes.iter_mut().enumerate() {
        let speed = [0, 10, 1_000, 10_000, 100_000, 400_000][index];
        node.adapters.iter_mut().for_each(|adapter| adapter.speed = speed);
    }

    vec![
        fixture("no-nodes", cluster(0, 4)),
        fixture("no-responsibilities", cluster(3, 0)),
        fixture("single-node", cluster(1, 8)),
        fixture("two-nodes", cluster(2, 8)),
        fixture("dead-owners", dead_owners),
        fixture("all-nodes-dead", all_dead),
        fixture("requirements-nobody-meets", unmet),
        fixture("requirements-some-meet", sites),
        fixture("adapters-down", adapters_down),
        fixture("node-without-adapters", no_adapters),
        fixture("ipv6", ipv6_cluster(6, 24)),
        fixture("weights-from-zero-to-largest", weights),
        fixture("most-replicas", replicas),
        fixture("speeds-unknown-to-400g", speeds),
        fixture("long-and-strange-names", strange_names()),
        fixture("random-1", random_cluster(1, 12, 40)),
        fixture("random-2", random_cluster(2, 33, 70)),
        fixture("16-nodes-64-responsibilities", cluster(16, 64)),
        fixture("100-nodes-1000-responsibilities", cluster(100, 1_000)),
        fixture("1000-nodes-1000-responsibilities", cluster(1_000, 1_000)),
    ]
}

fn pairs(pairs: &[(&str, &str)]) -> crate::Attributes {
    pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

fn ipv6_cluster(nodes: usize, duties: usize) -> assignment::Question {
    let mut question = cluster(nodes, duties);
    for (index, node) in question.nodes.iter_mut().enumerate() {
        node.adapters = vec![adapter("eth0", &format!("fd00:{}::{}/64", index % 2, index + 1))];
    }
    question
}

fn strange_names() -> assignment::Question {
    let mut question = cluster(3, 0);
    question.nodes.push(node("ü-\u{1f980} \"quoted\" \\ back", Vec::new()));
    question.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    let names = ["", " ", "shard/7", "ñandú", "a\nb", "\u{1f980}"].map(str::to_owned);
    let names = names.into_iter().chain([String::from("x").repeat(1_024)]);
    question.responsibilities = names.map(|name| responsibility(&name, 2)).collect();
    question.previous = vec![Vec::new(); question.responsibilities.len()];
    question
}

/// Questions about the sizes on a path.
///
/// ```
/// use overlan_plugin_sdk::testkit;
///
/// assert!(testkit::sizing_fixtures().iter().any(|fixture| fixture.question.overhead == 48));
/// ```
pub fn sizing_fixtures() -> Vec<Fixture<sizing::Question>> {
    let ethernet = || sized_path(1_500, 1_500);
    let down = AdapterStatus::Down;
    let ipv6 = |cidr| Adapter { mtu: 1_500, ..adapter("eth0", cidr) };
    vec![
        fixture("ethernet", ethernet()),
        fixture("jumbo-frames", sized_path(9_000, 9_000)),
        fixture("jumbo-to-ethernet", sized_path(9_000, 1_500)),
        fixture("ethernet-to-jumbo", sized_path(1_500, 9_000)),
        fixture("loopback", sized_path(65_536, 65_536)),
        fixture("largest-mtu", sized_path(u32::MAX, u32::MAX)),
        fixture("ipv6-minimum", sizing::Question { overhead: 48, ..sized_path(1_280, 1_280) }),
        fixture("below-the-minimum", sized_path(576, 68)),
        fixture("mtu-of-zero", sized_path(0, 0)),
        fixture("path-mtu-below-the-link", sizing::Question { path_mtu: Some(1_400), ..ethernet() }),
        fixture("path-mtu-above-the-link", sizing::Question { path_mtu: Some(9_000), ..ethernet() }),
        fixture("path-mtu-of-zero", sizing::Question { path_mtu: Some(0), ..ethernet() }),
        fixture(
            "ipv6",
            sizing::Question {
                local: ipv6("fd00:1::1/64"),
                remote: ipv6("fd00:2::1/64"),
                overhead: 48,
                ..ethernet()
            },
        ),
        fixture("lossy", sizing::Question { loss_ppm: 1_000_000, rtt_us: Some(300_000), ..ethernet() }),
        fixture("far-away", sizing::Question { rtt_us: Some(u32::MAX), ..ethernet() }),
        fixture(
            "adapters-down",
            sizing::Question {
                local: Adapter { status: down, ..ethernet().local },
                remote: Adapter { status: down, ..ethernet().remote },
                ..ethernet()
            },
        ),
        fixture(
            "speed-unknown",
            sizing::Question { local: Adapter { speed: 0, ..ethernet().local }, ..ethernet() },
        ),
        fixture(
            "400g",
            sizing::Question {
                local: Adapter { speed: 400_000, mtu: 9_000, ..ethernet().local },
                ..sized_path(9_000, 9_000)
            },
        ),
    ]
}

/// Questions about the order and the timing of paths.
///
/// ```
/// use overlan_plugin_sdk::{failover, testkit};
///
/// let longest = testkit::failover_fixtures().iter().map(|fixture| fixture.question.paths.len()).max();
/// assert_eq!(longest, Some(failover::MAX_PATHS));
/// ```
pub fn failover_fixtures() -> Vec<Fixture<failover::Question>> {
    let with = |count: u8, change: fn(usize, &mut failover::Path)| {
        let mut question = paths(count);
        question.paths.iter_mut().enumerate().for_each(|(index, path)| change(index, path));
        question
    };
    let rtt = |us| Some(Rtt { smoothed_us: us, variance_us: us / 4, min_us: us / 2 });
    let mut measured = paths(4);
    for (path, us) in measured.paths.iter_mut().zip([50, 900, 40_000, 2_000_000]) {
        path.rtt = rtt(us);
    }
    let states = [PathState::Down, PathState::Suspect, PathState::Unverified, PathState::Up];
    let mut mixed = paths(8);
    for (index, path) in mixed.paths.iter_mut().enumerate() {
        path.state = states[index % 4];
    }
    let ipv6 = failover::Question {
        paths: vec![
            path(adapter("eth0", "fd00:1::1/64"), adapter("eth0", "fd00:2::1/64")),
            path(adapter("eth1", "10.1.0.1/24"), adapter("eth1", "10.2.0.1/24")),
        ],
        ..paths(0)
    };
    vec![
        fixture("no-paths", paths(0)),
        fixture("single-path", paths(1)),
        fixture("four-paths", paths(4)),
        fixture("most-paths", paths(failover::MAX_PATHS as u8)),
        fixture("round-trips-from-50us-to-2s", measured),
        fixture("every-state", mixed),
        fixture("all-down", with(4, |_, path| path.state = PathState::Down)),
        fixture("none-verified", with(4, |_, path| path.state = PathState::Unverified)),
        fixture(
            "adapters-down",
            with(4, |index, path| {
                path.local.status = AdapterStatus::Down;
                if index % 2 == 0 {
                    path.remote.status = AdapterStatus::Down;
                }
            }),
        ),
        fixture("flapping", with(3, |index, path| path.flaps = [0, 7, u32::MAX][index])),
        fixture("lossy", with(3, |index, path| path.loss_ppm = [0, 50_000, 1_000_000][index])),
        fixture(
            "largest-numbers",
            with(2, |_, path| {
                let most = u32::MAX;
                path.rtt = Some(Rtt { smoothed_us: most, variance_us: most, min_us: most });
                (path.since_ms, path.flaps, path.loss_ppm) = (u64::MAX, most, 1_000_000);
            }),
        ),
        fixture(
            "smallest-numbers",
            with(2, |_, path| {
                path.rtt = Some(Rtt { smoothed_us: 0, variance_us: 0, min_us: 0 });
                (path.since_ms, path.local.mtu, path.remote.mtu) = (0, 0, 0);
            }),
        ),
        fixture("ipv6-and-ipv4", ipv6),
        fixture(
            "classes-of-service",
            with(3, |index, path| {
                path.local.class_of_service = ["control", "bulk", ""][index].into();
                path.local.dscp = [46, 8, 0][index];
            }),
        ),
    ]
}
