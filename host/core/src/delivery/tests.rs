//! The two ends of delivery against each other, without a network.

use alloc::vec;
use core::time::Duration;

use overlan_wire::frame::Accepted;
use overlan_wire::{Fragment, MessageId, MessageMode, PathId};

use super::inbox::{Inbox, Taken};
use super::outbox::{Outbox, Queued, Take};
use super::{CLASS_APPLICATION, CLASS_CLUSTER, CLUSTER_WINDOW};
use crate::time::Instant;

const TAKE: Take = Take { path: PathId(0), fresh: true, last_resort: true, instead_of: None };

fn message(class: u8, len: usize, deadline: Option<Instant>) -> Queued {
    Queued { mode: MessageMode::Ordered, class, payload: vec![7; len].into(), token: 1, deadline }
}

/// A peer that claims to have accepted what was not sent yet is refused; nothing hangs.
#[test]
fn what_was_not_sent_cannot_be_accepted() {
    let mut outbox = Outbox::new(1 << 20);
    outbox.push(message(CLASS_APPLICATION, 1_000, None)).unwrap();
    outbox.take_fragment(TAKE, 400, |_: Fragment<'_>| ()).unwrap();
    for floor in [1, 2, u64::MAX] {
        let accepted = Accepted { floor: MessageId(floor), bitmap: vec![0xff; 512], credit: 0 };
        assert!(outbox.handle_accepted(&accepted).is_none());
    }
    assert!(outbox.has_work(TAKE));
}

#[test]
fn a_message_that_expires_in_the_queue_leaves_no_gap() {
    let mut outbox = Outbox::new(1 << 20);
    let soon = Instant::ZERO + Duration::from_secs(1);
    outbox.push(message(CLASS_APPLICATION, 10, None)).unwrap();
    outbox.push(message(CLASS_APPLICATION, 10, Some(soon))).unwrap();
    outbox.push(message(CLASS_APPLICATION, 10, None)).unwrap();
    let mut sent = vec![];
    outbox.take_fragment(TAKE, 400, |fragment| sent.push((fragment.message.0, fragment.order))).unwrap();
    assert_eq!(outbox.next_deadline(), Some(soon));
    assert_eq!(outbox.expire(soon).len(), 1);
    assert_eq!(outbox.next_deadline(), None);
    outbox.take_fragment(TAKE, 400, |fragment| sent.push((fragment.message.0, fragment.order))).unwrap();
    assert_eq!(sent, [(0, 0), (1, 1)]);
    assert!(!outbox.has_work(TAKE));
}

/// With no credit left for applications, the cluster's own messages pass, once each, and are done when they
/// arrived.
#[test]
fn the_clusters_own_need_no_credit() {
    let mut outbox = Outbox::new(64 << 20);
    let mut inbox = Inbox::new(0);
    outbox.push(message(CLASS_APPLICATION, overlan_wire::limits::MAX_MESSAGE, None)).unwrap();
    outbox.take_fragment(TAKE, 16 << 20, |_: Fragment<'_>| ()).unwrap();
    outbox.push(message(CLASS_APPLICATION, 10, None)).unwrap();
    assert!(!outbox.has_work(TAKE));
    let ends = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
    for _ in 0..1_000 {
        outbox.push(message(CLASS_CLUSTER, 100, None)).unwrap();
        while outbox.has_work(TAKE) {
            let mut taken = vec![];
            let content = outbox.take_fragment(TAKE, 60, |fragment| {
                taken.push(inbox.handle_fragment(&fragment, ends, Instant::ZERO));
                taken.push(inbox.handle_fragment(&fragment, ends, Instant::ZERO));
            });
            assert_eq!(taken, [Taken::New, Taken::Duplicate]);
            outbox.handle_acked(content.flatten().unwrap());
        }
        assert_eq!(inbox.pop_internal(), Some(vec![7; 100]));
        assert_eq!(inbox.pop_internal(), None);
    }
}

#[test]
fn the_clusters_own_are_bounded() {
    let mut outbox = Outbox::new(64 << 20);
    let mut sent = 0;
    for _ in 0..2 * CLUSTER_WINDOW {
        outbox.push(message(CLASS_CLUSTER, 1, None)).unwrap();
    }
    while outbox.has_work(TAKE) {
        outbox.take_fragment(TAKE, 60, |_: Fragment<'_>| sent += 1).unwrap();
    }
    assert_eq!(sent, CLUSTER_WINDOW);
}
