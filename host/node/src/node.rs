//! Starting a node, and the handle on a running one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use overlan_contract::{Attributes, Kind};
use overlan_core::status::{CoreStatus, MemberStatus, PathStatus, PlanStatus, TableStatus};
use overlan_core::{Core, Event, Fate};
use overlan_netlink::{Plan, Report};
use overlan_seal::{Identity, Keyring, KeyringError, Seal};
use overlan_udp::Impairment;
use overlan_wire::{BootId, MessageMode, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::adapters::{AdapterView, select};
use crate::app::Target;
use crate::config::{Config, PluginSource, Security};
use crate::driver::{
    self, Command, Driver, Listener, MAX_COMMANDS, MAX_EVENTS, NodeCore, Outgoing, Ports, SendFailure,
};
use crate::kernel::{self, Kernel};
use crate::policy::{Policies, PolicyError, PolicyStatus, Priority};
use crate::state::{StateDir, StateError, random};

/// Why a node did not start. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster key can't be read.
    #[error("{path}: {source}; make a key with `overlan keygen --out {path}`, or copy it from a member")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster key is malformed.
    #[error("{path}: {source}")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyringError,
    },
    /// The state directory can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control socket can't be opened.
    #[error("{path}: {why}")]
    Control {
        /// Its path.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The metrics address can't be bound.
    #[error("metrics on {address}: {source}; choose another address with `[node] metrics`")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The policy host can't run.
    #[error(transparent)]
    Policy(#[from] overlan_policy::EngineError),
    /// A configured plugin does not exist.
    #[error("[policy.{kind}]: {why}")]
    Plugin {
        /// Which decision.
        kind: Kind,
        /// Why.
        why: String,
    },
    /// The own table entry would be too large.
    #[error(transparent)]
    Record(#[from] overlan_wire::entry::RecordTooLarge),
    /// A thread or a runtime could not be made.
    #[error("the system gives no threads: {0}")]
    System(#[from] std::io::Error),
}

/// The node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// A node of the cluster in this process.
pub struct Node;

/// The handle on a running node; cheap to clone. The node runs until [`leave`](Self::leave).
#[derive(Clone)]
pub struct NodeHandle {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    id: NodeId,
    started: Instant,
    commands: mpsc::Sender<Command>,
    wake: Arc<Notify>,
    events: broadcast::Sender<Event>,
    problems: watch::Receiver<Vec<String>>,
    kernel: watch::Receiver<Kernel>,
    remotes: watch::Receiver<Vec<IpAddr>>,
    report: watch::Receiver<Report>,
    policies: Policies,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

/// The node at a glance: the core's status, and what only the node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What the core shows; its `problems` include the node's.
    #[serde(flatten)]
    pub core: CoreStatus,
    /// The program's version.
    pub version: String,
    /// Cluster name.
    pub cluster: String,
    /// `key` or `none`.
    pub security: String,
    /// UDP port.
    pub port: u16,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Adapters in use, in order of preference.
    pub adapters: Vec<AdapterView>,
    /// Who answers the policy questions.
    pub policies: Vec<PolicyStatus>,
}

impl Node {
    /// Starts a node: threads of its own, so that it may be called from any runtime or none.
    ///
    /// # Errors
    /// See [`StartError`]. What is merely not there yet (an adapter, a seed) is no error: the node waits for it and
    /// says so in its status.
    pub async fn start(config: Config) -> Result<NodeHandle, StartError> {
        let keyring = keyring(&config.security)?;
        let (state, identity) = StateDir::open(&config.state_dir)?;
        let plugins = plugins(&config)?;
        let (ready, answer) = oneshot::channel();
        thread::Builder::new().name("overlan-service".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(StartError::System(error)))),
            };
            runtime.block_on(async move {
                match start(config, keyring, state, identity, plugins).await {
                    Ok((handle, service)) => {
                        if ready.send(Ok(handle)).is_ok() {
                            service.await;
                        }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        })?;
        answer.await.unwrap_or_else(|_| Err(StartError::System(std::io::ErrorKind::Other.into())))
    }
}

fn keyring(security: &Security) -> Result<Keyring, StartError> {
    match security {
        Security::None => {
            tracing::warn!(
                "security = \"none\": ANYBODY who reaches this node can join, read and forge. Use it in labs only; \
                 `overlan keygen` makes a cluster key"
            );
            Ok(Keyring::public_lab())
        }
        Security::KeyFile(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| StartError::KeyFile { path: path.clone(), source })?;
            Keyring::parse(&text).map_err(|source| StartError::Keyring { path: path.clone(), source })
        }
    }
}

type PluginToLoad = (Kind, String, Vec<u8>, Attributes);

/// Configured plugins, and the defaults of the other kinds. A missing one is an error before anything runs.
fn plugins(config: &Config) -> Result<Vec<PluginToLoad>, StartError> {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let choice = config.policies.iter().find(|choice| choice.kind == kind);
            let default = PluginSource::Builtin(overlan_plugins_dist::default_for(kind).name.to_owned());
            let (name, wasm) = read_plugin(choice.map_or(&default, |choice| &choice.source))
                .map_err(|why| StartError::Plugin { kind, why })?;
            Ok((kind, name, wasm, choice.map(|choice| choice.config.clone()).unwrap_or_default()))
        })
        .collect()
}

