//! Unit tests that need what the module hides; the agreement itself is tested in `tests/plan_model.rs`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use overlan_contract::assignment::{MAX_NODES, Node, Question, Responsibility, validate};
use overlan_wire::limits::MAX_MESSAGE;
use overlan_wire::{BootId, Digest, NodeId};

use super::wire::{Ballot, MAX_EPOCH, Opinion, PlanMessage, Proposal, Vote};
use super::*;

fn node(n: u16) -> NodeId {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId(bytes)
}

fn duty(n: usize, replicas: u32) -> Responsibility {
    let requires = if n.is_multiple_of(7) { vec![("site".into(), "x".into())] } else { Vec::new() };
    Responsibility { name: format!("shard-{n}"), replicas, weight_milli: 1000, requires }
}

fn ballot(epoch: u64, proposer: u16, boot: u8) -> Ballot {
    Ballot { epoch, proposer: node(proposer), boot: BootId([boot; 16]) }
}

fn proposal() -> Proposal {
    Proposal {
        ballot: ballot(57, 1, 9),
        seed: 11,
        question: Digest([1; 32]),
        table: Digest([2; 32]),
        plugin: Digest([3; 32]),
        fault: "wasm trap".into(),
        nodes: vec![(node(1), Some(BootId([9; 16]))), (node(2), None), (node(3), Some(BootId([8; 16])))],
        responsibilities: vec![duty(0, 2), duty(1, 1)],
        previous: vec![vec![1], vec![]],
        owners: vec![vec![0, 2], vec![2]],
        document: DocumentId { version: 4, digest: Digest([6; 32]) },
    }
}

fn vote(opinion: Opinion) -> Vote {
    Vote {
        boot: BootId([9; 16]),
        serial: 3,
        ballot: Some(ballot(57, 1, 9)),
        table: Digest([2; 32]),
        plugin: Digest([3; 32]),
        opinion,
        document_differs: true,
        wants: false,
    }
}

fn messages() -> Vec<PlanMessage> {
    vec![
        PlanMessage::Proposal(proposal()),
        PlanMessage::Vote(vote(Opinion::Pending("asking".into())), Vec::new()),
        PlanMessage::Vote(vote(Opinion::Answered(Digest([5; 32]))), Vec::new()),
        PlanMessage::Vote(
            Vote { ballot: None, wants: true, ..vote(Opinion::Fault("trap".into())) },
            vec![
                (node(3), vote(Opinion::Answered(Digest([5; 32])))),
                (node(4), vote(Opinion::Pending("x".into()))),
            ],
        ),
        PlanMessage::Fetch,
        PlanMessage::Document(vec![duty(0, 1), duty(14, 32)]),
    ]
}

#[test]
fn messages_survive_the_wire() {
    for message in messages() {
        let mut bytes = message.emit();
        assert_eq!(PlanMessage::parse(&bytes).as_ref(), Ok(&message));
        bytes.extend_from_slice(b"a later version's field");
        assert_eq!(PlanMessage::parse(&bytes).as_ref(), Ok(&message));
    }
}

#[test]
fn cut_messages_are_refused_and_hostile_ones_never_panic() {
    for message in messages() {
        let bytes = message.emit();
        for len in 0..bytes.len() {
            // Members that know no cluster documents end their proposals before one, and votes before those of others.
            let older = match &message {
                PlanMessage::Proposal(_) => len == bytes.len() - 40,
                PlanMessage::Vote(own, _) => {
                    len == PlanMessage::Vote(own.clone(), Vec::new()).emit().len() - 2
                }
                _ => false,
            };
            assert_eq!(PlanMessage::parse(&bytes[..len]).is_ok(), older, "{len} bytes of {message:?}");
        }
        let mut planner = joined_planner(3);
        for place in 0..bytes.len() {
            for flip in [1, 0x40, 0x80, 0xff] {
                let mut hostile = bytes.clone();
                hostile[place] ^= flip;
                if planner.handle_message(Instant::ZERO, node(1), &hostile).is_ok() {
                    drain(&mut planner);
                }
            }
        }
    }
}

