//! Two network namespaces joined by a veth: the sender's and the receiver's.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Interface name at both ends.
pub(crate) const DEVICE: &str = "eth0";

/// One of the two namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 10.0.0.1, on the first core.
    Sender,
    /// 10.0.0.2, on the second core.
    Receiver,
}

impl End {
    /// Its address.
    pub(crate) fn address(self) -> &'static str {
        match self {
            End::Sender => "10.0.0.1",
            End::Receiver => "10.0.0.2",
        }
    }

    /// The core its processes are pinned to.
    fn core(self) -> &'static str {
        match self {
            End::Sender => "0",
            End::Receiver => "1",
        }
    }
}

/// What joins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// Bytes of an IP packet at most.
    pub(crate) mtu: u16,
    /// Whether the veth carries segmented sends whole, which no wire does.
    pub(crate) offload: bool,
    /// Packets lost at random on their way to the receiver, in percent.
    pub(crate) loss: u8,
    /// Mbit/s that a token bucket lets through to the receiver, with a queue of 50 ms.
    pub(crate) limit: Option<u32>,
}

impl Network {
    pub(crate) const PLAIN: Network = Network { mtu: 1500, offload: true, loss: 0, limit: None };
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MTU {}, offload {}", self.mtu, if self.offload { "on" } else { "off" })?;
        if self.loss > 0 {
            write!(f, ", {}% random loss", self.loss)?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", {limit} Mbit/s by tbf with 50 ms of queue")?;
        }
        Ok(())
    }
}

/// The namespaces; dropping removes them.
pub(crate) struct Pair {
    prefix: String,
}

impl Pair {
    /// Makes the namespaces `PREFIX-a` and `PREFIX-b`. Needs root.
    pub(crate) fn new(prefix: &str, network: Network) -> anyhow::Result<Self> {
        let pair = Pair { prefix: prefix.to_owned() };
        let (a, b) = (pair.name(End::Sender), pair.name(End::Receiver));
        for name in [&a, &b] {
            run("ip", &["netns", "add", name])?;
        }
        run("ip", &["-n", &a, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", &b])?;
        for end in [End::Sender, End::Receiver] {
            let name = pair.name(end);
            run("ip", &["-n", &name, "address", "add", &format!("{}/24", end.address()), "dev", DEVICE])?;
            run("ip", &["-n", &name, "link", "set", DEVICE, "mtu", &network.mtu.to_string(), "up"])?;
            run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
            if !network.offload {
                pair.run_in(
                    end,
                    "ethtool",
                    &[
                        "-K",
                        DEVICE,
                        "tso",
                        "off",
                        "gso",
                        "off",
                        "gro",
                        "off",
                        "tx-udp-segmentation",
                        "off",
                        "rx-gro-list",
                        "off",
                        "rx-udp-gro-forwarding",
                        "off",
                    ],
                )?;
            }
        }
        if network.loss > 0 {
            let rules =
                "add table inet bench; add chain inet bench input { type filter hook input priority 0; }; ";
            let drop = format!("add rule inet bench input numgen random mod 100 < {} drop", network.loss);
            pair.run_in(End::Receiver, "nft", &[&format!("{rules}{drop}")])?;
        }
        if let Some(limit) = network.limit {
            let rate = format!("{limit}mbit");
            let queue = ["root", "tbf", "rate", &rate, "burst", "32kb", "latency", "50ms"];
            run("tc", &[&["-n", &a, "qdisc", "add", "dev", DEVICE][..], &queue].concat())?;
        }
        Ok(pair)
    }

    fn name(&self, end: End) -> String {
        format!("{}-{}", self.prefix, if end == End::Sender { "a" } else { "b" })
    }

    /// A command in a namespace, on its core.
    pub(crate) fn command(&self, end: End) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(end), "taskset", "-c", end.core()]);
        command
    }

    fn run_in(&self, end: End, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        run("ip", &[&["netns", "exec", &self.name(end), program][..], arguments].concat())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in [End::Sender, End::Receiver] {
            let _ = run("ip", &["netns", "del", &self.name(end)]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