/// A plugin's name in listings, and its bytes.
pub(crate) fn read_plugin(source: &PluginSource) -> Result<(String, Vec<u8>), String> {
    match source {
        PluginSource::Builtin(name) => match overlan_plugins_dist::find(name) {
            Some(builtin) => Ok((format!("builtin:{name}"), builtin.wasm.to_vec())),
            None => Err(PolicyError::UnknownBuiltin(name.clone()).to_string()),
        },
        PluginSource::File(path) => {
            let wasm = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Ok((path.display().to_string(), wasm))
        }
    }
}

/// Puts the first plugins in force, before the first question is asked.
async fn load_plugins(policies: &Policies, plugins: Vec<PluginToLoad>) -> Result<(), StartError> {
    let loads = plugins.into_iter().map(async |(kind, name, wasm, config)| {
        let why = |error: PolicyError| StartError::Plugin { kind, why: format!("{name}: {error}") };
        policies.set(kind, name.clone(), wasm, config, Priority::Normal).await.map_err(why)
    });
    futures_util::future::try_join_all(loads).await.map(drop)
}

/// Starts the driver; the handle, and the future that serves until the node stops.
async fn start(
    config: Config,
    keyring: Keyring,
    state: StateDir,
    identity: Identity,
    plugins: Vec<PluginToLoad>,
) -> Result<(NodeHandle, impl Future<Output = ()>), StartError> {
    let control = crate::control::bind(&config).await?;
    let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
    let (answers, answer_receiver) = mpsc::unbounded_channel();
    let policies = Policies::start(&answers, &commands.downgrade())?;
    load_plugins(&policies, plugins).await?;
    let (events, _) = broadcast::channel(MAX_EVENTS);
    let (remotes_sender, remotes) = watch::channel(Vec::new());
    let (problems_sender, problems) = watch::channel(Vec::new());
    let (kernel_sender, kernel) = watch::channel(Kernel::default());
    let (report_sender, report) = watch::channel(Report::default());
    let (stop, stop_receiver) = watch::channel(false);
    let (stopped_sender, stopped) = watch::channel(false);
    let wake = Arc::new(Notify::new());
    let ports = Ports {
        commands: command_receiver,
        answers: answer_receiver,
        policies: policies.clone(),
        events: events.clone(),
        remotes: remotes_sender,
        problems: problems_sender,
        wake: wake.clone(),
    };
    let id = identity.node_id();
    let driver = spawn_driver(&config, keyring, state, identity, ports).await?;
    let adapters = tokio::spawn(kernel::watch_adapters(config.clone(), commands.downgrade(), kernel_sender));
    let routes = tokio::spawn(kernel::keep_routes(
        config.clone(),
        remotes.clone(),
        kernel.clone(),
        report_sender,
        stop_receiver,
    ));
    let handle = NodeHandle {
        shared: Arc::new(Shared {
            id,
            started: Instant::now(),
            commands,
            wake,
            events,
            problems,
            kernel,
            remotes,
            report,
            policies,
            stop,
            stopped,
            config,
        }),
    };
    let control = crate::control::serve(control, handle.clone());
    let served = handle.clone();
    let service = async move {
        tokio::select! {
            // The driver's thread ended: the node left.
            _ = driver => {}
            () = control => {}
        }
        adapters.abort();
        served.shared.stop.send_replace(true);
        let _ = routes.await;
        if let Some(path) = &served.shared.config.control {
            let _ = std::fs::remove_file(path);
        }
        stopped_sender.send_replace(true);
    };
    Ok((handle, service))
}

