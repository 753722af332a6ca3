//! What a file is, found out without compiling or running any of it.

use std::borrow::Cow;

use overlan_contract::Kind;
use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};

use crate::componentize::componentize;
use crate::load_error::LoadError;

/// The version of the contract (`wit/policy.wit`) that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// The versions it accepts: those that begin so.
pub const CONTRACT_TRACK: &str = "0.1";

const PACKAGE: &str = "overlan:policy/";

/// What sort of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A component.
    Component,
    /// A core module; made a component if a policy was compiled to it.
    CoreModule,
    /// Anything else.
    Other,
}

/// What [`inspect`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What sort of file it is.
    pub form: Form,
    /// The kind of question it answers, if it answers one.
    pub kind: Option<Kind>,
    /// The version of the contract it speaks, if it answers one.
    pub version: Option<String>,
    /// Names of its imports.
    pub imports: Vec<String>,
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Size of the file in bytes.
    pub size_bytes: usize,
    /// SHA-256 of the file, in 64 hexadecimal digits: what members compare.
    pub sha256: String,
    /// Why it cannot be loaded as its kind, as far as that shows without compiling it.
    pub problem: Option<LoadError>,
}

impl Report {
    /// Whether it exports an interface of the contract that policies need not have, in a version of this host's track;
    /// the name to look it up by. That is how a host tells plugins of a later 0.1.x, with a hook that earlier ones lack.
    /// A core module is made a component by this host's contract and has no more than that knows.
    pub fn optional(&self, interface: &str) -> Option<&str> {
        let fits = |name: &&String| {
            own(name).is_some_and(|(found, version)| found == interface && on_track(version))
        };
        self.exports.iter().find(fits).map(String::as_str)
    }
}

/// Finds out what a file is. Never fails: what is wrong stands in [`Report::problem`].
pub fn inspect(file: &[u8]) -> Report {
    examine(file).0
}

/// The component in a file, or the one that a core module with interface metadata becomes, and what it is.
///
/// # Errors
/// Why there is none.
pub fn component(file: &[u8]) -> Result<(Report, Vec<u8>), LoadError> {
    let (_, component) = match examine(file) {
        (Report { problem: Some(problem), .. }, _) => return Err(problem),
        examined => examined,
    };
    Ok((inspect(&component), component.into_owned()))
}

/// The report, and the component in the file or made from it (empty if there is a problem).
pub(crate) fn examine(file: &[u8]) -> (Report, Cow<'_, [u8]>) {
    let mut report = Report {
        form: Form::Other,
        kind: None,
        version: None,
        imports: Vec::new(),
        exports: Vec::new(),
        size_bytes: file.len(),
        sha256: sha256(file),
        problem: None,
    };
    match fill(file, &mut report) {
        Ok(component) => (report, component),
        Err(problem) => {
            report.problem = Some(problem);
            (report, Cow::Borrowed(&[]))
        }
    }
}

/// In 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fill<'a>(file: &'a [u8], report: &mut Report) -> Result<Cow<'a, [u8]>, LoadError> {
    let component = if Parser::is_component(file) {
        report.form = Form::Component;
        Cow::Borrowed(file)
    } else if Parser::is_core_wasm(file) {
        report.form = Form::CoreModule;
        Cow::Owned(componentize(file, report)?)
    } else {
        return Err(not_wasm(file));
    };
    (report.imports, report.exports) = names(&component).map_err(malformed)?;
    judge(report)?;
    Ok(component)
}

fn not_wasm(file: &[u8]) -> LoadError {
    let text = std::str::from_utf8(&file[..file.len().min(512)]);
    match file {
        [] => LoadError::Empty,
        [0x7f, b'E', b'L', b'F', ..] => LoadError::Precompiled,
        [0, b'a', b's', b'm', ..] => LoadError::Malformed("its header is not one of WebAssembly 1".into()),
        [0x1f, 0x8b, ..] => LoadError::NotWasm("compressed (gzip)"),
        [b'P', b'K', 3, 4, ..] => LoadError::NotWasm("a zip archive"),
        _ if text.is_ok_and(|text| text.trim_start().starts_with('(')) => {
            LoadError::NotWasm("WebAssembly text (turn it into binary with `wasm-tools parse`)")
        }
        _ if text.is_ok_and(|text| !text.contains('\0')) => LoadError::NotWasm("text"),
        _ => LoadError::NotWasm("of an unknown format"),
    }
}

/// Names that the outermost component imports and exports.
fn names(component: &[u8]) -> Result<(Vec<String>, Vec<String>), wasmparser::BinaryReaderError> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// Decides which kind it is, and whether this host can offer what it imports.
fn judge(report: &mut Report) -> Result<(), LoadError> {
    let policies: Vec<(Kind, &str)> = report.exports.iter().filter_map(|name| policy(name)).collect();
    if let [(kind, version)] = policies[..] {
        report.kind = Some(kind);
        report.version = Some(version.to_owned());
    }
    // A wrong version comes first: its imports would differ as well, and the cure is the same.
    let versions = policies.iter().map(|&(_, version)| version);
    let ours = report.imports.iter().filter_map(|name| own(name)).map(|(_, version)| version);
    if let Some(found) = versions.chain(ours).find(|version| !on_track(version)) {
        return Err(LoadError::Version { found: found.to_owned() });
    }
    if policies.is_empty() {
        return Err(LoadError::NotAPolicy { exports: report.exports.clone() });
    }
    let known = |name: &String| matches!(own(name), Some(("log" | "facts", _)));
    let imports: Vec<String> = report.imports.iter().filter(|name| !known(name)).cloned().collect();
    if !imports.is_empty() {
        return Err(LoadError::Imports { imports });
    }
    if policies.len() > 1 {
        let exports = report.exports.iter().filter(|name| policy(name).is_some()).cloned().collect();
        return Err(LoadError::SeveralKinds { exports });
    }
    Ok(())
}

/// Interface and version of a name in our package.
fn own(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix(PACKAGE)?;
    Some(name.split_once('@').unwrap_or((name, "")))
}

pub(crate) fn policy(name: &str) -> Option<(Kind, &str)> {
    let (interface, version) = own(name)?;
    Some((interface.parse().ok()?, version))
}

pub(crate) fn on_track(version: &str) -> bool {
    version.strip_prefix(CONTRACT_TRACK).is_some_and(|rest| rest.starts_with('.'))
}

pub(crate) fn malformed(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Malformed(one_line(&error.to_string()))
}

/// The first line, of bounded length: names in it come from the file.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line[..line.floor_char_boundary(400)].to_owned()
}
