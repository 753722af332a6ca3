//! Configuration: parsed once into types that cannot be invalid.
//!
//! [`Config::load`] reads a TOML file, lets command-line settings ([`Overrides`]) win, and checks every value; an
//! error names the file, the line and what is allowed. Programs that embed a node may also start from
//! [`Config::new`] and fill in the fields.

mod expand;
mod file;
mod keys;
mod overrides;
mod paths;
mod validate;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use overlan_contract::assignment::Responsibility;
use overlan_contract::{Attributes, Kind};
use overlan_core::config::{Congestion, Quorum};
use overlan_policy::{BreakerConfig, Limits, ProbationConfig};
use overlan_wire::NodeId;

pub(crate) use expand::expand;
pub use overrides::Overrides;
pub(crate) use paths::is_trusted;
pub use paths::{app_name, check_runtime_dir, default_control, default_state_dir, runtime_dir};
pub(crate) use validate::{builtin, milli};

/// The UDP port where none is configured.
pub const DEFAULT_PORT: u16 = 7400;
/// What the journal of policy questions may take on disk where nothing is configured.
pub const DEFAULT_JOURNAL_BYTES: u64 = 32 << 20;

/// Everything a node is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The node's name, unique in the cluster. Default: the host's name.
    pub name: String,
    /// Where the node keeps its identity and the version of its entry; made with mode 0700. Default:
    /// `/var/lib/overlan/NAME` for root, else `$XDG_STATE_HOME/overlan/NAME`.
    pub state_dir: PathBuf,
    /// The Unix socket of the control API and the application stream; `None`: neither (an embedded node). Default:
    /// `/run/overlan/NAME.sock` for root, else `$XDG_RUNTIME_DIR/overlan/NAME.sock`.
    pub control: Option<PathBuf>,
    /// UDP port, the same on every adapter. Default 7400.
    pub port: u16,
    /// Where Prometheus may fetch the counters over TCP; they are not secret, but nothing guards them. Default: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Whether the driver polls its sockets while it has nothing to do. Default: where messages follow each other
    /// closely.
    pub busy_poll: BusyPoll,
    /// How each path's congestion is controlled. Default CUBIC.
    pub congestion: Congestion,
    /// What responsibilities may require of this node.
    pub attributes: Attributes,
    /// The cluster's name. Default `overlan`.
    pub cluster: String,
    /// How datagrams are sealed.
    pub security: Security,
    /// Addresses to say hello to until a member is known.
    pub seeds: Vec<SocketAddr>,
    /// What a minority may own. Default: everything (`none`).
    pub quorum: Quorum,
    /// The Ed25519 public key that cluster documents must be signed with. Default: none need be.
    pub operator_key: Option<[u8; 32]>,
    /// The node ids that may join. Default: whoever has the cluster key.
    pub allow: Option<Vec<NodeId>>,
    /// The adapters to use, in order of preference. Empty: all usable ones, in the kernel's order.
    pub adapters: Vec<AdapterChoice>,
    /// Subnets to reach by a router of this host's links.
    pub routes: Vec<RouteChoice>,
    /// The plugins to start with; a kind that is not listed gets its default.
    pub policies: Vec<PolicyChoice>,
    /// Bytes that the journal of policy questions and answers may take on disk, in the folder `journal` of the state
    /// directory; 0: none is kept. Default 32 MiB. More keeps a longer past to replay other policies against.
    pub journal_bytes: u64,
    /// The duties of the cluster.
    pub responsibilities: Vec<Responsibility>,
}

/// How datagrams are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// By the cluster key in this file (`overlan keygen`).
    KeyFile(PathBuf),
    /// By a key that everybody knows: for labs.
    None,
}

/// What the driver does while it has nothing to do (`[node] busy_poll`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// It sleeps at once (`false`).
    Never,
    /// Where it was idle for 100 us at most eight times in a row, and four datagrams or commands at most ended and followed
    /// each of these times, it polls so long before it sleeps, and lets others on its processor go first (`"adaptive"`).
    #[default]
    Adaptive,
    /// It polls for ever: the shortest delays, for a whole core (`true`).
    Always,
}

/// One `[[adapter]]`: which, and what the kernel does not know of it. At least one of `name` and `address` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterChoice {
    /// Interface name.
    pub name: Option<String>,
    /// One address of it; without it all usable addresses of the interface are meant.
    pub address: Option<IpAddr>,
    /// Class of service by name.
    pub class_of_service: String,
    /// Differentiated services code point, 0..=63.
    pub dscp: u8,
    /// The router on its link; without it those the kernel's routes name.
    pub gateway: Option<IpAddr>,
    /// Mbit/s, where the kernel does not know.
    pub speed: Option<u32>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChoice {
    /// `ADDRESS/PREFIX LENGTH`.
    pub subnet: overlan_netlink::Network,
    /// The router.
    pub via: IpAddr,
    /// The interface it is on.
    pub adapter: String,
}

/// One `[policy.KIND]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChoice {
    /// Which decision.
    pub kind: Kind,
    /// Where the component comes from.
    pub source: PluginSource,
    /// What the plugin is configured with.
    pub config: Attributes,
    /// What any plugin of the kind may use.
    pub limits: Limits,
    /// How a plugin that is swapped in has to prove itself.
    pub probation: ProbationConfig,
    /// When a plugin that keeps failing is not asked any more, and for how long.
    pub breaker: BreakerConfig,
}

/// Where a plugin's component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// Shipped in the binary, by name.
    Builtin(String),
    /// A file.
    File(PathBuf),
}

impl Config {
    /// A node of this name with its state in this folder, everything else default: no control socket, no seeds,
    /// `security = "none"`.
    pub fn new(name: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Config {
            name: name.into(),
            state_dir: state_dir.into(),
            control: None,
            port: DEFAULT_PORT,
            metrics: None,
            busy_poll: BusyPoll::Adaptive,
            congestion: Congestion::Cubic,
            attributes: Vec::new(),
            cluster: "overlan".to_owned(),
            security: Security::None,
            seeds: Vec::new(),
            quorum: Quorum::None,
            operator_key: None,
            allow: None,
            adapters: Vec::new(),
            routes: Vec::new(),
            policies: Vec::new(),
            journal_bytes: DEFAULT_JOURNAL_BYTES,
            responsibilities: Vec::new(),
        }
    }
}

/// Why there is no configuration. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}; name a readable TOML file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or value is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// `FILE:LINE`, or the flag.
        place: String,
        /// What is wrong and what is allowed.
        message: String,
    },
}
