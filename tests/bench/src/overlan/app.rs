//! Clients of a node on the same host, through its application socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use overlan_node::MessageMode;
use overlan_node::app::{Frame, Target};
use overlan_node::client::{Stream, StreamReader, StreamWriter};
use tokio::sync::Semaphore;

use super::node::mode;
use crate::worker::{Counts, Options, ready};

/// Messages sent and not yet answered.
const MAX_OPEN: usize = 16_384;
/// Messages that the node may send ahead.
const CREDIT: u32 = 8_192;
/// Messages in one frame.
const BATCH: usize = 256;

/// Where a member of this name serves its clients.
pub(super) fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

async fn connect(options: &Options, name: &str) -> anyhow::Result<Stream> {
    Ok(Stream::connect(&socket(&options.folder()?, name)).await?)
}

async fn listen(stream: &mut Stream) -> anyhow::Result<()> {
    stream.writer.write(&Frame::ListenBatch { credit: CREDIT, streams: Vec::new() }).await?;
    Ok(stream.writer.flush().await?)
}

fn frame(token: u64, mode: MessageMode, to: &str, payloads: Vec<Bytes>) -> Frame {
    Frame::SendBatch { token, mode, stream: 0, lifetime_ms: 0, to: Target::parse(to), payloads }
}

/// Listens and counts; `echo=1`: and sends back.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let mut stream = connect(options, "receiver").await?;
        listen(&mut stream).await?;
        let (mode, echo) = (mode(options)?, options.flag("echo"));
        let counts = Counts::new();
        ready(&counts)?;
        let mut taken = 0;
        loop {
            match stream.reader.next().await?.context("the node closed the stream")? {
                Frame::Messages(messages) => {
                    messages.iter().for_each(|message| counts.message(&message.payload));
                    taken += messages.len() as u32;
                    if taken >= CREDIT / 4 {
                        stream.writer.write(&Frame::Credit { credit: taken }).await?;
                        stream.writer.flush().await?;
                        taken = 0;
                    }
                    if echo && let Some(first) = messages.first() {
                        let name = first.origin.name.clone();
                        let payloads = messages.into_iter().map(|message| message.payload).collect();
                        stream.writer.write(&frame(0, mode, &name, payloads)).await?;
                        stream.writer.flush().await?;
                    }
                }
                Frame::Failed { error, .. } | Frame::Error(error) => bail!("{error}"),
                _ => {}
            }
        }
    })
}

/// Sends for ever; `echo=1`: and waits for each to come back.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    crate::runtime()?.block_on(async {
        let mut stream = connect(options, "sender").await?;
        let (mode, size) = (mode(options)?, options.size()?);
        let counts = Counts::new();
        if options.flag("echo") {
            listen(&mut stream).await?;
            ready(&counts)?;
            return round_trips(stream, mode, size, &counts).await;
        }
        ready(&counts)?;
        let room = Arc::new(Semaphore::new(MAX_OPEN));
        let answers = tokio::spawn(answers(stream.reader, mode, room.clone()));
        tokio::select! {
            answers = answers => answers?,
            sent = flood(stream.writer, mode, size, &room) => sent,
        }
    })
}

async fn round_trips(
    mut stream: Stream,
    mode: MessageMode,
    size: usize,
    counts: &Arc<Counts>,
) -> anyhow::Result<()> {
    let mut taken = 0;
    loop {
        let sent = Instant::now();
        stream.writer.write(&frame(0, mode, "receiver", vec![vec![0; size].into()])).await?;
        stream.writer.flush().await?;
        loop {
            match stream.reader.next().await?.context("the node closed the stream")? {
                Frame::Messages(_) => break,
                Frame::Failed { error, .. } | Frame::Error(error) => bail!("{error}"),
                _ => {}
            }
        }
        counts.latency(sent.elapsed());
        taken += 1;
        if taken == CREDIT / 4 {
            stream.writer.write(&Frame::Credit { credit: taken }).await?;
            taken = 0;
        }
    }
}

async fn flood(
    mut writer: StreamWriter,
    mode: MessageMode,
    size: usize,
    room: &Semaphore,
) -> anyhow::Result<()> {
    let mut sequence = 0_u64;
    loop {
        // Given back with the answers.
        room.acquire_many(BATCH as u32).await?.forget();
        let mut buffer = BytesMut::zeroed(BATCH * size);
        for (number, message) in (sequence..).zip(buffer.chunks_exact_mut(size)) {
            message[..8].copy_from_slice(&number.to_be_bytes());
        }
        let buffer = buffer.freeze();
        let payloads = (0..BATCH).map(|index| buffer.slice(index * size..(index + 1) * size)).collect();
        writer.write(&frame(sequence, mode, "receiver", payloads)).await?;
        writer.flush().await?;
        sequence += BATCH as u64;
    }
}

async fn answers(mut reader: StreamReader, mode: MessageMode, room: Arc<Semaphore>) -> anyhow::Result<()> {
    let last_is_queued = mode == MessageMode::Unreliable;
    loop {
        match reader.next().await?.context("the node closed the stream")? {
            Frame::Queued { .. } if last_is_queued => room.add_permits(BATCH),
            Frame::Fate { .. } => room.add_permits(1),
            Frame::Fates { count, .. } => room.add_permits(count as usize),
            Frame::Failed { error, .. } | Frame::Error(error) => bail!("{error}"),
            _ => {}
        }
    }
}
