//! Contract types to generated types and back, once, at the edge.

use std::net::IpAddr;

use overlan_contract as contract;

use crate::bindings::{assignment, facts, failover, sizing};

fn adapter(adapter: &contract::Adapter) -> facts::Adapter {
    facts::Adapter {
        name: adapter.name.clone(),
        kind: adapter.kind.clone(),
        address: match adapter.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        },
        prefix_length: adapter.prefix_length,
        mtu: adapter.mtu,
        speed: adapter.speed,
        class_of_service: adapter.class_of_service.clone(),
        dscp: adapter.dscp,
        status: match adapter.status {
            contract::AdapterStatus::Up => facts::AdapterStatus::Up,
            contract::AdapterStatus::Down => facts::AdapterStatus::Down,
        },
        attributes: adapter.attributes.clone(),
    }
}

pub(crate) fn assignment_question(question: &contract::assignment::Question) -> assignment::Question {
    let node = |node: &contract::assignment::Node| assignment::Node {
        id: node.id.clone(),
        name: node.name.clone(),
        live: node.live,
        adapters: node.adapters.iter().map(adapter).collect(),
        attributes: node.attributes.clone(),
    };
    let duty = |duty: &contract::assignment::Responsibility| assignment::Responsibility {
        name: duty.name.clone(),
        replicas: duty.replicas,
        weight_milli: duty.weight_milli,
        requires: duty.requires.clone(),
    };
    assignment::Question {
        nodes: question.nodes.iter().map(node).collect(),
        responsibilities: question.responsibilities.iter().map(duty).collect(),
        previous: question.previous.clone(),
        seed: question.seed,
        attributes: question.attributes.clone(),
    }
}

pub(crate) fn assignment_answer(answer: assignment::Answer) -> contract::assignment::Answer {
    contract::assignment::Answer { owners: answer.owners }
}

pub(crate) fn sizing_question(question: &contract::sizing::Question) -> sizing::Question {
    sizing::Question {
        local: adapter(&question.local),
        remote: adapter(&question.remote),
        path_mtu: question.path_mtu,
        rtt_us: question.rtt_us,
        loss_ppm: question.loss_ppm,
        overhead: question.overhead,
        attributes: question.attributes.clone(),
    }
}

pub(crate) fn sizing_answer(answer: sizing::Answer) -> contract::sizing::Answer {
    contract::sizing::Answer { datagram: answer.datagram, coalesce: answer.coalesce, burst: answer.burst }
}

pub(crate) fn failover_question(question: &contract::failover::Question) -> failover::Question {
    use contract::failover::PathState;
    let rtt = |rtt: contract::failover::Rtt| failover::Rtt {
        smoothed_us: rtt.smoothed_us,
        variance_us: rtt.variance_us,
        min_us: rtt.min_us,
    };
    let path = |path: &contract::failover::Path| failover::Path {
        local: adapter(&path.local),
        remote: adapter(&path.remote),
        rtt: path.rtt.map(rtt),
        loss_ppm: path.loss_ppm,
        state: match path.state {
            PathState::Unverified => failover::PathState::Unverified,
            PathState::Up => failover::PathState::Up,
            PathState::Suspect => failover::PathState::Suspect,
            PathState::Down => failover::PathState::Down,
        },
        since_ms: path.since_ms,
        flaps: path.flaps,
        attributes: path.attributes.clone(),
    };
    failover::Question {
        paths: question.paths.iter().map(path).collect(),
        seed: question.seed,
        attributes: question.attributes.clone(),
    }
}

pub(crate) fn failover_answer(answer: failover::Answer) -> contract::failover::Answer {
    use contract::failover::{Mode, Timing};
    let timing = |timing: failover::Timing| Timing {
        probe_interval_us: timing.probe_interval_us,
        reply_timeout_us: timing.reply_timeout_us,
        misses: timing.misses,
        hold_down_ms: timing.hold_down_ms,
    };
    contract::failover::Answer {
        order: answer.order,
        mode: match answer.mode {
            failover::Mode::Passive => Mode::Passive,
            failover::Mode::Active => Mode::Active,
            failover::Mode::Spread(weights) => Mode::Spread(weights),
        },
        timings: answer.timings.into_iter().map(timing).collect(),
    }
}
