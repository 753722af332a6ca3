//! `overlan send`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use overlan_node::app::{Frame, Target};
use overlan_node::client::{Control, Stream, StreamReader, StreamWriter};
use overlan_node::status::MemberStatus;
use overlan_node::{Fate, MAX_MESSAGE, MessageMode, NodeId};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use crate::args::SendArgs;
use crate::list::control;
use crate::table::{print_json, unread};

/// Messages sent and not yet answered.
const MAX_OPEN: usize = 65_536;
/// Messages, and bytes of them, that are sent in one frame.
const MAX_BATCH: usize = 1024;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// [`MAX_MESSAGE`] for people, and what to do.
const LARGEST: &str = "16 MiB; split it";
/// After this long without the last answers, a hint is due.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

pub(crate) async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    let control = control(&args.query.socket)?;
    let Stream { reader, writer } = Stream::connect(control.path()).await?;
    let json = args.query.json.json;
    let mode = args.mode.into();
    let total = watch::Sender::new(None);
    let room = Arc::new(Semaphore::new(MAX_OPEN));
    let batches = Batches::default();
    let answers = tokio::spawn(answers(reader, mode, total.subscribe(), room.clone(), batches.clone()));
    let mut sending = tokio::spawn(async move {
        let mut sender = Sender { writer, room, args, sent: 0, batches, batch: Vec::new(), bytes: 0 };
        let input = sender.all().await;
        // What came before an error goes its way.
        let input = sender.flush().await.and(input);
        total.send_replace(Some(sender.sent));
        (sender, input)
    });
    let mut answers = answers;
    let (tally, input) = tokio::select! {
        // All is sent, or the node has ended it.
        tally = &mut answers => (tally??, sending.await?.1),
        sent = &mut sending => {
            // The writer stays open until the last answer.
            let (_open, input) = sent?;
            (with_hint(answers).await??, input)
        }
    };
    let status = report(&tally.summary(&names(&control).await), json)?;
    input.map(|()| status)
}

/// What the members are called.
async fn names(control: &Control) -> BTreeMap<String, String> {
    // A node that has gone by now leaves their ids, which say as much.
    let members: Vec<MemberStatus> = control.get("/v1/members").await.unwrap_or_default();
    members.into_iter().map(|member| (member.id, member.name)).collect()
}

/// Waits for the last answers, and says once what may hold them up.
async fn with_hint<T>(answers: impl Future<Output = T>) -> T {
    let mut answers = pin!(answers);
    tokio::select! {
        done = &mut answers => return done,
        () = tokio::time::sleep(PATIENCE) => eprintln!(
            "overlan: not all is accepted yet; still waiting. Does a listener (`overlan listen`) run at the \
             receiver, and does `overlan members` show it alive? --lifetime bounds the wait"
        ),
    }
    answers.await
}

fn report(summary: &Summary, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        unread(print_json(summary))?;
    }
    if summary.failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for (reason, count) in &summary.reasons {
        eprintln!("overlan: {count} of {} not delivered: {reason}", summary.sent);
    }
    if let [_, _, ..] = &summary.members[..] {
        for Member { name, counts, .. } in &summary.members {
            eprintln!("overlan: {name}: {} delivered, {} not", counts.delivered, counts.failed());
        }
    }
    Ok(ExitCode::FAILURE)
}

/// How many messages each batch on its way has, by its first token.
type Batches = Arc<Mutex<BTreeMap<u64, usize>>>;

struct Sender {
    writer: StreamWriter,
    room: Arc<Semaphore>,
    args: SendArgs,
    sent: u64,
    batches: Batches,
    /// Messages of the batch that is being filled.
    batch: Vec<Bytes>,
    bytes: usize,
}

