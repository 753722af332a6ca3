//! The cluster document: it reaches everybody through loss, partitions and restarts, one wins where two were applied
//! at once, and the plan follows it.

use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use overlan_contract::assignment::Responsibility;
use overlan_contract::{Attributes, Kind};
use overlan_core::config::Quorum;
use overlan_core::document::{Document, PolicyChoice, SIGNATURE, SignedDocument, emit_policies, signed_text};
use overlan_core::status::Ownership;
use overlan_core::{ApplyError, Config};
use overlan_sim::{Insider, Network, World};
use overlan_wire::limits::MAX_DOCUMENT;
use overlan_wire::{BootId, Digest, DocumentId, Frame};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESSES: [&str; 3] = ["10.1.1.2", "10.2.1.2", "10.3.1.2"];

fn duty(name: String) -> Responsibility {
    Responsibility { name, replicas: 2, weight_milli: 1_000, requires: Attributes::new() }
}

fn world(seed: u64, network: Network, configure: impl Fn(&mut Config)) -> World {
    let mut world = World::new(seed, network);
    for (index, address) in ADDRESSES.into_iter().enumerate() {
        let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
        config.responsibilities = vec![duty("configured".into())];
        if index > 0 {
            config.seeds = vec![format!("{}:7400", ADDRESSES[0]).parse().expect("an address")];
        }
        configure(&mut config);
        world.add_with(config, &[address]);
    }
    assert!(world.run_until(20 * SECOND, World::converged), "seed {seed}: no convergence");
    world
}

fn held(world: &World, index: usize) -> DocumentId {
    world.members[index].core.as_ref().map(|core| core.document_id()).unwrap_or_default()
}

/// A document made from the one that a member holds.
fn next(world: &World, by: usize, duties: usize, name: &str) -> Document {
    let parent = held(world, by);
    Document {
        version: parent.version + 1,
        parent: parent.digest,
        cluster: String::new(),
        responsibilities: (0..duties).map(|n| duty(format!("{name}-{n}"))).collect(),
        policies: Vec::new(),
    }
}

fn unsigned(document: &Document) -> SignedDocument {
    SignedDocument::new(&document.to_body().expect("it is valid"), None).expect("just made")
}

fn sign(document: &Document, key: &SigningKey) -> SignedDocument {
    let body = document.to_body().expect("it is valid");
    let signature: [u8; SIGNATURE] = key.sign(&signed_text(&body)).to_bytes();
    SignedDocument::new(&body, Some(&signature)).expect("just made")
}

/// Whether all running members hold this document, know so, and have one plan for it.
fn settled(world: &World, id: DocumentId) -> bool {
    let running: Vec<_> = world.members.iter().filter_map(|member| member.core.as_ref()).collect();
    let first = running[0].plan();
    running.iter().all(|core| {
        let plan = core.plan();
        core.document_id() == id
            && core.document_agreed()
            && plan.document_version == id.version
            && (plan.epoch, &plan.digest) == (first.epoch, &first.digest)
            && plan.votes.iter().all(|vote| vote.verdict == "same")
    })
}

#[test]
fn a_document_reaches_everybody_and_the_plan_follows() {
    for seed in 0..3 {
        let network = Network {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(2),
            loss_ppm: [0, 50_000, 200_000][seed as usize % 3],
            ..Network::default()
        };
        let mut world = world(seed, network, |_| {});
        for (by, duties) in [(0, 3), (2, 1_000), (1, 1), (1, 0)] {
            let document = next(&world, by, duties, "shard");
            let id = world.apply(by, unsigned(&document)).expect("nothing is in its way");
            assert!(world.run_until(60 * SECOND, |world| settled(world, id)), "seed {seed}: {duties} duties");
        }
        // Gains and losses add up to what is owned in the end: nothing.
        for member in &world.members {
            let mut owned = std::collections::BTreeMap::new();
            for change in &member.owned {
                let before = owned.insert(&change.name, change.now).unwrap_or(Ownership::None);
                assert_eq!(before, change.before, "seed {seed}: {change:?}");
            }
            assert!(owned.values().all(|now| *now == Ownership::None), "seed {seed}: {owned:?}");
        }
    }
}