async fn spawn_driver(
    config: &Config,
    keyring: Keyring,
    state: StateDir,
    identity: Identity,
    ports: Ports,
) -> Result<oneshot::Receiver<()>, StartError> {
    let mut core_config =
        overlan_core::Config::new(config.name.clone(), BootId(random()), u64::from_be_bytes(random()));
    core_config.seeds.clone_from(&config.seeds);
    core_config.attributes.clone_from(&config.attributes);
    core_config.responsibilities.clone_from(&config.responsibilities);
    core_config.quorum = config.quorum;
    core_config.allow.clone_from(&config.allow);
    core_config.last_version = state.last_version();
    let seal = Seal::new(identity, keyring, &config.cluster);
    let (ready, started) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("overlan-driver".into()).spawn(move || {
        let origin = Instant::now();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::System(error)))),
        };
        match Core::new(core_config, seal, Vec::new(), driver::now(origin)) {
            Ok(core) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(Driver::new(core, origin, state, ports).run());
            }
            Err(error) => drop(ready.send(Err(error.into()))),
        }
        let _ = ended.send(());
    })?;
    started.await.unwrap_or_else(|_| Err(StartError::System(std::io::ErrorKind::Other.into())))?;
    Ok(end)
}

/// A message that is queued.
#[derive(Debug)]
pub struct Receipt {
    fates: Vec<(NodeId, oneshot::Receiver<Fate>)>,
}

impl Receipt {
    /// The members it is for.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.fates.iter().map(|(node, _)| *node)
    }

    /// What became of it at each member. An unreliable message has no fate to know: it counts as abandoned.
    pub async fn fates(self) -> Vec<(NodeId, Fate)> {
        let mut fates = Vec::with_capacity(self.fates.len());
        for (node, fate) in self.fates {
            fates.push((node, fate.await.unwrap_or(Fate::Abandoned)));
        }
        fates
    }

    /// What became of a message to one member; of several, the first that was not delivered.
    pub async fn fate(self) -> Fate {
        let fates = self.fates().await;
        let failed = fates.iter().find(|(_, fate)| *fate != Fate::Delivered);
        failed.map_or(Fate::Delivered, |(_, fate)| *fate)
    }

    pub(crate) fn into_fates(self) -> Vec<(NodeId, oneshot::Receiver<Fate>)> {
        self.fates
    }
}

impl NodeHandle {
    /// What the node was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Queues a message for `to`: a member by name or id, `role:NAME`, or `all`. Waits while the queue there is full;
    /// dropping the future takes the message back.
    ///
    /// # Errors
    /// See [`SendFailure`]; nothing was queued (with `all`: not for every member).
    pub async fn send(
        &self,
        to: &str,
        mode: MessageMode,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Receipt, SendFailure> {
        self.send_to(Target::parse(to), mode, payload.into(), None).await
    }

    /// As [`send`](Self::send), giving up on delivery after `lifetime`.
    ///
    /// # Errors
    /// See [`SendFailure`].
    pub async fn send_to(
        &self,
        to: Target,
        mode: MessageMode,
        payload: Vec<u8>,
        lifetime: Option<Duration>,
    ) -> Result<Receipt, SendFailure> {
        if to != Target::All {
            return Ok(Receipt { fates: vec![self.send_one(to, mode, payload, lifetime).await?] });
        }
        let peers = self.inspect(|core, _| core.live_peers()).await.map_err(|Stopped| SendFailure::Stopped)?;
        if peers.is_empty() {
            return Err(SendFailure::NoPeers);
        }
        let sends = peers.iter().map(|peer| {
            self.send_one(Target::Node(peer.to_string()), mode, payload.clone(), lifetime)
        });
        let fates = futures_util::future::join_all(sends).await.into_iter().collect::<Result<_, _>>()?;
        Ok(Receipt { fates })
    }

    async fn send_one(
        &self,
        to: Target,
        mode: MessageMode,
        payload: Vec<u8>,
        lifetime: Option<Duration>,
    ) -> Result<(NodeId, oneshot::Receiver<Fate>), SendFailure> {
        let (queued, answer) = oneshot::channel();
        let outgoing = Outgoing { to, mode, payload, lifetime, queued };
        self.command(Command::Send(outgoing)).await.map_err(|Stopped| SendFailure::Stopped)?;
        let queued = answer.await.unwrap_or(Err(SendFailure::Stopped))?;
        Ok((queued.node, queued.fate))
    }

    /// Takes messages from now on; see [`Listener`].
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn listen(&self) -> Result<Listener, Stopped> {
        self.listen_with(driver::LISTENER_MESSAGES, true).await
    }

    pub(crate) async fn listen_with(&self, messages: u32, refill: bool) -> Result<Listener, Stopped> {
        let (listener, end) = Listener::pair(messages, refill, self.shared.wake.clone());
        self.command(Command::Listen(end)).await?;
        Ok(listener)
    }

    /// What happens from now on. A watcher that lags loses the oldest events and is told how many.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// The node at a glance.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn status(&self) -> Result<NodeStatus, Stopped> {
        let mut core = self.inspect(|core, now| core.status(now)).await?;
        let shared = &self.shared;
        core.problems.extend(shared.problems.borrow().iter().cloned());
        core.problems.extend(shared.report.borrow().refused.iter().map(|refusal| format!("route {refusal}")));
        if shared.config.security == Security::None {
            core.problems.push("security = \"none\": anybody can join, read and forge; use it in labs only".into());
        }
        let selection = select(&shared.config.adapters, &shared.kernel.borrow().adapters, shared.config.port);
        Ok(NodeStatus {
            core,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: shared.config.cluster.clone(),
            security: if shared.config.security == Security::None { "none" } else { "key" }.to_owned(),
            port: shared.config.port,
            uptime_ms: u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            adapters: selection.adapters.iter().map(|selected| (&selected.adapter).into()).collect(),
            policies: shared.policies.show(),
        })
    }

