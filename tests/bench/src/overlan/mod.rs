//! Overlan: which cases it is part of. `node` sends and listens through the embedding API, `app` from processes of
//! their own through the application socket.

pub(crate) mod app;
pub(crate) mod node;

use serde_json::Value;

use crate::case::{Case, Metric, System, arguments, field, flow, metric, round_trips};
use crate::net::{End, Network};

/// Seconds over which an idle node is watched.
const IDLE_SECONDS: f64 = 20.0;
/// Seconds over which two flows are compared: what they do in the long run.
const FAIR_SECONDS: f64 = 12.0;

/// Adds Overlan to the cases of its peers, and cases of its own.
pub(crate) fn extend(mut cases: Vec<Case>) -> Vec<Case> {
    for case in &mut cases {
        case.systems.extend(systems(case.name));
    }
    cases.extend([fair(), idle()]);
    cases
}

fn systems(case: &str) -> Vec<System> {
    let embedded = |name: &str, options: &str| System::pair(name, "overlan", options, flow);
    match case {
        "bulk-1500" | "bulk-9000" | "bulk-1500-plain" => {
            vec![embedded("Overlan reliable 1 MiB", "mode=reliable size=1048576")]
        }
        "small" => {
            let mut systems: Vec<System> = ["reliable", "unreliable", "ordered"]
                .map(|mode| embedded(&format!("Overlan {mode}"), &format!("mode={mode} size=64")))
                .into();
            for mode in ["reliable", "unreliable"] {
                let options = format!("mode={mode} size=64");
                systems.push(application(&format!("Overlan {mode}, application socket"), &options, flow));
            }
            systems
        }
        "single" => vec![embedded("Overlan reliable", "mode=reliable size=64 coalesce=0")],
        "round-trip" => vec![
            System::pair(
                "Overlan reliable, embedded",
                "overlan",
                "mode=reliable size=64 echo=1",
                round_trips,
            ),
            System::pair(
                "Overlan reliable, embedded, always asleep",
                "overlan",
                "mode=reliable size=64 echo=1 busy=0",
                round_trips,
            ),
            System::pair(
                "Overlan reliable, embedded, busy polling",
                "overlan",
                "mode=reliable size=64 echo=1 busy=1",
                round_trips,
            ),
            application("Overlan reliable, application socket", "mode=reliable size=64 echo=1", round_trips),
        ],
        // Smaller messages, so that what arrives is counted finely enough.
        "loss" => ["cubic", "bbr"]
            .map(|congestion| {
                let options = format!("mode=reliable size=65536 congestion={congestion}");
                embedded(&format!("Overlan reliable 64 KiB ({congestion})"), &options)
            })
            .into(),
        "limited" => {
            let options = "mode=reliable size=65536 sample=1";
            vec![System::pair("Overlan reliable 64 KiB", "overlan", options, flow_and_path)]
        }
        _ => Vec::new(),
    }
}

/// A node at each end, and a client of each in a process of its own.
fn application(name: &str, options: &str, digest: fn(&[Value]) -> Vec<Metric>) -> System {
    let mut system = System::pair(name, "overlan", "serve=1", digest);
    system.workers.extend(System::pair(name, "overlan-app", options, digest).workers);
    // The figures are the clients'; the nodes' processor time is added to theirs.
    system.digest = if options.contains("echo") { application_round_trips } else { application_flow };
    system
}

fn application_round_trips(results: &[Value]) -> Vec<Metric> {
    round_trips(&results[2..])
}

fn application_flow(results: &[Value]) -> Vec<Metric> {
    let mut clients = results[2..].to_vec();
    for (client, node) in clients.iter_mut().zip(results) {
        client["cores"] = (field(client, "cores") + field(node, "cores")).into();
    }
    flow(&clients)
}

/// One-way traffic, and the round trip that the path had meanwhile.
fn flow_and_path(results: &[Value]) -> Vec<Metric> {
    let mut metrics = flow(results);
    let sender = &results[results.len() - 1];
    metrics.push(metric("path p50", "ms", field(sender, "p50_us") / 1e3));
    metrics.push(metric("path p99", "ms", field(sender, "p99_us") / 1e3));
    metrics
}

/// Two flows of one kind over one slow path: of two clusters of two members, or of TCP.
fn fair() -> Case {
    let two = |name: &str, kind: &str, options: &str| {
        let mut workers = Vec::new();
        for cluster in [1, 2] {
            let address = format!("peer={}:{}", End::Receiver.address(), 7400 + cluster);
            let options = format!("{options} cluster={cluster} {address}");
            workers.extend(System::pair("", kind, &options, flow).workers);
        }
        System { name: name.to_owned(), workers, digest: shares, seconds: Some(FAIR_SECONDS) }
    };
    Case {
        name: "fair",
        title: "two flows share a slow path: the larger one's part",
        network: Network { limit: Some(100), ..Network::PLAIN },
        metric: "larger",
        reference: "two TCP cubic flows",
        systems: vec![
            two("two TCP cubic flows", "tcp", "congestion=cubic"),
            two("two Overlan flows", "overlan", "mode=reliable size=65536"),
        ],
    }
}

fn shares(results: &[Value]) -> Vec<Metric> {
    let rate =
        |receiver: usize| 8e-9 * field(&results[receiver], "bytes") / field(&results[receiver], "seconds");
    let (first, second) = (rate(0), rate(2));
    vec![
        metric("larger", "%", 100.0 * first.max(second) / (first + second)),
        metric("together", "Gbit/s", first + second),
    ]
}

/// A node, watched while it has nothing to do; its peers live in one process.
fn idle() -> Case {
    let system = |peers: usize| {
        let name = format!("{peers} idle peers");
        let mut system = System::pair(&name, "overlan", "", idleness);
        system.workers[1].arguments = arguments("overlan", "idle", &format!("peers={peers}"));
        if peers == 0 {
            system.workers.truncate(1);
        }
        system.seconds = Some(IDLE_SECONDS);
        system
    };
    Case {
        name: "idle",
        title: "a node with nothing to do, over 20 s, half a minute after its peers joined",
        network: Network::PLAIN,
        metric: "cpu",
        reference: "0 idle peers",
        systems: [0, 1, 8].map(system).into(),
    }
}

fn idleness(results: &[Value]) -> Vec<Metric> {
    let node = &results[0];
    vec![
        metric("cpu", "% of a core", 100.0 * field(node, "cores")),
        metric("memory", "KiB", field(node, "memory_kib")),
        metric("grown", "KiB since the start", field(node, "grown_kib")),
    ]
}