/// Paths stop to carry what is larger than 600 bytes while a document and the plan for it are on their way.
#[test]
fn a_hole_in_the_middle_of_a_change_does_not_hold_it_up() {
    let mut world = world(1, Network::with_delay(Duration::from_millis(1)), |_| {});
    for (by, wait) in [(0, 0), (2, 3), (1, 9)] {
        let id = world.apply(by, unsigned(&next(&world, by, 1_000, "shard"))).expect("nothing is in its way");
        world.run_for(Duration::from_millis(wait));
        world.network.mtu = 600;
        assert!(world.run_until(2 * SECOND, |world| settled(world, id)), "after {wait} ms");
        assert!(world.converged());
        world.network.mtu = 0;
        world.run_for(5 * SECOND);
    }
}

#[test]
fn before_a_plan_it_is_not_known_what_the_members_are_responsible_for() {
    let mut world = World::new(1, Network::with_delay(Duration::from_millis(1)));
    for (index, address) in ADDRESSES.into_iter().enumerate() {
        let mut config = Config::new(format!("m{index}"), BootId::default(), [0; 32]);
        config.seeds = vec![format!("{}:7400", ADDRESSES[0]).parse().expect("an address")];
        if index == 0 {
            config.responsibilities = vec![duty("configured".into())];
            config.seeds.clear();
        }
        world.add_with(config, &[address]);
    }
    let settled = |world: &World, index: usize| {
        let core = world.members[index].core.as_ref().expect("it runs");
        (core.responsibilities_settled(), core.responsibilities().len())
    };
    assert_eq!([0, 1, 2].map(|index| settled(&world, index)), [(false, 1), (false, 0), (false, 0)]);
    let all = |world: &World| (0..3).all(|index| settled(world, index) == (true, 1));
    assert!(world.run_until(20 * SECOND, all));
}

#[test]
fn of_two_applied_at_once_one_wins_everywhere_and_the_other_may_try_again() {
    for seed in 0..8 {
        let mut world = world(seed, Network::with_delay(Duration::from_millis(5)), |_| {});
        let documents = [next(&world, 0, 2, "a"), next(&world, 1, 2, "b")];
        let ids = [0, 1].map(|by| world.apply(by, unsigned(&documents[by])).expect("it is the first here"));
        let winner = ids[0].max(ids[1]);
        assert!(world.run_until(30 * SECOND, |world| settled(world, winner)), "seed {seed}");
        let late = world.apply(2, unsigned(&documents[0]));
        assert_eq!(late, Err(ApplyError::Raced { in_force: winner, based_on: 0 }));
        let again = world.apply(2, unsigned(&next(&world, 2, 2, "c"))).expect("made from the winner");
        assert!(world.run_until(30 * SECOND, |world| settled(world, again)), "seed {seed}");
    }
}

#[test]
fn sides_of_a_partition_agree_when_it_heals_and_restarts_forget_nothing() {
    for seed in 0..6 {
        let mut world = world(seed, Network::with_delay(Duration::from_millis(1)), |_| {});
        let first = world.apply(0, unsigned(&next(&world, 0, 8, "first"))).expect("applied");
        assert!(world.run_until(30 * SECOND, |world| settled(world, first)), "seed {seed}");
        world.network.dead.insert(ADDRESSES[2].parse().expect("an address"));
        world.run_for(20 * SECOND);
        let alone = world.apply(2, unsigned(&next(&world, 2, 4, "alone"))).expect("applied");
        let mut most = DocumentId::default();
        for round in 0..=seed % 2 {
            let document = next(&world, round as usize, 6, &format!("round-{round}"));
            most = world.apply(round as usize, unsigned(&document)).expect("applied");
            world.run_for(20 * SECOND);
        }
        world.network.dead.clear();
        let winner = most.max(alone);
        assert!(world.run_until(90 * SECOND, |world| settled(world, winner)), "seed {seed}");
        // Who held the other is told that it is undone, and nobody else.
        for (index, lost) in [most, most, alone].into_iter().enumerate() {
            let told = problems(&world, index).contains("what only it said is undone");
            assert_eq!(told, lost != winner, "seed {seed}, member {index}");
        }
        // A full restart, one by one.
        for index in 0..3 {
            world.kill(index);
        }
        world.run_for(SECOND);
        for index in 0..3 {
            world.start(index);
            assert_eq!(held(&world, index), winner, "seed {seed}");
        }
        assert!(world.run_until(60 * SECOND, |world| settled(world, winner)), "seed {seed}");
        // A member with an empty state directory learns it, even where it leads.
        for index in 0..3 {
            world.kill(index);
            world.run_for(20 * SECOND);
            world.configure(index, |config| config.document = None);
            world.start(index);
            assert_eq!(held(&world, index), DocumentId::default());
            let wrong = |world: &World| {
                let plans = world.members.iter().filter_map(|member| Some(member.core.as_ref()?.plan()));
                plans.map(|plan| plan.document_version).any(|version| version > 0 && version < winner.version)
            };
            let back = |world: &World| {
                assert!(!wrong(world), "seed {seed}: a plan for an older document");
                settled(world, winner)
            };
            assert!(world.run_until(60 * SECOND, back), "seed {seed}, member {index}");
        }
    }
}

