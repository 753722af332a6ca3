//! What the command line says, stronger than the file.

use std::path::PathBuf;

/// Settings from flags; each that is given replaces the file's. Texts are checked as the file's are.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--name`.
    pub name: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--control`.
    pub control: Option<PathBuf>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--security`.
    pub security: Option<String>,
    /// `--seed`, repeatable.
    pub seeds: Vec<String>,
    /// `--adapter`, repeatable: interface names.
    pub adapters: Vec<String>,
    /// `--address`, repeatable: adapter addresses.
    pub addresses: Vec<String>,
}
