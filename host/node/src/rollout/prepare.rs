//! Both halves of a rollout: having all members prepare, and preparing.

use std::collections::BTreeMap;
use std::time::Duration;

use overlan_core::document::PolicyChoice;
use overlan_wire::NodeId;
use tokio::time::{Instant, timeout};

use super::message::RolloutMessage;
use super::{Ready, Rollout};
use crate::document::ApplyFailure;
use crate::handle::{NodeHandle, Stopped};
use crate::policy::{Candidate, Priority};
use crate::state::random;

/// All members must have fetched, compiled and tested by then.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often it is looked who is alive still.
const LOOK: Duration = Duration::from_secs(1);

/// Prepares in the background and answers.
pub(super) fn handle_prepare(node: &NodeHandle, from: NodeId, token: u64, policies: Vec<PolicyChoice>) {
    let Ok(place) = node.shared.rollout.answering.clone().try_acquire_owned() else { return };
    let node = node.clone();
    tokio::spawn(async move {
        let _place = place;
        let why = node.shared.rollout.prepare(&node, from, token, policies).await.err().unwrap_or_default();
        node.tell(from, &RolloutMessage::Prepared { token, why }).await;
    });
}

impl Rollout {
    pub(super) fn handle_prepared(&self, from: NodeId, token: u64, why: String) {
        if let Some(answers) = self.lock().answers.get_mut(&token) {
            answers.insert(from, why);
            self.answered.notify_one();
        }
    }

    pub(super) fn handle_abandon(&self, from: NodeId, token: u64) {
        let mut state = self.lock();
        if state.current == Some((from, token)) {
            state.current = None;
            state.ready.clear();
        }
    }

    /// Whether the plugin that answers is the one of this policy.
    pub(super) fn is_active(node: &NodeHandle, policy: &PolicyChoice) -> bool {
        let shown = node.policy_list();
        let active = shown.iter().find(|status| status.kind == policy.kind);
        active.is_some_and(|active| {
            active.sha256 == policy.sha256.to_string() && active.config == policy.config
        })
    }

    /// Fetches, compiles and tests; a commit is a matter of the document then.
    async fn prepare(
        &self,
        node: &NodeHandle,
        from: NodeId,
        token: u64,
        policies: Vec<PolicyChoice>,
    ) -> Result<(), String> {
        {
            let mut state = self.lock();
            if state.working {
                return Err("it prepares another change of the policies still; try again".to_owned());
            }
            state.current = Some((from, token));
            state.working = true;
            state.ready.clear();
            state.rolling = policies.iter().map(|policy| policy.sha256).collect();
        }
        self.collect();
        let prepared = self.prepare_all(node, from, policies).await;
        let mut state = self.lock();
        state.working = false;
        if state.current != Some((from, token)) {
            return Err("the change was abandoned".to_owned());
        }
        state.ready = prepared?;
        Ok(())
    }

    async fn prepare_all(
        &self,
        node: &NodeHandle,
        from: NodeId,
        policies: Vec<PolicyChoice>,
    ) -> Result<Vec<Ready>, String> {
        let mut ready = Vec::new();
        for policy in policies.into_iter().filter(|policy| !Self::is_active(node, policy)) {
            let candidate = self.candidate(node, &policy, Some(from)).await?;
            let kind = policy.kind;
            let prepared = node.shared.policies.prepare(candidate, Priority::Background).await;
            let prepared = prepared.map_err(|error| format!("policy.{kind} {}: {error}", policy.plugin))?;
            ready.push(Ready { policy, prepared });
        }
        Ok(ready)
    }

    pub(super) async fn candidate(
        &self,
        node: &NodeHandle,
        policy: &PolicyChoice,
        first: Option<NodeId>,
    ) -> Result<Candidate, String> {
        let wasm = self.component(node, policy, first).await?;
        let (name, config) = (policy.plugin.clone(), policy.config.clone());
        Ok(Candidate { kind: policy.kind, name, wasm, config, limits: Vec::new() })
    }

    /// Has this and every other live member prepare; names the first that will not.
    ///
    /// # Errors
    /// Nothing changed anywhere.
    pub(crate) async fn prepare_everywhere(
        &self,
        node: &NodeHandle,
        policies: Vec<PolicyChoice>,
    ) -> Result<u64, ApplyFailure> {
        if let Some(missing) = policies.iter().find(|policy| !self.components.has(policy.sha256)) {
            return Err(ApplyFailure::NoComponent(missing.kind));
        }
        let token = u64::from_be_bytes(random());
        let own = self.prepare(node, node.id(), token, policies.clone()).await;
        if let Err(why) = own {
            return Err(ApplyFailure::Member { member: node.config().name.clone(), why });
        }
        self.lock().answers.insert(token, BTreeMap::new());
        let asked = self.ask_all(node, token, policies).await;
        self.lock().answers.remove(&token);
        if asked.is_err() {
            self.abandon_everywhere(node, token).await;
        }
        asked.map(|()| token)
    }

    async fn ask_all(
        &self,
        node: &NodeHandle,
        token: u64,
        policies: Vec<PolicyChoice>,
    ) -> Result<(), ApplyFailure> {
        let asked = node.inspect(|core, _| core.live_peers()).await?;
        for &peer in &asked {
            let prepare = RolloutMessage::Prepare { token, policies: policies.clone() };
            // One that cannot be told any more has left.
            node.tell(peer, &prepare).await;
        }
        let until = Instant::now() + DEADLINE;
        loop {
            let names = node.inspect(|core, _| {
                core.live_peers().into_iter().map(|id| (id, core.name_of(id))).collect::<BTreeMap<_, _>>()
            });
            let live = names.await?;
            let answers = self.lock().answers.get(&token).cloned().unwrap_or_default();
            let mut waits = None;
            for (peer, name) in asked.iter().filter_map(|peer| Some((peer, live.get(peer)?))) {
                let member = name.clone();
                match answers.get(peer).map(String::as_str) {
                    Some("") => {}
                    Some(why) => return Err(ApplyFailure::Member { member, why: why.to_owned() }),
                    None => waits = Some(member),
                }
            }
            let Some(member) = waits else { return Ok(()) };
            if Instant::now() >= until {
                let why = format!("it was not ready within {} s", DEADLINE.as_secs());
                return Err(ApplyFailure::Member { member, why });
            }
            let _ = timeout(LOOK, self.answered.notified()).await;
        }
    }

    /// Nothing will come of a rollout.
    pub(crate) async fn abandon_everywhere(&self, node: &NodeHandle, token: u64) {
        self.handle_abandon(node.id(), token);
        let Ok(live): Result<_, Stopped> = node.inspect(|core, _| core.live_peers()).await else { return };
        for peer in live {
            node.tell(peer, &RolloutMessage::Abandon { token }).await;
        }
    }

    /// What was prepared of a policy, once.
    pub(super) fn take_ready(&self, policy: &PolicyChoice) -> Option<Ready> {
        let mut state = self.lock();
        let at = state.ready.iter().position(|ready| ready.policy == *policy)?;
        Some(state.ready.swap_remove(at))
    }
}
