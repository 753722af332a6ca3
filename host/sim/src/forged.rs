//! Records that no core wrote.

use std::net::SocketAddr;

use overlan_core::crypto::Crypto as _;
use overlan_seal::{Identity, Keyring, Seal};
use overlan_wire::{Adapter, AdapterStatus, BootId, Entry, NodeId, Record, SignedRecord};

/// Signs a record with these keys.
pub fn sign(seal: &Seal, record: Record) -> Vec<u8> {
    let unsigned = record.to_unsigned_bytes().expect("it fits");
    let signature = seal.sign(&unsigned);
    SignedRecord::new(record, unsigned, &signature).bytes().to_vec()
}

/// An entry of whoever has these keys, with an adapter for each address.
pub fn entry(seal: &Seal, boot: BootId, version: u64, name: &str, addresses: &[SocketAddr]) -> Entry {
    let adapter = |address: &SocketAddr| Adapter {
        name: "eth0".into(),
        kind: "ether".into(),
        address: address.ip(),
        port: address.port(),
        prefix_length: 24,
        mtu: 1_500,
        speed: 0,
        class_of_service: String::new(),
        dscp: 0,
        status: AdapterStatus::Up,
        gateways: vec![],
    };
    Entry {
        id: seal.node_id(&seal.sign_key()),
        boot,
        version,
        name: name.into(),
        sign_key: seal.sign_key(),
        exchange_key: seal.exchange_key(),
        adapters: addresses.iter().map(adapter).collect(),
        attributes: vec![],
        left: false,
        operator: None,
    }
}

/// The signed entry of a node that never ran, with so many addresses, and its id.
pub fn made_up(number: u32, version: u64, addresses: u16) -> (NodeId, Vec<u8>) {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let seal = Seal::new(Identity::from_seeds(&seed, &seed), Keyring::public_lab(), "sim");
    let boot = BootId(seed[..16].try_into().expect("sixteen"));
    let addresses: Vec<SocketAddr> = (1..=addresses).map(|port| ([10, 66, 6, 6], port).into()).collect();
    let entry = entry(&seal, boot, version, &format!("made-up-{number}"), &addresses);
    (entry.id, sign(&seal, Record::Entry(entry)))
}
