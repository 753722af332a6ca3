//! The two ends of delivery against each other, without a network.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use overlan_wire::frame::{Accepted, Frames};
use overlan_wire::limits::{CLUSTER_STREAM, MAX_MESSAGE};
use overlan_wire::{Frame, MessageId, MessageMode, PathId};

use super::inbox::{Inbox, Taken, TakenRun};
use super::outbox::{Outbox, Queued, Space, Take};
use super::pool::Pool;
use super::{Content, INITIAL_CREDIT};
use crate::event::Fate;
use crate::time::Instant;

const TAKE: Take = Take { path: PathId(0), fresh: true, last_resort: true, instead_of: None };
const APPLICATION: u16 = 0;

fn message(len: usize) -> Queued {
    let (mode, deadline) = (MessageMode::Ordered, None);
    Queued { mode, redelivered: false, payloads: vec![vec![7; len].into()], token: 1, deadline }
}

fn ends() -> (SocketAddr, SocketAddr) {
    (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1)))
}

/// One datagram of this size; empty where there was nothing to send.
fn datagram(outbox: &mut Outbox, size: usize) -> (Vec<u8>, Vec<Content>) {
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
        inbox.tell_accepted(stream, |accepted| outbox.handle_accepted(&accepted));
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
    assert!(outbox.has_work(TAKE));
}

#[test]
fn a_message_that_expires_in_the_queue_leaves_no_gap() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0, Pool::new()));
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
    assert!(!outbox.has_work(TAKE));
}

/// With no credit left for applications, the cluster's own messages pass, once each.
#[test]
fn the_clusters_own_need_no_credit_of_applications() {
    let (mut outbox, mut inbox) = (Outbox::new(128 << 20), Inbox::new(0, Pool::new()));
    outbox.push(APPLICATION, message(MAX_MESSAGE)).unwrap();
    datagram(&mut outbox, 17 << 20);
    outbox.push(APPLICATION, message(10)).unwrap();
    assert!(!outbox.has_work(TAKE));
    for _ in 0..1_000 {
        outbox.push(CLUSTER_STREAM, message(100)).unwrap();
        while outbox.has_work(TAKE) {
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
    let (mut outbox, mut inbox) = (Outbox::new(64 << 20), Inbox::new(64 << 20, Pool::new()));
    accept(&mut inbox, &mut outbox);
    for round in 0..200 {
        while outbox.push(1, message(1 << 20)).is_ok() {}
        outbox.push(2, message(1 << 20)).unwrap();
        while outbox.has_work(TAKE) {
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
    while outbox.has_work(TAKE) {
        sent += datagram(&mut outbox, 1_400).0.len();
    }
    assert!(sent as u64 <= INITIAL_CREDIT + INITIAL_CREDIT / 16);
}

/// A lost run is sent again, without what arrived by another path meanwhile, also through smaller datagrams.
#[test]
fn a_lost_run_goes_again() {
    let (mut outbox, mut inbox) = (Outbox::new(1 << 20), Inbox::new(0, Pool::new()));
    for len in [300, 500, 100] {
        outbox.push(APPLICATION, message(len)).unwrap();
    }
    let (_, lost) = datagram(&mut outbox, 1_400);
    let [content @ Content::Run { stream, count: 3, .. }] = lost[..] else { panic!("{lost:?}") };
    outbox.handle_lost(content, super::outbox::Via::Any);
    outbox.handle_acked(Content::Run { stream, first: MessageId(2), count: 1 });
    while outbox.has_work(TAKE) {
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
    assert!(outbox.cancel(5..6));
    assert!(!outbox.cancel(5..6));
    assert_eq!(outbox.poll_fate(), Some((5..6, Fate::Expired)));
    assert!(!outbox.has_work(TAKE));
    outbox.push(APPLICATION, message(10)).unwrap();
    assert!(outbox.has_work(TAKE));
}
