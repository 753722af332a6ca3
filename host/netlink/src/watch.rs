//! Live changes of adapters, routes and rules.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use rtnetlink::MulticastGroup;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use serde::Serialize;
use tokio::task::coop::unconstrained;

use crate::{Error, event};

/// What we listen to.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// The receive buffer we ask for, in bytes (the kernel caps it at `net.core.rmem_max`).
const RECEIVE_BUFFER: i32 = 1 << 20;

/// The largest netlink datagram since Linux 4.9 is 32 KiB; twice that is read at once.
const DATAGRAM_MAX: usize = 64 * 1024;

/// How many datagrams one [`Watch::changed`] drains before it reports, so that a storm of changes cannot keep it from
/// reporting at all; the rest comes with the next call.
pub const MAX_MESSAGES_PER_CHANGE: usize = 1024;

/// The receive queue of the socket overflowed (`ENOBUFS`): changes were lost.
const ENOBUFS: i32 = 105;

/// What changed since the last report. Where it names a link or an address, act at once; for all else take a new
/// [`snapshot`](crate::snapshot()) or apply the plan again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Links or addresses changed. The kernel drops IPv4 routes over a link that went down without reporting them one
    /// by one, so routes are to be checked as well.
    pub adapters: bool,
    /// Routes or rules changed; additions of our own routes do not count.
    pub routes: bool,
    /// Changes were lost (the kernel's queue ran over): everything is to be looked at anew.
    pub overrun: bool,
    /// Interface indices whose last word was "cannot carry datagrams" (down, no carrier, or gone).
    pub links_down: Vec<u32>,
    /// Interface index and address of the addresses that were deleted and not added again.
    pub addresses_removed: Vec<(u32, IpAddr)>,
}

impl Change {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn resync(&mut self) {
        self.adapters = true;
        self.routes = true;
        self.overrun = true;
    }

    pub(crate) fn link(&mut self, index: u32, up: bool) {
        self.adapters = true;
        self.links_down.retain(|down| *down != index);
        if !up {
            self.links_down.push(index);
        }
    }

    pub(crate) fn address_added(&mut self, index: u32, address: IpAddr) {
        self.adapters = true;
        self.addresses_removed.retain(|removed| *removed != (index, address));
    }

    pub(crate) fn address_removed(&mut self, index: u32, address: IpAddr) {
        self.address_added(index, address);
        self.addresses_removed.push((index, address));
    }
}

/// A subscription to the kernel's notifications.
///
/// Subscribe first, then take the first snapshot: what changes in between is then reported.
///
/// Reports come as soon as the kernel tells; nothing is delayed to gather more. Known deviation: the kernel itself
/// spaces out the loss of *carrier* of some drivers to one report a second (`linkwatch`, net/core/link_watch.c); a link
/// set down, a deleted address and the first loss of carrier come at once.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// What was read and not yet reported; survives a cancelled call.
    pending: Change,
    /// The queue ran over and was not seen empty since. Until it is, the kernel drops whatever else happens without
    /// saying so again (`NETLINK_S_CONGESTED`, net/netlink/af_netlink.c), so another report must follow then.
    congested: bool,
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Socket`]; nothing was changed.
    pub fn new() -> Result<Self, Error> {
        let socket = Self::subscribe().map_err(Error::Socket)?;
        let buffer = Vec::with_capacity(DATAGRAM_MAX);
        Ok(Self { socket, buffer, pending: Change::default(), congested: false })
    }

    fn subscribe() -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_ref().set_rx_buf_sz(RECEIVE_BUFFER)?;
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(socket)
    }

    /// Waits for the next change, draining what is already queued into one report. Cancel safe: nothing that was read
    /// is lost when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Socket`] when the socket broke; make a new `Watch` and treat everything as changed.
    pub async fn changed(&mut self) -> Result<Change, Error> {
        // Unconstrained, so that "pending" means an empty queue and never tokio's budget; the limit below takes its
        // place.
        unconstrained(poll_fn(|cx| self.poll_changed(cx))).await.map_err(Error::Socket)
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Change>> {
        let Self { socket, buffer, pending, congested } = self;
        for _ in 0..MAX_MESSAGES_PER_CHANGE {
            buffer.clear();
            match socket.poll_recv_from(cx, buffer) {
                // Only the kernel has port 0.
                Poll::Ready(Ok(from)) if from.port_number() == 0 => event::read(buffer, pending),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(ENOBUFS) => {
                    *congested = true;
                    pending.resync();
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if std::mem::take(congested) {
                        pending.resync();
                    }
                    if pending.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(std::mem::take(pending)));
                }
            }
        }
        if pending.is_empty() {
            // A storm of what does not concern us: let others run, then go on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(std::mem::take(pending)))
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("pending", &self.pending).finish_non_exhaustive()
    }
}
