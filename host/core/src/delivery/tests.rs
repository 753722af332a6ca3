//! The two ends of delivery against each other, without a network.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::slice::from_ref;
use core::time::Duration;

use overlan_wire::frame::{Accepted, Frames, RunWriter};
use overlan_wire::limits::{CLUSTER_STREAM, MAX_MESSAGE};
use overlan_wire::{Fragment, Frame, MessageId, MessageMode, PathId};

use super::inbox::{Inbox, Taken, TakenRun};
use super::outbox::{Next, Outbox, Queued, Space, Take};
use super::{Content, INITIAL_CREDIT};
use crate::event::Fate;
use crate::time::Instant;

pub(super) const TAKE: Take = Take { path: PathId(0), fresh: true, last_resort: true, instead_of: None };
const APPLICATION: u16 = 0;

fn message(len: usize) -> Queued {
    let (mode, deadline) = (MessageMode::Ordered, None);
    Queued { mode, redelivered: false, payloads: vec![vec![7; len].into()], token: 1, deadline }
}

pub(super) fn ends() -> (SocketAddr, SocketAddr) {
    (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1)))
}

/// One datagram of this size; empty where there was nothing to send.
pub(super) fn datagram(outbox: &mut Outbox, size: usize) -> (Vec<u8>, Vec<Content>) {
    let (mut out, mut contents) = (Vec::new(), Vec::new());
    loop {
        let space = Space { room: size - out.len(), full: size, budget: size - out.len() };
        match outbox.emit(TAKE, space, &mut out) {
            Some(content) => contents.extend(content),
            None => return (out, contents),
        }
    }
}

