//! The workspace's own rules: arrows between crates go one way, licences are permissive.

use std::collections::BTreeSet;
use std::process::Command;

use overlan_tests::json::{rows, text};
use serde_json::Value;

/// What each crate may depend on, of the workspace. A crate that is not listed here is new: list it.
const ARROWS: [(&str, &[&str]); 13] = [
    ("overlan-wire", &[]),
    ("overlan-contract", &[]),
    ("overlan-plugin-sdk", &["overlan-contract"]),
    ("overlan-core", &["overlan-wire", "overlan-contract"]),
    ("overlan-seal", BELOW_CORE),
    ("overlan-udp", BELOW_CORE),
    ("overlan-netlink", BELOW_CORE),
    ("overlan-policy", &["overlan-core", "overlan-wire", "overlan-contract", "overlan-plugins-dist"]),
    ("overlan-journal", &["overlan-contract"]),
    ("overlan-node", BELOW_NODE),
    (
        "overlan-sim",
        &[
            "overlan-core",
            "overlan-wire",
            "overlan-contract",
            "overlan-seal",
            "overlan-policy",
            "overlan-journal",
        ],
    ),
    ("overlan", BELOW_BINARY),
    // What the plugins folder gives the host: bytes and their names.
    ("overlan-plugins-dist", &["overlan-contract"]),
];

const BELOW_CORE: &[&str] = &["overlan-core", "overlan-wire", "overlan-contract"];
const BELOW_NODE: &[&str] = &[
    "overlan-core",
    "overlan-wire",
    "overlan-contract",
    "overlan-seal",
    "overlan-udp",
    "overlan-netlink",
    "overlan-policy",
    "overlan-journal",
    "overlan-plugins-dist",
];
const BELOW_BINARY: &[&str] = &[
    // For the questions that `policy test` asks, and the SDK that `policy new` brings along.
    "overlan-plugin-sdk",
    "overlan-node",
    "overlan-sim",
    "overlan-core",
    "overlan-wire",
    "overlan-contract",
    "overlan-seal",
    "overlan-udp",
    "overlan-netlink",
    "overlan-policy",
    "overlan-plugins-dist",
];
/// Plugins, and the tools that build them.
const PLUGINS: &[&str] = &["overlan-plugin-sdk", "overlan-contract"];

const PERMISSIVE: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];
/// Copyleft by file: used unmodified and noticed.
const EXCEPTIONS: [(&str, &str); 1] = [("foca", "MPL-2.0")];

fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(overlan_tests::package().join(".."))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Dependencies of a package that end up in what is built of it, not those of its tests.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let built = rows(&package["dependencies"]).iter().filter(|dependency| dependency["kind"] != "dev");
    built.map(|dependency| text(dependency, "name")).collect()
}

#[test]
fn arrows_go_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let packages = rows(&metadata["packages"]);
    let ours: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    for package in packages {
        let name = text(package, "name");
        if ["overlan-tests", "overlan-bench", "overlan-guests"].contains(&name) {
            continue;
        }
        let listed = ARROWS.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
        let in_plugins = text(package, "manifest_path").contains("/plugins/");
        let allowed = listed.or(in_plugins.then_some(PLUGINS));
        let allowed = allowed.unwrap_or_else(|| panic!("{name} is new: say what it may depend on"));
        for dependency in dependencies(package).intersection(&ours) {
            assert!(allowed.contains(dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn only_the_policy_host_knows_wasmtime() {
    let metadata = metadata(&["--no-deps"]);
    for package in rows(&metadata["packages"]) {
        let knows = dependencies(package).iter().any(|name| name.starts_with("wasmtime"));
        assert!(
            !knows || text(package, "name") == "overlan-policy",
            "{} knows wasmtime",
            text(package, "name")
        );
    }
}

#[test]
fn licences_are_permissive_but_for_the_one_exception() {
    let metadata = metadata(&[]);
    for package in rows(&metadata["packages"]) {
        let (name, license) = (text(package, "name"), text(package, "license"));
        let excepted = EXCEPTIONS.contains(&(name, license));
        assert!(excepted || is_permissive(license), "{name} has the licence {license:?}");
    }
}

/// Whether a licence expression (SPDX, or `/` for OR as older crates write it) can be met by
/// permissive licences alone.
fn is_permissive(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &tokens[..];
    either(&mut rest) && rest.is_empty()
}

fn either(tokens: &mut &[&str]) -> bool {
    let mut met = both(tokens);
    while let ["OR", rest @ ..] = *tokens {
        *tokens = rest;
        met |= both(tokens);
    }
    met
}

fn both(tokens: &mut &[&str]) -> bool {
    let mut met = single(tokens);
    while let ["AND", rest @ ..] = *tokens {
        *tokens = rest;
        met &= single(tokens);
    }
    met
}

fn single(tokens: &mut &[&str]) -> bool {
    match *tokens {
        ["(", rest @ ..] => {
            *tokens = rest;
            let met = either(tokens);
            let closed = tokens.first() == Some(&")");
            *tokens = tokens.get(1..).unwrap_or_default();
            met && closed
        }
        [name, "WITH", exception, rest @ ..] => {
            *tokens = rest;
            PERMISSIVE.contains(&format!("{name} WITH {exception}").as_str())
        }
        [name, rest @ ..] => {
            *tokens = rest;
            PERMISSIVE.contains(name)
        }
        [] => false,
    }
}

#[test]
fn licence_expressions_are_understood() {
    for permissive in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "GPL-2.0 OR ISC"] {
        assert!(is_permissive(permissive), "{permissive}");
    }
    for not in ["", "GPL-3.0", "MIT AND MPL-2.0", "(MIT", "Apache-2.0 WITH GPL-exception"] {
        assert!(!is_permissive(not), "{not}");
    }
}
