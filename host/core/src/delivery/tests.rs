//! The two ends of delivery against each other, without a network.

use alloc::vec;
use core::time::Duration;

use overlan_wire::frame::Accepted;
use overlan_wire::{Fragment, MessageId, MessageMode, PathId};

use super::outbox::{Outbox, Outgoing, Take};
use super::CLASS_APPLICATION;
use crate::time::Instant;

const TAKE: Take = Take { path: PathId(0), fresh: true, last_resort: true, instead_of: None };

fn message(class: u8, len: usize, deadline: Option<Instant>) -> Outgoing {
    Outgoing { mode: MessageMode::Ordered, class, payload: vec![7; len], token: 1, deadline }
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
