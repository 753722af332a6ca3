//! Starting a node.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use overlan_contract::Kind;
use overlan_core::Core;
use overlan_netlink::Report;
use overlan_policy::Limits;
use overlan_seal::{Identity, Keyring, KeyringError, Seal};
use overlan_wire::BootId;
use overlan_wire::limits::{BENCH_STREAMS, COMPONENT_STREAM};
use rustix::io::Errno;
use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::{Mutex, Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::bench;
use crate::config::{BusyPoll, Config, PluginSource, Security};
use crate::control;
use crate::document::{self, Stored};
use crate::driver::{self, Driver, ListenOptions, MAX_COMMANDS, MAX_EVENTS, Ports};
use crate::handle::{IdentityTaken, NodeHandle, Shared};
use crate::journal::Recorder;
use crate::kernel::{self, Kernel};
use crate::last_known;
use crate::policy::{Candidate, Policies, PolicyError, Priority};
use crate::rollout::{self, Rollout};
use crate::state::{StateDir, StateError, random, read_bounded, warn_of_others};

/// Why a node did not start. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster key can't be read.
    #[error(
        "[cluster] key_file: {path}: {source}; make a key with `overlan keygen --out FILE`, or copy it from a member"
    )]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster key is malformed.
    #[error("[cluster] key_file: {path}: {source}")]
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
    /// A configured plugin does not exist, or refuses its configuration.
    #[error("[policy.{kind}]: {why}")]
    Plugin {
        /// Which decision.
        kind: Kind,
        /// Why.
        why: String,
    },
    /// A configured plugin can't be loaded now: this host lacks what that takes, it was not compiled in time, or the node
    /// is being stopped.
    #[error("[policy.{kind}]: {why}")]
    NotLoaded {
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

impl StartError {
    /// Whether the configuration must change: on this host, it starts no node at any time.
    pub fn is_configuration(&self) -> bool {
        match self {
            StartError::KeyFile { source, .. } => !is_want(source),
            StartError::Keyring { .. } | StartError::Plugin { .. } | StartError::Record(_) => true,
            StartError::NotLoaded { .. }
            | StartError::State(_)
            | StartError::Control { .. }
            | StartError::Metrics { .. }
            | StartError::Policy(_)
            | StartError::System(_) => false,
        }
    }
}

/// Whether a file can't be read for what this host lacks or suffers from, whatever the file is.
fn is_want(error: &std::io::Error) -> bool {
    let want = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO];
    Errno::from_io_error(error).is_some_and(|errno| want.contains(&errno))
}

/// A node of the cluster in this process.
pub struct Node;

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
            let text = crate::keyring::read_key_file(path)
                .map_err(|source| StartError::KeyFile { path: path.clone(), source })?;
            let why = "other users may read the cluster key; `chmod 600` it, and replace it if they have";
            warn_of_others(path, 0o077, why);
            Keyring::parse(&text).map_err(|source| StartError::Keyring { path: path.clone(), source })
        }
    }
}

/// The journal of policy questions, where one is wanted. A node does not stay down for want of it.
fn journal(config: &Config) -> Option<Recorder> {
    if config.journal_bytes == 0 {
        return None;
    }
    Recorder::open(config.state_dir.join("journal"), config.journal_bytes)
        .inspect_err(|error| tracing::warn!(%error, "no policy journal is kept; make its folder writable"))
        .ok()
}

/// Configured plugins, and the defaults of the other kinds. A missing one is an error before anything runs.
fn plugins(config: &Config) -> Result<Vec<Candidate>, StartError> {
    let plugin = |kind| configured_plugin(config, kind).map_err(|error| not_loaded(kind, "", error));
    Kind::ALL.into_iter().map(plugin).collect()
}

/// The plugin that a kind is configured with, or its default.
pub(crate) fn configured_plugin(config: &Config, kind: Kind) -> Result<Candidate, PolicyError> {
    let choice = config.policies.iter().find(|choice| choice.kind == kind);
    let default = PluginSource::Builtin(overlan_plugins_dist::default_for(kind).name.to_owned());
    let (name, wasm) = read_plugin(choice.map_or(&default, |choice| &choice.source))?;
    let config = choice.map(|choice| choice.config.clone()).unwrap_or_default();
    Ok(Candidate { kind, name, wasm, config, limits: Vec::new() })
}

