//! Contract types to generated types and back, once, at the edge.

use std::net::IpAddr;

use bumpalo::Bump;
use overlan_contract as contract;

use crate::bindings::{assignment, facts, failover, sizing};

/// What the generated types borrow and the contract's do not have lies in an arena that lives for one call.
type Attributes<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn attributes<'a>(attributes: &'a [(String, String)], arena: &'a Bump) -> Attributes<'a> {
    arena.alloc_slice_fill_iter(attributes.iter().map(|(key, value)| (&**key, &**value)))
}

fn adapter<'a>(adapter: &'a contract::Adapter, arena: &'a Bump) -> facts::Adapter<'a> {
    facts::Adapter {
        name: &adapter.name,
        kind: &adapter.kind,
        address: match adapter.address {
            IpAddr::V4(address) => arena.alloc_slice_copy(&address.octets()),
            IpAddr::V6(address) => arena.alloc_slice_copy(&address.octets()),
        },
        prefix_length: adapter.prefix_length,
        mtu: adapter.mtu,
        speed: adapter.speed,
        class_of_service: &adapter.class_of_service,
        dscp: adapter.dscp,
        status: match adapter.status {
            contract::AdapterStatus::Up => facts::AdapterStatus::Up,
            contract::AdapterStatus::Down => facts::AdapterStatus::Down,
        },
        attributes: attributes(&adapter.attributes, arena),
    }
}

pub(crate) fn assignment_question<'a>(
    question: &'a contract::assignment::Question,
    arena: &'a Bump,
) -> assignment::Question<'a> {
    let node = |node: &'a contract::assignment::Node| assignment::Node {
        id: &node.id,
        name: &node.name,
        live: node.live,
        adapters: arena.alloc_slice_fill_iter(node.adapters.iter().map(|of| adapter(of, arena))),
        attributes: attributes(&node.attributes, arena),
    };
    let duty = |duty: &'a contract::assignment::Responsibility| assignment::Responsibility {
        name: &duty.name,
        replicas: duty.replicas,
        weight_milli: duty.weight_milli,
        requires: attributes(&duty.requires, arena),
    };
    assignment::Question {
        nodes: arena.alloc_slice_fill_iter(question.nodes.iter().map(node)),
        responsibilities: arena.alloc_slice_fill_iter(question.responsibilities.iter().map(duty)),
        previous: arena.alloc_slice_fill_iter(question.previous.iter().map(|owners| &**owners)),
        seed: question.seed,
        attributes: attributes(&question.attributes, arena),
    }
}

pub(crate) fn assignment_answer(answer: assignment::Answer) -> contract::assignment::Answer {
    contract::assignment::Answer { owners: answer.owners }
}

pub(crate) fn sizing_question<'a>(
    question: &'a contract::sizing::Question,
    arena: &'a Bump,
) -> sizing::Question<'a> {
    sizing::Question {
        local: adapter(&question.local, arena),
        remote: adapter(&question.remote, arena),
        path_mtu: question.path_mtu,
        rtt_us: question.rtt_us,
        loss_ppm: question.loss_ppm,
        overhead: question.overhead,
        attributes: attributes(&question.attributes, arena),
    }
}

pub(crate) fn sizing_answer(answer: sizing::Answer) -> contract::sizing::Answer {
    contract::sizing::Answer { datagram: answer.datagram, coalesce: answer.coalesce, burst: answer.burst }
}

pub(crate) fn failover_question<'a>(
    question: &'a contract::failover::Question,
    arena: &'a Bump,
) -> failover::Question<'a> {
    use contract::failover::PathState;
    let rtt = |rtt: contract::failover::Rtt| failover::Rtt {
        smoothed_us: rtt.smoothed_us,
        variance_us: rtt.variance_us,
        min_us: rtt.min_us,
    };
    let path = |path: &'a contract::failover::Path| failover::Path {
        local: adapter(&path.local, arena),
        remote: adapter(&path.remote, arena),
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
        attributes: attributes(&path.attributes, arena),
    };
    failover::Question {
        paths: arena.alloc_slice_fill_iter(question.paths.iter().map(path)),
        seed: question.seed,
        attributes: attributes(&question.attributes, arena),
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
