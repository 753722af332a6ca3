//! One netlink conversation: complete, consistent listings and acknowledged changes.
//!
//! rtnetlink's own `get()` helpers cannot tell a finished listing from a cut one, and miss `NLM_F_DUMP_INTR` (the
//! kernel's word that entries changed while it listed them), so the requests are made here from its parts.

use std::io;

use futures_util::StreamExt as _;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::sys::AsyncSocket as _;
use tokio::task::JoinHandle;

use crate::Error;

/// The families we list, in the order `ip addr` lists them.
pub(crate) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// How often an interrupted listing is started over.
const RETRIES_MAX: u32 = 8;

/// No such entry (`ENOENT`): also the answer to listing a table that does not exist.
pub(crate) const ENOENT: i32 = 2;
/// No such route (`ESRCH`).
pub(crate) const ESRCH: i32 = 3;
/// An equal entry exists (`EEXIST`).
pub(crate) const EEXIST: i32 = 17;

/// An open netlink socket, in the network namespace of the thread that opened it.
pub(crate) struct Kernel {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    /// Opens a socket; must be called on a tokio runtime.
    pub(crate) fn open() -> Result<Self, Error> {
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        // Lets the kernel filter route listings by protocol and table (Linux 5.0); without it we filter what comes.
        if let Err(error) = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "the kernel has no strict netlink requests; listing everything");
        }
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// All links, in the order of their index.
    pub(crate) async fn links(&self) -> Result<Vec<LinkMessage>, Error> {
        let mut links = self
            .dump("links", &Message::GetLink(LinkMessage::default()), |message| match message {
                Message::NewLink(link) => Some(link),
                _ => None,
            })
            .await?;
        links.sort_by_key(|link| link.header.index);
        Ok(links)
    }

    /// All addresses: IPv4 first, then IPv6, each as the kernel orders them.
    pub(crate) async fn addresses(&self) -> Result<Vec<AddressMessage>, Error> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut request = AddressMessage::default();
            request.header.family = family;
            all.extend(
                self.dump("addresses", &Message::GetAddress(request), |message| match message {
                    Message::NewAddress(address) if address.header.family == family => Some(address),
                    _ => None,
                })
                .await?,
            );
        }
        Ok(all)
    }

    /// Routes of both families; `protocol` narrows them to those installed under that number, `table` to one
    /// table (below 256).
    pub(crate) async fn routes(
        &self,
        protocol: Option<RouteProtocol>,
        table: Option<u8>,
    ) -> Result<Vec<RouteMessage>, Error> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = protocol.unwrap_or_default();
            request.header.table = table.unwrap_or_default();
            let wanted = |message| match message {
                Message::NewRoute(route)
                    if route.header.address_family == family
                        && protocol.is_none_or(|protocol| protocol == route.header.protocol)
                        && table.is_none_or(|table| table == route.header.table) =>
                {
                    Some(route)
                }
                _ => None,
            };
            match self.dump("routes", &Message::GetRoute(request), wanted).await {
                // The table was never used.
                Err(Error::Dump { source, .. }) if source.raw_os_error() == Some(ENOENT) => {}
                routes => all.extend(routes?),
            }
        }
        Ok(all)
    }

    /// All routing rules of both families.
    pub(crate) async fn rules(&self) -> Result<Vec<RuleMessage>, Error> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut request = RuleMessage::default();
            request.header.family = family;
            all.extend(
                self.dump("rules", &Message::GetRule(request), |message| match message {
                    Message::NewRule(rule) if rule.header.family == family => Some(rule),
                    _ => None,
                })
                .await?,
            );
        }
        Ok(all)
    }

    /// Adds; `EEXIST` rather than replacing anything.
    pub(crate) async fn add(&self, message: Message) -> io::Result<()> {
        self.change(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Deletes what matches every attribute of the message.
    pub(crate) async fn delete(&self, message: Message) -> io::Result<()> {
        self.change(message, 0).await
    }

    async fn change(&self, message: Message, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let closed =
            || io::Error::new(io::ErrorKind::NotConnected, "the netlink socket closed; outcome unknown");
        let mut answers = self.handle.clone().request(request).map_err(|_| closed())?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Err(closed())
    }

    /// Lists until one pass was complete and undisturbed.
    async fn dump<T>(
        &self,
        what: &'static str,
        request: &Message,
        wanted: impl Fn(Message) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..RETRIES_MAX {
            if let Some(entries) = self.dump_once(what, request, &wanted).await? {
                return Ok(entries);
            }
        }
        Err(Error::Unstable { what })
    }

    /// One pass; `None` when entries changed meanwhile.
    async fn dump_once<T>(
        &self,
        what: &'static str,
        request: &Message,
        wanted: &impl Fn(Message) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let mut request = NetlinkMessage::from(request.clone());
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(request).map_err(|_| Error::Closed { what })?;
        let mut entries = Vec::new();
        let mut disturbed = false;
        while let Some(answer) = answers.next().await {
            disturbed |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => entries.extend(wanted(message)),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Error::Dump { what, source: io::Error::from_raw_os_error(-done.code) });
                }
                NetlinkPayload::Done(_) => return Ok((!disturbed).then_some(entries)),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(Error::Dump { what, source: error.to_io() });
                }
                NetlinkPayload::Overrun(_) => disturbed = true,
                _ => {}
            }
        }
        Err(Error::Closed { what })
    }
}