#[test]
fn with_a_quorum_a_member_that_is_cut_off_applies_nothing() {
    for seed in 0..4 {
        let mut world = world(seed, Network::with_delay(Duration::from_millis(1)), |config| {
            config.quorum = Quorum::Majority;
        });
        let first = world.apply(2, unsigned(&next(&world, 2, 4, "first"))).expect("all see all");
        assert!(world.run_until(30 * SECOND, |world| settled(world, first)), "seed {seed}");
        let cut_off = seed as usize % 3;
        world.network.dead.insert(ADDRESSES[cut_off].parse().expect("an address"));
        world.run_for(20 * SECOND);
        let alone = next(&world, cut_off, 6, "alone");
        assert_eq!(world.apply(cut_off, unsigned(&alone)), Err(ApplyError::NoQuorum), "seed {seed}");
        assert_eq!(held(&world, cut_off), first, "seed {seed}: nothing changed");
        let by = (cut_off + 1) % 3;
        let most = world.apply(by, unsigned(&next(&world, by, 5, "most"))).expect("two of three");
        world.run_for(5 * SECOND);
        world.network.dead.clear();
        assert!(world.run_until(90 * SECOND, |world| settled(world, most)), "seed {seed}");
        world.apply(cut_off, unsigned(&next(&world, cut_off, 2, "again"))).expect("it sees all again");
    }
}

#[test]
fn nobody_but_the_leader_says_what_all_hold() {
    let mut world = world(1, Network::with_delay(Duration::from_millis(1)), |_| {});
    let id = world.apply(0, unsigned(&next(&world, 0, 2, "first"))).expect("applied");
    assert!(world.run_until(30 * SECOND, |world| settled(world, id)));
    let liar = (0..3).max_by_key(|index| world.members[*index].id).expect("three members");
    let mut insider = Insider::take_over(&mut world, liar);
    for version in 2..12 {
        let digest = Digest([version as u8; 32]);
        let documents = [id, DocumentId { version, digest }];
        let summary = Frame::Summary { digest, epoch: 0, agreed: digest, documents, refused: None };
        for honest in (0..3).filter(|index| *index != liar) {
            insider.cluster_frame(&mut world, honest, &summary);
            world.run_for(Duration::from_millis(5));
            let core = world.members[honest].core.as_ref().expect("it runs");
            assert!(core.document_agreed(), "version {version}");
        }
    }
}

