//! `overlan demo`: three members in this process, over real UDP on loopback addresses, with the shipped policies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use overlan_node::config::{AdapterChoice, PluginSource, Security};
use overlan_node::status::{MemberState, PathStatus, PlanStatus};
use overlan_node::{Config, Fate, Impairment, Kind, Listener, MessageMode, Node, NodeHandle, Responsibility};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Json;
use crate::table::{Table, out};

const NAMES: [&str; 3] = ["anna", "ben", "cleo"];
/// Link speeds in Mbit/s, as the members are configured.
const SPEEDS: [u32; 3] = [25_000, 1_000, 1_000];
/// Duties of the demo's cluster.
const DUTIES: usize = 30;
/// Members start, compile their policies and find each other within this time, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two messages of a stream.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long messages flow before and after the cut.
const BEFORE: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_millis(3000);

/// The object that `--json` ends with.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    members: usize,
    digests_equal: bool,
    sent: u64,
    delivered: u64,
    lost: u64,
    doubled: u64,
    failover_gap_ms: f64,
    policy_before: String,
    policy_after: String,
    responsibilities_moved: usize,
}

struct Demo {
    nodes: Vec<NodeHandle>,
    port: u16,
    quiet: bool,
    outcome: Outcome,
}

pub(crate) async fn run(args: &Json) -> anyhow::Result<ExitCode> {
    // Nobody else is to read the keys in it.
    let private = std::fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("overlan-demo").permissions(private).tempdir()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut demo =
        Demo { nodes: Vec::new(), port: free_port()?, quiet: args.json, outcome: Outcome::default() };
    // Whatever ends it, its members leave and its folder goes.
    let result = tokio::select! {
        result = demo.play(folder.path()) => result.map(|()| None),
        _ = interrupt.recv() => Ok(Some(130)),
        _ = terminate.recv() => Ok(Some(143)),
    };
    for node in &demo.nodes {
        node.leave().await;
    }
    if let Some(status) = result? {
        return Ok(ExitCode::from(status));
    }
    let outcome = &demo.outcome;
    let fine = outcome.digests_equal && outcome.lost == 0 && outcome.doubled == 0;
    if args.json {
        // On one line, for scripts that take the last.
        out!("{}", serde_json::to_string(outcome)?);
    } else {
        demo.summary()?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A port that is free on all addresses now.
fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.local_addr())?.port())
}

/// Address `adapter` (1 or 2) of member `member` (from 0): a subnet for each member.
fn address(member: usize, adapter: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, member as u8 + 1, adapter))
}

impl Demo {
    async fn play(&mut self, folder: &Path) -> anyhow::Result<()> {
        self.start(folder).await?;
        self.agree().await?;
        self.responsibilities().await?;
        self.cut().await?;
        self.swap().await
    }

    fn say(&self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        if !self.quiet {
            out!("{text}");
        }
        Ok(())
    }

    async fn start(&mut self, folder: &Path) -> anyhow::Result<()> {
        let started = Instant::now();
        let key = folder.join("cluster.key");
        std::fs::write(&key, overlan_node::new_cluster_key())?;
        self.say(format!(
            "1. Three members, each with two adapters on subnets of its own, UDP port {}. {}'s adapters are {} times \
             as fast as the others'.",
            self.port,
            NAMES[0],
            SPEEDS[0] / SPEEDS[1],
        ))?;
        for (member, name) in NAMES.iter().enumerate() {
            let config = self.config(member, name, folder, &key);
            let node = Node::start(config).await.with_context(|| format!("member {name}"))?;
            self.nodes.push(node);
        }
        for node in &self.nodes {
            wait("the policies to be compiled", || async {
                node.policy_list().iter().all(|policy| policy.plugin != "native")
            })
            .await?;
        }
        self.say(format!("   running, policies compiled, after {} ms", started.elapsed().as_millis()))?;
        Ok(())
    }

    fn config(&self, member: usize, name: &str, folder: &Path, key: &Path) -> Config {
        let adapter = |number: u8| AdapterChoice {
            address: Some(address(member, number)),
            speed: Some(SPEEDS[member]),
            class_of_service: if number == 1 { "control" } else { "best-effort" }.to_owned(),
            ..AdapterChoice::default()
        };
        let duty = |number| Responsibility {
            name: format!("shard-{number}"),
            replicas: 2,
            // Some are heavier than others, and so are some members' adapters faster: one policy goes by the
            // speed, the other by the load.
            weight_milli: [500, 1000, 2000, 4000][number % 4],
            requires: Vec::new(),
        };
        let mut config = Config::new(name, folder.join(name));
        config.port = self.port;
        config.cluster = "demo".to_owned();
        config.security = Security::KeyFile(key.to_owned());
        config.adapters = vec![adapter(1), adapter(2)];
        config.responsibilities = (0..DUTIES).map(duty).collect();
        if member > 0 {
            config.seeds = vec![SocketAddr::new(address(0, 1), self.port)];
        }
        config
    }

