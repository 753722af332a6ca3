//! What is compared: cases, each of systems under the same conditions.

use serde_json::Value;

use crate::net::{End, Network};

/// Systems measured under the same conditions, one after the other, again and again.
pub(crate) struct Case {
    /// Short, without spaces.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) title: &'static str,
    pub(crate) network: Network,
    /// What is shown first, and what ratios are of.
    pub(crate) metric: &'static str,
    /// The system that ratios relate to.
    pub(crate) reference: &'static str,
    pub(crate) systems: Vec<System>,
}

/// A candidate.
pub(crate) struct System {
    /// What it is: sealed unless it says plaintext.
    pub(crate) name: String,
    /// In the order they start; the last ones first to send.
    pub(crate) workers: Vec<Worker>,
    /// What the workers' results amount to.
    pub(crate) digest: fn(&[Value]) -> Vec<Metric>,
    /// How long to measure, where the usual time does not do.
    pub(crate) seconds: Option<f64>,
}

/// A process.
pub(crate) struct Worker {
    pub(crate) end: End,
    pub(crate) program: Program,
    pub(crate) arguments: Vec<String>,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This one.
    Own,
    /// `knet.c`, where it could be built.
    Knet,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

pub(crate) fn metric(name: &'static str, unit: &'static str, value: f64) -> Metric {
    Metric { name, unit, value }
}

/// A field of a worker's result, 0 where there is none.
pub(crate) fn field(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or_default()
}

impl System {
    /// A receiver and a sender of this program, with the same options but for their role.
    pub(crate) fn pair(name: &str, kind: &str, options: &str, digest: fn(&[Value]) -> Vec<Metric>) -> System {
        let worker = |end, role: &str| Worker {
            end,
            program: Program::Own,
            arguments: arguments(kind, role, options),
        };
        let workers = vec![worker(End::Receiver, "receive"), worker(End::Sender, "send")];
        System { name: name.to_owned(), workers, digest, seconds: None }
    }

