//! The handshake of a session, through the trait the core uses.

use overlan_core::crypto::{Aead, Attempt, Crypto, SessionKeys};
use overlan_seal::{Cipher, Identity, Keyring, Seal, Suite};
use overlan_wire::frame::SessionAnswer;
use overlan_wire::{BootId, KeyId, NodeId, SessionId};
use proptest::prelude::*;

const SUITES: [u8; 3] = [1, 2, 3];
const NONCE: [u8; 12] = [7; 12];
const TO_RESPONDER: SessionId = SessionId(0x1234);

fn node(seed: u8) -> Seal {
    let identity = Identity::from_seeds(&[seed; 32], &[seed | 0x80; 32]);
    let key = core::array::from_fn(|index| index as u8);
    Seal::new(identity, Keyring::generate(key), "prod")
}

fn id(seal: &Seal) -> NodeId {
    seal.node_id(&seal.sign_key())
}

fn attempt<'a>(initiator: &Seal, responder: &Seal) -> Attempt<'a> {
    Attempt {
        key: initiator.active_key(),
        initiator: (id(initiator), BootId([1; 16])),
        responder: (id(responder), BootId([2; 16])),
        number: 5,
        session: SessionId(0x5678),
        suites: &SUITES,
    }
}

type Keys = SessionKeys<Cipher>;

