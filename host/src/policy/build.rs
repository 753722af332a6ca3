//! `overlan policy build`: a project of any of the languages into a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use overlan_node::Kind;
use overlan_node::policy_host::component;
use serde::{Deserialize, Serialize};

use super::toolchain::{self, WASM};
use crate::table::out;

/// What a Python or JavaScript project is; cargo's manifest says it for Rust.
pub(super) const PROJECT: &str = "policy.toml";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl Project {
    pub(super) fn to_text(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }

    fn read(dir: &Path) -> anyhow::Result<Project> {
        let path = dir.join(PROJECT);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| format!("{} needs `name` and `kind`", path.display()))
    }

    fn world(&self) -> String {
        format!("{}-policy", self.kind)
    }
}

pub(super) fn run(dir: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    // Tools run in the project's folder, the user is elsewhere.
    let dir = fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
    let out = out.map(std::path::absolute).transpose()?;
    let built = if dir.join("Cargo.toml").is_file() {
        rust(&dir, out)?
    } else if dir.join("policy.py").is_file() {
        python(&dir, out)?
    } else if dir.join("policy.js").is_file() {
        js(&dir, out)?
    } else {
        bail!(
            "{} has no Cargo.toml, policy.py or policy.js; `overlan policy new` makes a project",
            dir.display()
        );
    };
    let wasm = fs::read(&built).with_context(|| built.display().to_string())?;
    let (report, _) =
        component(&wasm).with_context(|| format!("{} was built, but won't do", built.display()))?;
    let kind = report.kind.map(|kind| kind.to_string()).unwrap_or_default();
    out!("{}: {kind} policy, {} bytes, sha256 {}", built.display(), report.size_bytes, report.sha256);
    Ok(())
}

fn python(dir: &Path, out: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let project = Project::read(dir)?;
    let componentize = dir.join(".venv/bin/componentize-py");
    if !componentize.exists() {
        let cure = "Python 3.10 or newer with venv is needed: on Debian `apt-get install python3-venv`";
        tool(dir, "python3", &["-m", "venv", ".venv"], cure)?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
        tool(dir, ".venv/bin/python", &pip, "pip must reach PyPI, or a mirror that its configuration names")?;
    }
    let out = out.unwrap_or_else(|| dir.join(&project.name).with_extension(WASM));
    let target = out.to_str().context("the output's name is no Unicode")?;
    let world = project.world();
    // Without --stub-wasi the component would import clocks, files and more.
    let arguments = ["-q", "-d", "wit", "-w", &world, "componentize", "--stub-wasi", "policy", "-o", target];
    tool(dir, ".venv/bin/componentize-py", &arguments, "what it says stands above")?;
    Ok(out)
}

fn js(dir: &Path, out: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let project = Project::read(dir)?;
    if !dir.join("node_modules/@bytecodealliance/componentize-js").exists() {
        let cure = "npm is needed, and must reach its registry: on Debian `apt-get install nodejs npm`";
        tool(dir, "npm", &["ci", "--no-audit", "--no-fund", "--silent"], cure)?;
    }
    let out = out.unwrap_or_else(|| dir.join(&project.name).with_extension(WASM));
    let target = out.to_str().context("the output's name is no Unicode")?;
    tool(dir, "node", &["build.js", "wit", &project.world(), target], "what it says stands above")?;
    Ok(out)
}

fn rust(dir: &Path, out: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let module = toolchain::build(dir)?;
    let bytes = fs::read(&module).with_context(|| module.display().to_string())?;
    let (_, component) = component(&bytes).with_context(|| format!("{} won't do", module.display()))?;
    let name = module.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
    let out = out.unwrap_or_else(|| dir.join(name).with_extension(WASM));
    fs::write(&out, component).with_context(|| out.display().to_string())?;
    Ok(out)
}

/// Runs a tool in the project's folder; what it prints goes to standard error.
fn tool(dir: &Path, program: &str, arguments: &[&str], cure: &str) -> anyhow::Result<()> {
    let path = if program.contains('/') { dir.join(program) } else { PathBuf::from(program) };
    let status = Command::new(path)
        .args(arguments)
        .current_dir(dir)
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{program} does not start; {cure}"))?;
    ensure!(status.success(), "`{program} {}` failed ({status}); {cure}", arguments.join(" "));
    Ok(())
}
