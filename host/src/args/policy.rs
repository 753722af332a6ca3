//! `overlan policy`.

use std::path::PathBuf;

use clap::Subcommand;
use overlan_node::Kind;

use super::{Json, NewArgs, PolicyBenchArgs, Query, TestArgs};

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// The active policies, and the shipped ones
    List(Query),
    /// One kind in detail
    Show {
        kind: Kind,
        #[command(flatten)]
        query: Query,
    },
    /// Swap a plugin in on the running node
    ///
    /// It is on probation at first, and `policy rollback` then goes back to the plugin that was there before it, as it does by
    /// itself on a fault. One that is replaced while it is on probation is not kept: `rollback` goes to the one that last
    /// passed its probation.
    Set {
        kind: Kind,
        /// A component file, or `builtin:NAME`
        plugin: String,
        /// Configuration of the plugin, repeatable
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
        /// A limit of its own, by a name of the configuration's `limits` (README.md), repeatable
        #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = name_number)]
        limits: Vec<(String, u64)>,
        #[command(flatten)]
        query: Query,
    },
    /// Have every member fetch, test and switch to a plugin: all at one version of the cluster document, or none
    ///
    /// It is on probation on each member. `policy rollback` on one goes back there to the plugin that last passed its
    /// probation, not to one that was replaced while still on it.
    Push(crate::policy::push::PushArgs),
    /// Let the native fallback answer
    Unset {
        kind: Kind,
        #[command(flatten)]
        query: Query,
    },
    /// Go back to the plugin before: the one that last passed its probation, not one replaced while still on it
    Rollback {
        kind: Kind,
        #[command(flatten)]
        query: Query,
    },
    /// Make a project: a policy with its test, ready to build
    New(NewArgs),
    /// Build a project into a component
    Build {
        /// The project's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where the component goes [default: NAME.wasm in the project's folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Ask a policy the shipped questions and your own, and judge its answers
    Test(TestArgs),
    /// Compare decisions per second with the native fallback and the shipped policies
    Bench(PolicyBenchArgs),
    /// Compare a plugin with the active one on live questions; without one, show how it compares so far
    Shadow(ShadowArgs),
    /// Find out whether a file would do, without a node
    Check {
        file: PathBuf,
        /// Configuration of the plugin, repeatable
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
        #[command(flatten)]
        json: Json,
    },
    /// Ask another policy what a node's journal says was asked, and show what it decides otherwise
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// A component file, or `builtin:NAME`
    #[arg(long)]
    pub(crate) policy: String,
    /// Configuration of the policy, repeatable; without any, the component that answered then gets what it had
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) config: Vec<(String, String)>,
    /// A node's journal (STATE_DIR/journal), or a file of it, repeatable
    #[arg(required = true, value_name = "JOURNAL")]
    pub(crate) journals: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShadowArgs {
    pub(crate) kind: Kind,
    /// A component file, or `builtin:NAME`: begins, in place of an earlier one
    pub(crate) plugin: Option<String>,
    /// Configuration of the plugin, repeatable
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    pub(crate) config: Vec<(String, String)>,
    /// A limit of its own, by a name of the configuration's `limits` (README.md), repeatable
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = name_number, requires = "plugin")]
    pub(crate) limits: Vec<(String, u64)>,
    /// End it, and show how it compared
    #[arg(long, conflicts_with = "plugin")]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) query: Query,
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn name_number(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    Ok((name.to_owned(), number.parse().map_err(|_| format!("`{number}` is no whole number"))?))
}