/// A plugin's name in listings, and its bytes.
pub(crate) fn read_plugin(source: &PluginSource) -> Result<(String, Vec<u8>), PolicyError> {
    match source {
        PluginSource::Builtin(name) => match overlan_plugins_dist::find(name) {
            Some(builtin) => Ok((format!("builtin:{name}"), builtin.wasm.to_vec())),
            None => Err(PolicyError::UnknownBuiltin(name.clone())),
        },
        PluginSource::File(path) => {
            let name = path.display().to_string();
            let why = |error| match is_want(&error) {
                true => PolicyError::Host(format!("cannot read {name}: {error}")),
                false => PolicyError::Load(format!(
                    "cannot read {name}: {error}; name a component that `overlan policy build` made, or \"builtin:NAME\""
                )),
            };
            let wasm = read_bounded(path, Limits::default().file_bytes).map_err(why)?;
            Ok((name, wasm))
        }
    }
}

fn not_loaded(kind: Kind, place: &str, error: PolicyError) -> StartError {
    let why = format!("{place}{error}");
    match error {
        PolicyError::Host(_) | PolicyError::Busy | PolicyError::CompileDeadline(_) | PolicyError::Stopped => {
            StartError::NotLoaded { kind, why }
        }
        _ => StartError::Plugin { kind, why },
    }
}

/// Puts the first plugins in force, before the first question is asked.
async fn load_plugins(policies: &Policies, plugins: Vec<Candidate>) -> Result<(), StartError> {
    let loads = plugins.into_iter().map(async |plugin| {
        let (kind, name) = (plugin.kind, plugin.name.clone());
        let why = |error| not_loaded(kind, &format!("{name}: "), error);
        policies.set(plugin, Priority::Start).await.map_err(why)
    });
    futures_util::future::try_join_all(loads).await.map(drop)
}

/// Starts the driver; the handle, and the future that serves until the node stops.
async fn start(
    config: Config,
    keyring: Keyring,
    state: StateDir,
    identity: Identity,
    plugins: Vec<Candidate>,
) -> Result<(NodeHandle, impl Future<Output = ()>), StartError> {
    let control = control::bind(&config).await?;
    let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
    let (answers, answer_receiver) = mpsc::unbounded_channel();
    let policies = Policies::start(
        &config.policies,
        &config.state_dir.join("aot"),
        &answers,
        &commands.downgrade(),
        journal(&config),
    )?;
    let rollout = Rollout::new(&config.state_dir);
    let restoring = rollout.restore(state.document(), &policies);
    let plugins = plugins.into_iter().filter(|plugin| !restoring.contains(&plugin.kind)).collect();
    load_plugins(&policies, plugins).await?;
    let (events, _) = broadcast::channel(MAX_EVENTS);
    let (remotes_sender, remotes) = watch::channel(Vec::new());
    let (problems_sender, problems) = watch::channel(Vec::new());
    let (document, documents) = watch::channel(None);
    let (stored_sender, stored) = watch::channel(Stored::loaded(state.document()));
    let (last_known_sender, last_known) = watch::channel(Vec::new());
    let keepers = [
        tokio::spawn(document::keep_stored(state.document_path(), documents, stored_sender)),
        tokio::spawn(last_known::keep(state.last_known_path(), last_known)),
    ];
    let (kernel_sender, kernel) = watch::channel(Kernel::default());
    let (report_sender, report) = watch::channel(Report::default());
    let (stop, stop_receiver) = watch::channel(false);
    let (stopped_sender, stopped) = watch::channel(None);
    let wake = Arc::new(Notify::new());
    let ports = Ports {
        commands: command_receiver,
        answers: answer_receiver,
        policies: policies.clone(),
        events: events.clone(),
        remotes: remotes_sender,
        last_known: last_known_sender,
        problems: problems_sender,
        document,
        wake: wake.clone(),
    };
    let id = identity.node_id();
    let pending = restoring.contains(&Kind::Assignment);
    let (runtime, driver) = spawn_driver(&config, keyring, state, identity, ports, pending).await?;
    let adapters = tokio::spawn(kernel::watch_adapters(config.clone(), commands.downgrade(), kernel_sender));
    let routes =
        kernel::keep_routes(config.clone(), remotes.clone(), kernel.clone(), report_sender, stop_receiver);
    let routes = tokio::spawn(routes);
    let handle = NodeHandle {
        shared: Arc::new(Shared {
            id,
            started: Instant::now(),
            runtime,
            commands,
            wake,
            events,
            problems,
            stored,
            kernel,
            remotes,
            report,
            policies,
            rollout,
            keyring: Mutex::default(),
            stop,
            stopped,
            config,
        }),
    };
    listen_for_members(&handle).await;
    tokio::spawn(crate::problems::log(handle.clone()));
    let tasks = Tasks { driver, keepers, adapters, routes, control, stopped: stopped_sender };
    Ok((handle.clone(), tasks.run(handle)))
}

