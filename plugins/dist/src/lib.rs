//! The shipped policies as built components, so that a node works from a plain `cargo build`.
//!
//! `plugins/build` writes the components, their manifest and the table of this crate from the sources beside it;
//! `plugins/build --check` compares them. Nothing here runs anything.

mod builtins;

use overlan_contract::Kind;

pub use builtins::BUILTINS;

/// A shipped policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Its name, as in `builtin:NAME`.
    pub name: &'static str,
    /// The kind of question it answers.
    pub kind: Kind,
    /// The component.
    pub wasm: &'static [u8],
    /// SHA-256 of the component, in hexadecimal digits.
    pub sha256: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
}

/// The shipped policy of this name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

/// The policy that answers a kind of question unless the deployer chooses another.
pub fn default_for(kind: Kind) -> &'static Builtin {
    let name = match kind {
        Kind::Assignment => "rendezvous",
        Kind::Sizing => "mtu-fit",
        Kind::Failover => "fast",
    };
    find(name).expect("tests/manifest.rs checks that every default is shipped")
}
