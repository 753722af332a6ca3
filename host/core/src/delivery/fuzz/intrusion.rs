//! An inbox alone.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::time::Duration;

use overlan_wire::frame::{Frames, RunWriter};
use overlan_wire::limits::{CLUSTER_STREAM, MESSAGE_WINDOW};
use overlan_wire::{Fragment, Frame, MessageId, MessageMode};

use super::{Dice, MODES, PEER, STEPS};
use crate::delivery::arrivals::Arrivals;
use crate::delivery::inbox::Inbox;
use crate::delivery::tests::ends;
use crate::time::Instant;

/// An inbox and a peer that contradicts itself.
pub(super) struct Intrusion {
    dice: Dice,
    now: Instant,
    inbox: Inbox,
    taken: BTreeSet<(u16, u64)>,
    /// About here the numbers of the messages are.
    base: u64,
}

impl Intrusion {
    pub(super) fn new(seed: u64) -> Self {
        let inbox = Inbox::new(0);
        Intrusion { dice: Dice::new(seed), now: Instant::ZERO, inbox, taken: BTreeSet::new(), base: 0 }
    }

    pub(super) fn act(mut self) {
        for step in 0..STEPS {
            match self.dice.below(8) {
                0..=2 => self.send_fragment(),
                3..=5 => self.send_run(),
                6 => self.consume(),
                _ => self.pass_time(),
            }
            // It goes through all of the window.
            if step % 40 == 0 {
                self.inbox.check();
            }
        }
        while self.inbox.pop_ready(|_| true).is_some() {}
        assert!(!self.inbox.has_ready(|_| true));
        self.inbox.check();
    }

    /// Mostly one in use, at times one at the edge of the window or of what numbers there are.
    fn number(&mut self) -> u64 {
        match self.dice.below(10) {
            0 => u64::MAX - self.dice.below(5),
            1 => self.base + MESSAGE_WINDOW - self.dice.below(20),
            2 => 0,
            _ => self.base + self.dice.below(20),
        }
    }

    /// Stream, mode, number and place in the order.
    fn header(&mut self) -> (u16, MessageMode, MessageId, u64) {
        let stream = self.dice.pick(&[0, 0, 0, 0, 1, 1, CLUSTER_STREAM, 300]);
        let (mode, id) = (self.dice.pick(&MODES), self.number());
        let order = if self.dice.one_in(3) { self.number() } else { id };
        (stream, mode, MessageId(id), order)
    }

    fn send_fragment(&mut self) {
        let (stream, mode, message, order) = self.header();
        let total = self.dice.below(40) as u32;
        let offset = self.dice.below(u64::from(total.max(1))) as u32;
        let len = if total > 0 { 1 + self.dice.below(u64::from(total - offset)) } else { 0 };
        let payload = &vec![3; len as usize];
        let redelivered = false;
        let fragment = Fragment { message, mode, redelivered, stream, order, total, offset, payload };
        self.inbox.handle_fragment(&fragment, ends(), self.now);
    }

    fn send_run(&mut self) {
        let (stream, mode, first, order) = self.header();
        let mut out = Vec::new();
        let mut run = RunWriter::start(&mut out, stream, mode, self.dice.one_in(2), first, order);
        for _ in 0..1 + self.dice.below(6) {
            run.push(&vec![4; self.dice.below(30) as usize]);
        }
        run.finish();
        // The parser refuses numbers beyond the last.
        if let Some(Ok(Frame::Run(run))) = Frames::new(&out).next() {
            self.inbox.handle_run(&run, ends());
        }
    }

    /// Takes some, not always all of what came together, and not always any.
    fn consume(&mut self) {
        let mut runs = self.dice.below(8);
        let Intrusion { dice, inbox, taken, base, .. } = self;
        let take = |arrivals: &mut Arrivals<'_>| {
            let (stream, mode) = (arrivals.stream, arrivals.mode);
            let (first, payloads) = arrivals.take_run(dice.below(4) as usize);
            if mode != MessageMode::Unreliable {
                for id in (first.0..).take(payloads.len()) {
                    assert!(taken.insert((stream, id)), "message {id} came twice");
                    *base = (*base).max(id.min(1_000));
                }
            }
            if runs == 0 {
                return ControlFlow::Break(());
            }
            runs -= 1;
            ControlFlow::Continue(())
        };
        inbox.take_ready(PEER, |_| true, take);
    }

    fn pass_time(&mut self) {
        self.now = self.now + Duration::from_millis(self.dice.below(3_000));
        while let Some(stream) = self.inbox.changed() {
            self.inbox.tell_accepted(stream, usize::MAX, |_| true);
        }
        match self.dice.below(10) {
            0 => self.inbox.shrink(),
            1 => self.inbox.set_window(self.dice.below(40 << 20) as usize),
            _ => {}
        }
    }
}