/// Takes a datagram's frames; panics on what is not new.
fn deliver(inbox: &mut Inbox, datagram: &[u8]) {
    for frame in Frames::new(datagram) {
        match frame.unwrap() {
            Frame::Fragment(fragment) => {
                assert_eq!(inbox.handle_fragment(&fragment, ends(), Instant::ZERO), Taken::New);
                assert_eq!(inbox.handle_fragment(&fragment, ends(), Instant::ZERO), Taken::Duplicate);
            }
            Frame::Run(run) => {
                assert_eq!(inbox.handle_run(&run, ends()), TakenRun::default());
                assert_eq!(inbox.handle_run(&run, ends()).duplicate, run.payloads().count() as u64);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Tells the sender what was accepted.
fn accept(inbox: &mut Inbox, outbox: &mut Outbox) {
    while let Some(stream) = inbox.changed() {
        inbox.tell_accepted(stream, usize::MAX, |accepted| outbox.handle_accepted(&accepted));
    }
}

fn fates(outbox: &mut Outbox) -> Vec<Fate> {
    core::iter::from_fn(|| outbox.poll_fate()).flat_map(|(tokens, fate)| tokens.map(move |_| fate)).collect()
}

/// A peer that claims to have accepted what was not sent yet is refused; nothing hangs.
#[test]
fn what_was_not_sent_cannot_be_accepted() {
    let mut outbox = Outbox::new(1 << 20);
    outbox.push(APPLICATION, message(1_000)).unwrap();
    let mut out = Vec::new();
    outbox.emit(TAKE, Space { room: 400, full: 400, budget: 400 }, &mut out).unwrap();
    for floor in [1, 2, u64::MAX] {
        for stream in [APPLICATION, 1] {
            let accepted = Accepted {
                stream,
                floor: MessageId(floor),
                bitmap: &[0xff; 512],
                credit: 0,
                credit_in_all: 0,
            };
            assert!(!outbox.handle_accepted(&accepted));
        }
    }
    assert!(outbox.next(TAKE) != Next::Nothing);
}

#[test]
fn a_message_that_expires_in_the_queue_leaves_no_gap() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0));
    let soon = Instant::ZERO + Duration::from_secs(1);
    outbox.push(APPLICATION, message(10)).unwrap();
    outbox.push(APPLICATION, Queued { deadline: Some(soon), ..message(10) }).unwrap();
    outbox.push(APPLICATION, message(11)).unwrap();
    assert_eq!(outbox.next_deadline(), Some(soon));
    outbox.expire(soon);
    assert_eq!(fates(&mut outbox), [Fate::Expired]);
    assert_eq!(outbox.next_deadline(), None);
    deliver(&mut inbox, &datagram(&mut outbox, 400).0);
    assert_eq!(inbox.pop_ready(|_| true).unwrap().payload.len(), 10);
    assert_eq!(inbox.pop_ready(|_| true).unwrap().payload.len(), 11);
    accept(&mut inbox, &mut outbox);
    assert_eq!(fates(&mut outbox), [Fate::Delivered; 2]);
    assert!(outbox.next(TAKE) == Next::Nothing);
}

/// With no credit left for applications, the cluster's own messages pass, once each.
#[test]
fn the_clusters_own_need_no_credit_of_applications() {
    let (mut outbox, mut inbox) = (Outbox::new(128 << 20), Inbox::new(0));
    outbox.push(APPLICATION, message(MAX_MESSAGE)).unwrap();
    datagram(&mut outbox, 17 << 20);
    outbox.push(APPLICATION, message(10)).unwrap();
    assert!(outbox.next(TAKE) == Next::Nothing);
    for _ in 0..1_000 {
        outbox.push(CLUSTER_STREAM, message(100)).unwrap();
        while outbox.next(TAKE) != Next::Nothing {
            deliver(&mut inbox, &datagram(&mut outbox, 110).0);
        }
        accept(&mut inbox, &mut outbox);
        assert_eq!(inbox.pop_internal().unwrap(), vec![7; 100]);
        assert_eq!(inbox.pop_internal(), None);
    }
}

/// A consumer that takes nothing of one stream holds up that stream alone.
#[test]
fn a_stream_that_stands_still_leaves_room_to_others() {
    let (mut outbox, mut inbox) = (Outbox::new(64 << 20), Inbox::new(64 << 20));
    accept(&mut inbox, &mut outbox);
    for round in 0..200 {
        while outbox.push(1, message(1 << 20)).is_ok() {}
        outbox.push(2, message(1 << 20)).unwrap();
        while outbox.next(TAKE) != Next::Nothing {
            deliver(&mut inbox, &datagram(&mut outbox, 60_000).0);
        }
        assert!(inbox.pop_ready(|stream| stream == 2).is_some(), "round {round}");
        accept(&mut inbox, &mut outbox);
        assert_eq!(fates(&mut outbox), [Fate::Delivered]);
    }
}

#[test]
fn what_a_sender_may_open_is_bounded() {
    let mut outbox = Outbox::new(64 << 20);
    while outbox.push(APPLICATION, message(1 << 16)).is_ok() {}
    let mut sent = 0;
    while outbox.next(TAKE) != Next::Nothing {
        sent += datagram(&mut outbox, 1_400).0.len();
    }
    assert!(sent as u64 <= INITIAL_CREDIT + INITIAL_CREDIT / 16);
}

/// A lost run is sent again, without what arrived by another path meanwhile, also through smaller datagrams.
#[test]
fn a_lost_run_goes_again() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0));
    for len in [300, 500, 100] {
        outbox.push(APPLICATION, message(len)).unwrap();
    }
    let (_, lost) = datagram(&mut outbox, 1_400);
    let [content @ Content::Run { stream, count: 3, .. }] = lost[..] else { panic!("{lost:?}") };
    outbox.handle_lost(content, super::outbox::Via::Any);
    outbox.handle_acked(Content::Run { stream, first: MessageId(2), count: 1 });
    while outbox.next(TAKE) != Next::Nothing {
        deliver(&mut inbox, &datagram(&mut outbox, 400).0);
    }
    assert_eq!(inbox.pop_ready(|_| true).unwrap().payload.len(), 300);
    assert_eq!(inbox.pop_ready(|_| true).unwrap().payload.len(), 500);
    assert!(inbox.pop_ready(|_| true).is_none());
}

#[test]
fn a_cancelled_message_is_reported_once() {
    let mut outbox = Outbox::new(1 << 20);
    outbox.push(APPLICATION, Queued { token: 5, ..message(10) }).unwrap();
    assert!(outbox.cancel(from_ref(&(5..6))));
    assert!(!outbox.cancel(from_ref(&(5..6))));
    assert_eq!(outbox.poll_fate(), Some((5..6, Fate::Expired)));
    assert!(outbox.next(TAKE) == Next::Nothing);
    outbox.push(APPLICATION, message(10)).unwrap();
    assert!(outbox.next(TAKE) != Next::Nothing);
}

/// Messages with these tokens, as long as their tokens say.
fn batch(tokens: core::ops::Range<u64>) -> Queued {
    let payloads = tokens.clone().map(|token| vec![7; token as usize].into()).collect();
    Queued { payloads, token: tokens.start, ..message(0) }
}

