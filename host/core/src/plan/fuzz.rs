//! Plan messages, mutated: parsing never panics, and what it accepts can be written and reads the same.
//! `OVERLAN_FUZZ_RUNS` and `OVERLAN_FUZZ_SEED` set how long and where from.

extern crate std;

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use overlan_contract::assignment::Responsibility;
use overlan_wire::{BootId, Digest, DocumentId, NodeId};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::wire::{Ballot, Opinion, PlanMessage, Proposal, Vote};

fn corpus() -> Vec<Vec<u8>> {
    let digest = Digest([3; 32]);
    let ballot = Ballot { epoch: 9, proposer: NodeId([1; 16]), boot: BootId([2; 16]) };
    let duty = |n: usize| Responsibility {
        name: n.to_string(),
        replicas: 2,
        weight_milli: 1_000,
        requires: vec![("site".into(), "x".into())],
    };
    let vote = |opinion| {
        let (boot, ballot) = (BootId([4; 16]), Some(ballot));
        let (document_differs, wants) = (true, false);
        let vote =
            Vote { boot, serial: 5, ballot, table: digest, plugin: digest, opinion, document_differs, wants };
        PlanMessage::Vote(vote.clone(), vec![(NodeId([6; 16]), vote)])
    };
    let proposal = Proposal {
        ballot,
        seed: 7,
        question: digest,
        table: digest,
        plugin: digest,
        fault: "why".into(),
        nodes: vec![(NodeId([1; 16]), Some(BootId([2; 16]))), (NodeId([5; 16]), None)],
        responsibilities: vec![duty(1), duty(2)],
        previous: vec![vec![0], vec![]],
        owners: vec![vec![0], vec![0]],
        document: DocumentId { version: 2, digest },
    };
    let messages = [
        PlanMessage::Proposal(proposal),
        vote(Opinion::Pending("soon".into())),
        vote(Opinion::Answered(digest)),
        vote(Opinion::Fault("trap".into())),
        PlanMessage::Fetch,
        PlanMessage::Document((0..20).map(duty).collect()),
    ];
    messages.iter().map(PlanMessage::emit).collect()
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=input.len());
    match rng.random_range(0..6) {
        0 => input.truncate(at),
        1 => input.insert(at, rng.random()),
        2 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        // Lengths, counts and kinds break at their edges.
        3 if at < input.len() => input[at] = [0, 1, 2, 0x7f, 0x80, 0xff][rng.random_range(0..6)],
        4 if at < input.len() => drop(input.remove(at)),
        _ => {
            let other = &corpus[rng.random_range(0..corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[rng.random_range(0..other.len())..]);
        }
    }
}

#[test]
fn plan_messages() {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = variable("OVERLAN_FUZZ_RUNS").unwrap_or(20_000);
    let corpus = corpus();
    for message in &corpus {
        assert_eq!(PlanMessage::parse(message).expect("it was written").emit(), *message);
    }
    let mut seeds = ChaCha8Rng::seed_from_u64(variable("OVERLAN_FUZZ_SEED").unwrap_or(1));
    for _ in 0..runs {
        let mut rng = ChaCha8Rng::seed_from_u64(seeds.next_u64());
        let mut input = corpus[rng.random_range(0..corpus.len())].clone();
        for _ in 0..rng.random_range(1..8) {
            mutate(&mut input, &corpus, &mut rng);
        }
        if let Ok(message) = PlanMessage::parse(&input) {
            assert_eq!(PlanMessage::parse(&message.emit()).as_ref(), Ok(&message), "from {input:02x?}");
        }
    }
}