impl Sender {
    async fn all(&mut self) -> anyhow::Result<()> {
        if let Some(count) = self.args.count {
            return self.count(count).await;
        }
        if self.args.lines {
            return self.lines().await;
        }
        let payload = match self.args.file.as_ref().filter(|path| path.as_os_str() != "-") {
            Some(path) => {
                let shown = || path.display().to_string();
                let file = tokio::fs::File::open(path).await;
                let file = file.with_context(|| {
                    format!(
                        "{} is to hold the message; a text itself comes by standard input",
                        path.display()
                    )
                })?;
                whole(file).await.with_context(shown)?
            }
            None => {
                if std::io::stdin().is_terminal() {
                    eprintln!("overlan: the message comes from standard input; end it with Ctrl-D");
                }
                whole(tokio::io::stdin()).await?
            }
        };
        self.one(payload.into()).await
    }

    async fn lines(&mut self) -> anyhow::Result<()> {
        let mut input = BufReader::with_capacity(64 << 10, tokio::io::stdin());
        let mut line = Vec::new();
        // A byte more, for the line's end: where it is another, the line is too long.
        while (&mut input).take(MAX_MESSAGE as u64 + 1).read_until(b'\n', &mut line).await? > 0 {
            line.pop_if(|last| *last == b'\n');
            ensure!(line.len() <= MAX_MESSAGE, "a line is larger than {LARGEST}; those before it were sent");
            self.one(std::mem::take(&mut line).into()).await?;
            // What has come goes on at once, and together.
            if !input.buffer().contains(&b'\n') {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn count(&mut self, count: u64) -> anyhow::Result<()> {
        let size = self.args.size.unwrap_or(8) as usize;
        let mut ticks = self.args.interval.filter(|interval| !interval.is_zero()).map(|interval| {
            let mut ticks = tokio::time::interval(interval);
            // A stream that was held up goes on at its pace.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        for sequence in 0..count {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let mut payload = vec![0; size];
            payload[..8].copy_from_slice(&sequence.to_be_bytes());
            self.one(payload.into()).await?;
            if ticks.is_some() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn one(&mut self, payload: Bytes) -> anyhow::Result<()> {
        if self.room.available_permits() == 0 {
            self.flush().await?;
        }
        // Given back with the last answer.
        self.room.acquire().await?.forget();
        self.bytes += payload.len();
        self.batch.push(payload);
        if self.batch.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    /// Queues the batch.
    async fn write(&mut self) -> anyhow::Result<()> {
        let payloads = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if payloads.is_empty() {
            return Ok(());
        }
        let lifetime =
            self.args.lifetime.map_or(0, |lifetime| lifetime.as_millis().clamp(1, u128::from(u32::MAX)));
        let (token, count) = (self.sent, payloads.len());
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).insert(token, count);
        self.sent += count as u64;
        let frame = Frame::SendBatch {
            token,
            mode: self.args.mode.into(),
            stream: self.args.stream.into(),
            lifetime_ms: u32::try_from(lifetime).unwrap_or(u32::MAX),
            to: Target::parse(&self.args.to),
            payloads,
        };
        Ok(self.writer.write(&frame).await?)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.write().await?;
        Ok(self.writer.flush().await?)
    }
}

/// All of the input, as one message.
async fn whole(input: impl AsyncRead + Unpin) -> anyhow::Result<Vec<u8>> {
    let mut payload = Vec::new();
    input.take(MAX_MESSAGE as u64 + 1).read_to_end(&mut payload).await?;
    ensure!(payload.len() <= MAX_MESSAGE, "the message is larger than {LARGEST}");
    Ok(payload)
}

async fn answers(
    mut reader: StreamReader,
    mode: MessageMode,
    mut total: watch::Receiver<Option<u64>>,
    room: Arc<Semaphore>,
    batches: Batches,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    // By its first token: messages of a batch, fates of it that are not known yet, and the only member it was queued for.
    let mut open: BTreeMap<u64, (usize, usize, Option<NodeId>)> = BTreeMap::new();
    let mut done = 0;
    while total.borrow_and_update().is_none_or(|total| done < total) {
        let frame = tokio::select! {
            frame = reader.next() => frame?.ok_or_else(|| anyhow!("the node closed the stream"))?,
            _ = total.changed(), if total.borrow().is_none() => continue,
        };
        let size = |token| batches.lock().unwrap_or_else(PoisonError::into_inner).remove(&token).unwrap_or(1);
        let finished = match frame {
            Frame::Queued { token, nodes } => {
                let count = size(token);
                for node in &nodes {
                    tally.members.entry(*node).or_default().sent += count as u64;
                }
                let waits = mode != MessageMode::Unreliable && !nodes.is_empty();
                if waits {
                    let only = nodes.first().copied().filter(|_| nodes.len() == 1);
                    open.insert(token, (count, nodes.len() * count, only));
                }
                if waits { 0 } else { count }
            }
            Frame::Fates { token, count, node, fate } => {
                tally.members.entry(node).or_default().add(fate, count.into());
                match open.range_mut(..=token).next_back() {
                    Some((&first, (size, left, only))) => {
                        if let Some(before) = only.filter(|before| *before != node) {
                            tally.move_sent(before, node, count.into());
                        }
                        *left = left.saturating_sub(count as usize);
                        let finished = if *left == 0 { *size } else { 0 };
                        if finished > 0 {
                            open.remove(&first);
                        }
                        finished
                    }
                    None => 0,
                }
            }
            Frame::Failed { token, error } => {
                let count = size(token);
                *tally.refused.entry(error).or_default() += count as u64;
                count
            }
            Frame::Error(error) => bail!("the node closed the stream: {error}"),
            _ => bail!("the node answered out of turn; are both of one version?"),
        };
        done += finished as u64;
        room.add_permits(finished);
    }
    Ok(tally)
}

/// What became of what was sent.
#[derive(Default)]
struct Tally {
    /// Messages that were queued for no member: how many for which reason.
    refused: BTreeMap<String, u64>,
    members: BTreeMap<NodeId, Counts>,
}

/// What became of the messages to one member.
#[derive(Clone, Copy, Default, Serialize)]
struct Counts {
    /// Queued for it; those to a role count where they ended.
    sent: u64,
    delivered: u64,
    expired: u64,
    peer_lost_state: u64,
    abandoned: u64,
}

impl Counts {
    fn add(&mut self, fate: Fate, count: u64) {
        *match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Expired => &mut self.expired,
            Fate::PeerLostState => &mut self.peer_lost_state,
            Fate::Abandoned => &mut self.abandoned,
        } += count;
    }

    fn failed(&self) -> u64 {
        self.expired + self.peer_lost_state + self.abandoned
    }
}

/// The tally as it is printed.
#[derive(Serialize)]
struct Summary {
    sent: u64,
    delivered: u64,
    failed: u64,
    /// How often each reason came.
    reasons: BTreeMap<String, u64>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    name: String,
    id: String,
    #[serde(flatten)]
    counts: Counts,
}

impl Tally {
    /// Messages to a role went on to another owner.
    fn move_sent(&mut self, from: NodeId, to: NodeId, count: u64) {
        let before = self.members.entry(from).or_default();
        before.sent = before.sent.saturating_sub(count);
        self.members.entry(to).or_default().sent += count;
    }

    /// Calls the members by these names, and those that have none by their ids.
    fn summary(self, names: &BTreeMap<String, String>) -> Summary {
        let refused: u64 = self.refused.values().sum();
        let mut summary = Summary {
            sent: refused,
            delivered: 0,
            failed: refused,
            reasons: self.refused,
            members: Vec::new(),
        };
        for (node, counts) in self.members {
            let id = node.to_string();
            let name = names.get(&id).unwrap_or(&id).clone();
            summary.sent += counts.sent;
            summary.delivered += counts.delivered;
            summary.failed += counts.failed();
            for (count, what) in [
                (counts.expired, "did not accept it in time; it may still arrive"),
                (counts.peer_lost_state, "restarted; it may have been delivered before"),
                (counts.abandoned, "was forgotten, or this node left"),
            ] {
                if count > 0 {
                    *summary.reasons.entry(format!("{name} {what}")).or_default() += count;
                }
            }
            summary.members.push(Member { name, id, counts });
        }
        summary
    }
}
