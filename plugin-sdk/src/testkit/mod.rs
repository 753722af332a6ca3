//! For the tests of policies: facts to ask about, and calls that check every answer as the host would.
//!
//! Builders return plain contract types with ordinary values; change what a test is about with the
//! struct update syntax:
//!
//! ```
//! use overlan_plugin_sdk::{Adapter, testkit};
//!
//! let jumbo = Adapter { mtu: 9_000, ..testkit::adapter("eth0", "10.1.0.2/24") };
//! assert_eq!(jumbo.speed, 1_000);
//! ```
//!
//! The functions panic on bad arguments and on bad answers, as befits tests.

/// An example with a small policy of a kind: `First` gives each duty to the first nodes that can have it, `Smallest`
/// sends the smallest datagrams, `InOrder` prefers paths as they stand.
macro_rules! example {
    ("Assignment" => $call:literal) => {
        example! { "Assignment", "First", "assignment", $call,
        "#         let owners = question.responsibilities.iter().map(|duty| {\n",
        "#             let eligible = (0u32..).zip(&question.nodes).filter(|(_, node)| node.live && node.meets(&duty.requires));\n",
        "#             eligible.map(|(index, _)| index).take(duty.replicas as usize).collect()\n",
        "#         });\n",
        "#         Ok(assignment::Answer { owners: owners.collect() })\n" }
    };
    ("Sizing" => $call:literal) => {
        example! { "Sizing", "Smallest", "sizing", $call,
        "#         Ok(sizing::Answer { datagram: 1_200, coalesce: 1_200, burst: 12_000 })\n" }
    };
    ("Failover" => $call:literal) => {
        example! { "Failover", "InOrder", "failover", $call,
        "#         let timing = failover::Timing {\n",
        "#             probe_interval_us: 200_000, reply_timeout_us: 100_000, misses: 3, hold_down_ms: 5_000,\n",
        "#         };\n",
        "#         Ok(failover::Answer {\n",
        "#             order: (0..question.paths.len() as u32).collect(),\n",
        "#             mode: failover::Mode::Passive,\n",
        "#             timings: vec![timing; question.paths.len()],\n",
        "#         })\n" }
    };
    ($kind:literal, $policy:literal, $module:literal, $call:literal, $($line:literal),+) => {
        concat!(
            "```\n# use overlan_plugin_sdk::{Config, ConfigError, Log, ", $kind, ", ", $module, "};\n",
            "# struct ", $policy, ";\n# impl ", $kind, " for ", $policy, " {\n",
            "#     fn configure(_: &Config) -> Result<Self, ConfigError> { Ok(", $policy, ") }\n",
            "#     fn decide(&mut self, question: &", $module, "::Question, _: &dyn Log)\n",
            "#         -> Result<", $module, "::Answer, String> {\n",
            $($line,)+
            "#     }\n# }\nuse overlan_plugin_sdk::testkit;\n\n",
            $call,
            "\n```"
        )
    };
}

mod ask;
mod cluster;
mod fixtures;
mod properties;

pub use ask::{ask_assignment, ask_failover, ask_sizing};
pub use cluster::{cluster, node, random_cluster, responsibility, with_previous, without_node};
pub use fixtures::{Fixture, assignment_fixtures, failover_fixtures, sizing_fixtures};
pub use properties::{
    check_assignment, check_bounded_movement, check_failover, check_no_memory, check_only_lost_duties_move,
    check_plan_stays, check_sizing, first_owner, moved_owners, moved_share, primaries,
};

use crate::failover::{Path, PathState};
use crate::{Adapter, AdapterStatus, failover, sizing};

/// An Ethernet adapter of 1 Gbit/s with an MTU of 1,500 bytes, up, without class of service. The address
/// is in CIDR notation: `10.1.0.2/24`.
///
/// ```
/// let adapter = overlan_plugin_sdk::testkit::adapter("eth0", "10.1.0.2/24");
/// assert_eq!((adapter.subnet().to_string().as_str(), adapter.mtu), ("10.1.0.0", 1_500));
/// ```
///
/// # Panics
/// When `cidr` is not an address and a prefix length.
pub fn adapter(name: &str, cidr: &str) -> Adapter {
    let (address, prefix_length) = cidr.split_once('/').expect("the address needs a /prefix");
    Adapter {
        name: name.into(),
        kind: "ether".into(),
        address: address.parse().expect("an IP address"),
        prefix_length: prefix_length.parse().expect("a prefix length"),
        mtu: 1_500,
        speed: 1_000,
        class_of_service: String::new(),
        dscp: 0,
        status: AdapterStatus::Up,
        attributes: Vec::new(),
    }
}

/// A healthy path of which no round-trip time is known yet.
///
/// ```
/// use overlan_plugin_sdk::{failover::PathState, testkit};
///
/// let path = testkit::path(testkit::adapter("eth0", "10.1.0.1/24"), testkit::adapter("eth0", "10.2.0.1/24"));
/// assert_eq!(path.state, PathState::Up);
/// ```
pub fn path(local: Adapter, remote: Adapter) -> Path {
    Path {
        local,
        remote,
        rtt: None,
        loss_ppm: 0,
        state: PathState::Up,
        since_ms: 60_000,
        flaps: 0,
        attributes: Vec::new(),
    }
}

/// The question about a number of healthy paths, each between subnets of its own.
///
/// ```
/// assert_eq!(overlan_plugin_sdk::testkit::paths(4).paths.len(), 4);
/// ```
pub fn paths(count: u8) -> failover::Question {
    let local = |i: u8| adapter(&format!("eth{i}"), &format!("10.{i}.0.1/24"));
    let remote = |i: u8| adapter(&format!("eth{i}"), &format!("10.{i}.1.1/24"));
    failover::Question {
        paths: (0..count).map(|i| path(local(i), remote(i))).collect(),
        seed: 1,
        attributes: Vec::new(),
    }
}

/// The sizing question about a healthy IPv4 path between adapters of these MTUs in bytes, before path MTU
/// discovery.
///
/// ```
/// assert_eq!(overlan_plugin_sdk::testkit::sized_path(1_500, 9_000).remote.mtu, 9_000);
/// ```
pub fn sized_path(local_mtu: u32, remote_mtu: u32) -> sizing::Question {
    sizing::Question {
        local: Adapter { mtu: local_mtu, ..adapter("eth0", "10.1.0.1/24") },
        remote: Adapter { mtu: remote_mtu, ..adapter("eth0", "10.2.0.1/24") },
        path_mtu: None,
        rtt_us: None,
        loss_ppm: 0,
        overhead: 28,
        attributes: Vec::new(),
    }
}
