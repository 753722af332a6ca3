//! The ceiling: what a sealed transport could reach if its protocol cost nothing.
//!
//! AES-128-GCM over each datagram in place, offload both ways, one copy in and one out, a window with an
//! acknowledgement for each batch of arrivals. Nothing is sent twice.
//!
//! ```text
//! datagram: sequence (u64, also nonce and associated data) | sealed payload | tag (16)
//! payload:  bytes, or with `message=`: (length (u16) | message)*
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::anyhow;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};

use crate::udp::{Arrivals, Udp, segments_per_send};
use crate::worker::{Counts, Options, ready};

const HEADER: usize = 8;
/// Bytes in flight at most: what the receiver's socket buffer holds, with the kernel's bookkeeping.
const WINDOW_BYTES: usize = 2 << 20;
/// What is copied from and to: larger than the caches of a core would be unfair, smaller too.
const APPLICATION_BYTES: usize = 1 << 20;

fn key() -> anyhow::Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("a key of 16 bytes fits"))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(header: [u8; HEADER]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&header);
    Nonce::assume_unique_for_key(nonce)
}

/// `datagram=BYTES`, and `message=BYTES` where small messages are coalesced.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    let (remote, size) = (options.peer()?, options.value::<usize>("datagram")?);
    let message: Option<usize> = options.optional("message")?;
    let udp = Udp::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
    let (key, application) = (key()?, vec![0x5a; APPLICATION_BYTES]);
    let window = (WINDOW_BYTES / size) as u64;
    let mut buffer = vec![0; segments_per_send(size) * size];
    let mut arrivals = Arrivals::new();
    let (mut sequence, mut acknowledged, mut offset) = (0_u64, 0, 0);
    ready(&Counts::new())?;
    loop {
        while sequence - acknowledged > window {
            if !udp.readable(10)? {
                // What was lost is nobody's affair here; receivers report it.
                acknowledged = sequence;
            } else if arrivals.try_fill(&udp)? {
                let last = arrivals.datagrams().filter_map(|(ack, _)| ack.first_chunk().copied()).last();
                acknowledged = last.map_or(acknowledged, u64::from_be_bytes).max(acknowledged);
            }
        }
        for datagram in buffer.chunks_exact_mut(size) {
            let header = sequence.to_be_bytes();
            datagram[..HEADER].copy_from_slice(&header);
            let (payload, tag) = datagram[HEADER..].split_at_mut(size - HEADER - MAX_TAG_LEN);
            fill(payload, &application, &mut offset, message);
            let sealed = key.seal_in_place_separate_tag(nonce(header), Aad::from(header), payload);
            tag.copy_from_slice(sealed.map_err(|_| anyhow!("sealing"))?.as_ref());
            sequence += 1;
        }
        udp.send(&buffer, size, remote)?;
    }
}

/// The copy in.
fn fill(payload: &mut [u8], application: &[u8], offset: &mut usize, message: Option<usize>) {
    let Some(message) = message else {
        if *offset + payload.len() > application.len() {
            *offset = 0;
        }
        payload.copy_from_slice(&application[*offset..][..payload.len()]);
        *offset += payload.len();
        return;
    };
    for frame in payload.chunks_exact_mut(2 + message) {
        if *offset + message > application.len() {
            *offset = 0;
        }
        frame[..2].copy_from_slice(&(message as u16).to_be_bytes());
        frame[2..].copy_from_slice(&application[*offset..][..message]);
        *offset += message;
    }
}

/// Opens, copies out, acknowledges.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    let udp = Udp::bind(options.peer()?)?;
    let small = options.optional::<usize>("message")?.is_some();
    let (key, counts) = (key()?, Counts::new());
    let mut application = vec![0; APPLICATION_BYTES];
    let mut arrivals = Arrivals::new();
    let mut offset = 0;
    ready(&counts)?;
    loop {
        arrivals.fill(&udp)?;
        let mut last = None;
        let (mut messages, mut bytes, mut datagrams) = (0, 0, 0);
        for (datagram, from) in arrivals.datagrams() {
            let Some((header, sealed)) = datagram.split_first_chunk_mut::<HEADER>() else { continue };
            let opened = key.open_in_place(nonce(*header), Aad::from(*header), sealed);
            let payload = opened.map_err(|_| anyhow!("a forged datagram"))?;
            let (some, length) = take(payload, &mut application, &mut offset, small);
            (messages, bytes, datagrams) = (messages + some, bytes + length, datagrams + 1);
            last = Some((u64::from_be_bytes(*header), from));
        }
        if let Some((sequence, from)) = last {
            counts.add(messages, bytes);
            counts.see((sequence + 1) * (messages / datagrams) - 1);
            udp.send(&(sequence + 1).to_be_bytes(), HEADER, from)?;
        }
    }
}

/// The copy out: messages and bytes.
fn take(payload: &[u8], application: &mut [u8], offset: &mut usize, small: bool) -> (u64, u64) {
    let mut copy = |bytes: &[u8]| {
        if *offset + bytes.len() > application.len() {
            *offset = 0;
        }
        application[*offset..][..bytes.len()].copy_from_slice(bytes);
        *offset += bytes.len();
    };
    if !small {
        copy(payload);
        return (1, payload.len() as u64);
    }
    let (mut rest, mut messages, mut bytes) = (payload, 0, 0);
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > tail.len() {
            break;
        }
        copy(&tail[..length]);
        (messages, bytes, rest) = (messages + 1, bytes + length as u64, &tail[length..]);
    }
    (messages, bytes)
}