    fn knet(name: &str, size: usize, crypto: &str) -> System {
        let worker = |end: End, other: End, role: &str| {
            let size = size.to_string();
            let arguments = [role, end.address(), other.address(), &size, crypto].map(str::to_owned).to_vec();
            Worker { end, program: Program::Knet, arguments }
        };
        let workers =
            vec![worker(End::Receiver, End::Sender, "receive"), worker(End::Sender, End::Receiver, "send")];
        System { name: name.to_owned(), workers, digest: flow, seconds: None }
    }
}

/// `worker KIND ROLE peer=.. OPTIONS`.
pub(crate) fn arguments(kind: &str, role: &str, options: &str) -> Vec<String> {
    let peer = format!("peer={}:7400", End::Receiver.address());
    let words = ["worker", kind, role, &peer].into_iter().chain(options.split_whitespace());
    words.map(str::to_owned).collect()
}

/// One-way traffic, counted by the receiver (the first worker).
pub(crate) fn flow(results: &[Value]) -> Vec<Metric> {
    let received = &results[0];
    let (seconds, messages) = (field(received, "seconds"), field(received, "messages"));
    let expected = field(received, "expected");
    let lost = if expected > 0.0 { 100.0 * (1.0 - messages / expected).max(0.0) } else { 0.0 };
    let cores = |end: usize| results.get(end).map_or(0.0, |result| field(result, "cores"));
    let mut metrics = vec![
        metric("rate", "Gbit/s", 8e-9 * field(received, "bytes") / seconds),
        metric("messages", "M/s", 1e-6 * messages / seconds),
        metric("lost", "%", lost),
        metric("sender", "cores", cores(results.len() - 1)),
        metric("receiver", "cores", cores(0)),
    ];
    metrics.extend(extras(results));
    metrics
}

/// Round trips, measured by the last worker.
pub(crate) fn round_trips(results: &[Value]) -> Vec<Metric> {
    let Some(asker) = results.last() else { return Vec::new() };
    vec![
        metric("p50", "us", field(asker, "p50_us")),
        metric("p99", "us", field(asker, "p99_us")),
        metric("p99.9", "us", field(asker, "p999_us")),
    ]
}

/// What a sender has to say beside.
fn extras(results: &[Value]) -> Option<Metric> {
    let sender = results.last()?;
    let resent = sender["retransmissions"].as_f64()?;
    Some(metric("resent", "fragments", resent))
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let cases = vec![
        bulk("bulk-1500", "bulk; Overlan: reliable messages of 1 MiB", Network::PLAIN),
        bulk("bulk-9000", "bulk, large packets", Network { mtu: 9000, ..Network::PLAIN }),
        bulk("bulk-1500-plain", "bulk, every packet by itself", Network { offload: false, ..Network::PLAIN }),
        small(),
        single(),
        latency(),
        loss(),
        limited(),
    ];
    #[cfg(feature = "overlan")]
    let cases = crate::overlan::extend(cases);
    cases
}

fn bulk(name: &'static str, title: &'static str, network: Network) -> Case {
    let large = network.mtu > 1500;
    let (raw, ceiling) = if large { (8_900, "datagram=8900") } else { (1_400, "datagram=1400") };
    let raw = |name: &str, how: &str| System::pair(name, "raw", &format!("size={raw} how={how}"), flow);
    let mut systems = vec![
        raw("raw UDP, segments, plaintext", "segments"),
        raw("raw UDP, one by one, plaintext", "plain"),
        System::pair("ceiling: bare sealed loop", "ceiling", ceiling, flow),
        System::pair("quinn stream", "quinn", "mode=stream size=0", flow),
        System::pair("TCP cubic, plaintext", "tcp", "congestion=cubic", flow),
        System::knet("kronosnet 64 KiB, plaintext", 65_536, "none"),
        System::knet("kronosnet 64 KiB", 65_536, "openssl,aes128,sha256"),
    ];
    if large {
        let jumbo = |mtu| {
            System::pair(
                &format!("quinn stream, MTU {mtu}"),
                "quinn",
                &format!("mode=stream mtu={mtu}"),
                flow,
            )
        };
        systems.splice(3..4, [jumbo(6_500), jumbo(8_900)]);
    }
    let reference = if large { "quinn stream, MTU 6500" } else { "quinn stream" };
    Case { name, title, network, metric: "rate", reference, systems }
}

fn small() -> Case {
    let systems = vec![
        System::pair("ceiling: bare sealed loop", "ceiling", "datagram=1400 message=64", flow),
        System::pair("quinn datagrams (unreliable)", "quinn", "mode=datagram size=64", flow),
        System::knet("kronosnet, plaintext (not coalesced)", 64, "none"),
        System::knet("kronosnet (not coalesced)", 64, "openssl,aes128,sha256"),
    ];
    let (name, title) = ("small", "messages of 64 bytes, coalesced");
    let reference = "quinn datagrams (unreliable)";
    Case { name, title, network: Network::PLAIN, metric: "messages", reference, systems }
}

fn single() -> Case {
    let systems = vec![
        System::pair("bare sendmmsg loop, plaintext", "raw", "size=64 how=mmsg", flow),
        System::pair("bare send loop, plaintext", "raw", "size=64 how=plain", flow),
        System::pair("raw UDP, segments, plaintext", "raw", "size=64 how=segments", flow),
    ];
    let (name, title) = ("single", "messages of 64 bytes, one in a datagram");
    let reference = "bare sendmmsg loop, plaintext";
    Case { name, title, network: Network::PLAIN, metric: "messages", reference, systems }
}

fn latency() -> Case {
    let systems = vec![
        System::pair("tokio UDP, plaintext", "pingpong", "size=64", round_trips),
        System::pair("bare spinning loop, plaintext", "pingpong", "size=64 spin=1", round_trips),
        System::pair("quinn datagram", "quinn", "mode=roundtrip size=64", round_trips),
    ];
    let (name, title, reference) = ("round-trip", "round trip of 64 bytes", "tokio UDP, plaintext");
    Case { name, title, network: Network::PLAIN, metric: "p50", reference, systems }
}

fn loss() -> Case {
    let tcp = |congestion: &str| {
        let options = format!("congestion={congestion}");
        System::pair(&format!("TCP {congestion}, plaintext"), "tcp", &options, flow)
    };
    let mut systems = vec![tcp("cubic"), System::pair("quinn stream (cubic)", "quinn", "mode=stream", flow)];
    if bbr() {
        systems.insert(1, tcp("bbr"));
    }
    let network = Network { offload: false, loss: 2, ..Network::PLAIN };
    let (name, title, reference) = ("loss", "goodput", "TCP cubic, plaintext");
    Case { name, title, network, metric: "rate", reference, systems }
}

fn limited() -> Case {
    let systems = vec![
        System::pair("TCP cubic, plaintext", "tcp", "congestion=cubic", flow),
        System::pair("quinn stream (cubic)", "quinn", "mode=stream", flow),
    ];
    let network = Network { limit: Some(100), ..Network::PLAIN };
    let (name, title, reference) = ("limited", "goodput on a slow path", "TCP cubic, plaintext");
    Case { name, title, network, metric: "rate", reference, systems }
}

/// Whether the kernel has this congestion control.
fn bbr() -> bool {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    known.is_ok_and(|known| known.split_whitespace().any(|name| name == "bbr"))
}
