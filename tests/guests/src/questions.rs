//! Small valid questions.

use overlan_contract::{Adapter, AdapterStatus, assignment, failover, sizing};

/// An Ethernet adapter 10.1.0.`last`/24.
pub fn adapter(last: u8) -> Adapter {
    Adapter {
        name: "eth0".into(),
        kind: "ether".into(),
        address: [10, 1, 0, last].into(),
        prefix_length: 24,
        mtu: 1_500,
        speed: 1_000,
        class_of_service: String::new(),
        dscp: 0,
        status: AdapterStatus::Up,
        attributes: Vec::new(),
    }
}

/// About one path.
pub fn sizing() -> sizing::Question {
    sizing::Question {
        local: adapter(1),
        remote: adapter(2),
        path_mtu: Some(1_500),
        rtt_us: None,
        loss_ppm: 0,
        overhead: 28,
        attributes: vec![("site".into(), "x".into())],
    }
}

/// About so many paths to one peer.
pub fn failover(paths: u8) -> failover::Question {
    let path = |last| failover::Path {
        local: adapter(100),
        remote: adapter(last),
        rtt: None,
        loss_ppm: 0,
        state: failover::PathState::Up,
        since_ms: 0,
        flaps: 0,
        attributes: Vec::new(),
    };
    failover::Question { paths: (0..paths).map(path).collect(), seed: 1, attributes: Vec::new() }
}

/// About live nodes and duties of one owner each.
pub fn assignment(nodes: u8, duties: usize) -> assignment::Question {
    let node = |last: u8| assignment::Node {
        id: format!("{last:032x}"),
        name: format!("n{last}"),
        live: true,
        adapters: vec![adapter(last), adapter(last)],
        attributes: Vec::new(),
    };
    let duty = |index| assignment::Responsibility {
        name: format!("shard-{index}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Vec::new(),
    };
    assignment::Question {
        nodes: (0..nodes).map(node).collect(),
        responsibilities: (0..duties).map(duty).collect(),
        previous: vec![Vec::new(); duties],
        seed: 7,
        attributes: Vec::new(),
    }
}
