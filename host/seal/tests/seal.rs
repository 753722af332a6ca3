//! Ciphers, derivation and signatures, through the trait the core uses.

use overlan_core::crypto::{Aead, Crypto};
use overlan_seal::{Cipher, Identity, Keyring, KeyringError, Seal};
use overlan_wire::{BootId, KeyId};
use proptest::prelude::*;

const A: BootId = BootId([0xa1; 16]);
const B: BootId = BootId([0xb2; 16]);
const NONCE: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

fn cluster_key() -> [u8; 32] {
    core::array::from_fn(|index| index as u8)
}

fn node(keyring: Keyring, cluster: &str) -> Seal {
    Seal::new(Identity::from_seeds(&[1; 32], &[2; 32]), keyring, cluster)
}

fn prod() -> Seal {
    node(Keyring::generate(cluster_key()), "prod")
}

fn sealed(cipher: &Cipher, associated: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let tag = cipher.seal(NONCE, associated, &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

fn opens(cipher: &Cipher, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = sealed.to_vec();
    let len = cipher.open(NONCE, associated, &mut sealed)?;
    sealed.truncate(len);
    Some(sealed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The derivation is wire format. These were computed apart from this crate, by Python's `hmac` after
/// RFC 5869 and by OpenSSL's AES-256-GCM: a change here locks old members out.
#[test]
fn the_derivation_is_the_documented_one() {
    let seal = prod();
    let key = KeyId(0x81dc_1b32);
    assert_eq!(seal.active_key(), key);
    let cluster = seal.cluster_cipher(key, A).unwrap();
    assert_eq!(
        hex(&sealed(&cluster, b"header", b"overlan")),
        "b104f4a08820739ce17bb3583d3da66fd29613920cb0e1"
    );
}

#[test]
fn any_flipped_bit_fails() {
    let cipher = prod().cluster_cipher(KeyId(0x81dc_1b32), A).unwrap();
    let good = sealed(&cipher, b"header", b"a text");
    assert_eq!(opens(&cipher, b"header", &good).as_deref(), Some(&b"a text"[..]));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(opens(&cipher, b"header", &bad), None, "bit {bit}");
    }
    for bit in 0..6 * 8 {
        let mut header = *b"header";
        header[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(opens(&cipher, &header, &good), None, "bit {bit} of the associated data");
    }
    let mut other_nonce = NONCE;
    other_nonce[11] ^= 1;
    assert_eq!(cipher.open(other_nonce, b"header", &mut good.clone()), None);
    for len in 0..good.len() {
        assert_eq!(opens(&cipher, b"header", &good[..len]), None, "cut to {len}");
    }
}

#[test]
fn only_the_same_key_name_and_boot_open() {
    let seal = prod();
    let key = seal.active_key();
    let good = sealed(&seal.cluster_cipher(key, A).unwrap(), b"", b"text");
    let same = prod().cluster_cipher(key, A).unwrap();
    assert!(opens(&same, b"", &good).is_some(), "another member derives the same");
    assert_eq!(opens(&seal.cluster_cipher(key, B).unwrap(), b"", &good), None, "another boot");
    let renamed = node(Keyring::generate(cluster_key()), "staging");
    assert_eq!(opens(&renamed.cluster_cipher(key, A).unwrap(), b"", &good), None);
    let foreign = node(Keyring::generate([9; 32]), "prod");
    assert!(foreign.cluster_cipher(key, A).is_none(), "the keyring lacks the key");
}

#[test]
fn the_public_lab_key_and_real_keys_do_not_meet() {
    let lab = node(Keyring::public_lab(), "prod");
    assert_eq!(lab.accepted_keys(), [KeyId(0)]);
    assert!(lab.cluster_cipher(KeyId(0), A).is_some());
    assert!(prod().cluster_cipher(KeyId(0), A).is_none());
    assert!(lab.cluster_cipher(prod().active_key(), A).is_none());
}

#[test]
fn a_key_changes_in_three_steps() {
    let mut keyring = Keyring::generate(cluster_key());
    let old = keyring.active();
    let mut seal = node(keyring.clone(), "prod");
    assert_eq!(keyring.add([0x5a; 32]), Err(KeyringError::Weak));
    let new = keyring.add(core::array::from_fn(|index| 0x80 | index as u8)).unwrap();

    seal.set_keyring(keyring.clone());
    assert_eq!((seal.active_key(), seal.accepted_keys()), (old, vec![old, new]));
    keyring.promote(new).unwrap();
    seal.set_keyring(keyring.clone());
    assert_eq!((seal.active_key(), seal.accepted_keys()), (new, vec![new, old]));
    assert!(seal.cluster_cipher(old, A).is_some());
    keyring.retire(old).unwrap();
    seal.set_keyring(keyring);
    assert_eq!(seal.accepted_keys(), [new]);
    assert!(seal.cluster_cipher(old, A).is_none());
}

#[test]
fn signatures_are_strict() {
    let seal = prod();
    let key = seal.sign_key();
    let signature = seal.sign(b"entry");
    assert!(seal.verify(&key, b"entry", &signature));
    assert!(!seal.verify(&key, b"Entry", &signature));
    for bit in 0..signature.len() * 8 {
        let mut bad = signature;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!seal.verify(&key, b"entry", &bad), "bit {bit}");
    }
    // The identity point as a key, with R the identity and s zero, satisfies the lax equation for any
    // message.
    let mut small_order = [0; 32];
    small_order[0] = 1;
    let mut forged = [0; 64];
    forged[0] = 1;
    assert!(!seal.verify(&small_order, b"anything", &forged));
}

/// RFC 8032 section 7.1, test 1, and RFC 7748 section 5.2 (one iteration).
#[test]
fn public_keys_are_those_of_the_standards() {
    let seed: [u8; 32] = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let scalar: [u8; 32] = bytes("0900000000000000000000000000000000000000000000000000000000000000");
    let identity = Identity::from_seeds(&seed, &scalar);
    assert_eq!(hex(&identity.sign_key()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(
        hex(&identity.exchange_key()),
        "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    );
    let seal = Seal::new(identity, Keyring::public_lab(), "lab");
    assert_eq!(
        hex(&seal.sign(b"")),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd\
         25bf5f0595bbe24655141438e7a100b"
    );
    assert_eq!(seal.node_id(&seal.sign_key()), seal.identity().node_id());
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    core::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", prod());
    assert!(shown.contains("81dc1b32"), "{shown}");
    assert!(!shown.contains("0405") && !shown.contains("4, 5") && !shown.contains("0101"), "{shown}");
}

proptest! {
    #[test]
    fn round_trips(text: Vec<u8>, associated: Vec<u8>, boot: [u8; 16]) {
        let seal = prod();
        let cipher = seal.cluster_cipher(seal.active_key(), BootId(boot)).unwrap();
        prop_assert_eq!(opens(&cipher, &associated, &sealed(&cipher, &associated, &text)), Some(text));
    }

    #[test]
    fn open_and_verify_never_panic(mut noise: Vec<u8>, key: [u8; 32], half: [[u8; 32]; 2]) {
        let seal = prod();
        let cipher = seal.cluster_cipher(seal.active_key(), A).unwrap();
        prop_assert_eq!(cipher.open(NONCE, b"", &mut noise), None);
        let signature = core::array::from_fn(|index| half[index / 32][index % 32]);
        prop_assert!(!seal.verify(&key, b"", &signature));
    }
}
