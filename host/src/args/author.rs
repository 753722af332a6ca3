//! What authors of policies say: `policy new`, `test` and `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use overlan_node::Kind;

use super::{Json, key_value, seconds};

#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// Lower-case letters, digits and dashes
    pub(crate) name: String,
    /// What it decides
    #[arg(long)]
    pub(crate) kind: Kind,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub(crate) lang: Language,
    /// Where the project goes [default: a folder of its name]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
    Js,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// A component or core module, or `builtin:NAME`
    pub(crate) plugin: String,
    /// Ask the questions in the .json files of this folder as well
    #[arg(long, value_name = "DIR")]
    pub(crate) fixtures: Option<PathBuf>,
    /// Configuration of the plugin, repeatable
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) config: Vec<(String, String)>,
    /// Of the owners that could stay when a node dies, at most this percentage may move
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) max_moved: u8,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyBenchArgs {
    /// Components, core modules, or `builtin:NAME`
    #[arg(required = true)]
    pub(crate) plugins: Vec<String>,
    /// Sizes of the cluster
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_values_t = [10_u16, 100, 1_000],
        value_parser = clap::value_parser!(u16).range(2..=4_096)
    )]
    pub(crate) nodes: Vec<u16>,
    /// How long to ask each, such as 1 or 200ms
    #[arg(long, value_name = "S", default_value = "500ms", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Configuration of the plugins that are files, repeatable
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) config: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) json: Json,
}