fn refused(change: impl FnOnce(&mut Proposal)) {
    let mut bad = proposal();
    change(&mut bad);
    let parsed = PlanMessage::parse(&PlanMessage::Proposal(bad.clone()).emit());
    assert!(parsed.is_err(), "{bad:?}");
}

#[test]
fn a_plan_at_odds_with_itself_is_refused() {
    refused(|p| p.owners[1] = vec![1]); // not live
    refused(|p| p.owners[1] = vec![3]); // no such node
    refused(|p| p.owners[0] = vec![2, 2]);
    refused(|p| p.owners[1] = vec![0, 2]); // more than replicas
    refused(|p| p.nodes.swap(0, 2));
    refused(|p| p.nodes[0].1 = None); // the proposer is dead
    refused(|p| p.ballot.boot = BootId([1; 16]));
    refused(|p| p.ballot.epoch = 0);
    refused(|p| p.ballot.epoch = MAX_EPOCH + 1);
    refused(|p| p.responsibilities[1].name = p.responsibilities[0].name.clone());
    refused(|p| p.responsibilities[1].replicas = 33);
}

#[test]
fn ballots_order_by_epoch_then_lower_id() {
    assert!(ballot(2, 9, 1) > ballot(1, 1, 1));
    assert!(ballot(2, 1, 1) > ballot(2, 9, 9));
    assert!(ballot(2, 1, 2) > ballot(2, 1, 1));
}

pub(super) fn question(nodes: u16, duties: usize) -> Question {
    let fact = |n: u16| Node {
        id: node(n).to_string(),
        name: format!("n{n}"),
        live: !n.is_multiple_of(5),
        adapters: Vec::new(),
        attributes: vec![
            ("capacity".into(), if n == 1 { "400".into() } else { String::from("100") }),
            ("site".into(), if n.is_multiple_of(2) { "x".into() } else { "y".into() }),
        ],
    };
    let responsibilities = (0..duties).map(|n| duty(n, 1 + (n % 3) as u32)).collect();
    Question { nodes: (0..nodes).map(fact).collect(), responsibilities, ..Question::default() }
}

#[test]
fn the_fallback_is_valid_and_weighted() {
    for nodes in [0, 1, 2, 3, 9, 40] {
        let question = question(nodes, 60);
        assert_eq!(validate(&question, &fallback_assignment(&question)), Ok(()));
    }
    let mut question = question(9, 8_000);
    question.responsibilities.iter_mut().for_each(|duty| duty.requires.clear());
    let owners = fallback_assignment(&question).owners;
    let share = |n: u32| owners.iter().filter(|list| list[0] == n).count();
    // Seven live nodes, one of four times the capacity: 4/10 and 1/10 each.
    assert!((2_900..3_500).contains(&share(1)), "{}", share(1));
    assert!([2, 3, 4, 6, 7, 8].into_iter().all(|n| (680..920).contains(&share(n))));
    question.nodes[1].live = false;
    let after = fallback_assignment(&question).owners;
    let kept = owners.iter().zip(&after).filter(|(before, _)| before[0] != 1);
    assert!(kept.clone().all(|(before, after)| before[0] == after[0]));
}

fn facts(me: u16, nodes: u16, duties: usize) -> Facts {
    let question = question(nodes, duties);
    Facts {
        me: node(me),
        live: (0..nodes).filter(|n| n % 5 != 0).map(|n| (node(n), BootId([9; 16]))).collect(),
        members: usize::from(nodes),
        nodes: question.nodes,
        table_digest: Digest::default(),
        plugin_pending: false,
        plugin_digest: Digest::default(),
        document: DocumentId::default(),
        responsibilities: question.responsibilities,
        quorum: Quorum::None,
        barred: false,
    }
}

fn joined_planner(me: u16) -> Planner {
    let mut planner = Planner::new(node(me), 1);
    planner.handle_facts(Instant::ZERO, facts(me, 4, 5));
    planner
}

