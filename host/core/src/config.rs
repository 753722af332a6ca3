//! What a core is started with.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;
use overlan_contract::{Attributes, assignment::Responsibility};
use overlan_wire::{BootId, NodeId};
use serde::{Deserialize, Serialize};

use crate::engine::LastKnown;

/// Who may own responsibilities when the cluster is cut in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quorum {
    /// Every piece assigns all responsibilities among its live members.
    #[default]
    None,
    /// Members that do not see more than half of the table's members alive own nothing.
    Majority,
}

/// How a path's congestion is controlled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// CUBIC (RFC 9438), which also gives way to a queue above 4 ms.
    #[default]
    Cubic,
    /// A model of the path after BBR: for paths that lose packets at random.
    Bbr,
}

/// Configuration of one core.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name: 1..=63 bytes, unique in the cluster.
    pub name: String,
    /// Random, new at each start.
    pub boot: BootId,
    /// Seed of all of the core's randomness, from a cryptographic random source: sessions are as secret as it is. The
    /// core wipes it.
    pub seed: [u8; 32],
    /// Addresses to say hello to until a member is known. Empty: wait for others.
    pub seeds: Vec<SocketAddr>,
    /// Where members were when this node last ran (see [`Core::last_known`](crate::Core::last_known)): greeted like
    /// seeds. Default none.
    pub last_known: Vec<LastKnown>,
    /// What responsibilities may require of this node.
    pub attributes: Attributes,
    /// The duties of the cluster, as this node is configured.
    pub responsibilities: Vec<Responsibility>,
    /// The cluster's name, which cluster documents must bear.
    pub cluster: String,
    /// The cluster document that was last held (see [`Event::Document`](crate::Event::Document)).
    pub document: Option<Bytes>,
    /// The Ed25519 public key that cluster documents must be signed with; `None`: none need be.
    pub operator_key: Option<[u8; 32]>,
    /// The assignment policy is being made ready. Until it is told of one
    /// ([`Core::handle_policy_change`](crate::Core::handle_policy_change)), this node asks none what a plan should be,
    /// reports so, and leads with the plan in force where it still fits. Default false.
    pub assignment_pending: bool,
    /// What a minority may own.
    pub quorum: Quorum,
    /// The node ids that may join; `None`: whoever has the cluster key.
    pub allow: Option<Vec<NodeId>>,
    /// The highest version of the own entry that may have been published before (see
    /// [`Event::Version`](crate::Event::Version)).
    pub last_version: u64,
    /// Bytes of messages that may wait to be sent to one peer; more is back-pressure. At least one
    /// message always fits. Default 64 MiB.
    pub send_queue_bytes: usize,
    /// Bytes of reliable messages one peer may have open here, received or not yet accepted; one stream may hold a
    /// quarter of it, 16 MiB at the least. At least 32 MiB. Default 64 MiB.
    pub receive_window_bytes: usize,
    /// The same of all peers together: they share it equally, with 32 MiB each at the least. Default 1 GiB.
    pub receive_total_bytes: usize,
    /// Packets to one peer after which a new session replaces the old. Default 2^28, far below what the ciphers allow.
    pub rekey_packets: u64,
    /// Age at which a new session replaces the old: what is recorded stays secret though a key is stolen that much
    /// later. Default 1 h.
    pub rekey_after: Duration,
    /// How each path's congestion is controlled. Default CUBIC.
    pub congestion: Congestion,
}

impl Config {
    /// Defaults for everything but identity.
    pub fn new(name: impl Into<String>, boot: BootId, seed: [u8; 32]) -> Self {
        Config {
            name: name.into(),
            boot,
            seed,
            seeds: Vec::new(),
            last_known: Vec::new(),
            attributes: Vec::new(),
            responsibilities: Vec::new(),
            cluster: String::new(),
            document: None,
            operator_key: None,
            assignment_pending: false,
            quorum: Quorum::None,
            allow: None,
            last_version: 0,
            send_queue_bytes: 64 << 20,
            receive_window_bytes: 64 << 20,
            receive_total_bytes: 1 << 30,
            rekey_packets: 1 << 28,
            rekey_after: Duration::from_secs(3_600),
            congestion: Congestion::Cubic,
        }
    }
}
