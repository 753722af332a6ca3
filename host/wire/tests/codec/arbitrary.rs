//! Any valid value.

use std::net::IpAddr;

use overlan_wire::entry::{Adapter, AdapterStatus, Entry, Forgotten, Record};
use overlan_wire::limits::{MAX_ADAPTERS, MAX_ATTRIBUTES, MAX_GATEWAYS, MAX_VERSION};
use overlan_wire::{
    BootId, Digest, DocumentId, Header, KeyId, Kind, NodeId, OperatorId, PacketNumber, PathId, SessionId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId)
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

pub(crate) fn document_id() -> impl Strategy<Value = DocumentId> {
    let some = (1..=MAX_VERSION, digest()).prop_map(|(version, digest)| DocumentId { version, digest });
    prop_oneof![Just(DocumentId::default()), some]
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let cluster = (any::<[u8; 16]>(), any::<u64>(), any::<bool>()).prop_map(|(boot, counter, hello)| {
        let boot = BootId(boot);
        if hello { Kind::Hello { boot, counter } } else { Kind::Cluster { boot, counter } }
    });
    let data = (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(session, path, number)| Kind::Data {
        session: SessionId(session),
        path: PathId(path),
        number: PacketNumber(number),
    });
    (any::<u32>(), prop_oneof![cluster, data]).prop_map(|(key, kind)| Header { key: KeyId(key), kind })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    prop_oneof![v4, v6].prop_filter("one host's address", |address| {
        !address.is_unspecified()
            && !address.is_multicast()
            && *address != IpAddr::from([255; 4])
            && address.to_canonical() == *address
    })
}

fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>().prop_filter("printable", |&c| overlan_wire::codec::is_printable(c)), 0..max / 4)
        .prop_map(String::from_iter)
}

prop_compose! {
    fn adapter()(
        (name, kind, class_of_service) in (text(20), text(20), text(20)),
        address in address(),
        port in 1..=u16::MAX,
        prefix in 0..=128u8,
        (mtu, speed) in any::<(u32, u32)>(),
        dscp in 0..=63u8,
        up in any::<bool>(),
        gateways in vec(any::<IpAddr>(), 0..=MAX_GATEWAYS),
    ) -> Adapter {
        let prefix_length = if address.is_ipv4() { prefix % 33 } else { prefix };
        let status = if up { AdapterStatus::Up } else { AdapterStatus::Down };
        Adapter { name, kind, address, port, prefix_length, mtu, speed, class_of_service, dscp, status, gateways }
    }
}

prop_compose! {
    fn entry()(
        (boot, left) in any::<([u8; 16], bool)>(),
        version in 0..=MAX_VERSION,
        id in node_id(),
        name in text(40).prop_filter("a name", |name| !name.is_empty()),
        (sign_key, exchange_key) in any::<([u8; 32], [u8; 32])>(),
        adapters in vec(adapter(), 0..=MAX_ADAPTERS),
        attributes in vec((text(12), text(12)), 0..=MAX_ATTRIBUTES),
        operator in option::of(any::<[u8; 8]>().prop_map(OperatorId)),
    ) -> Entry {
        let boot = BootId(boot);
        Entry { id, boot, version, name, sign_key, exchange_key, adapters, attributes, left, operator }
    }
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let forgotten = (node_id(), 0..=MAX_VERSION, any::<[u8; 32]>())
        .prop_map(|(id, version, by_key)| Record::Forgotten(Forgotten { id, version, by_key }));
    prop_oneof![4 => entry().prop_map(Record::Entry), 1 => forgotten]
}
