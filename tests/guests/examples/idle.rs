//! What a loaded plugin that nobody asks costs a node in memory: `cargo run --release -p overlan-guests --example idle
//! [KIND FILE]...`, on Linux. Without files, the shipped policies.
//!
//! As a node does, each is loaded from the cache of compiled code, and asked once before it is left idle. Counted is
//! what the kernel can neither drop nor share: compiled code, the host's records, and the instance where the kind
//! keeps one.

use std::path::Path;

use overlan_contract::Kind;
use overlan_plugin_sdk::testkit::{cluster, paths, sized_path};
use overlan_policy::{AotCache, Assignment, Engine, Failover, Limits, Plugin, Policy, Sizing};

/// The mean of so many copies counts.
const COPIES: usize = 32;

/// Private memory of this process that was written, in KiB (`proc_pid_smaps(5)`).
fn private_kib() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells it");
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("it is listed");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn measure<P: Policy>(engine: &Engine, name: &str, wasm: &[u8], question: &P::Question) {
    let load = || {
        let mut plugin =
            Plugin::<P>::load(engine, name, wasm, &[], Limits::default()).expect("the plugin loads");
        plugin.ask(question).expect("it answers");
        plugin
    };
    // The first is compiled; the second warms up what all of them share.
    drop((load(), load()));
    let mut copies = Vec::with_capacity(COPIES);
    let before = private_kib();
    copies.resize_with(COPIES, load);
    let each = private_kib().saturating_sub(before) / COPIES;
    println!("{:12} {name:24} {each:>8} KiB", P::KIND.name());
}

fn one(engine: &Engine, kind: Kind, name: &str, wasm: &[u8]) {
    match kind {
        Kind::Assignment => measure::<Assignment>(engine, name, wasm, &cluster(16, 64)),
        Kind::Sizing => measure::<Sizing>(engine, name, wasm, &sized_path(1_500, 1_500)),
        Kind::Failover => measure::<Failover>(engine, name, wasm, &paths(4)),
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = AotCache::open(folder.path()).expect("a cache opens there");
    let engine = Engine::with_cache(cache).expect("the engine runs here");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let [kind, file] = pair else { panic!("each file after its kind") };
        let wasm = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        one(&engine, kind.parse().unwrap_or_else(|error| panic!("{kind}: {error}")), &name, &wasm);
    }
    if arguments.is_empty() {
        for builtin in overlan_plugins_dist::BUILTINS {
            one(&engine, builtin.kind, builtin.name, builtin.wasm);
        }
    }
}
