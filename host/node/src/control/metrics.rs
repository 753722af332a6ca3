//! Counters for Prometheus (text format 0.0.4).

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use crate::handle::{NodeHandle, NodeStatus};
use crate::policy::PolicyStatus;

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
    policies(&mut out, &status.policies);
    out
}

/// Over all plugins of a kind where a name ends in `_total`, else of the active one.
fn policies(out: &mut String, policies: &[PolicyStatus]) {
    type Read = fn(&PolicyStatus) -> u64;
    let counters: [(&str, &str, Read); 7] = [
        ("counter", "policy_plugin_questions_total", |policy| policy.totals.questions),
        ("counter", "policy_plugin_answers_total", |policy| policy.totals.answers),
        ("counter", "policy_plugin_skipped_total", |policy| policy.totals.skipped),
        ("counter", "policy_plugin_faults_total", |policy| policy.totals.faults.values().sum()),
        ("counter", "policy_plugin_rollbacks_total", |policy| policy.rollbacks),
        ("gauge", "policy_breaker_open", |policy| (policy.breaker != "closed").into()),
        ("gauge", "policy_probation", |policy| policy.probation.is_some().into()),
    ];
    for (sort, name, read) in counters {
        let _ = writeln!(out, "# TYPE overlan_{name} {sort}");
        for policy in policies {
            let _ = writeln!(out, "overlan_{name}{{kind=\"{}\"}} {}", policy.kind, read(policy));
        }
    }
    let _ = writeln!(out, "# TYPE overlan_policy_plugin_faults_by_cause_total counter");
    for policy in policies {
        for (cause, count) in &policy.totals.faults {
            let labels = format!("kind=\"{}\",cause=\"{cause}\"", policy.kind);
            let _ = writeln!(out, "overlan_policy_plugin_faults_by_cause_total{{{labels}}} {count}");
        }
    }
    for (name, limit) in [("policy_limit_used", false), ("policy_limit", true)] {
        let _ = writeln!(out, "# TYPE overlan_{name} gauge");
        for policy in policies {
            for (of, figures) in &policy.limits {
                let Some(value) = (if limit { Some(figures.limit) } else { figures.used }) else { continue };
                let _ = writeln!(out, "overlan_{name}{{kind=\"{}\",limit=\"{of}\"}} {value}", policy.kind);
            }
        }
    }
}

fn put(out: &mut String, kind: &str, name: &str, value: &dyn std::fmt::Display) {
    let _ = write!(out, "# TYPE overlan_{name} {kind}\noverlan_{name} {value}\n");
}
