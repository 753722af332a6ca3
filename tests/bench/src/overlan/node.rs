//! Members in this process, through the embedding API.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use overlan_node::config::{AdapterChoice, BusyPoll, PluginSource, PolicyChoice, Security};
use overlan_node::status::MemberState;
use overlan_node::{Config, Congestion, Kind, MessageMode, Node, NodeHandle, ReceivedRun};
use serde_json::{Map, Value};

use crate::net::DEVICE;
use crate::worker::{Counts, Options, ready, ready_with};

/// How long members may take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages and bytes in one batch at most.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 64 << 10;
/// How often the path's round trip is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

pub(super) fn mode(options: &Options) -> anyhow::Result<MessageMode> {
    Ok(match options.value::<String>("mode")?.as_str() {
        "unreliable" => MessageMode::Unreliable,
        "reliable" => MessageMode::Reliable,
        "ordered" => MessageMode::Ordered,
        other => bail!("there is no mode {other:?}"),
    })
}

/// A member of the cluster whose key lies in the shared folder; the receiver makes the key.
async fn start(options: &Options, name: &str, port: u16) -> anyhow::Result<NodeHandle> {
    let cluster: u16 = options.optional("cluster")?.unwrap_or(0);
    let folder = options.folder()?;
    let key = folder.join(format!("{cluster}.key"));
    if !key.exists() {
        std::fs::write(&key, overlan_node::new_cluster_key())?;
    }
    let mut config = Config::new(name, folder.join(format!("state-{cluster}-{name}")));
    config.cluster = cluster.to_string();
    config.port = port;
    config.security = Security::KeyFile(key);
    config.adapters = vec![AdapterChoice { name: Some(DEVICE.to_owned()), ..AdapterChoice::default() }];
    if options.flag("serve") {
        config.control = Some(super::app::socket(&folder, name));
    }
    if let Some(busy) = options.optional::<String>("busy")? {
        config.busy_poll = match busy.as_str() {
            "0" => BusyPoll::Never,
            "1" => BusyPoll::Always,
            other => bail!("there is no busy={other}"),
        };
    }
    if let Some(congestion) = options.optional::<String>("congestion")? {
        config.congestion = match congestion.as_str() {
            "cubic" => Congestion::Cubic,
            "bbr" => Congestion::Bbr,
            other => bail!("there is no congestion control {other:?}"),
        };
    }
    if let Some(coalesce) = options.optional::<String>("coalesce")? {
        config.policies = vec![PolicyChoice {
            kind: Kind::Sizing,
            source: PluginSource::Builtin("mtu-fit".to_owned()),
            config: [("coalesce".to_owned(), coalesce)].into_iter().collect(),
            limits: Default::default(),
            probation: Default::default(),
            breaker: Default::default(),
        }];
    }
    if name != "receiver" {
        config.seeds = vec![options.peer()?];
    }
    Ok(Node::start(config).await?)
}

/// Waits until `peer` is known and alive.
async fn meet(node: &NodeHandle, peer: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let members = node.members().await?;
        if members.iter().any(|member| member.name == peer && member.state == MemberState::Alive) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{peer} was not found");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Listens and counts; `echo=1`: and sends back; `serve=1`: neither, a client does.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let node = start(options, "receiver", options.peer()?.port()).await?;
        if options.flag("serve") || options.optional::<String>("mode")?.is_none() {
            return rest(&Counts::new()).await;
        }
        let mut listener = node.listen().await?;
        let counts = Counts::new();
        ready(&counts)?;
        if options.flag("echo") {
            let (mode, beside) = (mode(options)?, node.clone());
            node.spawn_beside(async move {
                while let Some(message) = listener.recv().await {
                    let back = beside.send(&message.origin.name, mode, message.payload);
                    back.await.map_err(anyhow::Error::new)?;
                }
                anyhow::Ok(())
            })
            .await??;
        } else {
            let counting = async move {
                let mut runs = Vec::new();
                while listener.recv_many(&mut runs).await > 0 {
                    let payloads = runs.iter().flat_map(|run: &ReceivedRun| run.payloads.iter());
                    payloads.for_each(|payload| counts.message(payload));
                    runs.clear();
                }
            };
            node.spawn_beside(counting).await?;
        }
        bail!("the node stopped")
    })
}

/// Says how much memory the process takes, and does nothing.
async fn rest(counts: &Arc<Counts>) -> anyhow::Result<()> {
    let before = memory_kib()?;
    ready_with(counts, move |_| {
        let now = memory_kib().unwrap_or_default();
        let mut extra = Map::new();
        extra.insert("memory_kib".into(), now.into());
        extra.insert("grown_kib".into(), now.saturating_sub(before).into());
        extra
    })?;
    std::future::pending().await
}

