//! The two key files: what is written is read, and what is wrong is named.

use overlan_seal::{Identity, IdentityError, Keyring, KeyringError, MAX_KEYS};
use overlan_wire::KeyId;
use proptest::prelude::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn key(first: u8) -> [u8; 32] {
    core::array::from_fn(|index| first.wrapping_add(index as u8))
}

#[test]
fn a_keyring_is_read_as_written() {
    let mut keyring = Keyring::generate(key(0));
    keyring.add(key(100)).unwrap();
    keyring.add(key(200)).unwrap();
    let read = Keyring::parse(&keyring.to_text()).unwrap();
    assert_eq!(read.ids().collect::<Vec<_>>(), keyring.ids().collect::<Vec<_>>());
    assert_eq!(*read.to_text(), *keyring.to_text());
    assert!(keyring.to_text().contains(&format!("\nactive 81dc1b32 {KEY}\naccept ")));
}

#[test]
fn the_active_key_may_stand_anywhere() {
    let mut keyring = Keyring::generate(key(0));
    let second = keyring.add(key(100)).unwrap();
    let text = keyring.to_text().replace("active ", "was ").replace("accept ", "active ");
    let read = Keyring::parse(&text.replace("was ", "  accept\t")).unwrap();
    assert_eq!(read.ids().collect::<Vec<_>>(), [second, KeyId(0x81dc_1b32)]);
}

#[test]
fn keyring_errors_name_the_line_and_no_secret() {
    let second = Keyring::generate(key(7)).to_text().lines().last().unwrap().to_owned();
    let first = format!("active 81dc1b32 {KEY}");
    let public = "c6b950078124d7a4cae4e77023b4f740133824d4ef7d8659c6801d64a23eebdf";
    for (text, expected) in [
        (String::new(), KeyringError::NoActive),
        ("# empty\n\n".into(), KeyringError::NoActive),
        (first.replace("active", "accept"), KeyringError::NoActive),
        (format!("\n{KEY}"), KeyringError::Word { line: 2 }),
        (format!("active {KEY}"), KeyringError::Shape { line: 1 }),
        (format!("{first} extra"), KeyringError::Shape { line: 1 }),
        (format!("# x\n{}", &first[..first.len() - 1]), KeyringError::Key { line: 2 }),
        (first.replace("0f1011", "0f101z"), KeyringError::Key { line: 1 }),
        (first.replace("0f1011", "0f1010"), KeyringError::Mismatch { line: 1 }),
        (first.replace("81dc1b32", "81dc1b33"), KeyringError::Mismatch { line: 1 }),
        (first.replace("81dc1b32", "+1dc1b32"), KeyringError::Mismatch { line: 1 }),
        (format!("{first}\n{second}"), KeyringError::SecondActive { line: 2 }),
        (format!("{first}\n{first}"), KeyringError::Repeated { line: 2 }),
        (format!("active 00000000 {public}"), KeyringError::NotSecret { line: 1 }),
        (format!("active 00000000 {}", "00".repeat(32)), KeyringError::NotSecret { line: 1 }),
    ] {
        let error = Keyring::parse(&text).unwrap_err();
        assert_eq!(error, expected, "{text}");
        assert!(!error.to_string().contains("0405"), "{error}");
    }
}

#[test]
fn a_keyring_has_a_limit() {
    let mut keyring = Keyring::generate(key(0));
    for first in 1..MAX_KEYS as u8 {
        keyring.add(key(first)).unwrap();
    }
    assert_eq!(keyring.add(key(99)), Err(KeyringError::Full));
    let full = keyring.to_text();
    assert!(Keyring::parse(&full).is_ok());
    let one_more = Keyring::generate(key(99)).to_text().lines().last().unwrap().replace("active", "accept");
    let line = full.lines().count() + 1;
    let error = Keyring::parse(&format!("{}{one_more}", *full)).unwrap_err();
    assert_eq!(error, KeyringError::TooManyLines { line });
}

#[test]
fn the_active_key_cannot_be_retired() {
    let mut keyring = Keyring::generate(key(0));
    let active = keyring.active();
    assert_eq!(keyring.retire(active), Err(KeyringError::Active(active)));
    assert_eq!(keyring.add(key(0)), Err(KeyringError::Present));
    assert_eq!(keyring.promote(KeyId(5)), Err(KeyringError::Unknown(KeyId(5))));
    assert_eq!(keyring.retire(KeyId(5)), Err(KeyringError::Unknown(KeyId(5))));
    assert!(!keyring.is_public());
    assert!(Keyring::public_lab().is_public());
    assert_eq!(KeyringError::Active(active).to_string(), "key 81dc1b32 is active; promote another key first");
}

#[test]
fn an_identity_is_read_as_written() {
    let identity = Identity::generate(core::array::from_fn(|index| index as u8));
    let read = Identity::parse(&identity.to_text()).unwrap();
    assert_eq!(read.node_id(), identity.node_id());
    assert_eq!(read.exchange_key(), identity.exchange_key());
    assert_eq!(*read.to_text(), *identity.to_text());
    assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.node_id()));
}

#[test]
fn a_damaged_identity_is_refused() {
    let identity = Identity::from_seeds(&key(0), &key(100));
    let text = identity.to_text();
    let damaged = Identity::parse(&text.replace("sign 0001", "sign 0000")).unwrap_err();
    assert!(matches!(damaged, IdentityError::Mismatch { named, .. } if named == identity.node_id()));
    let without = |word: &str| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(word)).collect();
        Identity::parse(&kept.join("\n")).unwrap_err()
    };
    assert_eq!(without("sign"), IdentityError::Missing("sign"));
    assert_eq!(without("exchange"), IdentityError::Missing("exchange"));
    assert_eq!(without("node"), IdentityError::Missing("node"));
    let twice = format!("{}{}", *text, *text);
    assert_eq!(Identity::parse(&twice).unwrap_err(), IdentityError::Line { line: 6 });
    assert_eq!(Identity::parse("sign zz").unwrap_err(), IdentityError::Line { line: 1 });
    assert_eq!(Identity::parse("key 00").unwrap_err(), IdentityError::Line { line: 1 });
}

proptest! {
    #[test]
    fn parsers_never_panic(text: String) {
        let _ = Keyring::parse(&text);
        let _ = Identity::parse(&text);
    }

    #[test]
    fn parsers_never_panic_on_almost_files(
        lines in prop::collection::vec("(active|accept|node|sign|exchange|#)? ?[0-9a-fg]{0,65} ?[0-9a-fé]{63,65}", 0..20)
    ) {
        let text = lines.join("\n");
        let _ = Keyring::parse(&text);
        let _ = Identity::parse(&text);
    }

    #[test]
    fn every_keyring_round_trips(secrets in prop::collection::vec(any::<[u8; 32]>(), 1..MAX_KEYS)) {
        let mut keyring = Keyring::generate(secrets[0]);
        for secret in &secrets[1..] {
            let _ = keyring.add(*secret);
        }
        let read = Keyring::parse(&keyring.to_text()).unwrap();
        prop_assert_eq!(&*read.to_text(), &*keyring.to_text());
    }
}
