//! The shipped policies: `plugins/dist`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use overlan_contract::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::component;

/// What to pack, and whether to write or to compare.
#[derive(Args)]
pub(crate) struct Options {
    /// Write plugins/dist.
    #[arg(long, required_unless_present = "check")]
    write: bool,
    /// Compare with plugins/dist instead.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// The directory that holds one folder for each policy.
    #[arg(long)]
    plugins: PathBuf,
    /// The directory that holds the core modules.
    #[arg(long)]
    modules: PathBuf,
    /// `rustc --version` of the compiler that built them.
    #[arg(long)]
    toolchain: String,
    /// How they were built.
    #[arg(long)]
    flags: String,
}

/// `manifest.toml`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    toolchain: String,
    flags: String,
    plugin: Vec<Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    kind: Kind,
    file: String,
    sha256: String,
    bytes: usize,
    summary: String,
}

/// The part of a policy's `Cargo.toml` that matters here.
#[derive(Deserialize)]
struct CrateManifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    description: String,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    overlan: Overlan,
}

#[derive(Deserialize)]
struct Overlan {
    kind: Kind,
}

impl Options {
    /// Packs, then writes or compares.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let dist = self.plugins.join("dist");
        let files = self.pack()?;
        if self.check {
            return self.compare(&dist, &files);
        }
        for (path, bytes) in &files {
            let path = dist.join(path);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{} ({} bytes)", path.display(), bytes.len());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// All files of the directory, by their path in it.
    fn pack(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut entries = Vec::new();
        for package in self.packages()? {
            let kind = package.metadata.as_ref().context("checked by packages()")?.overlan.kind;
            let module = self.modules.join(package.name.replace('-', "_")).with_extension("wasm");
            let bytes = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
            let packed = component::encode(&bytes).with_context(|| package.name.clone())?;
            ensure!(packed.kind == kind, "{} is a {} policy, not {kind}", package.name, packed.kind);
            let name = package.name.trim_start_matches("overlan-plugin-").to_owned();
            let file = format!("{name}.wasm");
            let sha256 = Sha256::digest(&packed.bytes).iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            let bytes = packed.bytes.len();
            files.insert(PathBuf::from(&file), packed.bytes);
            entries.push(Entry { name, kind, file, sha256, bytes, summary: package.description });
        }
        entries.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        files.insert("src/builtins.rs".into(), table(&entries).into_bytes());
        let manifest =
            Manifest { toolchain: self.toolchain.clone(), flags: self.flags.clone(), plugin: entries };
        let text = format!("# Written by plugins/build.\n{}", toml::to_string(&manifest)?);
        files.insert("manifest.toml".into(), text.into_bytes());
        Ok(files)
    }

    fn packages(&self) -> Result<Vec<Package>> {
        let mut packages = Vec::new();
        for folder in fs::read_dir(&self.plugins)? {
            let path = folder?.path().join("Cargo.toml");
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if text.contains("[package.metadata.overlan]") {
                let manifest: CrateManifest =
                    toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
                packages.push(manifest.package);
            }
        }
        ensure!(!packages.is_empty(), "{} holds no policies", self.plugins.display());
        Ok(packages)
    }

    fn compare(&self, dist: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<ExitCode> {
        let path = dist.join("manifest.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Manifest = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        if (&manifest.toolchain, &manifest.flags) != (&self.toolchain, &self.flags) {
            println!(
                "all policies build, but not comparable bit for bit; only behaviour is compared, by tests\n  \
                 {}: {}, {}\n  here: {}, {}",
                path.display(),
                manifest.toolchain,
                manifest.flags,
                self.toolchain,
                self.flags
            );
            return Ok(ExitCode::SUCCESS);
        }
        let mut equal = true;
        for (name, bytes) in files {
            if fs::read(dist.join(name)).ok().as_ref() != Some(bytes) {
                eprintln!("{} differs from what the sources build", dist.join(name).display());
                equal = false;
            }
        }
        if !equal {
            eprintln!("run plugins/build and commit plugins/dist");
            return Ok(ExitCode::FAILURE);
        }
        println!("plugins/dist is what the sources build, bit for bit ({})", self.toolchain);
        Ok(ExitCode::SUCCESS)
    }
}

/// The source of the table that hosts embed.
fn table(entries: &[Entry]) -> String {
    let mut text = String::from(
        "//! Written by plugins/build.\n\nuse overlan_contract::Kind;\n\nuse crate::Builtin;\n\n\
         /// Every shipped policy, by kind, then name.\npub const BUILTINS: &[Builtin] = &[\n",
    );
    for Entry { name, kind, file, sha256, summary, .. } in entries {
        let _ = write!(
            text,
            "    Builtin {{\n        name: {name:?},\n        kind: Kind::{kind:?},\n        \
             wasm: include_bytes!(\"../{file}\"),\n        sha256: {sha256:?},\n        \
             summary: {summary:?},\n    }},\n"
        );
    }
    text.push_str("];\n");
    text
}
