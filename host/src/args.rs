//! The command line.

mod author;
mod policy;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use overlan_node::config::Overrides;
use overlan_node::{MAX_MESSAGE, MessageMode};

pub(crate) use author::{Language, NewArgs, PolicyBenchArgs, TestArgs};
pub(crate) use policy::{PolicyArgs, PolicyCommand, ReplayArgs, ShadowArgs, key_value};

/// Cluster messaging over LANs, not on one: members on any subnets, judgement by WebAssembly policies.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Three members in one go, without root: tables agree, messages, a cut, failover, a policy swapped live
    Demo(Json),
    /// Run a member
    Node(NodeArgs),
    /// Make a cluster key
    Keygen(KeygenArgs),
    /// The running node's cluster keys: list, add, promote, retire, reload
    Keys(KeysArgs),
    /// What adapters the kernel has, as the table would carry them
    Adapters(AdaptersArgs),
    /// Kernel routes of this host's nodes: plan, show, apply, clear
    Routes(RoutesArgs),
    /// The node at a glance
    Status(Query),
    /// All members
    Members(Query),
    /// The address table
    Table(TableArgs),
    /// All paths to other members
    Paths(Query),
    /// Who is responsible for what
    Plan(Query),
    /// Put a cluster document in force: responsibilities and policies, on every member
    Apply(crate::document::ApplyArgs),
    /// The cluster document in force, as `apply` takes it
    Get(Query),
    /// Print what happens: responsibilities this member gains and loses, members, plans, policies, documents
    Watch(Query),
    /// Remove a dead member's entry for good
    Forget(ForgetArgs),
    /// Make a node leave the cluster and stop
    Leave(Query),
    /// Send messages
    Send(SendArgs),
    /// Print messages as they arrive
    Listen(ListenArgs),
    /// List, show, set or roll back policies; make, build, check, test and measure them
    Policy(PolicyArgs),
    /// Measure what the way to another member carries
    Bench(BenchArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Json {
    /// One JSON object or array in place of text for people
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Socket {
    /// The node's control socket [default: OVERLAN_SOCKET, else the only one in the runtime directory]
    #[arg(long, value_name = "S")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) json: Json,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// TOML file; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the node
    #[arg(long)]
    name: Option<String>,
    /// Cluster key, as `overlan keygen` makes it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A member to say hello to, ADDRESS:PORT; repeatable
    #[arg(long = "seed", value_name = "ADDRESS:PORT")]
    seeds: Vec<String>,
    /// An adapter to use, by interface name; repeatable, in order of preference
    #[arg(long = "adapter", value_name = "NAME")]
    adapters: Vec<String>,
    /// An adapter to use, by address; repeatable, in order of preference
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<String>,
    /// UDP port [default: 7400]
    #[arg(long)]
    port: Option<u16>,
    /// Where the node keeps its identity
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the control socket goes
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// "key" (default) or "none" (for labs)
    #[arg(long)]
    security: Option<String>,
}

impl NodeArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            name: self.name.clone(),
            state_dir: self.state_dir.clone(),
            control: self.control.clone(),
            port: self.port,
            key_file: self.key_file.clone(),
            security: self.security.clone(),
            seeds: self.seeds.clone(),
            adapters: self.adapters.clone(),
            addresses: self.addresses.clone(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// Make an operator key in place of a cluster key: it signs cluster documents
    #[arg(long)]
    pub(crate) operator: bool,
    /// Write to this new file (mode 0600) instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// To replace the key of a running cluster without losing a message: `keygen` a new one and `add` it on every member,
/// then `promote` it on every member, then `retire` the old one on every member.
#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// The ids of the keys; the node seals with the active one and opens with all
    List(Query),
    /// Accept the keys of a file that `overlan keygen` made
    Add {
        file: PathBuf,
        #[command(flatten)]
        query: Query,
    },
    /// Seal with a key from now on
    Promote {
        /// Eight hexadecimal digits, as `list` shows them
        #[arg(value_parser = key_id)]
        id: String,
        #[command(flatten)]
        query: Query,
    },
    /// Accept a key no longer
    Retire {
        /// Eight hexadecimal digits, as `list` shows them
        #[arg(value_parser = key_id)]
        id: String,
        #[command(flatten)]
        query: Query,
    },
    /// Take what the node's key file says now
    Reload(Query),
}

fn key_id(text: &str) -> Result<String, String> {
    match text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_owned()),
        false => Err("a key's id has eight hexadecimal digits; `overlan keys list` shows them".to_owned()),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct AdaptersArgs {
    #[command(flatten)]
    pub(crate) json: Json,
    /// Complete them by this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RoutesArgs {
    #[command(subcommand)]
    pub(crate) command: RoutesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoutesCommand {
    /// What would be installed, touching nothing
    Plan(RoutesFrom),
    /// What is installed by Overlan nodes on this host
    Show(Json),
    /// Install what is planned from the configuration, and from the table of its node where that runs
    Apply(RoutesFrom),
    /// Remove what Overlan nodes left behind
    Clear(RoutesFrom),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RoutesFrom {
    #[command(flatten)]
    pub(crate) json: Json,
    /// The node's configuration; without it `plan --json` asks a running node, and `clear` removes what any left
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TableArgs {
    #[command(flatten)]
    pub(crate) query: Query,
    /// Print the digest alone
    #[arg(long)]
    pub(crate) digest: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// Name or id of the member
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// At most once, any order
    Unreliable,
    /// Exactly once, any order
    Reliable,
    /// Exactly once, first in, first out
    Ordered,
}

impl From<Mode> for MessageMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Unreliable => MessageMode::Unreliable,
            Mode::Reliable => MessageMode::Reliable,
            Mode::Ordered => MessageMode::Ordered,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    /// A member by name or id, `role:NAME` (the owner of a responsibility), or `all`
    #[arg(long)]
    pub(crate) to: String,
    /// How it is to arrive
    #[arg(long, value_enum, default_value = "reliable")]
    pub(crate) mode: Mode,
    /// Send this many messages, each beginning with its sequence number (u64, big-endian)
    #[arg(long, value_name = "N", conflicts_with_all = ["lines", "file"])]
    pub(crate) count: Option<u64>,
    /// Time between the messages of --count, such as 5ms
    #[arg(long, value_name = "D", value_parser = humantime_duration, requires = "count", conflicts_with_all = ["lines", "file"])]
    pub(crate) interval: Option<Duration>,
    /// Bytes of each message of --count, at least 8
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(8..=MAX_MESSAGE as i64), requires = "count", conflicts_with_all = ["lines", "file"])]
    pub(crate) size: Option<u32>,
    /// Send each line of standard input as it arrives
    #[arg(long, conflicts_with = "file")]
    pub(crate) lines: bool,
    /// Give up on a message after this time, such as 10s
    #[arg(long, value_name = "D", value_parser = humantime_duration)]
    pub(crate) lifetime: Option<Duration>,
    /// The stream to send in: each keeps its own order and credit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stream: u8,
    /// What to send; `-` or nothing is standard input
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) query: Query,
}

fn humantime_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 5ms or 1s"))
}