    async fn agree(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        wait("the members to see each other and agree on one table", || async { self.agreed().await })
            .await?;
        self.outcome.members = self.nodes.len();
        self.outcome.digests_equal = true;
        self.say(format!(
            "\n2. All hold the same address table, agreed after {} ms:",
            started.elapsed().as_millis()
        ))?;
        let table = self.nodes[0].table().await?;
        let mut listing = Table::new(&["node", "primary", "alternate", "version"]);
        for entry in &table.entries {
            let address = |rank: usize| {
                entry.adapters.get(rank).map(|adapter| adapter.address.to_string()).unwrap_or_default()
            };
            listing.row([entry.name.clone(), address(0), address(1), entry.version.to_string()]);
        }
        self.say(indent(&listing.to_string()))?;
        for (node, name) in self.nodes.iter().zip(NAMES) {
            self.say(format!("   digest at {name:5} {}", node.table().await?.digest))?;
        }
        Ok(())
    }

    async fn agreed(&self) -> bool {
        let mut digests = Vec::new();
        for node in &self.nodes {
            let (Ok(status), Ok(members), Ok(plan)) =
                (node.status().await, node.members().await, node.plan().await)
            else {
                return false;
            };
            let alive = members.iter().filter(|member| member.state == MemberState::Alive).count();
            if alive != NAMES.len() || !status.core.agreed || plan.duties.len() != DUTIES || !all_own(&plan) {
                return false;
            }
            digests.push((status.core.table_digest, plan.digest));
        }
        digests.windows(2).all(|pair| pair[0] == pair[1])
    }

    async fn responsibilities(&self) -> anyhow::Result<()> {
        let plan = self.nodes[0].plan().await?;
        let policy = self.policy(Kind::Assignment);
        self.say(format!("\n3. Who is responsible for what, by the policy {policy}:"))?;
        self.say(indent(&owners(&plan)))?;
        Ok(())
    }

    fn policy(&self, kind: Kind) -> String {
        let policies = self.nodes[0].policy_list();
        policies
            .into_iter()
            .find(|policy| policy.kind == kind)
            .map(|policy| policy.plugin)
            .unwrap_or_default()
    }

