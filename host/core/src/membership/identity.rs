//! Who a member is to the membership protocol, and which record of its gossip makes which other void.

use overlan_wire::{BootId, NodeId};
use serde::{Deserialize, Serialize};

/// A member as the membership protocol knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(super) id: [u8; 16],
    boot: [u8; 16],
    /// Orders the identities of a node: the version of its entry when it started, or when it was renewed after a
    /// false death (the boot, and with it the message state, stays). Never above the version that the node has
    /// signed: others take no such identity.
    pub(super) order: u64,
}

impl Identity {
    pub(crate) fn new(id: NodeId, boot: BootId, order: u64) -> Self {
        Identity { id: id.0, boot: boot.0, order }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId(self.id)
    }

    pub(crate) fn boot(&self) -> BootId {
        BootId(self.boot)
    }
}

impl foca::Identity for Identity {
    type Addr = [u8; 16];

    /// Not by itself: a new order takes a new version of the signed entry first.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> [u8; 16] {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.order, self.boot) > (adversary.order, adversary.boot)
    }
}

/// A record on its way through the gossip; a newer one of the same node replaces it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordKey {
    pub(super) id: NodeId,
    pub(super) precedence: (u64, bool),
}

impl foca::Invalidates for RecordKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.id == other.id && self.precedence >= other.precedence
    }
}