/// Told by `--help`: what becomes of messages when listening ends.
const LISTEN_END: &str = "Up to 256 messages are accepted ahead of what is printed, and their senders told `delivered`. \
                          SIGINT and SIGTERM end that: what was accepted is printed, and the exit status is 130 or 143; \
                          SIGQUIT does not wait for it. Where the reader of a pipe goes away, what is in the pipe is \
                          lost, and what was accepted and not yet written to it: standard error says how many messages \
                          these are at most, and the exit status is 1. --count N accepts no more than N.";

#[derive(Debug, clap::Args)]
#[command(after_help = LISTEN_END)]
pub(crate) struct ListenArgs {
    #[command(flatten)]
    pub(crate) query: Query,
    /// Stop after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Only messages of this stream, 0 to 255; repeatable [default: all]
    #[arg(long = "stream", value_name = "N")]
    pub(crate) streams: Vec<u8>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// The far member, by name or id; it answers by itself
    #[arg(long, value_name = "NODE", value_parser = one_member)]
    pub(crate) to: String,
    /// Bytes of a message, at least 17
    #[arg(long, value_name = "B", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(17..=MAX_MESSAGE as i64))]
    pub(crate) size: u32,
    /// How messages are delivered
    #[arg(long, value_enum, default_value_t = Mode::Reliable)]
    pub(crate) mode: Mode,
    /// How long to send, such as 10 or 500ms
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Senders at a time, each with a connection to the node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: u16,
    /// Streams that messages are sent in by turns: each keeps its own order and credit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) streams: u16,
    /// Wait for each message to come back before the next
    #[arg(long)]
    pub(crate) round_trip: bool,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// Not `all`, and no role.
fn one_member(text: &str) -> Result<String, String> {
    match text == "all" || text.starts_with("role:") {
        true => Err("name one member; `overlan members` lists them".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// A number of seconds, or with a unit; not none.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => humantime_duration(text)?,
    };
    if seconds.is_zero() { Err("there is nothing to measure in no time".to_owned()) } else { Ok(seconds) }
}

/// What clap cannot see, such as a missing configuration. Exit status 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_contract_parses() {
        let lines = [
            "demo --json",
            "node --config a.toml --name a --seed 10.0.0.1:7400 --address 127.0.1.1 --port 7401",
            "keygen --out k",
            "keygen --operator --out k",
            "apply - --sign k --json",
            "get --json --socket s",
            "watch --json",
            "keys list --json",
            "keys add new.key --socket s",
            "keys promote 81dc1b32",
            "keys retire 81dc1b32",
            "keys reload",
            "adapters --json",
            "routes plan --json --config a.toml",
            "table --digest --socket s",
            "table --digest --json",
            "members --json",
            "forget b",
            "send --to b --mode ordered --count 10 --interval 5ms --size 64",
            "send --to role:shard-1 file",
            "send --to all -",
            "send --to b --lines --stream 7",
            "listen --json --count 3 --stream 0 --stream 255",
            "bench --to b --size 64 --mode unreliable --seconds 2 --parallel 4 --streams 2 --json",
            "bench --to b --round-trip --seconds 500ms",
            "policy list",
            "policy set failover builtin:knet-compat",
            "policy set assignment x.wasm --config a=b --limit memory_bytes=1048576",
            "policy rollback sizing",
            "policy shadow assignment builtin:balanced --config a=b --json",
            "policy shadow assignment --json",
            "policy shadow assignment --stop",
            "policy push sizing builtin:mtu-fit --config a=b --sign k",
            "policy check x.wasm",
            "policy replay --policy builtin:fast state/journal --json",
            "policy new least-loaded --kind assignment --lang python --dir d",
            "policy build d --out x.wasm",
            "policy test x.wasm --fixtures d --config a=b --max-moved 10 --json",
            "policy bench x.wasm builtin:fast --nodes 10,100 --seconds 200ms --json",
        ];
        for line in lines {
            let words = std::iter::once("overlan").chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn bad_usage_is_status_2() {
        for line in [
            "send",
            "send --to b --size 4 --count 1",
            "keys retire ../x",
            "policy set size x",
            "listen --count x",
            "frobnicate",
        ] {
            let words = std::iter::once("overlan").chain(line.split(' '));
            assert_eq!(Args::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
