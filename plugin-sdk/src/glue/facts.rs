//! Facts shared by all questions.

use std::net::IpAddr;

use super::assignment::overlan::policy::facts as wit;
use crate::{Adapter, AdapterStatus};

/// Converts an adapter; refuses an address of a length that no IP version has.
pub(super) fn adapter(adapter: wit::Adapter) -> Result<Adapter, String> {
    let address = match adapter.address.as_slice() {
        bytes @ [_, _, _, _] => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let address = address.ok_or_else(|| {
        format!(
            "adapter {} has an address of {} bytes; 4 or 16 are valid",
            adapter.name,
            adapter.address.len()
        )
    })?;
    Ok(Adapter {
        name: adapter.name,
        kind: adapter.kind,
        address,
        prefix_length: adapter.prefix_length,
        mtu: adapter.mtu,
        speed: adapter.speed,
        class_of_service: adapter.class_of_service,
        dscp: adapter.dscp,
        status: match adapter.status {
            wit::AdapterStatus::Up => AdapterStatus::Up,
            wit::AdapterStatus::Down => AdapterStatus::Down,
        },
        attributes: adapter.attributes,
    })
}
