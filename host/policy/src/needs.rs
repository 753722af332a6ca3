//! What a component wants from the start, seen without compiling it.

use wasmparser::{Parser, Payload};

use crate::inspect::malformed;
use crate::limits::Limits;
use crate::load_error::LoadError;

const PAGE_BYTES: u64 = 65_536;

/// Refuses a component in which a single module already has more than all together may have. What they have together
/// depends on how they are linked, and is counted when they start.
pub(crate) fn check(component: &[u8], limits: &Limits) -> Result<(), LoadError> {
    let few = |what: &str, count: u32, limit: usize| match count as usize > limit {
        true => Err(LoadError::TooMuch(format!(
            "a module of it has {count} {what}, all together may have {limit}; build it with fewer"
        ))),
        false => Ok(()),
    };
    let small = |what: &str, size: u64, name: &str, limit: usize| match size > limit as u64 {
        true => Err(LoadError::TooMuch(format!(
            "{what}, its limit {name} is {limit}; build it with less, or raise the limit"
        ))),
        false => Ok(()),
    };
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::TableSection(tables) => {
                few("tables", tables.count(), limits.tables)?;
                for table in tables {
                    let size = table.map_err(malformed)?.ty.initial;
                    let what = format!("a table of it has {size} elements");
                    small(&what, size, "table_elements", limits.table_elements)?;
                }
            }
            Payload::MemorySection(memories) => {
                few("memories", memories.count(), limits.memories)?;
                for memory in memories {
                    let size = memory.map_err(malformed)?.initial.saturating_mul(PAGE_BYTES);
                    let what = format!("a memory of it has {size} bytes");
                    small(&what, size, "memory_bytes", limits.memory_bytes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