fn reports(outbox: &mut Outbox) -> Vec<(core::ops::Range<u64>, Fate)> {
    core::iter::from_fn(|| outbox.poll_fate()).collect()
}

/// Part of a batch has left when some of it is wanted no more: that which left goes on without a further word, that
/// which did not is dropped, and the rest arrives in its order.
#[test]
fn some_of_a_batch_is_wanted_no_more() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0));
    outbox.push(APPLICATION, batch(10..30)).unwrap();
    let (first, contents) = datagram(&mut outbox, 200);
    let [Content::Run { count, .. }] = contents[..] else { panic!("{contents:?}") };
    let left = 10 + u64::from(count);
    assert!((12..25).contains(&left), "{left}");
    assert!(outbox.cancel(from_ref(&(left - 1..left + 3))));
    assert_eq!(reports(&mut outbox), [(left - 1..left, Fate::Expired), (left..left + 3, Fate::Expired)]);
    deliver(&mut inbox, &first);
    while outbox.next(TAKE) != Next::Nothing {
        deliver(&mut inbox, &datagram(&mut outbox, 200).0);
    }
    let arrived: Vec<u64> = core::iter::from_fn(|| inbox.pop_ready(|_| true))
        .map(|message| message.payload.len() as u64)
        .collect();
    assert_eq!(arrived, (10..left).chain(left + 3..30).collect::<Vec<u64>>());
    accept(&mut inbox, &mut outbox);
    assert_eq!(reports(&mut outbox), [(10..left - 1, Fate::Delivered), (left + 3..30, Fate::Delivered)]);
    assert!(outbox.is_settled());
}

/// A batch that the queue has no room for comes back in part, and what a restarted peer has not seen is not lost.
#[test]
fn a_batch_may_be_queued_in_part() {
    let mut outbox = Outbox::new(4 * 500);
    let rest = outbox.push(APPLICATION, batch(10..30)).unwrap_err();
    assert_eq!((rest.token, rest.payloads.len()), (17, 13), "the share of the stream is 500 bytes");
    assert!(outbox.push(APPLICATION, rest).is_err());
    let (_, contents) = datagram(&mut outbox, 60);
    let [Content::Run { count: 2, .. }] = contents[..] else { panic!("{contents:?}") };
    outbox.restart();
    assert_eq!(reports(&mut outbox), [(10..12, Fate::PeerLostState)]);
    let mut inbox = Inbox::new(0);
    deliver(&mut inbox, &datagram(&mut outbox, 400).0);
    inbox.take_ready(
        overlan_wire::NodeId([1; 16]),
        |_| true,
        |arrivals| {
            assert_eq!(arrivals.next().unwrap().payload.len(), 12);
            core::ops::ControlFlow::Continue(())
        },
    );
    accept(&mut inbox, &mut outbox);
    assert_eq!(reports(&mut outbox), [(12..13, Fate::Delivered)]);
    assert_eq!(outbox.take_writable(), None, "more than half of its share is taken");
    let arrived: Vec<usize> =
        core::iter::from_fn(|| inbox.pop_ready(|_| true)).map(|message| message.payload.len()).collect();
    assert_eq!(arrived, [13, 14, 15, 16]);
    accept(&mut inbox, &mut outbox);
    assert_eq!(outbox.take_writable(), Some(APPLICATION));
}

/// What arrives is taken row by row where it came in order, and one by one where it did not.
#[test]
fn runs_in_any_order_arrive_in_theirs() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0));
    outbox.push(APPLICATION, batch(0..40)).unwrap();
    outbox.push(APPLICATION, Queued { mode: MessageMode::Reliable, ..batch(40..60) }).unwrap();
    let mut datagrams: Vec<_> =
        core::iter::from_fn(|| (outbox.next(TAKE) != Next::Nothing).then(|| datagram(&mut outbox, 200).0))
            .collect();
    let middle = datagrams.len() / 2;
    datagrams.swap(1, middle);
    for bytes in &datagrams {
        deliver(&mut inbox, bytes);
        accept(&mut inbox, &mut outbox);
    }
    let arrived = core::iter::from_fn(|| inbox.pop_ready(|_| true));
    let (ordered, others): (Vec<_>, Vec<_>) =
        arrived.partition(|message| message.mode == MessageMode::Ordered);
    let lengths =
        |messages: &[crate::Message]| messages.iter().map(|message| message.payload.len()).collect();
    let (ordered, mut others): (Vec<usize>, Vec<usize>) = (lengths(&ordered), lengths(&others));
    others.sort_unstable();
    assert_eq!((ordered, others), ((0..40).collect(), (40..60).collect()));
    accept(&mut inbox, &mut outbox);
    let delivered: u64 = reports(&mut outbox).iter().map(|(tokens, _)| tokens.end - tokens.start).sum();
    assert_eq!(delivered, 60);
    assert!(outbox.is_settled());
}

