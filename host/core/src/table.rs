//! The address table: signed records by node, and the hash tree that proves two copies identical.
//!
//! The tree has 256 buckets by the first byte of the node id (a hash, so they fill evenly):
//! `leaf = SHA-256(record bytes)` (of a removal only what is removed counts, not who signed it: two members that
//! remove the same entry agree), `bucket = SHA-256(1 || leaves in id order)`,
//! `digest = SHA-256(0 || (index || bucket) of non-empty buckets)`. A change rehashes one bucket and
//! the root, and two members that differ exchange only the buckets that do.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use overlan_wire::{Digest, Entry, NodeId, Record, SignedRecord};
use sha2::{Digest as _, Sha256};

/// Most records a table holds; more are refused and counted.
pub(crate) const MAX_RECORDS: usize = overlan_contract::assignment::MAX_NODES;

/// What became of a record offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It replaced an older one, or is the first of its node.
    Changed,
    /// The table holds the same or a newer one.
    Known,
    /// The table is full. Nothing changed.
    Full,
}

/// The address table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Boxed: a map's nodes have room for eleven values, and are filled by half to all.
    records: BTreeMap<NodeId, Box<SignedRecord>>,
    buckets: Box<[Option<Digest>; 256]>,
    root: Digest,
}

impl Table {
    pub(crate) fn new() -> Self {
        let mut table =
            Table { records: BTreeMap::new(), buckets: Box::new([None; 256]), root: Digest([0; 32]) };
        table.rehash_root();
        table
    }

    /// Takes a record whose signature was checked.
    pub(crate) fn merge(&mut self, record: SignedRecord) -> Merge {
        let id = record.record.id();
        match self.records.get(&id) {
            Some(held) if held.record.precedence() >= record.record.precedence() => return Merge::Known,
            None if self.records.len() >= MAX_RECORDS => return Merge::Full,
            _ => {}
        }
        self.records.insert(id, Box::new(record));
        self.rehash_bucket(id.0[0]);
        self.rehash_root();
        Merge::Changed
    }

    pub(crate) fn digest(&self) -> Digest {
        self.root
    }

    pub(crate) fn record(&self, id: NodeId) -> Option<&SignedRecord> {
        self.records.get(&id).map(Box::as_ref)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.records.values().map(Box::as_ref)
    }

    /// Of all records, in ascending order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.records.keys().copied()
    }

    pub(crate) fn entry(&self, id: NodeId) -> Option<&Entry> {
        match &self.records.get(&id)?.record {
            Record::Entry(entry) => Some(entry),
            Record::Forgotten(_) => None,
        }
    }

    /// All entries by ascending node id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.records.values().filter_map(|signed| match &signed.record {
            Record::Entry(entry) => Some(entry),
            Record::Forgotten(_) => None,
        })
    }

    /// Eight bytes of each bucket's hash, 0 for an empty one.
    pub(crate) fn bucket_hashes(&self) -> Vec<u64> {
        self.buckets.iter().map(|digest| short_hash(digest.as_ref())).collect()
    }

    /// Node, version and whether forgotten, of each record of a bucket.
    pub(crate) fn leaves(&self, bucket: u8) -> Vec<(NodeId, u64, bool)> {
        self.bucket(bucket)
            .map(|(&id, signed)| {
                let (version, forgotten) = signed.record.precedence();
                (id, version, forgotten)
            })
            .collect()
    }

    fn bucket(&self, bucket: u8) -> impl Iterator<Item = (&NodeId, &SignedRecord)> {
        let (mut low, mut high) = (NodeId([0; 16]), NodeId([0xff; 16]));
        low.0[0] = bucket;
        high.0[0] = bucket;
        self.records.range(low..=high).map(|(id, signed)| (id, signed.as_ref()))
    }

    fn rehash_bucket(&mut self, bucket: u8) {
        let mut hash = Sha256::new_with_prefix([1]);
        for (_, signed) in self.bucket(bucket) {
            hash.update(leaf(signed));
        }
        self.buckets[usize::from(bucket)] = Some(Digest(hash.finalize().into()));
    }

    fn rehash_root(&mut self) {
        let mut hash = Sha256::new_with_prefix([0]);
        for (index, bucket) in self.buckets.iter().enumerate() {
            if let Some(bucket) = bucket {
                hash.update([index as u8]);
                hash.update(bucket.0);
            }
        }
        self.root = Digest(hash.finalize().into());
    }
}

/// Hash of one record. A removal is the same whoever signed it.
fn leaf(signed: &SignedRecord) -> [u8; 32] {
    match &signed.record {
        Record::Entry(_) => Sha256::digest(signed.bytes()).into(),
        Record::Forgotten(forgotten) => {
            let mut hash = Sha256::new_with_prefix([2]);
            hash.update(forgotten.id.0);
            hash.update(forgotten.version.to_be_bytes());
            hash.finalize().into()
        }
    }
}

fn short_hash(digest: Option<&Digest>) -> u64 {
    digest.map_or(0, |digest| {
        u64::from_be_bytes(*digest.0.first_chunk().expect("a digest is longer than eight bytes"))
    })
}

/// The address an adapter of the table is reached at.
pub(crate) fn socket_address(adapter: &overlan_wire::Adapter) -> SocketAddr {
    SocketAddr::new(adapter.address, adapter.port)
}

/// The owner's word as policies and listings see it.
pub(crate) fn contract_status(status: overlan_wire::AdapterStatus) -> overlan_contract::AdapterStatus {
    match status {
        overlan_wire::AdapterStatus::Up => overlan_contract::AdapterStatus::Up,
        overlan_wire::AdapterStatus::Down => overlan_contract::AdapterStatus::Down,
    }
}

/// An adapter of the table as policies see it.
pub(crate) fn contract_adapter(adapter: &overlan_wire::Adapter) -> overlan_contract::Adapter {
    overlan_contract::Adapter {
        name: adapter.name.clone(),
        kind: adapter.kind.clone(),
        address: adapter.address,
        prefix_length: adapter.prefix_length,
        mtu: adapter.mtu,
        speed: adapter.speed,
        class_of_service: adapter.class_of_service.clone(),
        dscp: adapter.dscp,
        status: contract_status(adapter.status),
        attributes: Vec::new(),
    }
}