#[test]
fn only_what_the_operator_signed_is_taken() {
    let (operator, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let key = operator.verifying_key().to_bytes();
    let mut world = world(1, Network::with_delay(Duration::from_millis(1)), |config| {
        config.operator_key = Some(key);
    });
    let document = next(&world, 0, 2, "signed");
    assert_eq!(world.apply(0, unsigned(&document)), Err(ApplyError::NotSigned));
    assert_eq!(world.apply(0, sign(&document, &other)), Err(ApplyError::NotSigned));
    let elsewhere = Document { cluster: "elsewhere".into(), ..document.clone() };
    assert!(matches!(world.apply(0, sign(&elsewhere, &operator)), Err(ApplyError::OtherCluster(_))));
    let id = world.apply(0, sign(&document, &operator)).expect("it is the operator's");
    assert!(world.run_until(30 * SECOND, |world| settled(world, id)));
}

/// What the status of a member says is wrong.
fn problems(world: &World, index: usize) -> String {
    world.members[index].core.as_ref().expect("it runs").status(world.now).problems.join("\n")
}

/// Whether all running members are in one plan.
fn one_plan(world: &World) -> bool {
    let mut plans = world.members.iter().filter_map(|member| Some(member.core.as_ref()?.plan()));
    let first = plans.next().expect("one runs");
    plans.all(|plan| (plan.epoch, &plan.digest) == (first.epoch, &first.digest)) && first.epoch > 0
}

#[test]
fn members_of_different_operators_apply_nothing_and_say_so() {
    let operator = SigningKey::from_bytes(&[1; 32]);
    let key = operator.verifying_key().to_bytes();
    for odd in 0..3 {
        let mut world = world(odd as u64, Network::with_delay(Duration::from_millis(1)), |config| {
            let index = config.name.as_bytes()[1] - b'0';
            config.operator_key = (usize::from(index) != odd).then_some(key);
        });
        assert!(world.run_until(20 * SECOND, one_plan));
        for index in 0..3 {
            let document = sign(&next(&world, index, 2, "signed"), &operator);
            let refused = world.apply(index, document).expect_err("the members differ").to_string();
            let named =
                if index == odd { "none here" } else { &format!("none at m{odd}, 8a88e3dd7409f195... here") };
            for told in [&refused, &problems(&world, index)] {
                assert!(told.contains("operator_key differs") && told.contains(named), "{index}: {told}");
            }
            assert_eq!(held(&world, index), DocumentId::default());
        }
        world.kill(odd);
        world.configure(odd, |config| config.operator_key = Some(key));
        world.start(odd);
        let alike = |world: &World| (0..3).all(|index| !problems(world, index).contains("operator"));
        assert!(world.run_until(30 * SECOND, |world| world.converged() && alike(world)), "member {odd}");
        let id =
            world.apply(odd, sign(&next(&world, odd, 2, "signed"), &operator)).expect("all want the same");
        assert!(world.run_until(30 * SECOND, |world| settled(world, id)), "member {odd}");
    }
}

#[test]
fn what_a_member_applied_alone_and_others_refuse_is_told_at_both_ends_until_it_is_gone() {
    let operator = SigningKey::from_bytes(&[1; 32]);
    let key = operator.verifying_key().to_bytes();
    for (odd, address) in ADDRESSES.into_iter().enumerate() {
        let mut world = world(odd as u64, Network::with_delay(Duration::from_millis(1)), |config| {
            config.operator_key = Some(key);
        });
        let signed =
            world.apply(odd, sign(&next(&world, odd, 2, "signed"), &operator)).expect("it is the operator's");
        assert!(world.run_until(30 * SECOND, |world| settled(world, signed)), "member {odd}");
        // Its file loses the key while nobody else sees it, and it takes anything.
        world.network.dead.insert(address.parse().expect("an address"));
        world.kill(odd);
        world.configure(odd, |config| config.operator_key = None);
        world.start(odd);
        world.run_for(20 * SECOND);
        let forged =
            world.apply(odd, unsigned(&next(&world, odd, 5, "forged"))).expect("it knows no operator");
        world.network.dead.clear();
        let others: Vec<usize> = (0..3).filter(|index| *index != odd).collect();
        let told = |world: &World| {
            let here = problems(world, odd);
            let names = others.iter().all(|index| here.contains(&format!("m{index}")));
            let elsewhere =
                format!("version 2 of the cluster document, which m{odd} holds, was refused here");
            let refused = "refuse version 2 of the cluster document, which this member holds: the operator";
            here.contains(refused)
                && names
                && others.iter().all(|at| problems(world, *at).contains(&elsewhere))
        };
        let met = |world: &World| world.converged() && one_plan(world) && told(world);
        assert!(world.run_until(60 * SECOND, met), "member {odd}: {}", problems(&world, odd));
        let epoch = world.members[0].core.as_ref().expect("it runs").plan().epoch;
        world.run_for(30 * SECOND);
        assert!(met(&world), "member {odd}");
        assert_eq!(world.members[0].core.as_ref().expect("it runs").plan().epoch, epoch, "the plan stands");
        for index in 0..3 {
            assert_eq!(held(&world, index), if index == odd { forged } else { signed });
            let core = world.members[index].core.as_ref().expect("it runs");
            let refused = core.status(world.now).counters.documents_refused;
            assert_eq!(refused, u64::from(index != odd), "it is fetched once, whoever leads");
            assert!(!core.document_agreed() && !core.document_missing().is_empty(), "not all hold it");
        }
        // With the key again its own document is worth nothing to it, and it takes the others'.
        world.kill(odd);
        world.configure(odd, |config| config.operator_key = Some(key));
        world.start(odd);
        assert!(
            problems(&world, odd).contains("version 2 of the cluster document, which this member had stored")
        );
        let mended = |world: &World| {
            let quiet = (0..3).all(|index| !problems(world, index).contains("cluster document"));
            settled(world, signed) && quiet
        };
        assert!(world.run_until(60 * SECOND, mended), "member {odd}: {}", problems(&world, odd));
        let later =
            world.apply(odd, sign(&next(&world, odd, 3, "later"), &operator)).expect("all want the same");
        assert!(world.run_until(30 * SECOND, |world| settled(world, later)), "member {odd}");
    }
}

#[test]
fn a_policy_of_a_kind_that_is_not_known_yet_is_skipped() {
    let known = PolicyChoice {
        kind: Kind::Failover,
        plugin: "mine.wasm".into(),
        sha256: Digest([7; 32]),
        size: 1_000,
        config: Attributes::new(),
    };
    let document = Document {
        version: 1,
        parent: Digest::default(),
        cluster: "prod".into(),
        responsibilities: vec![duty("duty".into())],
        policies: Vec::new(),
    };
    // The body ends with the number of policies: here two, the second of kind 9.
    let mut body = document.to_body().expect("it is valid");
    let mut policies = Vec::new();
    emit_policies(std::slice::from_ref(&known), &mut policies);
    policies[0] = 2;
    policies.extend_from_slice(&[0, 4, 9, 1, 2, 3]);
    body.pop();
    body.extend_from_slice(&policies);
    let signed = SignedDocument::new(&body, None).expect("it can be read");
    assert_eq!(signed.document(), &Document { policies: vec![known], ..document });
    assert!(signed.bytes().ends_with(&policies), "it travels on as it came");
}

#[test]
fn documents_survive_the_wire_and_hostile_bytes_do_not() {
    let policy = |kind, plugin: &str| PolicyChoice {
        kind,
        plugin: plugin.into(),
        sha256: Digest([7; 32]),
        size: 1_000,
        config: vec![("a".into(), "x".repeat(4_000)), ("b".into(), String::new())],
    };
    let document = Document {
        version: 3,
        parent: Digest([9; 32]),
        cluster: "prod".into(),
        responsibilities: (0..3).map(|n| duty(format!("duty-{n}"))).collect(),
        policies: vec![policy(Kind::Assignment, "mine.wasm"), policy(Kind::Failover, "builtin:fast")],
    };
    let signed = sign(&document, &SigningKey::from_bytes(&[3; 32]));
    assert!(signed.bytes().len() < MAX_DOCUMENT);
    assert_eq!(SignedDocument::parse(signed.bytes().clone()).expect("just written"), signed);
    assert_eq!(signed.document(), &document);
    assert!(signed.signed_part().is_some() && unsigned(&document).signed_part().is_none());
    for len in 0..signed.bytes().len() {
        let cut = SignedDocument::parse(signed.bytes().slice(..len));
        assert_eq!(cut.is_ok(), len == signed.bytes().len() - SIGNATURE, "{len} bytes");
    }
    let refused = |what: &str, change: &dyn Fn(&mut Document)| {
        let mut bad = document.clone();
        change(&mut bad);
        let error = bad.to_body().expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    refused("version", &|d| d.version = 0);
    refused("listed twice", &|d| d.responsibilities[1].name = "duty-0".into());
    refused("replicas is 0", &|d| d.responsibilities[0].replicas = 0);
    refused("requires", &|d| d.responsibilities[0].requires = vec![("\u{7}".into(), "x".into())]);
    refused("at most once", &|d| d.policies[1].kind = Kind::Assignment);
    refused("policy.failover.plugin", &|d| d.policies[1].plugin = String::new());
    refused("policy.failover.config.a", &|d| d.policies[1].config[0].1 = "x".repeat(5_000));
    refused("ascending", &|d| d.policies[1].config.reverse());
    refused("bytes of", &|d| d.responsibilities = (0..16_000).map(|n| duty(format!("{n:0>80}"))).collect());
}