/// What the core itself has accepted of the cluster's own messages makes room for more of them, without end.
#[test]
fn the_clusters_own_credit_grows() {
    let (mut outbox, mut inbox) = (Outbox::new(128 << 20), Inbox::new(0));
    for round in 0..60 {
        outbox.push(CLUSTER_STREAM, message(1 << 20)).unwrap();
        while outbox.next(TAKE) != Next::Nothing {
            deliver(&mut inbox, &datagram(&mut outbox, 60_000).0);
        }
        accept(&mut inbox, &mut outbox);
        assert!(inbox.pop_internal().is_some(), "round {round}");
    }
}

/// The one byte at an offset of a message of this length.
fn fragment(id: u64, mode: MessageMode, total: u32, offset: u32) -> Fragment<'static> {
    let (message, payload) = (MessageId(id), &b"x"[..]);
    Fragment { message, mode, redelivered: false, stream: APPLICATION, order: 0, total, offset, payload }
}

/// Takes a run of one message that is not ordered.
fn take_run(inbox: &mut Inbox, stream: u16, mode: MessageMode, id: u64, payload: &[u8]) -> TakenRun {
    let mut out = Vec::new();
    let mut run = RunWriter::start(&mut out, stream, mode, false, MessageId(id), 0);
    run.push(payload);
    run.finish();
    let Some(Ok(Frame::Run(run))) = Frames::new(&out).next() else { panic!("{out:?}") };
    inbox.handle_run(&run, ends())
}

/// A message that began as a short one and comes whole as a long one would cost more than it was counted for.
#[test]
fn a_message_costs_what_was_counted() {
    let mut inbox = Inbox::new(0);
    let mut held = 0;
    for id in 0..2_000 {
        let opened = inbox.handle_fragment(&fragment(id, MessageMode::Reliable, 2, 0), ends(), Instant::ZERO);
        assert_eq!(opened, Taken::New);
        let taken = take_run(&mut inbox, APPLICATION, MessageMode::Reliable, id, &[1; 60_000]);
        held += if taken == TakenRun::default() { 60_000 } else { 0 };
    }
    assert!(held <= INITIAL_CREDIT, "{held} bytes wait for a consumer");
}

/// Unreliable messages that were given up and come again, longer, are bounded as others are.
#[test]
fn what_is_reassembled_again_is_bounded() {
    let mut inbox = Inbox::new(0);
    for (round, total) in [100, MAX_MESSAGE as u32].into_iter().enumerate() {
        for id in 0..60 {
            let now = Instant::ZERO + Duration::from_millis(5_000 * round as u64 + 50 * id);
            let last = fragment(id, MessageMode::Unreliable, total, total - 1);
            assert_eq!(inbox.handle_fragment(&last, ends(), now), Taken::New);
            inbox.check();
        }
    }
}

/// The cluster's own messages are reliable: others did not come from its like.
#[test]
fn the_clusters_own_are_never_unreliable() {
    let mut inbox = Inbox::new(0);
    let taken = take_run(&mut inbox, CLUSTER_STREAM, MessageMode::Unreliable, 9, b"abc");
    assert_eq!(taken, TakenRun { refused: 1, ..TakenRun::default() });
    assert_eq!(inbox.pop_internal(), None);
}

/// Of a peer that is given up nothing stays: each message has its fate, and whoever waits for room hears.
#[test]
fn a_peer_given_up_leaves_nothing_behind() {
    let mut outbox = Outbox::new(64 << 20);
    let queued = (0..).take_while(|_| outbox.push(APPLICATION, message(1 << 20)).is_ok()).count();
    while outbox.next(TAKE) != Next::Nothing {
        datagram(&mut outbox, 60_000);
    }
    outbox.abandon();
    assert_eq!(fates(&mut outbox), vec![Fate::Abandoned; queued]);
    assert_eq!(outbox.take_writable(), Some(APPLICATION));
}