/// Resident memory of this process.
fn memory_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/self/status has VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Idle peers are watched this long after they joined.
const SETTLED: Duration = Duration::from_secs(35);

/// `peers=` members that do nothing.
pub(crate) fn idle(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let mut nodes = Vec::new();
        for peer in 0..options.value::<u16>("peers")? {
            let node = start(options, &format!("peer-{peer}"), 7500 + peer).await?;
            meet(&node, "receiver").await?;
            nodes.push(node);
        }
        // Policies look at the age of a state for its first half a minute.
        tokio::time::sleep(SETTLED).await;
        rest(&Counts::new()).await
    })
}

/// Sends for ever; `echo=1`: and waits for each to come back; `serve=1`: does not, a client does.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let node = start(options, "sender", options.peer()?.port()).await?;
        meet(&node, "receiver").await?;
        let counts = Counts::new();
        if options.flag("serve") {
            return rest(&counts).await;
        }
        let (mode, size) = (mode(options)?, options.size()?);
        if options.flag("echo") {
            let beside = node.clone();
            let asking = async move { round_trips(&beside, mode, size, &counts).await };
            return node.spawn_beside(asking).await?;
        }
        ready_with(&counts, retransmissions(node.clone())?)?;
        if options.flag("sample") {
            tokio::spawn(sample(node.clone(), counts));
        }
        let beside = node.clone();
        node.spawn_beside(async move { flood(&beside, mode, size).await }).await?
    })
}

async fn round_trips(
    node: &NodeHandle,
    mode: MessageMode,
    size: usize,
    counts: &Arc<Counts>,
) -> anyhow::Result<()> {
    let mut listener = node.listen().await?;
    ready(counts)?;
    loop {
        let sent = Instant::now();
        node.send("receiver", mode, vec![0; size]).await?;
        listener.recv().await.context("the node stopped")?;
        counts.latency(sent.elapsed());
    }
}

/// Sends for ever, small messages in batches.
async fn flood(node: &NodeHandle, mode: MessageMode, size: usize) -> anyhow::Result<()> {
    let batch = (BATCH_BYTES / size).clamp(1, BATCH);
    let mut buffers = Buffers::new(batch * size);
    let mut sequence = 0_u64;
    loop {
        let mut buffer = buffers.take();
        for message in buffer.chunks_exact_mut(size) {
            message[..8].copy_from_slice(&sequence.to_be_bytes());
            sequence += 1;
        }
        let buffer = buffers.keep(buffer);
        let messages = (0..batch).map(|index| buffer.slice(index * size..(index + 1) * size));
        node.send_batch("receiver", mode, 0, messages).await?;
    }
}

/// Buffers that are used again once the node has let go of them.
struct Buffers {
    len: usize,
    sent: VecDeque<Bytes>,
}

impl Buffers {
    fn new(len: usize) -> Self {
        Buffers { len, sent: VecDeque::new() }
    }

    fn take(&mut self) -> BytesMut {
        match self.sent.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(buffer)) => buffer,
            Some(Err(busy)) => {
                self.sent.push_front(busy);
                BytesMut::zeroed(self.len)
            }
            None => BytesMut::zeroed(self.len),
        }
    }

    fn keep(&mut self, buffer: BytesMut) -> Bytes {
        let buffer = buffer.freeze();
        self.sent.push_back(buffer.clone());
        buffer
    }
}

/// Records what the path's round trip is, while it is busy.
async fn sample(node: NodeHandle, counts: Arc<Counts>) {
    while let Ok(paths) = node.paths().await {
        for rtt in paths.iter().filter(|path| path.active).filter_map(|path| path.rtt_us) {
            counts.latency(Duration::from_micros(rtt.into()));
        }
        tokio::time::sleep(SAMPLE).await;
    }
}

/// The fragments that were sent again during the measured time.
fn retransmissions(
    node: NodeHandle,
) -> anyhow::Result<impl FnMut(bool) -> Map<String, Value> + Send + 'static> {
    let runtime = crate::runtime()?;
    let mut before = 0;
    Ok(move |_| {
        let status = runtime.block_on(node.status());
        let now = status.map_or(0, |status| status.core.counters.retransmissions);
        let mut extra = Map::new();
        extra.insert("retransmissions".into(), (now - before).into());
        before = now;
        extra
    })
}
