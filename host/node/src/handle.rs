//! The handle on a running node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use overlan_contract::{Attributes, Kind};
use overlan_core::Event;
use overlan_core::status::{CoreStatus, MemberStatus, PathStatus, PlanStatus, TableStatus};
use overlan_netlink::{Plan, Report};
use overlan_udp::Impairment;
use overlan_wire::limits::{MAX_MESSAGE, is_open_stream};
use overlan_wire::{MessageMode, NodeId};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::adapters::{AdapterView, select};
use crate::app::Target;
use crate::config::{Config, PluginSource, Security};
use crate::document::Stored;
use crate::driver::{
    Command, ListenOptions, Listener, MAX_BATCH, NodeCore, Outgoing, SendFailure, SendOptions,
};
use crate::journal::JournalStatus;
use crate::kernel::{self, Kernel};
use crate::keyring::{self, KeyView, KeyringChange, KeyringFailure};
use crate::node::read_plugin;
use crate::policy::{Candidate, Policies, PolicyError, PolicyShadow, PolicyStatus, Priority};
use crate::receipt::{BatchReceipt, Receipt, Submitted};
use crate::rollout::Rollout;

/// The node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// The node stopped soon after its start because another runs with its identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another node runs with this node's identity ({evidence}), and stays: give each node a state_dir of its own; a \
     copied one brings the identity with it"
)]
pub struct IdentityTaken {
    /// Where the other is, or who knows it.
    pub evidence: String,
}

