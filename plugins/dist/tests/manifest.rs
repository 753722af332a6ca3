//! The components, the manifest and the table agree.

use overlan_contract::Kind;
use overlan_plugins_dist::{BUILTINS, default_for, find};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Manifest {
    toolchain: String,
    plugin: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    kind: Kind,
    sha256: String,
    bytes: usize,
    summary: String,
}

#[test]
fn the_manifest_matches_the_bytes() {
    let manifest: Manifest = toml::from_str(include_str!("../manifest.toml")).unwrap();
    assert!(manifest.toolchain.starts_with("rustc "));
    assert_eq!(manifest.plugin.len(), BUILTINS.len());
    for (entry, builtin) in manifest.plugin.iter().zip(BUILTINS) {
        assert_eq!((entry.name.as_str(), entry.kind), (builtin.name, builtin.kind));
        assert_eq!(entry.summary, builtin.summary);
        assert_eq!(entry.bytes, builtin.wasm.len(), "{}", entry.name);
        assert_eq!(entry.sha256, builtin.sha256, "{}", entry.name);
        let digest: String = Sha256::digest(builtin.wasm).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry.sha256, digest, "{}", entry.name);
    }
}

#[test]
fn every_kind_has_a_choice_and_a_default() {
    for kind in Kind::ALL {
        assert!(BUILTINS.iter().filter(|builtin| builtin.kind == kind).count() >= 2, "{kind}");
        assert_eq!(default_for(kind).kind, kind);
    }
    assert!(find("no-such-policy").is_none());
}

#[test]
fn no_path_of_the_building_machine_is_in_a_component() {
    for builtin in BUILTINS {
        for path in ["/home/", "/root/", "/work/", "/tmp/", "/usr/"] {
            let found = builtin.wasm.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(!found, "{} contains {path}", builtin.name);
        }
    }
}
