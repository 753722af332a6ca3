//! What the core shows of itself. Field names are the names in `--json` listings and are stable.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use overlan_contract::{AdapterStatus, Attributes, failover::PathState};
use serde::{Deserialize, Serialize};

/// What membership says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It does not answer; others are asked.
    Suspect,
    /// It vanished. Its entry is kept until it is forgotten.
    Down,
    /// It left on purpose.
    Left,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Node id, 32 hexadecimal digits.
    pub id: String,
    /// Boot id, 32 hexadecimal digits.
    pub boot: String,
    /// What membership says of it.
    pub state: MemberState,
    /// Milliseconds since the state changed.
    pub since_ms: u64,
    /// Whether it is the node that is asked.
    pub this: bool,
}

/// One adapter address in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterEntry {
    /// Interface name on its owner.
    pub name: String,
    /// Adapter type.
    pub kind: String,
    /// Where messages are sent.
    pub address: SocketAddr,
    /// Subnet mask as a prefix length.
    pub prefix_length: u8,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Mbit/s, 0 unknown.
    pub speed: u32,
    /// Class of service by name.
    pub class_of_service: String,
    /// Differentiated services code point.
    pub dscp: u8,
    /// The owner's word.
    pub status: AdapterStatus,
    /// Routers on its link.
    pub gateways: Vec<IpAddr>,
}

/// One entry of the address table. Equal on every member that holds the same table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The node's name.
    pub name: String,
    /// Node id.
    pub id: String,
    /// Boot id.
    pub boot: String,
    /// Version of the entry.
    pub version: u64,
    /// Whether the node left on purpose.
    pub left: bool,
    /// Primary, then alternates.
    pub adapters: Vec<AdapterEntry>,
    /// What its owner says of it.
    pub attributes: Attributes,
    /// First 16 hexadecimal digits of the `[cluster] operator_key` that its owner is configured with.
    #[serde(default)]
    pub operator: Option<String>,
}

/// The address table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// SHA-256 over the canonical encoding, as a hash tree; 64 hexadecimal digits.
    pub digest: String,
    /// By ascending node id.
    pub entries: Vec<TableEntry>,
    /// Ids of forgotten members.
    pub forgotten: Vec<String>,
}

/// Reachability of one of a peer's addresses, as this node observes it over all of its adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Some path to it answers in time.
    Reachable,
    /// Replies are late, or none has been asked for yet.
    Suspect,
    /// No path to it answers.
    Unreachable,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The peer's name.
    pub node: String,
    /// The peer's id.
    pub id: String,
    /// Our adapter.
    pub adapter: String,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// 0 is the policy's first choice.
    pub rank: u32,
    /// Whether it carries the peer's traffic now.
    pub active: bool,
    /// State.
    pub state: PathState,
    /// Of the remote address, over all paths to it.
    pub reachability: Reachability,
    /// Why the state is what it is.
    pub why: String,
    /// Milliseconds since the state changed.
    pub since_ms: u64,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// Mean deviation of it.
    pub rtt_variance_us: Option<u32>,
    /// Smallest.
    pub rtt_min_us: Option<u32>,
    /// Recent loss in packets per million.
    pub loss_ppm: u32,
    /// Largest datagram (UDP payload) seen to pass.
    pub datagram: u32,
    /// Largest datagram the sizing policy allows.
    pub datagram_allowed: u32,
    /// How often it went down in the last ten minutes.
    pub flaps: u32,
    /// Whether it is probed.
    pub probed: bool,
    /// Reply timeout in force, microseconds.
    pub reply_timeout_us: u32,
    /// Probe interval in force, microseconds.
    pub probe_interval_us: u32,
    /// Datagrams sent.
    pub sent: u64,
    /// Packets known lost.
    pub lost: u64,
    /// Datagrams received.
    pub received: u64,
}

/// What a member is to a responsibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// It owns it.
    Primary,
    /// It owns it next.
    Standby,
    /// Neither.
    None,
}

/// The cluster document that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentStatus {
    /// 0: none was applied; the members' own configuration stands.
    pub version: u64,
    /// SHA-256 over its bytes.
    pub digest: String,
    /// Whether all live members hold it, as the member with the lowest live id last said.
    pub agreed: bool,
    /// Whether it carries an operator's signature.
    pub signed: bool,
}

/// One responsibility in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// Its name.
    pub name: String,
    /// Names of its owners: the primary, then the standbys.
    pub owners: Vec<String>,
    /// Their ids.
    pub ids: Vec<String>,
}

/// How one member's own answer compares with the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The member's name.
    pub node: String,
    /// Its id.
    pub id: String,
    /// `same`, `differs`, `fault`, `pending`.
    pub verdict: String,
    /// Why, where it is not the same.
    pub why: String,
}

/// The plan in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// 0: none yet.
    pub epoch: u64,
    /// Name of the member that proposed it.
    pub proposer: String,
    /// SHA-256 of the plan.
    pub digest: String,
    /// SHA-256 of the question.
    pub question: String,
    /// Of the table the question was about.
    pub table: String,
    /// Of the assignment plugin that the proposer asked.
    pub plugin: String,
    /// Version of the cluster document it assigns; 0: the members' own configuration.
    pub document_version: u64,
    /// Whether this member may own anything (see `[cluster] quorum`).
    pub quorate: bool,
    /// Responsibilities whose primary changed with this plan.
    pub moved: u32,
    /// Who owns what. Empty without a quorum.
    pub duties: Vec<Duty>,
    /// What the members answered themselves; complete at the proposer.
    pub votes: Vec<Vote>,
}

/// Counters, monotonic since the start. All are events unless named bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation, listed in the README")]
pub struct Counters {
    pub datagrams_sent: u64,
    pub datagrams_received: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub messages_delivered: u64,
    pub messages_expired: u64,
    pub messages_peer_lost_state: u64,
    pub unreliable_dropped: u64,
    pub fragments_duplicate: u64,
    pub retransmissions: u64,
    pub failovers: u64,
    pub late_replies: u64,
    pub dropped_malformed: u64,
    pub dropped_version: u64,
    pub dropped_unknown_key: u64,
    pub dropped_forged: u64,
    pub dropped_replayed: u64,
    pub dropped_unknown_session: u64,
    pub dropped_limit: u64,
    pub dropped_signature: u64,
    pub dropped_not_allowed: u64,
    pub dropped_own: u64,
    pub received_off_path: u64,
    pub documents_refused: u64,
    pub hellos_sent: u64,
    pub hellos_refused: u64,
    pub handshakes_started: u64,
    pub handshakes_completed: u64,
    pub handshakes_failed: u64,
    pub handshakes_refused: u64,
    pub cookies_sent: u64,
    pub membership_errors: u64,
    pub policy_questions: u64,
    pub policy_faults: u64,
    pub policy_invalid: u64,
}

/// The node at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreStatus {
    /// The node's name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its boot id.
    pub boot: String,
    /// Whether another member has answered a hello since the start.
    pub joined: bool,
    /// Members alive, this node included.
    pub alive: u32,
    /// Members in the table.
    pub members: u32,
    /// Table digest.
    pub table_digest: String,
    /// Latest agreement.
    pub agreed_epoch: u64,
    /// Whether it is about the table held now.
    pub agreed: bool,
    /// Microseconds from this table's last change to its agreement, as seen here.
    pub agreement_us: Option<u64>,
    /// The cluster document.
    pub document: DocumentStatus,
    /// What is wrong, in sentences that say what to do.
    pub problems: Vec<String>,
    /// Counters.
    pub counters: Counters,
}
