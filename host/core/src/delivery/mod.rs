//! Message state of one peer: it belongs to no path, so that any path may carry any fragment.

pub(crate) mod inbox;
pub(crate) mod outbox;
#[cfg(test)]
mod tests;

/// Messages to and from applications.
pub(crate) const CLASS_APPLICATION: u8 = 0;
/// Messages of the cluster's own (plans); accepted by the core itself.
pub(crate) const CLASS_CLUSTER: u8 = 1;

/// The cluster's own messages have numbers of their own, from here on, and no credit: no consumer could hold
/// them up, so that plans pass while applications wait. They are done when all their bytes arrived.
pub(crate) const CLUSTER_FIRST: u64 = 1 << 63;
/// Numbers of the cluster's own messages that may be open at once, from the oldest on.
pub(crate) const CLUSTER_WINDOW: u64 = 256;
/// Bytes of the cluster's own messages that may be open at once.
pub(crate) const CLUSTER_BYTES: usize = 2 * overlan_wire::limits::MAX_MESSAGE;

/// Flow control counts this many bytes for each message beside its payload, so that empty messages
/// are bounded as well.
pub(crate) const MESSAGE_COST: u64 = 64;
/// What a sender may open before the receiver has said anything: the largest message fits.
pub(crate) const INITIAL_CREDIT: u64 = overlan_wire::limits::MAX_MESSAGE as u64 + MESSAGE_COST;