fn drain(planner: &mut Planner) {
    while planner.poll_send(|_| true).is_some() {}
    while planner.poll_question().is_some() {}
    planner.poll_changed();
    planner.status(|id| id.to_string());
}

#[test]
fn a_thousand_nodes_and_duties_fit_one_message() {
    let mut leader = Planner::new(node(1), 1);
    leader.handle_facts(Instant::ZERO, facts(1, 1_000, 1_000));
    let due = leader.poll_timeout().expect("a plan is wanted");
    leader.handle_timeout(due);
    let (ticket, question) = leader.poll_question().expect("its policy is asked");
    leader.handle_answer(due, ticket, Ok(fallback_assignment(&question)));
    let sent: Vec<_> = core::iter::from_fn(|| leader.poll_send(|_| true)).collect();
    let proposals = sent.iter().filter(|(_, bytes)| bytes.len() > 1_000).count();
    assert_eq!(proposals, 799);
    assert!(sent.iter().all(|(_, bytes)| bytes.len() < 200_000 && bytes.len() < MAX_MESSAGE));
    let mut member = Planner::new(node(2), 1);
    member.handle_facts(Instant::ZERO, facts(2, 1_000, 1_000));
    for (_, bytes) in sent.iter().filter(|(to, _)| *to == node(2)) {
        assert_eq!(member.handle_message(due, node(1), bytes), Ok(()));
    }
    assert_eq!(member.poll_changed(), Some(1));
    assert_eq!(member.owner("shard-1"), leader.owner("shard-1"));
    assert_eq!(member.poll_question().map(|(_, asked)| asked), Some(question));
}

#[test]
fn facts_beyond_the_limits_are_cut_and_counted() {
    let mut planner = Planner::new(node(1), 1);
    let mut facts = facts(1, 3, 3);
    facts.responsibilities.push(duty(0, 1));
    facts.responsibilities.push(duty(50, 33));
    facts.responsibilities.push(Responsibility { name: "x".repeat(256), ..duty(51, 1) });
    facts.nodes.extend(facts.nodes.clone());
    facts.nodes.push(Node { id: "no hex".into(), ..facts.nodes[0].clone() });
    planner.handle_facts(Instant::ZERO, facts);
    assert_eq!(planner.counters().facts_refused, 3 + 4);
}

#[test]
fn votes_are_bounded() {
    let mut planner = joined_planner(1);
    for n in 0..MAX_NODES as u16 + 10 {
        let bytes = PlanMessage::Vote(vote(Opinion::Fault("trap".into())), Vec::new()).emit();
        assert_eq!(planner.handle_message(Instant::ZERO, node(n), &bytes), Ok(()));
    }
    assert_eq!(planner.votes.len(), MAX_VOTES);
    assert!(planner.counters().votes_dropped > 0);
}

/// What a member says that others voted is shown, and outdone by what they say themselves.
#[test]
fn votes_that_are_passed_on_decide_nothing() {
    let mut planner = joined_planner(1);
    while let Some(due) = planner.poll_timeout().filter(|_| planner.in_force.is_none()) {
        planner.handle_timeout(due);
        while let Some((ticket, question)) = planner.poll_question() {
            planner.handle_answer(due, ticket, Ok(fallback_assignment(&question)));
        }
    }
    let plan = planner.in_force.as_ref().expect("it leads");
    let (ballot, digest) = (plan.proposal.ballot, plan.digest);
    let of = |ballot, serial| Vote {
        ballot: Some(ballot),
        serial,
        document_differs: false,
        ..vote(Opinion::Answered(digest))
    };
    let rival = Ballot { epoch: ballot.epoch + 1, ..ballot };
    let passed = vec![(node(3), of(ballot, u64::MAX)), (node(2), of(rival, 9)), (node(4), of(ballot, 9))];
    let message = PlanMessage::Vote(of(ballot, 1), passed).emit();
    planner.handle_message(Instant::ZERO, node(2), &message).expect("it is a message");
    assert_eq!(planner.votes.keys().copied().collect::<Vec<_>>(), [node(2)]);
    assert_eq!(planner.passed.keys().copied().collect::<Vec<_>>(), [node(3)], "4 does not live");
    let same = |planner: &Planner| {
        let votes = planner.status(|id| id.to_string()).votes;
        votes.iter().filter(|vote| vote.verdict == "same").count()
    };
    assert_eq!((same(&planner), planner.highest_epoch), (3, ballot.epoch));
    let message =
        PlanMessage::Vote(Vote { opinion: Opinion::Fault("trap".into()), ..of(ballot, 1) }, Vec::new());
    planner.handle_message(Instant::ZERO, node(3), &message.emit()).expect("it is a message");
    assert_eq!(same(&planner), 2);
}