/// What each end makes of it; each sees the attempt and the other's key its own way.
fn run(
    (initiator, its, theirs): (&Seal, &Attempt<'_>, [u8; 32]),
    (responder, own, of_initiator): (&Seal, &Attempt<'_>, [u8; 32]),
    spoil: impl FnOnce(&mut SessionAnswer),
) -> Option<(Keys, Keys)> {
    let (mut handshake, request) = initiator.open(its, &theirs, [3; 32])?;
    let (mut answer, there) = responder.accept(own, &of_initiator, &request, TO_RESPONDER, [4; 32])?;
    let genuine = answer;
    spoil(&mut answer);
    if answer != genuine {
        assert!(initiator.finish(&mut handshake, &answer).is_none(), "a spoilt answer");
    }
    let (session, here) = initiator.finish(&mut handshake, &genuine)?;
    assert_eq!(session, TO_RESPONDER);
    assert!(initiator.finish(&mut handshake, &genuine).is_none(), "once is enough");
    Some((here, there))
}

fn passes(from: &Cipher, to: &Cipher) -> bool {
    let mut text = b"a message".to_vec();
    let tag = from.seal(NONCE, b"header", &mut text);
    text.extend_from_slice(&tag);
    to.open(NONCE, b"header", &mut text) == Some(9) && text.starts_with(b"a message")
}

#[test]
fn both_ends_get_one_key_per_direction() {
    let (a, b) = (node(1), node(2));
    let attempt = attempt(&a, &b);
    let (here, there) =
        run((&a, &attempt, b.exchange_key()), (&b, &attempt, a.exchange_key()), |_| {}).unwrap();
    assert!(passes(&here.send, &there.receive) && passes(&there.send, &here.receive));
    assert!(!passes(&here.send, &here.receive), "the directions differ");
    assert!(!passes(&here.send, &there.send), "the directions differ");
}

#[test]
fn a_spoilt_answer_does_not_end_the_handshake() {
    let (a, b) = (node(1), node(2));
    let attempt = attempt(&a, &b);
    for byte in 0..57 {
        let spoil = |answer: &mut SessionAnswer| answer[byte] ^= 1;
        let done = run((&a, &attempt, b.exchange_key()), (&b, &attempt, a.exchange_key()), spoil);
        let (here, there) = done.expect("the genuine one comes after it");
        assert!(passes(&here.send, &there.receive), "byte {byte}");
    }
}

#[test]
fn the_responder_chooses_of_what_is_offered() {
    let (a, mut b) = (node(1), node(2));
    for (liked, offered, chosen) in [
        (&[Suite::Aes128Gcm, Suite::ChaCha20Poly1305][..], &[3, 1][..], Some(Suite::Aes128Gcm)),
        (&[Suite::ChaCha20Poly1305], &[1, 2, 3], Some(Suite::ChaCha20Poly1305)),
        (&[Suite::Aes256Gcm, Suite::ChaCha20Poly1305], &[200, 2], Some(Suite::Aes256Gcm)),
        (&[Suite::ChaCha20Poly1305], &[1, 2], None),
        (&[Suite::ChaCha20Poly1305], &[], None),
    ] {
        b.set_suites(liked);
        let attempt = Attempt { suites: offered, ..attempt(&a, &b) };
        let done = run((&a, &attempt, b.exchange_key()), (&b, &attempt, a.exchange_key()), |_| {});
        assert_eq!(done.as_ref().map(|(here, _)| here.send.suite()), chosen);
        if let Some((here, there)) = done {
            assert!(passes(&here.send, &there.receive) && passes(&there.send, &here.receive));
        }
    }
}

#[test]
fn who_lacks_the_members_key_completes_nothing_in_its_name() {
    let (a, b, mallory) = (node(1), node(2), node(3));
    let genuine = attempt(&a, &b);
    // In a's name, to b, which takes a's key from a's signed entry.
    let opened = run((&mallory, &genuine, b.exchange_key()), (&b, &genuine, a.exchange_key()), |_| {});
    assert!(opened.is_none());
    // In b's name, to a. It can answer nothing: to read the request it takes b's key.
    let (_, request) = a.open(&genuine, &b.exchange_key(), [3; 32]).unwrap();
    assert!(mallory.accept(&genuine, &a.exchange_key(), &request, TO_RESPONDER, [4; 32]).is_none());
}

#[test]
fn what_is_bound_must_be_the_same_at_both_ends() {
    let (a, b) = (node(1), node(2));
    let base = attempt(&a, &b);
    let others = [
        Attempt { key: KeyId(9), ..base },
        Attempt { initiator: (base.initiator.0, BootId([9; 16])), ..base },
        Attempt { responder: (base.responder.0, BootId([9; 16])), ..base },
        Attempt { initiator: (NodeId([9; 16]), base.initiator.1), ..base },
        Attempt { number: 6, ..base },
        Attempt { session: SessionId(1), ..base },
        Attempt { suites: &[3], ..base },
    ];
    for other in others {
        let done = run((&a, &base, b.exchange_key()), (&b, &other, a.exchange_key()), |_| {});
        assert!(done.is_none(), "{other:?}");
    }
    let identity = Identity::from_seeds(&[2; 32], &[2 | 0x80; 32]);
    let renamed = Seal::new(identity, Keyring::generate(core::array::from_fn(|i| i as u8)), "staging");
    assert!(run((&a, &base, b.exchange_key()), (&renamed, &base, a.exchange_key()), |_| {}).is_none());
}

#[test]
fn a_static_key_does_not_open_what_was_recorded() {
    let (a, b) = (node(1), node(2));
    let attempt = attempt(&a, &b);
    let (here, there) =
        run((&a, &attempt, b.exchange_key()), (&b, &attempt, a.exchange_key()), |_| {}).unwrap();
    // Both static keys and the recorded request, later: the ephemeral keys are gone, and with others the secrets
    // are others.
    let (_, request) = a.open(&attempt, &b.exchange_key(), [3; 32]).unwrap();
    let (_, again) = b.accept(&attempt, &a.exchange_key(), &request, TO_RESPONDER, [5; 32]).unwrap();
    assert!(!passes(&here.send, &again.receive) && !passes(&there.send, &again.send));
}

#[test]
fn keys_of_small_order_are_refused() {
    let (a, b) = (node(1), node(2));
    let mut one = [0; 32];
    one[0] = 1;
    for key in [[0; 32], one] {
        assert!(a.open(&attempt(&a, &b), &key, [3; 32]).is_none());
    }
    assert!(b.accept(&attempt(&a, &b), &a.exchange_key(), &[0; 48], TO_RESPONDER, [3; 32]).is_none());
}

#[test]
fn cookies_depend_on_boot_and_address() {
    let seal = node(1);
    let cookie = |secret, boot, address: &str| {
        seal.cookie(&[secret; 32], BootId([boot; 16]), address.parse().expect("an address"))
    };
    let base = cookie(1, 1, "10.0.0.1:7400");
    assert_eq!(base, cookie(1, 1, "10.0.0.1:7400"));
    let others = [
        cookie(2, 1, "10.0.0.1:7400"),
        cookie(1, 2, "10.0.0.1:7400"),
        cookie(1, 1, "10.0.0.2:7400"),
        cookie(1, 1, "10.0.0.1:7401"),
        cookie(1, 1, "[fd00::1]:7400"),
    ];
    assert!(!others.contains(&base));
}

proptest! {
    #[test]
    fn noise_never_panics(request: [u8; 32], tail: [u8; 16], answer: [u8; 32], rest: [u8; 25], suites: Vec<u8>) {
        let (a, b) = (node(1), node(2));
        let attempt = Attempt { suites: &suites, ..attempt(&a, &b) };
        let request: [u8; 48] = core::array::from_fn(|i| if i < 32 { request[i] } else { tail[i - 32] });
        let answer: [u8; 57] = core::array::from_fn(|i| if i < 32 { answer[i] } else { rest[i - 32] });
        prop_assert!(b.accept(&attempt, &a.exchange_key(), &request, TO_RESPONDER, [1; 32]).is_none());
        let (mut handshake, _) = a.open(&attempt, &b.exchange_key(), [1; 32]).unwrap();
        prop_assert!(a.finish(&mut handshake, &answer).is_none());
    }
}
