//! Opening a socket and setting its options.

use std::io;
use std::net::SocketAddr;

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, SockAddr, Type};

/// Bytes of receive and of send buffer that are asked for: what arrives at 10 Gbit/s in about 6 ms.
pub const BUFFER_BYTES: usize = 8 << 20;

/// ECN-capable transport (RFC 3168, section 5).
const ECT_0: u32 = 0b10;

/// How to open a [`Socket`](crate::Socket).
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Network interface that alone may send and receive (`SO_BINDTODEVICE`; see socket(7)). Where the
    /// kernel forbids it, the socket works unbound and `device_bound` says so.
    pub device: Option<&'a str>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: u8,
    /// Bytes asked for `SO_RCVBUF` and `SO_SNDBUF` each. Linux caps them at `net.core.rmem_max` and
    /// `wmem_max` for a process without CAP_NET_ADMIN.
    pub buffer_bytes: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { device: None, dscp: 0, buffer_bytes: BUFFER_BYTES }
    }
}

/// Why a socket could not be opened. Nothing stays open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// EADDRINUSE.
    #[error(
        "another process uses UDP {0}; stop it (`ss -ulpn` shows which) or choose another port with `[node] port`"
    )]
    InUse(SocketAddr),
    /// EADDRNOTAVAIL.
    #[error("no adapter of this host has the address {0}; `overlan adapters` lists them")]
    NoSuchAddress(SocketAddr),
    /// EACCES.
    #[error("the port of {0} needs privileges; choose one above 1023 or grant CAP_NET_BIND_SERVICE")]
    Privileged(SocketAddr),
    /// ENODEV.
    #[error("there is no network interface {0:?}; `overlan adapters` lists them")]
    NoSuchDevice(String),
    /// The DSCP has six bits.
    #[error("a DSCP is 0 to 63, not {0}")]
    Dscp(u8),
    /// The kernel lacks path MTU discovery by probing.
    #[error(
        "the kernel would fragment datagrams (no IP_PMTUDISC_PROBE); a Linux of 2.6.22 or later is needed"
    )]
    Fragments,
    /// Another system call failed.
    #[error("cannot open a UDP socket on {address}: {call}: {source}")]
    System {
        /// Where.
        address: SocketAddr,
        /// What was tried.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) struct Opened {
    pub(crate) socket: socket2::Socket,
    pub(crate) state: UdpSocketState,
    pub(crate) local: SocketAddr,
    pub(crate) device_bound: bool,
}

/// Opens, sets and binds. SO_REUSEADDR stays unset: on Linux it would let two processes share a UDP
/// port, the later one taking the datagrams.
pub(crate) fn open(address: SocketAddr, options: &Options<'_>) -> Result<Opened, BindError> {
    let system = |call| move |source| BindError::System { address, call, source };
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(system("socket"))?;
    socket.set_nonblocking(true).map_err(system("O_NONBLOCK"))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(system("IPV6_V6ONLY"))?;
    }
    let device_bound = match options.device {
        Some(device) => bind_device(&socket, device, address)?,
        None => false,
    };
    set_buffers(&socket, options.buffer_bytes);
    if options.dscp > 63 {
        return Err(BindError::Dscp(options.dscp));
    }
    set_dscp(&socket, address, options.dscp).map_err(system("IP_TOS"))?;
    // Sets DF by IP_PMTUDISC_PROBE, which ignores the path MTU that the kernel learned from ICMP (anybody
    // can forge that): datagrams are limited by the adapter's MTU alone. Also GRO and IP_PKTINFO.
    let state = UdpSocketState::new((&socket).into()).map_err(system("quinn-udp's options"))?;
    if state.may_fragment() {
        return Err(BindError::Fragments);
    }
    socket.bind(&SockAddr::from(address)).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
        io::ErrorKind::PermissionDenied => BindError::Privileged(address),
        _ => BindError::System { address, call: "bind", source },
    })?;
    let local = socket.local_addr().map_err(system("getsockname"))?;
    let local = local.as_socket().unwrap_or(address);
    Ok(Opened { socket, state, local, device_bound })
}

/// Whether it worked. Needs CAP_NET_RAW before Linux 5.7.
#[cfg(target_os = "linux")]
fn bind_device(socket: &socket2::Socket, device: &str, address: SocketAddr) -> Result<bool, BindError> {
    match socket.bind_device(Some(device.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => {
            Err(BindError::NoSuchDevice(device.to_owned()))
        }
        Err(source) => Err(BindError::System { address, call: "SO_BINDTODEVICE", source }),
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_device(_: &socket2::Socket, _: &str, _: SocketAddr) -> Result<bool, BindError> {
    Ok(false)
}

/// Asks, by privilege first. A smaller buffer than asked for is no error: `recv_buffer_bytes` shows it.
fn set_buffers(socket: &socket2::Socket, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let received = setsockopt(socket, sockopt::RcvBufForce, &bytes);
        let sent = setsockopt(socket, sockopt::SndBufForce, &bytes);
        if received.and(sent).is_ok() {
            return;
        }
    }
    let received = socket.set_recv_buffer_size(bytes);
    let sent = socket.set_send_buffer_size(bytes);
    if let Err(error) = received.and(sent) {
        tracing::debug!(%error, bytes, "the socket keeps the system's default buffers");
    }
}

/// Marks what is sent from now on, as ECN-capable too: ECT(0) of RFC 3168.
pub(crate) fn set_dscp(socket: &socket2::Socket, address: SocketAddr, dscp: u8) -> io::Result<()> {
    let traffic_class = u32::from(dscp) << 2 | ECT_0;
    match address {
        SocketAddr::V4(_) => socket.set_tos_v4(traffic_class),
        SocketAddr::V6(_) => socket.set_tclass_v6(traffic_class),
    }
}
