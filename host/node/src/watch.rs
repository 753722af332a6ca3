//! What happens, as lines for applications and people.

use std::collections::{BTreeMap, VecDeque};

use overlan_contract::Kind;
use overlan_core::Event;
use overlan_core::status::{MemberState, Ownership};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::handle::{NodeHandle, Stopped};

/// One thing that happened. The names are those of `overlan watch --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// This member gained or lost a responsibility.
    Responsibility {
        /// Its name.
        name: String,
        /// What this member was to it.
        before: Ownership,
        /// What it is now.
        now: Ownership,
        /// Epoch of the plan that says so.
        epoch: u64,
    },
    /// Another plan is in force.
    Plan {
        /// Its epoch.
        epoch: u64,
    },
    /// A member's state changed.
    Member {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
        /// The new state.
        state: MemberState,
    },
    /// Another policy answers on this member.
    Policy {
        /// Which decision.
        kind: Kind,
        /// Which plugin; `native` for the fallback.
        plugin: String,
        /// If it came back because a new one failed its probation: what gave way and why.
        rolled_back: Option<String>,
    },
    /// Another cluster document is in force here.
    Document {
        /// Its version.
        version: u64,
        /// SHA-256 over its bytes.
        digest: String,
    },
    /// All live members hold this cluster document.
    DocumentAgreed {
        /// Its version.
        version: u64,
        /// SHA-256 over its bytes.
        digest: String,
    },
    /// The watcher was too slow; what this member owns is told anew, other events are lost.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Gives one event after the other; first of all what this member owns already.
#[derive(Debug)]
pub struct Watch {
    node: NodeHandle,
    events: broadcast::Receiver<Event>,
    owned: BTreeMap<String, Ownership>,
    /// Roll-backs of each kind that were told, or came before.
    rollbacks: BTreeMap<Kind, u64>,
    /// Set while `owned` may be out of date.
    stale: bool,
    waiting: VecDeque<WatchEvent>,
}

impl NodeHandle {
    /// What happens from now on, as lines; see [`Watch`].
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn watch_lines(&self) -> Result<Watch, Stopped> {
        let (events, owned) = (self.watch(), BTreeMap::new());
        let rollbacks =
            self.policy_list().into_iter().map(|status| (status.kind, status.rollbacks)).collect();
        let waiting = VecDeque::new();
        let mut watch = Watch { node: self.clone(), events, owned, rollbacks, stale: true, waiting };
        watch.look().await?;
        Ok(watch)
    }

    /// What this member owns and stands by for, and the epoch of the plan that says so; nothing without a quorum.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn responsibilities(&self) -> Result<(u64, BTreeMap<String, Ownership>), Stopped> {
        self.inspect(|core, _| core.own_duties()).await
    }
}

impl Watch {
    /// The next event; `None` once the node has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if self.stale {
                self.look().await.ok()?;
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let event = match self.events.recv().await {
                Ok(event) => event,
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(count)) => {
                    self.waiting.push_back(WatchEvent::Missed { count });
                    self.stale = true;
                    continue;
                }
            };
            match event {
                Event::Responsibilities { .. } => self.stale = true,
                Event::Plan { epoch } => self.waiting.push_back(WatchEvent::Plan { epoch }),
                Event::Member { node, name, state } => {
                    self.waiting.push_back(WatchEvent::Member { name, id: node.to_string(), state });
                }
                Event::Policy { kind, .. } => self.look_at_policy(kind),
                Event::Document(id) => {
                    let (version, digest) = (id.version, id.digest.to_string());
                    self.waiting.push_back(WatchEvent::Document { version, digest });
                }
                Event::DocumentAgreed(id) => {
                    let (version, digest) = (id.version, id.digest.to_string());
                    self.waiting.push_back(WatchEvent::DocumentAgreed { version, digest });
                }
                _ => {}
            }
        }
    }

    fn look_at_policy(&mut self, kind: Kind) {
        let shown = self.node.policy_list().into_iter().find(|status| status.kind == kind);
        let Some(status) = shown else { return };
        let told = self.rollbacks.insert(kind, status.rollbacks).unwrap_or_default();
        let rolled_back = status.last_rollback.filter(|_| status.rollbacks > told);
        self.waiting.push_back(WatchEvent::Policy { kind, plugin: status.plugin, rolled_back });
    }

    /// Compares what this member owns with what was told: nothing is told twice or forgotten, whatever was missed.
    async fn look(&mut self) -> Result<(), Stopped> {
        let (epoch, owned) = self.node.responsibilities().await?;
        let of =
            |map: &BTreeMap<String, Ownership>, name: &str| map.get(name).copied().unwrap_or(Ownership::None);
        let added = owned.keys().filter(|name| !self.owned.contains_key(*name));
        for name in self.owned.keys().chain(added) {
            let (before, now) = (of(&self.owned, name), of(&owned, name));
            if before != now {
                self.waiting.push_back(WatchEvent::Responsibility { name: name.clone(), before, now, epoch });
            }
        }
        self.owned = owned;
        self.stale = false;
        Ok(())
    }
}
