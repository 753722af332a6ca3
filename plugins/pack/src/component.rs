//! From core module to component.

use anyhow::{Context, Result, bail};
use overlan_contract::Kind;
use wit_component::{ComponentEncoder, DecodedWasm};
use wit_parser::{Resolve, WorldId, WorldItem};

/// The package of the contract, as component names have it.
const PACKAGE: &str = "overlan:policy/";

/// A policy as a component.
pub(crate) struct Packed {
    /// The kind it answers.
    pub(crate) kind: Kind,
    /// The component.
    pub(crate) bytes: Vec<u8>,
}

/// Encodes a core module, and refuses what the host would refuse.
pub(crate) fn encode(module: &[u8]) -> Result<Packed> {
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .context("not a core module with component types; was it built with the SDK's export macro?")?
        .encode()
        .context("cannot be encoded as a component")?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes)? else {
        bail!("is a WIT package, not a component");
    };
    check_imports(&resolve, world)?;
    Ok(Packed { kind: exported_kind(&resolve, world)?, bytes })
}

/// Functions may come from the log alone; instances without functions only name types.
fn check_imports(resolve: &Resolve, world: WorldId) -> Result<()> {
    for (key, item) in &resolve.worlds[world].imports {
        let name = resolve.name_world_key(key);
        let harmless = match item {
            WorldItem::Interface { id, .. } => {
                name.starts_with(&format!("{PACKAGE}log@")) || resolve.interfaces[*id].functions.is_empty()
            }
            WorldItem::Function(_) => false,
            WorldItem::Type { .. } => true,
        };
        if !harmless {
            bail!("imports {name}; a policy may import nothing but {PACKAGE}log");
        }
    }
    Ok(())
}

fn exported_kind(resolve: &Resolve, world: WorldId) -> Result<Kind> {
    let exports: Vec<String> =
        resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect();
    let kind = |export: &String| {
        let (name, _) = export.strip_prefix(PACKAGE)?.split_once('@')?;
        name.parse().ok()
    };
    let kinds: Vec<Kind> = exports.iter().filter_map(kind).collect();
    match kinds[..] {
        [kind] => Ok(kind),
        _ => bail!("exports {}; a policy exports exactly one kind", exports.join(", ")),
    }
}
