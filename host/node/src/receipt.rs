//! What a caller holds of what it sent.

use overlan_core::Fate;
use overlan_wire::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::driver::{BatchId, Command, MemberOutcome, Queued, SendFailure};

/// Messages that were given to the driver.
pub(crate) struct Submitted {
    pub(crate) len: usize,
    pub(crate) answer: oneshot::Receiver<Result<Queued, SendFailure>>,
    pub(crate) fates: oneshot::Receiver<Vec<MemberOutcome>>,
    pub(crate) commands: mpsc::WeakSender<Command>,
}

impl Submitted {
    /// Waits until they are queued.
    pub(crate) async fn queued(self) -> Result<BatchReceipt, SendFailure> {
        let Queued { batch, nodes } = self.answer.await.unwrap_or(Err(SendFailure::Stopped))?;
        Ok(BatchReceipt { len: self.len, nodes, batch, fates: self.fates, commands: self.commands })
    }
}

/// Messages that are queued. Dropping it changes nothing for them.
#[derive(Debug)]
pub struct BatchReceipt {
    len: usize,
    nodes: Vec<NodeId>,
    batch: BatchId,
    fates: oneshot::Receiver<Vec<MemberOutcome>>,
    commands: mpsc::WeakSender<Command>,
}

impl BatchReceipt {
    /// The members they were queued for.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Messages of the batch.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits until the fate of every message is known: what became of them at each member. Of messages to a role, each
    /// is delivered at one member or failed at one, and may have moved through others before.
    pub async fn outcome(&mut self) -> Vec<MemberOutcome> {
        let lost = |node: &NodeId| MemberOutcome {
            node: *node,
            delivered: 0,
            failed: (0..self.len).map(|index| (index, Fate::Abandoned)).collect(),
            moved: Vec::new(),
            got: Vec::new(),
        };
        // The driver tells before it ends, unless it broke.
        (&mut self.fates).await.unwrap_or_else(|_| self.nodes.iter().map(lost).collect())
    }

    /// The messages that were not delivered yet are not wanted any more: their fate is
    /// [`Expired`](Fate::Expired), where it does not turn out to be another.
    pub async fn cancel(&self) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(Command::Cancel(self.batch)).await;
        }
    }
}

/// A message that is queued. Dropping it changes nothing for the message.
#[derive(Debug)]
pub struct Receipt(pub(crate) BatchReceipt);

impl Receipt {
    /// The members it was queued for.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.nodes().iter().copied()
    }

    /// What became of it at each member, in the order it came to them. An unreliable message has no fate to know: it
    /// counts as abandoned.
    pub async fn fates(mut self) -> Vec<(NodeId, Fate)> {
        let fate =
            |outcome: &MemberOutcome| match (outcome.delivered, &outcome.failed[..], &outcome.moved[..]) {
                (0, [(_, fate), ..], _) | (0, [], [(_, fate), ..]) => *fate,
                (0, [], []) => Fate::Abandoned,
                _ => Fate::Delivered,
            };
        self.0.outcome().await.iter().map(|outcome| (outcome.node, fate(outcome))).collect()
    }

    /// What became of a message to one member or role; of several members, the first that it was not delivered to.
    pub async fn fate(mut self) -> Fate {
        let outcomes = self.0.outcome().await;
        let failed = outcomes.iter().find_map(|outcome| outcome.failed.first());
        let delivered = outcomes.iter().any(|outcome| outcome.delivered > 0);
        let none = if delivered { Fate::Delivered } else { Fate::Abandoned };
        failed.map_or(none, |(_, fate)| *fate)
    }

    /// The message is not wanted any more, where it was not delivered yet: its fate is [`Expired`](Fate::Expired), where
    /// it does not turn out to be another.
    pub async fn cancel(&self) {
        self.0.cancel().await;
    }
}
