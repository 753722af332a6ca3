//! The table's records.

use overlan_wire::entry::SIGNATURE;
use overlan_wire::limits::{MAX_RECORD, MAX_VERSION};
use overlan_wire::{
    Adapter, AdapterStatus, BootId, DecodeError, Entry, Forgotten, NodeId, Record, SignedRecord,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::arbitrary::record;

fn signed(record: Record, signature: [u8; SIGNATURE]) -> Option<SignedRecord> {
    let unsigned = record.to_unsigned_bytes().ok()?;
    Some(SignedRecord::new(record, unsigned, &signature))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(record in record(), filler: u8) {
        match signed(record.clone(), [filler; SIGNATURE]) {
            Some(written) => {
                prop_assert!(written.bytes().len() <= MAX_RECORD);
                let read = SignedRecord::parse(written.bytes()).expect("a valid record");
                prop_assert_eq!(&read, &written);
                let (covered, signature) = read.signed_part();
                prop_assert_eq!(covered, &record.to_unsigned_bytes().expect("it fitted before")[..]);
                prop_assert_eq!(signature, &[filler; SIGNATURE]);
            }
            None => prop_assert!(matches!(record, Record::Entry(_)), "only entries grow"),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..1_200)) {
        let _ = SignedRecord::parse(&bytes);
    }

    #[test]
    fn changed_bytes_are_refused_or_relayed_as_they_are(
        record in record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        prop_assume!(record.to_unsigned_bytes().is_ok());
        let mut bytes = signed(record, [0; SIGNATURE]).expect("it fits").bytes().to_vec();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(read) = SignedRecord::parse(&bytes) {
            prop_assert_eq!(read.bytes(), &bytes[..]);
        }
    }

    #[test]
    fn a_cut_record_is_refused_or_shorter_by_what_is_unknown(record in record(), cut: prop::sample::Index) {
        prop_assume!(record.to_unsigned_bytes().is_ok());
        let bytes = signed(record.clone(), [7; SIGNATURE]).expect("it fits").bytes().to_vec();
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert!(SignedRecord::parse(cut).is_err(), "no known field may be missing");
    }

    #[test]
    fn what_a_newer_member_appended_survives_the_relay(record in record(), appended in vec(any::<u8>(), 1..40)) {
        let unsigned = record.to_unsigned_bytes();
        prop_assume!(unsigned.as_ref().is_ok_and(|bytes| bytes.len() + 40 + SIGNATURE <= MAX_RECORD));
        let newer = [&unsigned.expect("it fits")[..], &appended, &[9; SIGNATURE]].concat();
        let read = SignedRecord::parse(&newer).expect("a record of a newer member");
        prop_assert_eq!(&read.record, &record);
        prop_assert_eq!(read.bytes(), &newer[..]);
        prop_assert_eq!(read.signed_part().0.len(), newer.len() - SIGNATURE);
    }

    #[test]
    fn precedence_puts_a_removal_behind_its_entry(entry in record(), version: u64) {
        let forgotten = |version| {
            Record::Forgotten(Forgotten { id: entry.id(), version, by_key: [0; 32] })
        };
        if let Record::Entry(entry) = &entry {
            let precedence = Record::Entry(entry.clone()).precedence();
            prop_assert!(forgotten(entry.version).precedence() > precedence);
            if version > entry.version {
                prop_assert!(forgotten(version).precedence() > precedence);
            } else if version < entry.version {
                prop_assert!(forgotten(version).precedence() < precedence);
            }
        }
    }
}

#[test]
fn a_record_over_the_limit_is_refused() {
    assert_eq!(SignedRecord::parse(&[1; MAX_RECORD + 1]), Err(DecodeError::OutOfRange("record length")));
}

fn entry(name: &str) -> Entry {
    Entry {
        id: NodeId([1; 16]),
        boot: BootId([2; 16]),
        version: 1,
        name: name.into(),
        sign_key: [3; 32],
        exchange_key: [4; 32],
        adapters: vec![],
        attributes: vec![("key".into(), "value".into())],
        left: false,
        operator: None,
    }
}

#[test]
fn text_that_would_command_a_terminal_is_refused_and_never_written() {
    let plain = signed(Record::Entry(entry("abcd")), [0; SIGNATURE]).expect("it fits");
    for (text, what) in [(&b"abcd"[..], "name"), (b"key", "attribute key"), (b"value", "attribute value")] {
        let at = plain.bytes().windows(text.len()).position(|bytes| bytes == text).expect("it is there");
        let hostile: [&[u8]; 4] = [b"\x1b[", b"\n\0", "\u{9b}".as_bytes(), "\u{202e}".as_bytes()];
        for hostile in hostile {
            let mut bytes = plain.bytes().to_vec();
            bytes[at..at + hostile.len()].copy_from_slice(hostile);
            assert_eq!(SignedRecord::parse(&bytes), Err(DecodeError::NotText(what)), "{hostile:?}");
        }
    }
    let replaced = signed(Record::Entry(entry("a\u{1b}[2Jb\u{2028}")), [0; SIGNATURE]).expect("it fits");
    let read = SignedRecord::parse(replaced.bytes()).expect("what is written can be read");
    assert!(matches!(read.record, Record::Entry(entry) if entry.name == "a\u{fffd}[2Jb\u{fffd}"));
}

#[test]
fn versions_leave_room_for_the_owner() {
    let parse = |record: Record| {
        let signed = signed(record, [0; SIGNATURE]).expect("it fits");
        SignedRecord::parse(signed.bytes()).map(drop)
    };
    let refused = Err(DecodeError::OutOfRange("version"));
    let entry = |version| parse(Record::Entry(Entry { version, ..entry("a") }));
    assert_eq!((entry(MAX_VERSION), entry(MAX_VERSION + 1)), (Ok(()), refused));
    let removal =
        |version| parse(Record::Forgotten(Forgotten { id: NodeId([1; 16]), version, by_key: [0; 32] }));
    assert_eq!((removal(MAX_VERSION), removal(MAX_VERSION + 1)), (Ok(()), refused));
}

#[test]
fn addresses_that_are_not_one_hosts_are_refused() {
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:10.0.0.1"] {
        let address = address.parse().expect("an address");
        let adapter = Adapter {
            name: "eth0".into(),
            kind: "ether".into(),
            address,
            port: 7400,
            prefix_length: 24,
            mtu: 1_500,
            speed: 0,
            class_of_service: String::new(),
            dscp: 0,
            status: AdapterStatus::Up,
            gateways: vec![],
        };
        let entry = Entry { adapters: vec![adapter], ..entry("a") };
        let forged = signed(Record::Entry(entry), [0; SIGNATURE]).expect("it fits");
        let refused = SignedRecord::parse(forged.bytes());
        assert_eq!(refused, Err(DecodeError::OutOfRange("address")), "{address}");
    }
}
