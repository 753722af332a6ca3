//! Sending: segments in one call where the kernel can, one by one where it cannot.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::SockAddr;

/// Datagrams in one segmented send at most: `UDP_MAX_SEGMENTS` of Linux before 6.9.
pub const MAX_BATCH_SEGMENTS: usize = 64;

/// Bytes in one segmented send at most: the kernel holds a batch as one UDP datagram, of 65,535 bytes
/// with IPv4's and UDP's header.
pub const MAX_BATCH_BYTES: usize = 65_507;

/// Why nothing was sent. No datagram of the call was accepted by the kernel.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The send buffer is full: wait for [`Socket::writable`](crate::Socket::writable), or drop.
    #[error("the socket's send buffer is full; try again when it is writable")]
    WouldBlock,
    /// EMSGSIZE: larger than the adapter's MTU, or than UDP allows. No sign of trouble on the path.
    #[error("the datagram exceeds the adapter's MTU; send smaller ones")]
    TooLarge,
    /// There is no way there from this socket now (no route, link down, address gone) or a local firewall
    /// forbids it: counts against the path.
    #[error("the destination cannot be reached from here: {0}; see `ip route get` and the firewall")]
    Unreachable(#[source] io::Error),
    /// Anything else: the kernel is out of memory, or a bug.
    #[error("sending failed: {0}")]
    Other(#[source] io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        if quinn_udp::is_msg_size_err(&error) {
            return SendError::TooLarge;
        }
        match error.kind() {
            Kind::WouldBlock => SendError::WouldBlock,
            // EPERM and EACCES: netfilter, or a route of type prohibit.
            Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::NetworkDown
            | Kind::AddrNotAvailable
            | Kind::ConnectionRefused
            | Kind::PermissionDenied => SendError::Unreachable(error),
            _ if is_missing_device(&error) => SendError::Unreachable(error),
            _ => SendError::Other(error),
        }
    }
}

/// ENODEV or ENXIO: the device the socket is bound to went away.
fn is_missing_device(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    return matches!(error.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENXIO));
    #[cfg(not(target_os = "linux"))]
    return error.kind() == io::ErrorKind::NotFound;
}

/// Whether segmentation offload works on this socket, as far as seen, and for which size it is set.
#[derive(Debug)]
pub(crate) struct Offload {
    on: AtomicBool,
    /// `UDP_SEGMENT` as it stands; 0: none. Set when the size changes, which is seldom: a control message with
    /// each send would cost an allocation.
    segment: AtomicUsize,
}

impl Offload {
    pub(crate) fn new(supported: bool) -> Self {
        Offload { on: AtomicBool::new(supported && cfg!(target_os = "linux")), segment: AtomicUsize::new(0) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on && cfg!(target_os = "linux"), Ordering::Relaxed);
    }

    /// Makes the kernel cut each send in pieces of `segment` bytes; 0: not at all.
    fn cut(&self, socket: &socket2::Socket, segment: usize) -> io::Result<()> {
        if self.segment.load(Ordering::Relaxed) != segment {
            set_segment(socket, segment)?;
            self.segment.store(segment, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends one datagram, whole.
    fn send_single(&self, socket: &socket2::Socket, single: &[u8], remote: &SockAddr) -> io::Result<usize> {
        let set = self.segment.load(Ordering::Relaxed);
        if single.len() > set {
            self.cut(socket, 0)?;
        }
        match socket.send_to(single, remote) {
            // A size that was set for another destination may exceed the MTU on the way to this one.
            Err(error) if set > 0 && may_refuse_offload(&error) => {
                self.cut(socket, 0)?;
                socket.send_to(single, remote)
            }
            result => result,
        }
    }
}

/// Sends `datagrams`, cut each `segment` bytes; the bytes accepted. An error only if these are none.
pub(crate) fn send(
    socket: &socket2::Socket,
    offload: &Offload,
    datagrams: &[u8],
    segment: usize,
    remote: SocketAddr,
) -> io::Result<usize> {
    let segment = segment.clamp(1, datagrams.len().max(1));
    let remote = SockAddr::from(remote);
    let mut accepted = 0;
    while accepted < datagrams.len() {
        match send_some(socket, offload, &datagrams[accepted..], segment, &remote) {
            Ok(bytes) => accepted += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if accepted == 0 => return Err(error),
            // The caller comes back with the rest and gets this error then, if it lasts.
            Err(_) => break,
        }
    }
    Ok(accepted)
}

/// One batch, or one datagram where a batch is refused.
fn send_some(
    socket: &socket2::Socket,
    offload: &Offload,
    datagrams: &[u8],
    segment: usize,
    remote: &SockAddr,
) -> io::Result<usize> {
    let single = &datagrams[..segment.min(datagrams.len())];
    let segments = (MAX_BATCH_BYTES / segment).min(MAX_BATCH_SEGMENTS);
    let batch = &datagrams[..(segments * segment).clamp(single.len(), datagrams.len())];
    // A batch of one goes plain: it is cheaper, and some drivers refuse it.
    if batch.len() == single.len() || !offload.is_on() {
        return offload.send_single(socket, single, remote);
    }
    match offload.cut(socket, segment).and_then(|()| socket.send_to(batch, remote)) {
        Err(error) if may_refuse_offload(&error) => {
            // Either the kernel or the adapter cannot segment, or (EINVAL, before Linux 6.10) a segment
            // exceeds the MTU: a plain send tells, and only its success condemns the offload.
            let sent = offload.send_single(socket, single, remote)?;
            offload.set(false);
            tracing::info!(%error, "no segmentation offload on this adapter; datagrams go one by one");
            Ok(sent)
        }
        result => result,
    }
}

/// EIO: the device has no checksum offload (Linux before 6.11). EINVAL, ENOPROTOOPT, EOPNOTSUPP: no
/// `UDP_SEGMENT`.
#[cfg(target_os = "linux")]
fn may_refuse_offload(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EIO, ENOPROTOOPT, EOPNOTSUPP};
    matches!(error.raw_os_error(), Some(EINVAL | EIO | ENOPROTOOPT | EOPNOTSUPP))
}

#[cfg(target_os = "linux")]
fn set_segment(socket: &socket2::Socket, segment: usize) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let segment = i32::try_from(segment).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(setsockopt(socket, sockopt::UdpGsoSegment, &segment)?)
}

#[cfg(not(target_os = "linux"))]
fn may_refuse_offload(_: &io::Error) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
fn set_segment(_: &socket2::Socket, segment: usize) -> io::Result<()> {
    if segment == 0 { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    /// UDP-Lite refuses batches with EIO, as an adapter without checksum offload does.
    #[test]
    fn a_refused_batch_goes_one_by_one() {
        let open = || Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDPLITE));
        let (Ok(a), Ok(mut b)) = (open(), open()) else {
            eprintln!("SKIPPED: this kernel has no UDP-Lite to refuse a batch");
            return;
        };
        b.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let remote = b.local_addr().unwrap().as_socket().unwrap();
        let offload = Offload::new(true);
        let datagrams: Vec<u8> = (0..1_050).map(|index| (index / 100) as u8).collect();
        assert_eq!(send(&a, &offload, &datagrams, 100, remote).unwrap(), 1_050);
        assert!(!offload.is_on(), "it is not tried again");
        for expected in datagrams.chunks(100) {
            let mut datagram = [0; 200];
            let len = b.read(&mut datagram).unwrap();
            assert_eq!(&datagram[..len], expected);
        }
    }
}
