//! Counters for Prometheus (text format 0.0.4).

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use crate::handle::{NodeHandle, NodeStatus};

pub(super) fn router(node: NodeHandle) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(node)
}

async fn metrics(State(node): State<NodeHandle>) -> Response {
    match node.status().await {
        Ok(status) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text(&status)).into_response(),
        Err(stopped) => (axum::http::StatusCode::SERVICE_UNAVAILABLE, stopped.to_string()).into_response(),
    }
}

fn text(status: &NodeStatus) -> String {
    let mut out = String::with_capacity(4096);
    // Every counter, by the name it has in `status --json`: none can be forgotten here.
    if let Ok(Value::Object(counters)) = serde_json::to_value(status.core.counters) {
        for (name, value) in counters {
            put(&mut out, "counter", &format!("{name}_total"), &value);
        }
    }
    let core = &status.core;
    let gauges = [
        ("members_alive", u64::from(core.alive)),
        ("members", u64::from(core.members)),
        ("joined", u64::from(core.joined)),
        ("table_agreed", u64::from(core.agreed)),
        ("table_agreed_epoch", core.agreed_epoch),
        ("problems", core.problems.len() as u64),
        ("uptime_milliseconds", status.uptime_ms),
    ];
    for (name, value) in gauges {
        put(&mut out, "gauge", name, &value);
    }
    if let Some(us) = core.agreement_us {
        put(&mut out, "gauge", "table_agreement_microseconds", &us);
    }
    if let Some(journal) = status.journal {
        for (name, value) in
            [("written", journal.written), ("dropped", journal.dropped), ("failed", journal.failed)]
        {
            put(&mut out, "counter", &format!("policy_journal_{name}_total"), &value);
        }
    }
    for (name, value) in [
        (
            "policy_plugin_questions_total",
            status.policies.iter().map(|policy| policy.questions).collect::<Vec<_>>(),
        ),
        ("policy_plugin_faults_total", status.policies.iter().map(|policy| policy.faults).collect()),
    ] {
        let _ = writeln!(out, "# TYPE overlan_{name} counter");
        for (policy, value) in status.policies.iter().zip(value) {
            let _ = writeln!(out, "overlan_{name}{{kind=\"{}\"}} {value}", policy.kind);
        }
    }
    out
}

fn put(out: &mut String, kind: &str, name: &str, value: &dyn std::fmt::Display) {
    let _ = write!(out, "# TYPE overlan_{name} {kind}\noverlan_{name} {value}\n");
}
