//! Errors, each of which says whether the kernel's state changed.

use std::io;

/// Why a netlink call failed as a whole.
///
/// One route or rule that the kernel turns down is no error: it stands in [`Report::refused`](crate::Report::refused)
/// and the rest goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened or set up. Nothing was read or changed.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused to list something (`what`: links, addresses, routes, rules). Nothing was changed.
    #[error("cannot list the kernel's {what}: {source}")]
    Dump {
        /// What was being listed.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's state kept changing while it was listed (eight times over). Nothing was
    /// changed; try again.
    #[error("the kernel's {what} kept changing while they were listed")]
    Unstable {
        /// What was being listed.
        what: &'static str,
    },
    /// The netlink socket closed in the middle of a listing. Nothing was changed by the call.
    #[error("the netlink socket closed while listing {what}")]
    Closed {
        /// What was being listed.
        what: &'static str,
    },
}
