//! An outbox over a core that has no consumer: messages to the node itself wait.

use overlan_contract::assignment::Responsibility;
use overlan_core::policy::{Answer, Question};
use overlan_core::{Config, Core};
use overlan_seal::{Identity, Keyring, Seal};
use overlan_wire::BootId;

use super::*;

const PAYLOAD: usize = 64 << 10;
/// As many find room.
const ROOM: usize = 4;

type Callers = (oneshot::Receiver<Result<Queued, SendFailure>>, oneshot::Receiver<Vec<MemberOutcome>>);

fn core() -> NodeCore {
    let mut config = Config::new("a", BootId([1; 16]), [1; 32]);
    let duty = Responsibility { name: "r".into(), replicas: 1, weight_milli: 1_000, requires: Vec::new() };
    config.responsibilities = vec![duty];
    // A stream may hold a quarter of it.
    config.send_queue_bytes = 4 * ROOM * PAYLOAD;
    let seal = Seal::new(Identity::from_seeds(&[1; 32], &[2; 32]), Keyring::public_lab(), "test");
    Core::new(config, seal, Vec::new(), Instant::ZERO).expect("the entry fits")
}

/// Makes the node the owner of a role.
fn own(core: &mut NodeCore, role: &str) {
    while core.owner(role).is_none() {
        let due = core.poll_timeout().expect("there is always something to do");
        core.handle_timeout(due);
        while let Some((ticket, question)) = core.poll_question() {
            if let Question::Assignment(question) = question {
                let answer = overlan_core::plan::fallback_assignment(&question);
                core.handle_answer(due, ticket, Ok(Answer::Assignment(answer)));
            }
        }
    }
}

fn send(outbox: &mut Outbox, core: &mut NodeCore, lifetime: Option<Duration>) -> Callers {
    let options = SendOptions { lifetime, ..SendOptions::new(MessageMode::Reliable) };
    send_to(outbox, core, "a", options, 7)
}

fn send_to(outbox: &mut Outbox, core: &mut NodeCore, to: &str, options: SendOptions, byte: u8) -> Callers {
    let (queued, is_queued) = oneshot::channel();
    let (outcome, fates) = oneshot::channel();
    let (to, payloads) = (Target::parse(to), vec![Bytes::from(vec![byte; PAYLOAD])]);
    outbox.send(core, Instant::ZERO, Outgoing { to, options, payloads, queued, outcome });
    (is_queued, fates)
}

fn open(outbox: &Outbox) -> usize {
    outbox.slots.iter().filter(|slot| matches!(slot, Slot::Used(_))).count()
}

/// Whoever gives up waiting for room takes the message back, also where there never is room again.
#[test]
fn messages_that_nobody_waits_for_are_let_go() {
    let (mut core, mut outbox) = (core(), Outbox::default());
    let kept: Vec<_> = (0..ROOM + 2).map(|_| send(&mut outbox, &mut core, None)).collect();
    for _ in 0..1_000 {
        drop(send(&mut outbox, &mut core, None));
        assert!(open(&outbox) <= 2 * kept.len() + FEW_PARKED, "{} batches", open(&outbox));
    }
    for (_, mut fates) in kept {
        assert!(
            matches!(fates.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
            "a waiting one has a fate"
        );
    }
}

/// The deadline of a batch goes with it.
#[test]
fn deadlines_go_with_their_batches() {
    let (mut core, mut outbox) = (core(), Outbox::default());
    let hour = Some(Duration::from_secs(3_600));
    for round in 0..20 {
        let callers: Vec<_> = (0..2 * ROOM).map(|_| send(&mut outbox, &mut core, hour)).collect();
        for (mut queued, _) in callers.into_iter().skip(ROOM) {
            let batch = queued.try_recv().ok().and_then(Result::ok).map(|queued| queued.batch);
            assert!(batch.is_none(), "round {round}: there was room");
        }
        for slot in 0..outbox.slots.len() {
            let Some(id) = outbox.id_in(slot as u32) else { continue };
            outbox.cancel(&mut core, Instant::ZERO, id);
        }
        outbox.hear_fates(&mut core);
        assert_eq!((open(&outbox), outbox.deadlines.len()), (0, 0), "round {round}");
    }
}

/// Ordered messages to a role whose owner lost some: all of them are given to it anew, in their order, also those that
/// waited for room, and none of them expires by that.
#[test]
fn ordered_messages_to_a_role_are_given_again_in_their_order() {
    let mut core = core();
    own(&mut core, "r");
    let node = core.id();
    let (mut outbox, mut fates) = (Outbox::default(), Vec::new());
    let options = SendOptions::new(MessageMode::Ordered);
    for number in 0..3 * ROOM {
        fates.push(send_to(&mut outbox, &mut core, "role:r", options, number as u8));
    }
    let parked: usize = outbox.parked.values().map(|waiting| waiting.parts.len()).sum();
    assert!(parked > 0);
    outbox.take_back(&mut core, Instant::ZERO, |_, _, _, _| true);
    assert!(outbox.parked.is_empty());
    assert_eq!(outbox.homeless.len(), 3 * ROOM);
    for place in std::mem::take(&mut outbox.homeless) {
        let id = outbox.id_in(place.1).expect("it is open");
        let part = outbox.batch(id).and_then(|batch| batch.give(node)).expect("a part");
        outbox.queue_or_park(&mut core, Instant::ZERO, id, part);
    }
    let mut got = Vec::new();
    for _ in 0..6 * ROOM {
        core.poll_messages(
            Instant::ZERO,
            |_| true,
            |arrivals| {
                got.extend(arrivals.map(|message| message.payload[0]));
                std::ops::ControlFlow::Continue(())
            },
        );
        outbox.hear_fates(&mut core);
        while let Some(event) = core.poll_event() {
            if let overlan_core::Event::Writable { node, stream } = event {
                outbox.handle_writable(&mut core, Instant::ZERO, node, stream);
            }
        }
    }
    assert_eq!(got, (0..3 * ROOM as u8).collect::<Vec<_>>());
    for (_, mut fate) in fates {
        let outcomes = fate.try_recv().expect("its fate is known");
        assert!(outcomes.iter().all(|outcome| outcome.failed.is_empty()), "{outcomes:?}");
    }
}

/// A node that has just started waits for whom it does not know yet, and in the order of the messages; not for long.
#[test]
fn a_new_node_waits_for_those_it_does_not_know_yet() {
    let (mut core, mut outbox) = (core(), Outbox::default());
    let reliable = SendOptions::new(MessageMode::Reliable);
    let mut role = send_to(&mut outbox, &mut core, "role:r", reliable, 1);
    let mut behind = send(&mut outbox, &mut core, None);
    let mut unknown = send_to(&mut outbox, &mut core, "nobody", reliable, 1);
    assert!(!outbox.take_early(&mut core, Instant::ZERO));
    assert!(role.0.try_recv().is_err() && behind.0.try_recv().is_err());
    own(&mut core, "r");
    assert!(outbox.take_early(&mut core, Instant::ZERO));
    assert!(matches!(role.0.try_recv(), Ok(Ok(_))) && matches!(behind.0.try_recv(), Ok(Ok(_))));
    let end = outbox.poll_timeout().expect("it waits no longer");
    assert!(unknown.0.try_recv().is_err() && outbox.take_early(&mut core, end));
    assert!(matches!(unknown.0.try_recv(), Ok(Err(SendFailure::UnknownNode(_)))));
}
