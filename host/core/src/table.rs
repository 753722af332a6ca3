//! The address table: signed records by node, and the hash tree that proves two copies identical.
//!
//! The tree has 256 buckets by the first byte of the node id (a hash, so they fill evenly):
//! `leaf = SHA-256(record bytes)` (of a removal only what is removed counts, not who signed it: two members that
//! remove the same entry agree), `bucket = SHA-256(1 || leaves in id order)`,
//! `digest = SHA-256(0 || (index || bucket) of non-empty buckets)`. A change rehashes one bucket and
//! the root, and two members that differ exchange only the buckets that do.
//!
//! Entries and removals have limits of their own, so that those who are gone keep nobody out. An entry too many is refused;
//! a removal too many gives way, and which one follows from the removals alone: those with the lowest hashes stay. So
//! members that exchange theirs come to hold the same, in whatever order they came. Of those that gave way, a member
//! remembers those that ended an entry that it held, beside the digest: where another still has that entry, it is told.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use overlan_wire::limits::MAX_REMOVED_VERSION;
use overlan_wire::{Digest, Entry, NodeId, Record, SignedRecord};
use sha2::{Digest as _, Sha256};

/// Most entries a table holds; more are refused and counted.
pub(crate) const MAX_ENTRIES: usize = overlan_contract::assignment::MAX_NODES;
/// Most removals that the digest covers: they matter until every member has heard of them, which takes seconds.
pub(crate) const MAX_REMOVALS: usize = 1_024;
/// Most removals that are remembered beside them; the oldest gives way.
const MAX_ENDED: usize = 1_024;

/// What became of a record offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It replaced an older one, or is the first of its node.
    Changed,
    /// The table holds the same or a newer one.
    Known,
    /// There are as many entries as a table holds. Nothing changed.
    Full,
}

/// A removal among the records.
#[derive(Clone, Copy, Debug)]
struct Removal {
    id: NodeId,
    /// It took an entry's place here.
    ended_entry: bool,
}

/// The address table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Boxed: a map's nodes have room for eleven values, and are filled by half to all.
    records: BTreeMap<NodeId, Box<SignedRecord>>,
    /// The removals among them, by hash.
    removals: BTreeMap<[u8; 32], Removal>,
    /// Removals that are not among them but ended an entry here, with what numbers them.
    ended: BTreeMap<NodeId, (u64, Box<SignedRecord>)>,
    next_ended: u64,
    buckets: Box<[Option<Digest>; 256]>,
    root: Digest,
}

impl Table {
    pub(crate) fn new() -> Self {
        let mut table = Table {
            records: BTreeMap::new(),
            removals: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_ended: 0,
            buckets: Box::new([None; 256]),
            root: Digest([0; 32]),
        };
        table.rehash_root();
        table
    }

    /// Takes a record whose signature was checked.
    pub(crate) fn merge(&mut self, record: SignedRecord) -> Merge {
        let id = record.record.id();
        let held = self.records.get(&id);
        if held.is_some_and(|held| held.record.precedence() >= record.record.precedence())
            || self.ended(&record).is_some()
        {
            return Merge::Known;
        }
        let held_entry = held.is_some_and(|held| matches!(held.record, Record::Entry(_)));
        let held_removal = held.filter(|_| !held_entry).map(|held| leaf(held));
        match &record.record {
            Record::Entry(_) if !held_entry && self.entry_count() >= MAX_ENTRIES => return Merge::Full,
            Record::Entry(_) => {}
            Record::Forgotten(removal) => {
                let rank = leaf(&record);
                let full = held_removal.is_none() && self.removals.len() >= MAX_REMOVALS;
                let last = self.removals.last_key_value().filter(|_| full).map(|(&last, _)| last);
                if removal.version > MAX_REMOVED_VERSION || last.is_some_and(|last| rank > last) {
                    return if held_entry { self.end(record) } else { Merge::Known };
                }
                if let Some(last) = last {
                    self.give_way(last);
                }
                self.removals.insert(rank, Removal { id, ended_entry: held_entry });
            }
        }
        if let Some(rank) = held_removal {
            self.removals.remove(&rank);
        }
        self.ended.remove(&id);
        self.records.insert(id, Box::new(record));
        self.rehash_bucket(id.0[0]);
        self.rehash_root();
        Merge::Changed
    }

    /// Takes an entry out for a removal that the digest does not cover.
    fn end(&mut self, removal: SignedRecord) -> Merge {
        let id = removal.record.id();
        self.records.remove(&id);
        self.remember_ended(removal);
        self.rehash_bucket(id.0[0]);
        self.rehash_root();
        Merge::Changed
    }

    /// A removal makes room.
    fn give_way(&mut self, rank: [u8; 32]) {
        let Some(Removal { id, ended_entry }) = self.removals.remove(&rank) else { return };
        if let Some(record) = self.records.remove(&id).filter(|_| ended_entry) {
            self.remember_ended(*record);
        }
        self.rehash_bucket(id.0[0]);
    }

    fn remember_ended(&mut self, removal: SignedRecord) {
        self.ended.insert(removal.record.id(), (self.next_ended, Box::new(removal)));
        self.next_ended += 1;
        if self.ended.len() > MAX_ENDED
            && let Some((&oldest, _)) = self.ended.iter().min_by_key(|(_, (number, _))| *number)
        {
            self.ended.remove(&oldest);
        }
    }

    /// What ended an entry like this one, if that is remembered beside the records.
    pub(crate) fn ended(&self, record: &SignedRecord) -> Option<&SignedRecord> {
        let (_, removal) = self.ended.get(&record.record.id())?;
        (removal.record.precedence() >= record.record.precedence()).then_some(removal)
    }

    fn entry_count(&self) -> usize {
        self.records.len() - self.removals.len()
    }

    /// Whether there is no room for an entry of this node.
    pub(crate) fn is_full_for(&self, id: NodeId) -> bool {
        self.entry(id).is_none() && self.entry_count() >= MAX_ENTRIES
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
        let mut records = self.bucket(bucket).peekable();
        let empty = records.peek().is_none();
        records.for_each(|(_, signed)| hash.update(leaf(signed)));
        self.buckets[usize::from(bucket)] = (!empty).then(|| Digest(hash.finalize().into()));
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

/// The adapter that is reached at an address.
pub(crate) fn adapter_at(
    adapters: &[overlan_wire::Adapter],
    address: SocketAddr,
) -> Option<&overlan_wire::Adapter> {
    adapters.iter().find(|adapter| socket_address(adapter) == address)
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
