//! Why a file cannot be the plugin: what it has, what is needed, what to do.

use overlan_contract::Kind;

use crate::fault::Fault;
use crate::inspect::{CONTRACT_TRACK, CONTRACT_VERSION};

/// Why a file cannot be the plugin. Whatever was in use before is untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Nothing in it.
    #[error("the file is empty; give a policy component (.wasm)")]
    Empty,
    /// More bytes than [`Limits::file_bytes`](crate::Limits::file_bytes).
    #[error(
        "the file has {size} bytes, more than the {limit} a policy may have (limit file_bytes); build it optimised and \
         stripped"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not WebAssembly at all.
    #[error(
        "the file is {0}, not a WebAssembly component; build the policy and give the .wasm that comes out"
    )]
    NotWasm(&'static str),
    /// Native code: a precompiled `.cwasm` or an executable. It cannot be checked, so never run.
    #[error(
        "the file is native code (an executable, or a component precompiled to .cwasm), which no sandbox \
         could hold; give the .wasm it was compiled from"
    )]
    Precompiled,
    /// Broken WebAssembly.
    #[error("the file is damaged or uses WebAssembly features this host lacks ({0}); copy or build it again")]
    Malformed(String),
    /// Its tables, memories or modules are more than an instance may have.
    #[error("the policy wants more from the start than it may have: {0}")]
    TooMuch(String),
    /// The engine could not compile it, map its code or start it; the file may be sound.
    #[error("the WebAssembly engine fails here: {0}; then load the policy again")]
    Engine(String),
    /// A core module that carries no description of its interface.
    #[error(
        "the file is a core module without interface metadata, a component is needed; export the policy with \
         the plugin SDK (wit-bindgen), whose modules carry it, or run `wasm-tools component new`"
    )]
    CoreModule,
    /// A core module whose functions do not fit the contract.
    #[error(
        "the core module does not become a component ({0}); build it for wasm32-unknown-unknown with the plugin SDK"
    )]
    Componentize(String),
    /// It wants more of the host than a log.
    #[error(
        "the policy imports {}, but a policy may import nothing but overlan:policy/log@{CONTRACT_TRACK}; {}",
        .imports.join(", "),
        cure(.imports)
    )]
    Imports {
        /// The imports that the host does not provide.
        imports: Vec<String>,
    },
    /// A component of something else.
    #[error(
        "the component exports {}, no policy; export one of overlan:policy/{}, each @{CONTRACT_VERSION}",
        names(.exports),
        Kind::ALL.map(Kind::name).join(", overlan:policy/")
    )]
    NotAPolicy {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It answers several kinds of question.
    #[error("the component answers {}, but one component answers one kind; build one for each", names(.exports))]
    SeveralKinds {
        /// The policy interfaces it exports.
        exports: Vec<String>,
    },
    /// It answers the questions of another kind.
    #[error(
        "the policy is for {found} (it exports overlan:policy/{found}), needed: {needed}; use it as `{found}`"
    )]
    WrongKind {
        /// The kind it is.
        found: Kind,
        /// The kind it was loaded as.
        needed: Kind,
    },
    /// It speaks another version of the contract.
    #[error(
        "the policy speaks version {found} of the contract, this host speaks {CONTRACT_VERSION} (any \
         {CONTRACT_TRACK}.x); {}rebuild it with the plugin SDK and wit/policy.wit of this release",
        update(.found)
    )]
    Version {
        /// The version in the file; empty where the name carries none.
        found: String,
    },
    /// Names and version are right, types or functions are not.
    #[error(
        "the policy does not fit the contract {CONTRACT_VERSION} ({0}); rebuild it against wit/policy.wit of this release"
    )]
    Contract(String),
    /// It did not survive being started.
    #[error("the policy does not start: {0}")]
    Start(Fault),
    /// It does not accept its configuration.
    #[error("the policy rejects its configuration: {0}")]
    Configuration(String),
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The other cure where the policy is ahead of the host.
fn update(found: &str) -> &'static str {
    let track = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (track(found), track(CONTRACT_VERSION)) {
        (Some(found), Some(ours)) if found > ours => "update this node to a release that speaks it, or ",
        _ => "",
    }
}

fn cure(imports: &[String]) -> &'static str {
    if imports.iter().any(|name| name.starts_with("wasi")) {
        "build without WASI: Rust for wasm32-unknown-unknown, Python with `componentize-py --stub-wasi`, \
         JavaScript with componentize-js and its features disabled"
    } else {
        "clocks, randomness, files and the network are not available; what a policy needs is in the question"
    }
}
