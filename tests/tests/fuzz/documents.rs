//! The cluster document in bytes and in text, and what members tell each other of its policies.

use overlan_contract::Kind;
use overlan_contract::assignment::{MAX_REPLICAS, MAX_RESPONSIBILITIES, Responsibility};
use overlan_core::document::{Document, MAX_COMPONENT, PolicyChoice, SIGNATURE, SignedDocument};
use overlan_node::DocumentId;
use overlan_node::document::{Content, compose};
use overlan_node::rollout::message::{Outcome, PIECE, RolloutMessage};
use overlan_tests::fuzz::fuzz;
use overlan_wire::Digest;

fn policies() -> Vec<PolicyChoice> {
    let policy = |kind, plugin: &str| PolicyChoice {
        kind,
        plugin: plugin.into(),
        sha256: Digest([7; 32]),
        size: 1_000,
        config: vec![("a".into(), "x".into()), ("b".into(), String::new())],
    };
    vec![policy(Kind::Assignment, "mine.wasm"), policy(Kind::Failover, "builtin:fast")]
}

fn document() -> Document {
    let duty = |n: u32| Responsibility {
        name: format!("duty-{n}"),
        replicas: 1 + n,
        weight_milli: 1_000,
        requires: vec![("site".into(), "x".into())],
    };
    Document {
        version: 3,
        parent: Digest([9; 32]),
        cluster: "prod".into(),
        responsibilities: (0..3).map(duty).collect(),
        policies: policies(),
    }
}

#[test]
fn documents() {
    let body = document().to_body().expect("it is valid");
    let documents = [None, Some(&[1; SIGNATURE])].map(|signature| SignedDocument::new(&body, signature));
    let corpus = documents.map(|document| document.expect("just made").bytes().to_vec());
    fuzz("documents", &corpus, |input| {
        let Ok(signed) = SignedDocument::parse(bytes::Bytes::copy_from_slice(input)) else { return };
        assert_eq!(&signed.bytes()[..], input);
        let document = signed.document();
        assert!(document.responsibilities.len() <= MAX_RESPONSIBILITIES);
        assert!(document.responsibilities.iter().all(|duty| (1..=MAX_REPLICAS).contains(&duty.replicas)));
        assert!(document.policies.iter().all(|policy| (1..=MAX_COMPONENT).contains(&(policy.size as usize))));
        // Whatever was read can be written and reads the same.
        let body = document.to_body().expect("it was valid when it was read");
        assert_eq!(SignedDocument::new(&body, None).expect("just made").document(), document);
    });
}

#[test]
fn rollout_messages() {
    let (token, sha256, offset) = (7, Digest([3; 32]), 9);
    let body = document().to_body().expect("it is valid");
    let document = SignedDocument::new(&body, Some(&[1; SIGNATURE])).expect("just made");
    let prepared = |outcome| RolloutMessage::Prepared { token, outcome };
    let messages = [
        RolloutMessage::Prepare { token, document },
        prepared(Outcome::Ready(vec![(Kind::Assignment, sha256), (Kind::Failover, sha256)])),
        prepared(Outcome::NotYet("it holds another document".into())),
        prepared(Outcome::Refused("it traps".into())),
        RolloutMessage::Abandon { token },
        RolloutMessage::Ask { sha256, offset },
        RolloutMessage::Piece { sha256, offset, bytes: vec![5; 100].into() },
    ];
    let corpus: Vec<Vec<u8>> = messages.iter().map(RolloutMessage::emit).collect();
    fuzz("rollout messages", &corpus, |input| {
        let Ok(message) = RolloutMessage::parse(&bytes::Bytes::copy_from_slice(input)) else { return };
        if let RolloutMessage::Piece { bytes, .. } = &message {
            assert!(bytes.len() <= PIECE);
        }
        assert_eq!(RolloutMessage::parse(&message.emit().into()), Ok(message));
    });
}

#[test]
fn document_texts() {
    let content = Content::of(&document());
    let json = serde_json::to_vec(&content).expect("it has a form in JSON");
    fuzz("document texts", &[content.to_toml().into_bytes(), json], |input| {
        let Ok(content) = Content::parse(&String::from_utf8_lossy(input)) else { return };
        let Ok(signed) = compose(&content, "prod", DocumentId::default(), None) else { return };
        // What is in force can be written and applied again.
        let again = Content::parse(&Content::of(signed.document()).to_toml()).expect("it was written");
        let again = compose(&again, "prod", DocumentId::default(), None).expect("it was in force");
        assert_eq!(again, signed);
    });
}
