//! Rust for `wasm32-unknown-unknown`: rustup's, where it has the target; else Debian's compiler, which builds the
//! standard library from its source. As `plugins/build` does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

pub(super) const WASM: &str = "wasm";
const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN: [&str; 2] = ["/usr/bin/cargo", "/usr/bin/rustc"];
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std";

/// Builds the package in a folder for release; gives the core module.
pub(super) fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let output = cargo(dir)?
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start; install it by rustup (https://rustup.rs), or on Debian `apt-get install cargo-web`")?;
    ensure!(output.status.success(), "cargo failed ({}); what it says stands above", output.status);
    let manifest = dir.join("Cargo.toml");
    let messages = String::from_utf8_lossy(&output.stdout);
    let modules = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(&manifest))
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.extension().is_some_and(|extension| extension == WASM));
    modules.context("no module came out; Cargo.toml needs [lib] crate-type = [\"cdylib\", \"rlib\"]")
}

/// A cargo that can build for the target.
fn cargo(dir: &Path) -> anyhow::Result<Command> {
    if sysroot(dir, "rustc").is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir()) {
        return Ok(Command::new("cargo"));
    }
    if !DEBIAN.into_iter().chain([DEBIAN_SOURCE]).all(|path| Path::new(path).exists()) {
        bail!(
            "no Rust toolchain here can build for {TARGET}. Either `rustup target add {TARGET}` \
             or, on Debian, `apt-get install rustc-web cargo-web rust-web-src lld`"
        );
    }
    let linker = linker(dir).context(
        "no Rust toolchain on the path can build for wasm32-unknown-unknown (install cargo by rustup, then `rustup target add \
         wasm32-unknown-unknown`), and Debian's in /usr/bin lacks a linker for it (`apt-get install lld`)",
    )?;
    let mut cargo = Command::new(DEBIAN[0]);
    cargo
        .env("RUSTC", DEBIAN[1])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .arg("-Zbuild-std=std,panic_abort");
    Ok(cargo)
}

/// Any rust-lld will do; Debian ships none that is on the path.
fn linker(dir: &Path) -> Option<PathBuf> {
    let of_toolchain = ["rustc", DEBIAN[1]].into_iter().find_map(|rustc| {
        let host = ask(dir, rustc, "-vV")?
            .lines()
            .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))?;
        let lld = sysroot(dir, rustc)?.join("lib/rustlib").join(host).join("bin/rust-lld");
        lld.is_file().then_some(lld)
    });
    let on_path = || {
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
        let of = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        ["rust-lld", "wasm-ld", "lld"].into_iter().find_map(of)
    };
    of_toolchain.or_else(on_path)
}

fn sysroot(dir: &Path, rustc: &str) -> Option<PathBuf> {
    ask(dir, rustc, "--print=sysroot").map(|text| PathBuf::from(text.trim()))
}

/// What a compiler says; rustup picks it by the folder.
fn ask(dir: &Path, rustc: &str, question: &str) -> Option<String> {
    let output = Command::new(rustc).arg(question).current_dir(dir).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