/// The handle on a running node; cheap to clone. The node runs until [`leave`](Self::leave).
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    pub(crate) started: Instant,
    /// The driver's thread.
    pub(crate) runtime: Handle,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) problems: watch::Receiver<Vec<String>>,
    pub(crate) stored: watch::Receiver<Stored>,
    pub(crate) kernel: watch::Receiver<Kernel>,
    pub(crate) remotes: watch::Receiver<Vec<IpAddr>>,
    pub(crate) report: watch::Receiver<Report>,
    pub(crate) policies: Policies,
    pub(crate) rollout: Rollout,
    /// Held while the cluster keys change, so that file and node see the changes in one order.
    pub(crate) keyring: Mutex<()>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) stopped: watch::Receiver<Option<Result<(), IdentityTaken>>>,
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
    /// What the journal of policy questions took; absent where none is kept.
    pub journal: Option<JournalStatus>,
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
    /// A message to a role goes to its owner of the moment. Should another become the owner before the message was
    /// delivered, or the owner lose its memory, it is sent again to the owner then, marked
    /// [`redelivered`](crate::Received::redelivered).
    ///
    /// # Errors
    /// See [`SendFailure`]; nothing was queued.
    pub async fn send(
        &self,
        to: &str,
        mode: MessageMode,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, SendFailure> {
        self.send_with(to, SendOptions::new(mode), payload).await
    }

    /// As [`send`](Self::send), with a stream and a lifetime.
    ///
    /// # Errors
    /// See [`SendFailure`]; nothing was queued.
    pub async fn send_with(
        &self,
        to: &str,
        options: SendOptions,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, SendFailure> {
        let submitted = self.submit(Target::parse(to), options, vec![payload.into()]).await?;
        Ok(Receipt(submitted.queued().await?))
    }

    /// Queues many messages at once, in their order: it costs far less than one [`send`](Self::send) for each, and one
    /// receipt tells of all. Waits until the last one is queued; dropping the future takes back those that are not.
    ///
    /// # Errors
    /// See [`SendFailure`]; nothing was queued.
    pub async fn send_batch(
        &self,
        to: &str,
        mode: MessageMode,
        stream: u16,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Result<BatchReceipt, SendFailure> {
        self.send_batch_with(to, SendOptions { stream, ..SendOptions::new(mode) }, payloads).await
    }

    /// As [`send_batch`](Self::send_batch), with a lifetime for each message.
    ///
    /// # Errors
    /// See [`SendFailure`]; nothing was queued.
    pub async fn send_batch_with(
        &self,
        to: &str,
        options: SendOptions,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Result<BatchReceipt, SendFailure> {
        let payloads = payloads.into_iter().collect();
        self.submit(Target::parse(to), options, payloads).await?.queued().await
    }

    /// Gives messages to the driver. What is submitted by one task is queued in that order, but what waits for room in
    /// one stream to a member holds up no other.
    pub(crate) async fn submit(
        &self,
        to: Target,
        options: SendOptions,
        payloads: Vec<Bytes>,
    ) -> Result<Submitted, SendFailure> {
        if payloads.len() > MAX_BATCH {
            return Err(SendFailure::TooMany);
        }
        if payloads.iter().any(|payload| payload.len() > MAX_MESSAGE) {
            return Err(SendFailure::TooLarge);
        }
        if !is_open_stream(options.stream) {
            return Err(SendFailure::UnknownStream);
        }
        let ((queued, answer), (outcome, fates)) = (oneshot::channel(), oneshot::channel());
        let len = payloads.len();
        let outgoing = Outgoing { to, options, payloads, queued, outcome };
        self.command(Command::Send(outgoing)).await.map_err(|Stopped| SendFailure::Stopped)?;
        Ok(Submitted { len, answer, fates, commands: self.shared.commands.downgrade() })
    }

    /// Takes messages of all streams from now on; see [`Listener`].
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn listen(&self) -> Result<Listener, Stopped> {
        self.listen_with(ListenOptions::default()).await
    }

    /// As [`listen`](Self::listen), to some streams, or with another capacity.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn listen_with(&self, options: ListenOptions) -> Result<Listener, Stopped> {
        self.listen_credit(options, None).await
    }

    pub(crate) async fn listen_credit(
        &self,
        options: ListenOptions,
        credit: Option<u64>,
    ) -> Result<Listener, Stopped> {
        let (listener, end) = Listener::pair(options, credit, self.shared.wake.clone());
        self.command(Command::Listen(end)).await?;
        Ok(listener)
    }

    /// Runs a future on the thread of the node's driver, beside it: messages and answers then pass between the two
    /// without a switch of threads, which is most of a round trip on an idle machine.
    ///
    /// It must never block nor compute for long: whatever it takes, the node does not run. What takes more than some
    /// ten microseconds belongs elsewhere. It ends with the node.
    pub fn spawn_beside<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.shared.runtime.spawn(future)
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
        core.problems.extend(shared.stored.borrow().problem.clone());
        core.problems.extend(shared.rollout.problems(&shared.policies.show()));
        core.problems.extend(shared.report.borrow().refused.iter().map(|refusal| format!("route {refusal}")));
        if let Some(path) = shared.config.control.as_ref().filter(|path| !path.exists()) {
            core.problems.push(format!(
                "the control socket {} was removed: no command reaches this node until it is started again",
                path.display()
            ));
        }
        if shared.config.security == Security::None {
            core.problems
                .push("security = \"none\": anybody can join, read and forge; use it in labs only".into());
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
            journal: shared.policies.journal(),
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

    /// Makes a plugin the one that answers, between two questions, once it has answered what this node was asked
    /// lately. The one before it stays warm, and comes back by itself if the new one fails during its probation.
    ///
    /// # Errors
    /// What is wrong with it; nothing changed.
    pub async fn policy_set(
        &self,
        kind: Kind,
        source: &PluginSource,
        config: Attributes,
    ) -> Result<PolicyStatus, PolicyError> {
        let (name, wasm) = read_plugin(source)?;
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
        self.policy_set_limited(kind, name, wasm, config, Vec::new()).await
    }

    /// As [`policy_set_bytes`](Self::policy_set_bytes), with limits of its own, by name, over those configured for the
    /// kind.
    ///
    /// # Errors
    /// What is wrong with it or with a limit; nothing changed.
    pub async fn policy_set_limited(
        &self,
        kind: Kind,
        name: String,
        wasm: Vec<u8>,
        config: Attributes,
        limits: Vec<(String, u64)>,
    ) -> Result<PolicyStatus, PolicyError> {
        let candidate = Candidate { kind, name, wasm, config, limits };
        self.shared.policies.set(candidate, Priority::Background).await
    }

    /// Lets a plugin answer beside the active one: it is asked the same, never waited for, and only compared.
    ///
    /// # Errors
    /// What is wrong with it or with a limit; an earlier shadow stays.
    pub async fn policy_shadow(
        &self,
        kind: Kind,
        name: String,
        wasm: Vec<u8>,
        config: Attributes,
        limits: Vec<(String, u64)>,
    ) -> Result<PolicyShadow, PolicyError> {
        self.shared.policies.shadow(Candidate { kind, name, wasm, config, limits }).await
    }

    /// How the shadow of a kind compares to the active policy so far, if there is one.
    pub fn policy_shadow_show(&self, kind: Kind) -> Option<PolicyShadow> {
        self.shared.policies.show_shadow(kind)
    }

    /// Ends the shadow of a kind; what it showed to the end.
    ///
    /// # Errors
    /// There is none.
    pub fn policy_shadow_stop(&self, kind: Kind) -> Result<PolicyShadow, PolicyError> {
        self.shared.policies.stop_shadow(kind)
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
        let forget = move |core: &mut NodeCore, now| match core.find_gone(&name) {
            Some(node) => core.forget(now, node).map_err(str::to_owned),
            None => Err(SendFailure::UnknownNode(name).to_string()),
        };
        self.inspect(forget).await.map_err(|stopped| stopped.to_string())?
    }

    /// The cluster keys, the active one first.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn keyring(&self) -> Result<Vec<KeyView>, Stopped> {
        self.inspect(|core, _| keyring::views(core.crypto().keyring())).await
    }

    /// Changes the cluster keys, in the key file and in force; the keys from now on, the active one first.
    ///
    /// # Errors
    /// See [`KeyringFailure`].
    pub async fn change_keyring(&self, change: KeyringChange) -> Result<Vec<KeyView>, KeyringFailure> {
        let _changing = self.shared.keyring.lock().await;
        // Nothing is waited for between the file and the node: a caller that gives up would leave them different.
        let room = self.shared.commands.reserve().await.map_err(|_| Stopped)?;
        let keyring = keyring::change(&self.shared.config.security, change)?;
        let views = keyring::views(&keyring);
        let (command, answer) = inspection(move |core, now| {
            core.handle_keyring_change(now, |seal| seal.set_keyring(keyring));
        });
        room.send(command);
        self.answer(answer).await?;
        Ok(views)
    }

    /// Drops datagrams on purpose on an adapter address: for tests and the demo. Whether there is such a socket.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn impair(&self, address: IpAddr, impairment: Impairment) -> Result<bool, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Impair(address, impairment, reply)).await?;
        self.answer(answer).await
    }

    /// Says farewell, removes the routes, stops; returns when all is done.
    pub async fn leave(&self) {
        let _ = self.command(Command::Leave).await;
        let _ = self.wait_stopped().await;
    }

    /// Stops at once, as a crash would (but the routes are removed).
    pub async fn abort(&self) {
        let _ = self.command(Command::Abort).await;
        let _ = self.wait_stopped().await;
    }

    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// It stopped of itself, because it must not stay.
    pub async fn wait_stopped(&self) -> Result<(), IdentityTaken> {
        let mut stopped = self.shared.stopped.clone();
        let end = stopped.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(Ok(()))
    }

    async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.shared.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Asks the core something between two turns of the driver.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut NodeCore, overlan_core::Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (command, answer) = inspection(look);
        self.command(command).await?;
        self.answer(answer).await
    }

    /// What comes of a command. One that came as the driver ended is not dropped before the last handle is.
    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| Stopped),
            () = self.shared.commands.closed() => Err(Stopped),
        }
    }
}

/// The command that asks the core something, and where its answer comes.
fn inspection<T: Send + 'static>(
    look: impl FnOnce(&mut NodeCore, overlan_core::Instant) -> T + Send + 'static,
) -> (Command, oneshot::Receiver<T>) {
    let (reply, answer) = oneshot::channel();
    let inspection = Box::new(move |core: &mut NodeCore, now| drop(reply.send(look(core, now))));
    (Command::Inspect(inspection), answer)
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle").field("name", &self.shared.config.name).finish_non_exhaustive()
    }
}