/// Answers what members ask each other beside the applications' messages: measurements, and components of policies.
async fn listen_for_members(handle: &NodeHandle) {
    let measurements = ListenOptions { streams: BENCH_STREAMS.collect(), ..Default::default() };
    if let Ok(listener) = handle.listen_with(measurements).await {
        handle.spawn_beside(bench::respond(handle.clone(), listener));
    }
    let rollouts = ListenOptions { streams: [COMPONENT_STREAM].into_iter().collect(), capacity: 64 };
    if let Ok(listener) = handle.listen_with(rollouts).await {
        tokio::spawn(rollout::serve(handle.clone(), listener));
        tokio::spawn(rollout::keep_policies(handle.clone(), handle.watch()));
    }
}

/// What runs as long as the node does.
struct Tasks {
    /// Ends when the driver's thread does: the node left.
    driver: oneshot::Receiver<Result<(), IdentityTaken>>,
    /// Write what is to survive a restart; they end after the driver.
    keepers: [JoinHandle<()>; 2],
    adapters: JoinHandle<()>,
    /// Removes the routes when it is told to stop.
    routes: JoinHandle<()>,
    control: control::Bound,
    /// Where it is told how the node ended.
    stopped: watch::Sender<Option<Result<(), IdentityTaken>>>,
}

impl Tasks {
    /// Serves until the node stops, and leaves nothing behind.
    async fn run(self, node: NodeHandle) {
        let streams = self.control.streams();
        let end = tokio::select! {
            end = self.driver => {
                futures_util::future::join_all(self.keepers).await;
                control::drain(&streams).await;
                end.unwrap_or(Ok(()))
            }
            () = control::serve(self.control, node.clone()) => Ok(()),
        };
        self.adapters.abort();
        node.shared.stop.send_replace(true);
        let _ = self.routes.await;
        if let Some(path) = &node.shared.config.control {
            let _ = std::fs::remove_file(path);
        }
        self.stopped.send_replace(Some(end));
    }
}

async fn spawn_driver(
    config: &Config,
    keyring: Keyring,
    state: StateDir,
    identity: Identity,
    ports: Ports,
    assignment_pending: bool,
) -> Result<(Handle, oneshot::Receiver<Result<(), IdentityTaken>>), StartError> {
    let mut core_config = overlan_core::Config::new(config.name.clone(), BootId(random()), random());
    core_config.seeds.clone_from(&config.seeds);
    core_config.last_known = state.last_known().to_vec();
    core_config.attributes.clone_from(&config.attributes);
    core_config.responsibilities.clone_from(&config.responsibilities);
    core_config.quorum = config.quorum;
    core_config.assignment_pending = assignment_pending;
    core_config.congestion = config.congestion;
    core_config.allow.clone_from(&config.allow);
    core_config.last_version = state.last_version();
    core_config.cluster.clone_from(&config.cluster);
    core_config.operator_key = config.operator_key;
    core_config.document = state.document().map(|document| document.bytes().clone());
    let seal = Seal::new(identity, keyring, &config.cluster);
    let busy_poll = config.busy_poll;
    let (ready, started) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("overlan-driver".into()).spawn(move || {
        let origin = Instant::now();
        // The driver is a task like those beside it: they wake each other without a system call. It asks the kernel
        // for itself when it spins; else the sockets must have their turn between long ones.
        let turns = if busy_poll == BusyPoll::Always { 64 } else { 8 };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match builder.enable_all().event_interval(turns).build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::System(error)))),
        };
        let driver = Core::new(core_config, seal, Vec::new(), driver::now(origin))
            .map_err(StartError::from)
            .and_then(|core| {
                let _context = runtime.enter();
                Ok(Driver::new(core, origin, state, ports, busy_poll)?)
            });
        match driver {
            Ok(driver) => {
                let _ = ready.send(Ok(runtime.handle().clone()));
                let driver = runtime.spawn_local(driver.run());
                match runtime.block_on(driver) {
                    Ok(end) => drop(ended.send(end)),
                    Err(error) => tracing::error!(%error, "the driver broke; the node stops"),
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let started = started.await.unwrap_or_else(|_| Err(StartError::System(std::io::ErrorKind::Other.into())));
    Ok((started?, end))
}