#[test]
fn a_restarted_leader_outbids_what_is_in_force() {
    let mut planner = joined_planner(1);
    let bytes = PlanMessage::Vote(vote(Opinion::Answered(Digest::default())), Vec::new()).emit();
    assert_eq!(planner.handle_message(Instant::ZERO, node(2), &bytes), Ok(()));
    let mut proposed = Vec::new();
    while let Some(due) = planner.poll_timeout().filter(|_| planner.in_force.is_none()) {
        planner.handle_timeout(due);
        while let Some((ticket, question)) = planner.poll_question() {
            planner.handle_answer(due, ticket, Ok(fallback_assignment(&question)));
        }
        proposed.extend(core::iter::from_fn(|| planner.poll_send(|_| true)));
    }
    assert!(proposed.contains(&(node(2), PlanMessage::Fetch.emit())));
    assert_eq!(planner.poll_changed(), Some(58));
}

#[test]
fn while_its_policy_is_made_ready_a_member_is_asked_nothing_and_a_leader_keeps_what_fits() {
    // A plan that no policy of ours would make: the second of its owners goes first.
    let mut leader = joined_planner(1);
    let due = leader.poll_timeout().expect("a plan is wanted");
    leader.handle_timeout(due);
    let (ticket, question) = leader.poll_question().expect("its policy is asked");
    let mut odd = fallback_assignment(&question);
    odd.owners.iter_mut().for_each(|owners| owners.reverse());
    leader.handle_answer(due, ticket, Ok(odd));
    let sent: Vec<_> = core::iter::from_fn(|| leader.poll_send(|_| true)).collect();
    let proposal =
        sent.iter().rfind(|(to, _)| *to == node(2)).map(|(_, bytes)| bytes.clone()).expect("it is sent");
    let plan = leader.status(|id| id.to_string());

    let pending = Facts { plugin_pending: true, ..facts(2, 4, 5) };
    let mut member = Planner::new(node(2), 1);
    member.handle_facts(due, pending.clone());
    assert_eq!(member.handle_message(due, node(1), &proposal), Ok(()));
    assert_eq!(member.poll_question(), None);
    let own = |member: &Planner| {
        let id = node(2).to_string();
        let votes = member.status(|id| id.to_string()).votes;
        votes.into_iter().find(|vote| vote.id == id).map(|vote| (vote.verdict, vote.why)).expect("its own")
    };
    assert_eq!(own(&member), ("pending".into(), PENDING.into()));

    // The leader goes, and the member leads: it waits, then gives away what nobody alive owns, and no more.
    let lose = |facts: &mut Facts| assert!(facts.live.remove(&node(1)).is_some());
    let mut alone = pending;
    lose(&mut alone);
    member.handle_facts(due, alone);
    let mut now = due;
    while let Some(next) =
        member.poll_timeout().filter(|_| member.status(|id| id.to_string()).epoch == plan.epoch)
    {
        now = next;
        member.handle_timeout(now);
        assert_eq!(member.poll_question(), None);
    }
    assert!(now.since(due) >= POLICY_WAIT);
    let kept = member.status(|id| id.to_string());
    assert_eq!(own(&member), ("fault".into(), PENDING.into()));
    assert_eq!(kept.duties.len(), plan.duties.len());

    // It is ready: the plan is made anew, by its answer.
    let mut ready = Facts { plugin_digest: Digest([7; 32]), ..facts(2, 4, 5) };
    lose(&mut ready);
    member.handle_facts(now, ready);
    member.handle_timeout(member.poll_timeout().expect("a plan is wanted"));
    let (ticket, question) = member.poll_question().expect("its policy is asked");
    member.handle_answer(now, ticket, Ok(fallback_assignment(&question)));
    assert_eq!(own(&member), ("same".into(), String::new()));
    assert_eq!(member.status(|id| id.to_string()).epoch, kept.epoch + 1);
}

