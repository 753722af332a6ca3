//! `overlan policy new`: a project that builds and passes its test at once, out of what this program carries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use include_dir::{Dir, include_dir};
use overlan_node::Kind;
use overlan_plugin_sdk::testkit;
use serde::Serialize;
use serde_json::json;

use super::build::{PROJECT, Project};
use crate::args::{Language, NewArgs, Usage};
use crate::table::out;

/// A file of the starters.
macro_rules! starter {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/", $path))
    };
}

const WIT: &str = include_str!("../../../wit/policy.wit");
/// What the Rust SDK exports beside it.
const PACKED_WIT: &str = include_str!("../../../wit/packed.wit");
const WORKSPACE: &str = include_str!("../../../Cargo.toml");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugin-sdk/src");
static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugin-sdk/contract");

const MAX_NAME_BYTES: usize = 64;
/// What cargo refuses as the name of a package, or knows another package by.
const RESERVED: [&str; 8] =
    ["test", "core", "std", "alloc", "proc-macro", "build", "overlan-plugin-sdk", "overlan-contract"];
/// Rust's keywords (The Rust Reference, "Keywords") in lower case.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final \
     fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super trait true \
     try type typeof unsafe unsized use virtual where while yield";

pub(super) fn run(args: &NewArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(
            Usage(format!("{} is there already; give another name or --dir", folder.display())).into()
        );
    }
    for (path, text) in files(args)? {
        let path = folder.join(path);
        let parent = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    out!("{}: a project for one {} policy. Next:", folder.display(), args.kind);
    out!("  cd {}", folder.display());
    if args.lang == Language::Rust {
        out!("  cargo test");
    }
    out!("  overlan policy build");
    out!("  overlan policy test {}.wasm --fixtures fixtures", args.name);
    Ok(())
}

/// What is a name to cargo, npm and file systems alike.
fn check_name(name: &str) -> Result<(), Usage> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(plain)
        && name.len() <= MAX_NAME_BYTES
        && !RESERVED.contains(&name)
        && !KEYWORDS.split_whitespace().any(|keyword| keyword == name)
    {
        true => Ok(()),
        false => Err(Usage(format!(
            "`{name}` names no project; use lower-case letters, digits and dashes, a letter first, at most \
             {MAX_NAME_BYTES}, and no keyword nor the name of a well-known package"
        ))),
    }
}

/// The files of the project by their path in it.
fn files(args: &NewArgs) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let fill = |text: &str, contract: &str| {
        text.replace("NAME", &args.name).replace("KIND", args.kind.name()).replace("CONTRACT", contract)
    };
    let mut files: Vec<(PathBuf, String)> = vec![("fixtures/example.json".into(), example(args.kind)?)];
    let mut add = |path: &str, text: String| files.push((path.into(), text));
    if args.lang == Language::Rust {
        add("README.md", fill(starter!("README.in"), "sdk/wit/policy.wit"));
        add("Cargo.toml", fill(starter!("rust/Cargo.toml.in"), ""));
        add(".gitignore", "/target\n/*.wasm\n".to_owned());
        add("src/lib.rs", rust(args.kind).to_owned());
        add("sdk/wit/policy.wit", WIT.to_owned());
        add("sdk/wit/packed.wit", PACKED_WIT.to_owned());
        add("sdk/Cargo.toml", sdk_workspace()?);
        add("sdk/plugin-sdk/Cargo.toml", starter!("Cargo.toml").to_owned());
        copy(&SDK, Path::new("sdk/plugin-sdk/src"), &mut files);
        copy(&CONTRACT, Path::new("sdk/plugin-sdk/contract"), &mut files);
        return Ok(files);
    }
    add("README.md", fill(starter!("README.in"), "wit/policy.wit"));
    add("wit/policy.wit", WIT.to_owned());
    add(PROJECT, Project { name: args.name.clone(), kind: args.kind }.to_text()?);
    if args.lang == Language::Python {
        add("policy.py", python(args.kind).to_owned());
        add("requirements.txt", starter!("python/requirements.txt").to_owned());
        add(".gitignore", "/.venv\n__pycache__\n/*.wasm\n".to_owned());
    } else {
        add("policy.js", js(args.kind).to_owned());
        add("build.js", starter!("js/build.js").to_owned());
        add("package.json", starter!("js/package.json").to_owned());
        add("package-lock.json", starter!("js/package-lock.json").to_owned());
        add(".gitignore", "/node_modules\n/*.wasm\n".to_owned());
    }
    Ok(files)
}

fn copy(from: &Dir<'_>, to: &Path, files: &mut Vec<(PathBuf, String)>) {
    for file in from.files() {
        files.push((to.join(file.path()), String::from_utf8_lossy(file.contents()).into_owned()));
    }
    from.dirs().for_each(|dir| copy(dir, to, files));
}

/// This workspace's manifest without all that is not the SDK.
fn sdk_workspace() -> anyhow::Result<String> {
    let mut manifest: toml::Table = WORKSPACE.parse()?;
    let members = ["plugin-sdk", "plugin-sdk/contract"];
    manifest.remove("profile");
    let workspace = manifest["workspace"].as_table_mut().context("a workspace")?;
    workspace.remove("default-members");
    workspace.insert("members".to_owned(), members.map(str::to_owned).to_vec().into());
    let dependencies = workspace["dependencies"].as_table_mut().context("dependencies")?;
    dependencies.retain(|_, dependency| {
        dependency.get("path").is_none_or(|path| path.as_str().is_some_and(|path| members.contains(&path)))
    });
    Ok(toml::to_string(&manifest)?)
}

const fn rust(kind: Kind) -> &'static str {
    match kind {
        Kind::Assignment => starter!("rust/assignment.rs"),
        Kind::Sizing => starter!("rust/sizing.rs"),
        Kind::Failover => starter!("rust/failover.rs"),
    }
}

const fn python(kind: Kind) -> &'static str {
    match kind {
        Kind::Assignment => starter!("python/assignment.py"),
        Kind::Sizing => starter!("python/sizing.py"),
        Kind::Failover => starter!("python/failover.py"),
    }
}

const fn js(kind: Kind) -> &'static str {
    match kind {
        Kind::Assignment => starter!("js/assignment.js"),
        Kind::Sizing => starter!("js/sizing.js"),
        Kind::Failover => starter!("js/failover.js"),
    }
}

/// A question to change: fixtures of an author's own look like this.
fn example(kind: Kind) -> anyhow::Result<String> {
    fn text(question: impl Serialize) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&json!({ "question": question }))? + "\n")
    }
    match kind {
        Kind::Assignment => text(testkit::cluster(2, 2)),
        Kind::Sizing => text(testkit::sized_path(1_500, 9_000)),
        Kind::Failover => text(testkit::paths(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "least-loaded", "p2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "2p", "-a", "A", "a/b", "../a", "a b", "test", &"x".repeat(65)] {
            assert!(check_name(name).unwrap_err().to_string().contains("lower-case"), "{name}");
        }
    }

    #[test]
    fn the_sdk_stands_alone() {
        let manifest: toml::Table = sdk_workspace().unwrap().parse().unwrap();
        let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
        let ours: Vec<_> = dependencies.iter().filter(|(_, value)| value.get("path").is_some()).collect();
        assert_eq!(ours.len(), 2, "{ours:?}");
        assert!(dependencies.contains_key("wit-bindgen"));
    }
}