    /// Messages flow from the first member to the second while the address they go to is cut.
    async fn cut(&mut self) -> anyhow::Result<()> {
        let (from, to) = (&self.nodes[0], &self.nodes[1]);
        let every = INTERVAL.as_millis();
        self.say(format!("\n4. {} sends {} a reliable message every {every} ms.", NAMES[0], NAMES[1]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let collecting = tokio::spawn(collect(to.listen().await?, arrivals.clone()));
        let sender = tokio::spawn(stream(from.clone(), stop.clone()));
        tokio::time::sleep(BEFORE).await;
        let before = active(from).await?;
        self.say(format!("   traffic goes by {} -> {}", before.local, before.remote))?;
        let cut = before.remote.ip();
        to.impair(cut, Impairment::DropBoth).await?;
        let cut_at = Instant::now();
        self.say(format!("   {cut} is cut, silently, as by a cable pulled behind the first switch ..."))?;
        tokio::time::sleep(AFTER).await;
        let after = active(from).await?;
        self.say(format!("   traffic goes by {} -> {}", after.local, after.remote))?;
        stop.store(true, Ordering::Release);
        let (sent, delivered) = sender.await??;
        tokio::time::sleep(Duration::from_millis(200)).await;
        collecting.abort();
        let arrivals = std::mem::take(&mut *arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        to.impair(cut, Impairment::None).await?;
        self.count(sent, delivered, &arrivals, cut_at);
        let outcome = &self.outcome;
        self.say(format!(
            "   {} sent, {} delivered, {} lost, {} doubled; the longest gap in arrivals: {:.0} ms",
            outcome.sent, outcome.delivered, outcome.lost, outcome.doubled, outcome.failover_gap_ms
        ))?;
        Ok(())
    }

    fn count(&mut self, sent: u64, delivered: u64, arrivals: &[(u64, Instant)], cut_at: Instant) {
        let mut times = BTreeMap::<u64, u64>::new();
        for (sequence, _) in arrivals {
            *times.entry(*sequence).or_default() += 1;
        }
        let around = |pair: &&[(u64, Instant)]| pair[1].1 >= cut_at;
        let gaps = arrivals.windows(2).filter(around).map(|pair| pair[1].1 - pair[0].1);
        self.outcome.sent = sent;
        self.outcome.delivered = delivered.min(times.len() as u64);
        self.outcome.lost = sent - self.outcome.delivered;
        self.outcome.doubled = times.values().map(|count| count - 1).sum();
        self.outcome.failover_gap_ms = gaps.max().unwrap_or_default().as_secs_f64() * 1000.0;
    }

    /// Another assignment policy on every member, while they run.
    async fn swap(&mut self) -> anyhow::Result<()> {
        let before = self.nodes[0].plan().await?;
        self.outcome.policy_before = self.policy(Kind::Assignment);
        let balanced = PluginSource::Builtin("balanced".to_owned());
        let tight = vec![("tolerance_percent".to_owned(), "0".to_owned())];
        let started = Instant::now();
        for node in &self.nodes {
            node.policy_set(Kind::Assignment, &balanced, tight.clone()).await?;
        }
        wait("the new policy's plan to be in force everywhere", || async {
            let Ok(plan) = self.nodes[0].plan().await else { return false };
            plan.plugin != before.plugin && plan.epoch > before.epoch && self.agreed().await
        })
        .await?;
        let after = self.nodes[0].plan().await?;
        self.outcome.policy_after = self.policy(Kind::Assignment);
        let owners_before: BTreeMap<_, _> =
            before.duties.iter().map(|duty| (&duty.name, duty.owners.first())).collect();
        let moved =
            after.duties.iter().filter(|duty| owners_before.get(&duty.name) != Some(&duty.owners.first()));
        self.outcome.responsibilities_moved = moved.count();
        self.say(format!(
            "\n5. The assignment policy is swapped live, {} -> {}: {} of {DUTIES} responsibilities moved, {} ms.",
            self.outcome.policy_before,
            self.outcome.policy_after,
            self.outcome.responsibilities_moved,
            started.elapsed().as_millis()
        ))?;
        self.say(indent(&owners(&after)))?;
        Ok(())
    }

    fn summary(&self) -> anyhow::Result<()> {
        let outcome = &self.outcome;
        out!("\nSummary");
        out!("   tables identical    {}", if outcome.digests_equal { "yes" } else { "NO" });
        out!("   lost / doubled      {} / {} of {}", outcome.lost, outcome.doubled, outcome.sent);
        out!("   failover gap        {:.0} ms", outcome.failover_gap_ms);
        out!("   policy              {} -> {}", outcome.policy_before, outcome.policy_after);
        out!("   duties moved by it  {} of {DUTIES}", outcome.responsibilities_moved);
        Ok(())
    }
}

fn all_own(plan: &PlanStatus) -> bool {
    plan.duties.iter().all(|duty| duty.owners.len() == 2)
}

/// A line for each member: what it is the primary of, and what it stands by for.
fn owners(plan: &PlanStatus) -> String {
    let mut table = Table::new(&["member", "primary of", "stands by for"]);
    for name in NAMES {
        let short = |place: usize| {
            let mine =
                plan.duties.iter().filter(|duty| duty.owners.get(place).is_some_and(|owner| owner == name));
            let numbers: Vec<&str> = mine.map(|duty| duty.name.trim_start_matches("shard-")).collect();
            format!("shards {}", numbers.join(" "))
        };
        table.row([name.to_owned(), short(0), short(1)]);
    }
    table.to_string()
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}

/// The path that carries the first member's traffic to the second.
async fn active(node: &NodeHandle) -> anyhow::Result<PathStatus> {
    let paths = node.paths().await?;
    let active = paths.into_iter().find(|path| path.node == NAMES[1] && path.active);
    active.with_context(|| format!("no path to {} is active", NAMES[1]))
}

/// Sends until told to stop, then waits for every fate: messages sent and delivered.
async fn stream(from: NodeHandle, stop: Arc<AtomicBool>) -> anyhow::Result<(u64, u64)> {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut receipts = Vec::new();
    while !stop.load(Ordering::Acquire) {
        ticks.tick().await;
        let sequence = (receipts.len() as u64).to_be_bytes().to_vec();
        receipts.push(from.send(NAMES[1], MessageMode::Reliable, sequence).await?);
    }
    let sent = receipts.len() as u64;
    let mut delivered = 0;
    for receipt in receipts {
        let fate = tokio::time::timeout(PATIENCE, receipt.fate()).await;
        delivered += u64::from(fate == Ok(Fate::Delivered));
    }
    Ok((sent, delivered))
}

/// Notes the sequence number and time of each arrival.
async fn collect(mut listener: Listener, arrivals: Arc<Mutex<Vec<(u64, Instant)>>>) {
    while let Some(message) = listener.recv().await {
        if let Some(sequence) = message.payload.first_chunk::<8>() {
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.push((u64::from_be_bytes(*sequence), Instant::now()));
        }
    }
}

async fn wait<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) -> anyhow::Result<()> {
    let started = Instant::now();
    while !condition().await {
        if started.elapsed() > PATIENCE {
            bail!("waited {} s for {what} in vain", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