/// One message that speaks of the last epoch there can be is not the end of all plans.
#[test]
fn an_epoch_that_nobody_can_have_come_to_is_ignored() {
    let mut leader = Planner::new(node(1), 1);
    leader.handle_facts(Instant::ZERO, facts(1, 5, 5));
    let ballot = Ballot { epoch: MAX_EPOCH, proposer: node(99), boot: BootId([1; 16]) };
    let last = Vote { ballot: Some(ballot), ..vote(Opinion::Pending("x".into())) };
    leader
        .handle_message(Instant::ZERO, node(2), &PlanMessage::Vote(last, Vec::new()).emit())
        .expect("it is a message");
    assert_eq!(leader.counters().votes_dropped, 1);
    let due = leader.poll_timeout().expect("a plan is wanted");
    leader.handle_timeout(due);
    assert!(leader.poll_question().is_some());
}

/// What there is to say to a member that takes nothing waits, and is said once, as it is then.
#[test]
fn a_member_without_room_is_told_later() {
    let mut leader = Planner::new(node(1), 1);
    leader.handle_facts(Instant::ZERO, facts(1, 4, 5));
    for _ in 0..3 {
        leader.handle_message(Instant::ZERO, node(2), &PlanMessage::Fetch.emit()).expect("it is a message");
        leader.handle_message(Instant::ZERO, node(3), &PlanMessage::Fetch.emit()).expect("it is a message");
    }
    let due = leader.poll_timeout().expect("a plan is wanted");
    leader.handle_timeout(due);
    let (ticket, question) = leader.poll_question().expect("its policy is asked");
    leader.handle_answer(due, ticket, Ok(fallback_assignment(&question)));
    let mut told = |who| core::iter::from_fn(|| leader.poll_send(|to| to == node(who))).count();
    let (other, later) = (told(3), told(2));
    assert!(other > 0 && other == later, "{other} and {later} messages");
    assert_eq!(leader.poll_send(|_| true), None);
}

#[test]
fn problems_name_what_nobody_owns_and_a_lost_majority() {
    let mut leader = Planner::new(node(1), 1);
    let mut needy = facts(1, 4, 5);
    for duty in &mut needy.responsibilities[..4] {
        duty.requires = [("site".into(), "nowhere".into())].into_iter().collect();
    }
    assert_eq!(leader.problems(|id| id.to_string()), [""; 0]);
    leader.handle_facts(Instant::ZERO, needy.clone());
    let due = leader.poll_timeout().expect("a plan is wanted");
    leader.handle_timeout(due);
    let (ticket, question) = leader.poll_question().expect("its policy is asked");
    leader.handle_answer(due, ticket, Ok(fallback_assignment(&question)));
    let problems = leader.problems(|id| id.to_string());
    assert!(problems.len() == 1 && problems[0].contains(" and 1 more: no live member"), "{problems:?}");

    let mut alone = Facts { quorum: Quorum::Majority, ..needy };
    alone.live.retain(|id, _| *id == node(1));
    leader.handle_facts(due, alone);
    let problems = leader.problems(|id| id.to_string());
    assert!(problems.len() == 1 && problems[0].contains("sees no majority"), "{problems:?}");
}
