//! Raw UDP: plaintext, no acknowledgements, sent as fast as the kernel takes it. The receiver drops the rest.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::udp::{Arrivals, Mmsg, Udp, segments_per_send};
use crate::worker::{Counts, Options, ready};

/// Datagrams of a `sendmmsg`.
const MMSG: usize = 64;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Counts what arrives.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    let udp = Udp::bind(options.peer()?)?;
    let counts = Counts::new();
    ready(&counts)?;
    let mut arrivals = Arrivals::new();
    loop {
        arrivals.fill(&udp)?;
        for (datagram, _) in arrivals.datagrams() {
            counts.message(datagram);
        }
    }
}

/// `how=segments`: segmentation offload; `how=plain`: a call for each datagram; `how=mmsg`: `sendmmsg`.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    let (remote, size) = (options.peer()?, options.size()?);
    let counts = Counts::new();
    match options.value::<String>("how")?.as_str() {
        "mmsg" => send_mmsg(remote, size, &counts),
        "plain" => send_segments(remote, size, 1, &counts),
        _ => send_segments(remote, size, segments_per_send(size), &counts),
    }
}

fn send_segments(
    remote: SocketAddr,
    size: usize,
    segments: usize,
    counts: &Arc<Counts>,
) -> anyhow::Result<()> {
    let udp = Udp::bind(ANY)?;
    ready(counts)?;
    let mut buffer = vec![0; segments * size];
    let mut sequence = 0_u64;
    loop {
        for datagram in buffer.chunks_exact_mut(size) {
            datagram[..8].copy_from_slice(&sequence.to_be_bytes());
            sequence += 1;
        }
        udp.send(&buffer, size, remote)?;
    }
}

fn send_mmsg(remote: SocketAddr, size: usize, counts: &Arc<Counts>) -> anyhow::Result<()> {
    let mut mmsg = Mmsg::new(ANY, remote, MMSG)?;
    ready(counts)?;
    let mut buffer = vec![0; MMSG * size];
    let mut sequence = 0_u64;
    loop {
        for datagram in buffer.chunks_exact_mut(size) {
            datagram[..8].copy_from_slice(&sequence.to_be_bytes());
            sequence += 1;
        }
        let slices: [[IoSlice<'_>; 1]; MMSG] =
            std::array::from_fn(|index| [IoSlice::new(&buffer[index * size..][..size])]);
        mmsg.send(&slices)?;
    }
}