    /// All members.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn members(&self) -> Result<Vec<MemberStatus>, Stopped> {
        self.inspect(|core, now| core.members(now)).await
    }

    /// The address table.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn table(&self) -> Result<TableStatus, Stopped> {
        self.inspect(|core, _| core.table()).await
    }

    /// All paths.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn paths(&self) -> Result<Vec<PathStatus>, Stopped> {
        self.inspect(|core, now| core.paths(now)).await
    }

    /// The plan in force.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn plan(&self) -> Result<PlanStatus, Stopped> {
        self.inspect(|core, _| core.plan()).await
    }

    /// The routes that are wanted now, and what was last done about them.
    pub fn routes(&self) -> (Plan, Report) {
        let adapters = self.shared.kernel.borrow().adapters.clone();
        let remote = self.shared.remotes.borrow().clone();
        (kernel::plan_for(&self.shared.config, &adapters, remote), self.shared.report.borrow().clone())
    }

    /// Who answers the policy questions.
    pub fn policy_list(&self) -> Vec<PolicyStatus> {
        self.shared.policies.show()
    }

    /// Makes a plugin the one that answers, between two questions; the one before it stays warm.
    ///
    /// # Errors
    /// What is wrong with it; nothing changed.
    pub async fn policy_set(
        &self,
        kind: Kind,
        source: &PluginSource,
        config: Attributes,
    ) -> Result<PolicyStatus, PolicyError> {
        let (name, wasm) = read_plugin(source).map_err(PolicyError::Load)?;
        self.policy_set_bytes(kind, name, wasm, config).await
    }

    /// As [`policy_set`](Self::policy_set), with the component's bytes under a name for listings.
    ///
    /// # Errors
    /// What is wrong with it; nothing changed.
    pub async fn policy_set_bytes(
        &self,
        kind: Kind,
        name: String,
        wasm: Vec<u8>,
        config: Attributes,
    ) -> Result<PolicyStatus, PolicyError> {
        self.shared.policies.set(kind, name, wasm, config, Priority::Background).await
    }

    /// Goes back to the plugin before.
    ///
    /// # Errors
    /// There is none.
    pub async fn policy_rollback(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.shared.policies.rollback(kind).await
    }

    /// Lets the native fallback answer.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn policy_unset(&self, kind: Kind) -> Result<PolicyStatus, PolicyError> {
        self.shared.policies.unset(kind).await
    }

    /// Removes a dead member's entry for good, on every member.
    ///
    /// # Errors
    /// In words: unknown, or still alive.
    pub async fn forget(&self, node: &str) -> Result<(), String> {
        let name = node.to_owned();
        let forget = move |core: &mut NodeCore, now| match core.find(&name) {
            Some(node) => core.forget(now, node).map_err(str::to_owned),
            None => Err(SendFailure::UnknownNode(name).to_string()),
        };
        self.inspect(forget).await.map_err(|stopped| stopped.to_string())?
    }

    /// Drops datagrams on purpose on an adapter address: for tests and the demo. Whether there is such a socket.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn impair(&self, address: IpAddr, impairment: Impairment) -> Result<bool, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Impair(address, impairment, reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Says farewell, removes the routes, stops; returns when all is done.
    pub async fn leave(&self) {
        let _ = self.command(Command::Leave).await;
        self.wait_stopped().await;
    }

    /// Stops at once, as a crash would (but the routes are removed).
    pub async fn abort(&self) {
        let _ = self.command(Command::Abort).await;
        self.wait_stopped().await;
    }

    /// Waits until the node has stopped.
    pub async fn wait_stopped(&self) {
        let mut stopped = self.shared.stopped.clone();
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.shared.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Asks the core something between two turns of the driver.
    async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut NodeCore, overlan_core::Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let inspection = Box::new(move |core: &mut NodeCore, now| drop(reply.send(look(core, now))));
        self.command(Command::Inspect(inspection)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle").field("name", &self.shared.config.name).finish_non_exhaustive()
    }
}
