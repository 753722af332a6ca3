//! A core module, as a compiler with `wit-bindgen` leaves it, made a component.
//!
//! The interface description inside the module is never decoded: wit-parser 0.254 recurses without
//! end on packages that depend on each other, and a stack overflow would take the node down. It
//! only has to be there; the host describes the module by its own copy of the contract instead.
//! Released versions of the contract are frozen, so the two say the same.

use wasmparser::{Parser, Payload, Validator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::inspect::{CONTRACT_TRACK, CONTRACT_VERSION, Report, malformed, on_track, one_line, policy};
use crate::load_error::LoadError;

const CONTRACT: &str =
    concat!(include_str!("../../../wit/policy.wit"), include_str!("../../../wit/packed.wit"));
/// Length of a module's magic number and version.
const HEADER_BYTES: usize = 8;

pub(crate) fn componentize(module: &[u8], report: &mut Report) -> Result<Vec<u8>, LoadError> {
    // The encoder below expects valid input, so damage is told here.
    Validator::new().validate_all(module).map_err(malformed)?;
    let (mut bare, described) = survey(module, report).map_err(malformed)?;
    let wasi: Vec<_> = report.imports.iter().filter(|name| name.starts_with("wasi")).cloned().collect();
    if !wasi.is_empty() {
        return Err(LoadError::Imports { imports: wasi });
    }
    let mut policies: Vec<_> =
        report.exports.iter().filter_map(|name| policy(name.split_once('#')?.0)).collect();
    policies.dedup();
    let (kind, version) = match policies[..] {
        _ if !described => return Err(LoadError::CoreModule),
        [] => return Err(LoadError::NotAPolicy { exports: report.exports.clone() }),
        [(_, version), ..] if !is_patch(version) => {
            return Err(LoadError::Version { found: version.to_owned() });
        }
        [(kind, version)] => (kind, version),
        _ => {
            let exports = policies.iter().map(|(kind, version)| format!("{kind}@{version}")).collect();
            return Err(LoadError::SeveralKinds { exports });
        }
    };
    // The encoder looks names up with their version, so the contract takes the module's patch level.
    let contract = CONTRACT
        .replace(&format!("overlan:policy@{CONTRACT_VERSION};"), &format!("overlan:policy@{version};"));
    let packed = format!("overlan:policy/packed-{kind}@{version}#decide");
    let packed = if report.exports.contains(&packed) { "packed-" } else { "" };
    let mut resolve = Resolve::default();
    resolve
        .push_str("policy.wit", &contract)
        .and_then(|package| resolve.select_world(&[package], Some(&format!("{packed}{kind}-policy"))))
        .and_then(|world| embed_component_metadata(&mut bare, &resolve, world, StringEncoding::UTF8))
        .and_then(|()| ComponentEncoder::default().validate(true).module(&bare))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| LoadError::Componentize(one_line(&format!("{error:#}"))))
}

/// Notes imports and exports; returns the module without interface descriptions, and whether it
/// had one.
fn survey(module: &[u8], report: &mut Report) -> Result<(Vec<u8>, bool), wasmparser::BinaryReaderError> {
    let mut bare = module[..HEADER_BYTES.min(module.len())].to_vec();
    let (mut end_of_last, mut described) = (HEADER_BYTES, false);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let mut keep = true;
        if let Payload::CustomSection(section) = &payload {
            keep = !section.name().starts_with("component-type");
            described |= !keep;
        }
        if let Some((_, range)) = payload.as_section() {
            if keep {
                bare.extend_from_slice(&module[end_of_last..range.end]);
            }
            end_of_last = range.end;
        }
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    report.imports.push(import?.module.to_owned());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    report.exports.push(export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    report.imports.dedup();
    Ok((bare, described))
}

/// Whether it is a plain `0.1.N`, fit to stand in the contract's text.
fn is_patch(version: &str) -> bool {
    on_track(version)
        && version[CONTRACT_TRACK.len() + 1..].parse::<u32>().is_ok_and(|patch| {
            // No signs or leading zeros, which `parse` takes and semver does not.
            version == format!("{CONTRACT_TRACK}.{patch}")
        })
}
