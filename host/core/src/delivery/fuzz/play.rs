//! Two ends of delivery and a network between them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::slice::from_ref;
use core::time::Duration;

use overlan_wire::frame::{Accepted, Frames};
use overlan_wire::{Frame, MessageId, MessageMode, PathId};

use super::{Dice, MODES, PEER, STEPS};
use crate::Message;
use crate::delivery::Content;
use crate::delivery::arrivals::Arrivals;
use crate::delivery::inbox::{Inbox, Taken};
use crate::delivery::outbox::{Next, Outbox, Queued, Via};
use crate::delivery::tests::{TAKE, datagram, ends};
use crate::event::Fate;
use crate::time::Instant;

/// Rounds without anything sent after which a play is over.
const QUIET: u32 = 15;

/// A report of a stream, kept to be repeated.
#[derive(Clone)]
struct Report {
    stream: u16,
    floor: u64,
    credit: u64,
    credit_in_all: u64,
    bitmap: Vec<u8>,
}

impl Report {
    fn of(accepted: &Accepted<'_>) -> Self {
        let &Accepted { stream, floor, credit, credit_in_all, bitmap } = accepted;
        Report { stream, floor: floor.0, credit, credit_in_all, bitmap: bitmap.to_vec() }
    }

    /// Whether the outbox believes it.
    fn tell(&self, outbox: &mut Outbox) -> bool {
        let &Report { stream, floor, credit, credit_in_all, ref bitmap } = self;
        outbox.handle_accepted(&Accepted { stream, floor: MessageId(floor), credit, credit_in_all, bitmap })
    }
}

/// Two ends and all that is between them. Payloads begin with their tokens.
pub(super) struct Play {
    dice: Dice,
    hostile: bool,
    /// All is to come to its end: nothing is lost, everything is read.
    ending: bool,
    now: Instant,
    limit: usize,
    outbox: Outbox,
    inbox: Inbox,
    /// Of the next message.
    token: u64,
    /// Reliable messages that were queued.
    reliable: BTreeSet<u64>,
    fates: BTreeMap<u64, Fate>,
    received: BTreeSet<u64>,
    /// The last ordered message that was received in each stream.
    ordered: BTreeMap<u16, u64>,
    /// Streams that have no room, and are to be told when they have.
    refused: BTreeSet<u16>,
    /// Datagrams under way.
    flight: Vec<(Vec<u8>, Vec<Content>)>,
    reports: Vec<Report>,
    /// How what is lost goes again.
    via: Via,
    /// Rounds since something was sent.
    quiet: u32,
}

impl Play {
    pub(super) fn new(seed: u64, hostile: bool) -> Self {
        let mut dice = Dice::new(seed);
        let limit = dice.pick(&[2_000, 20_000, 1 << 20, 64 << 20]);
        Play {
            dice,
            hostile,
            ending: false,
            now: Instant::ZERO,
            limit,
            outbox: Outbox::new(limit),
            inbox: Inbox::new(0),
            token: 0,
            reliable: BTreeSet::new(),
            fates: BTreeMap::new(),
            received: BTreeSet::new(),
            ordered: BTreeMap::new(),
            refused: BTreeSet::new(),
            flight: Vec::new(),
            reports: Vec::new(),
            via: Via::Any,
            quiet: 0,
        }
    }

    pub(super) fn act(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.ending = true;
        while self.quiet < QUIET {
            self.quiet += 1;
            self.transmit();
            self.arrive();
            self.consume();
            self.report();
            self.check();
        }
        if !self.hostile {
            let silent = self.reliable.iter().find(|token| !self.fates.contains_key(token));
            assert_eq!(silent, None, "a message has no fate");
            assert!(self.outbox.is_settled());
            assert!(self.outbox.next(TAKE) == Next::Nothing);
            assert!(self.refused.is_empty(), "{:?} wait for room", self.refused);
        }
    }

    fn step(&mut self) {
        match self.dice.below(14) {
            0..=2 => self.push(),
            3..=5 => self.transmit(),
            6..=8 => self.arrive(),
            9..=10 => {
                self.consume();
                self.report();
            }
            11 => {
                let first = self.dice.below(self.token + 1);
                let end = first + self.dice.below(30);
                self.outbox.cancel(from_ref(&(first..end)));
            }
            12 => {
                self.now = self.now + Duration::from_millis(self.dice.below(20));
                self.outbox.expire(self.now);
            }
            _ => self.turn_of_events(),
        }
    }

    fn turn_of_events(&mut self) {
        match self.dice.below(40) {
            0 => self.forget(),
            1 => {
                self.outbox.restart();
                self.meet_anew();
            }
            2 => self.outbox.shrink(),
            3 => self.inbox.shrink(),
            _ => self.via = self.dice.pick(&[Via::Not(PathId(0)), Via::Any]),
        }
    }

    /// The peer is given up, with all that was for it; another life begins.
    fn forget(&mut self) {
        self.outbox.abandon();
        self.check();
        assert!(self.reliable.iter().all(|token| self.fates.contains_key(token)), "a message has no fate");
        self.outbox = Outbox::new(self.limit);
        self.refused.clear();
        self.meet_anew();
    }

    /// The peer knows nothing of what was.
    fn meet_anew(&mut self) {
        self.inbox = Inbox::new(0);
        self.flight.clear();
        self.reports.clear();
        self.ordered.clear();
    }

    /// The application sends messages together.
    fn push(&mut self) {
        let most = self.dice.pick(&[200, 4, 4, 4]);
        let count = 1 + self.dice.below(most);
        let longest = self.dice.pick(&[3_000, 60, 60, 60, 60]);
        let message = |token: u64| {
            let mut payload = token.to_be_bytes().to_vec();
            payload.resize(8 + self.dice.below(longest) as usize, 1);
            payload.into()
        };
        let payloads = (self.token..self.token + count).map(message).collect();
        let mode = self.dice.pick(&[MODES[0], MODES[1], MODES[2], MODES[2]]);
        let (stream, redelivered) = (self.dice.below(3) as u16, self.dice.one_in(5));
        let deadline = self.dice.one_in(4).then(|| self.now + Duration::from_millis(self.dice.below(50)));
        let queued = Queued { mode, redelivered, payloads, token: self.token, deadline };
        let mut end = self.token + count;
        if let Err(rest) = self.outbox.push(stream, queued) {
            end -= rest.payloads.len() as u64;
            assert_eq!(rest.token, end);
            self.refused.insert(stream);
        }
        if mode != MessageMode::Unreliable {
            self.reliable.extend(self.token..end);
        }
        self.token += count;
    }

    fn transmit(&mut self) {
        for _ in 0..1 + self.dice.below(4) {
            let size = self.dice.pick(&[300, 1_200, 1_400]);
            let (bytes, contents) = datagram(&mut self.outbox, size);
            assert!(bytes.len() <= size);
            if !bytes.is_empty() {
                self.flight.push((bytes, contents));
                self.quiet = 0;
            }
        }
    }

    /// Some of what is under way arrives or is lost, and the sender hears of it, or believes it lost.
    fn arrive(&mut self) {
        let some = if self.ending { 50 } else { 1 + self.dice.below(5) };
        for _ in 0..some.min(self.flight.len() as u64) {
            let at = self.dice.below(self.flight.len() as u64) as usize;
            let (bytes, contents) = self.flight.swap_remove(at);
            let lost = !self.ending && self.dice.one_in(4);
            if !lost {
                self.deliver(&bytes);
            }
            let acknowledged = !lost && !self.dice.one_in(6);
            for content in contents {
                if acknowledged {
                    self.outbox.handle_acked(content);
                }
                if !acknowledged || self.dice.one_in(10) {
                    self.outbox.handle_lost(content, self.via);
                }
            }
            self.via = Via::Any;
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        for frame in Frames::new(bytes) {
            let refused = match frame.unwrap() {
                Frame::Fragment(fragment) => {
                    let taken = self.inbox.handle_fragment(&fragment, ends(), self.now);
                    taken == Taken::Refused && fragment.mode != MessageMode::Unreliable
                }
                Frame::Run(run) => self.inbox.handle_run(&run, ends()).refused > 0,
                other => panic!("{other:?}"),
            };
            assert!(!refused || self.hostile, "what was granted is refused");
        }
    }

    /// Consumers take some messages; that of the last stream does so rarely.
    fn consume(&mut self) {
        let some = if self.ending { 4_000 } else { self.dice.below(20) };
        let last = self.ending || self.dice.one_in(3);
        for _ in 0..some {
            let mut taken = None;
            let take = |arrivals: &mut Arrivals<'_>| {
                taken = arrivals.next();
                ControlFlow::Break(())
            };
            self.inbox.take_ready(PEER, |stream| stream != 2 || last, take);
            let Some(message) = taken else { break };
            self.receive(&message);
        }
    }

    fn receive(&mut self, message: &Message) {
        let token = u64::from_be_bytes(*message.payload.first_chunk().unwrap());
        assert!(self.received.insert(token), "message {token} arrived twice");
        if message.mode == MessageMode::Ordered {
            let before = self.ordered.insert(message.stream, token);
            assert!(before < Some(token), "message {token} arrived after {before:?}");
        }
    }

    /// The sender hears what was accepted, some of it again and late, and of a hostile peer what never was.
    fn report(&mut self) {
        let mut told = self.ending || !self.dice.one_in(3);
        while told && let Some(stream) = self.inbox.changed() {
            let arrives = self.ending || !self.dice.one_in(4);
            let (outbox, reports, hostile) = (&mut self.outbox, &mut self.reports, self.hostile);
            self.inbox.tell_accepted(stream, usize::MAX, |accepted| {
                reports.push(Report::of(&accepted));
                assert!(!arrives || outbox.handle_accepted(&accepted) || hostile, "the truth is refused");
                arrives
            });
            told = self.ending || self.dice.one_in(2);
        }
        if !self.reports.is_empty() {
            self.dice.pick(&self.reports).tell(&mut self.outbox);
        }
        if self.hostile {
            let (near, far) = (self.dice.below(50), self.dice.below(600));
            let floor = self.dice.pick(&[0, near, far, u64::MAX - far]);
            let bitmap = (0..self.dice.below(20)).map(|_| self.dice.below(256) as u8).collect();
            let [credit, credit_in_all] = [(); 2].map(|()| self.dice.pick(&[0, u64::MAX]));
            let stream = self.dice.below(4) as u16;
            Report { stream, floor, credit, credit_in_all, bitmap }.tell(&mut self.outbox);
        }
    }

    /// Takes what the ends have to say, and looks whether it is true.
    fn check(&mut self) {
        while let Some((tokens, fate)) = self.outbox.poll_fate() {
            assert!(!tokens.is_empty());
            for token in tokens {
                assert!(self.reliable.contains(&token), "nobody queued message {token}");
                assert_eq!(self.fates.insert(token, fate), None, "message {token} has two fates");
                let arrived = fate != Fate::Delivered || self.received.contains(&token);
                assert!(arrived || self.hostile, "message {token} did not arrive");
            }
        }
        while let Some(stream) = self.outbox.take_writable() {
            assert!(self.refused.remove(&stream), "nobody waits for room in stream {stream}");
        }
        self.outbox.check();
        self.inbox.check();
    }
}
