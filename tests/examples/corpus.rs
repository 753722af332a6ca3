//! Adds to the corpus what is missing in it; what is there never changes.

use std::fs;

use overlan_tests::corpus::{Kind, to_hex};
use overlan_wire::frame::{Accepted, RunWriter};
use overlan_wire::{
    Ack, Adapter, AdapterStatus, BootId, Digest, DocumentId, Entry, Forgotten, Fragment, Frame, Header,
    KeyId, MessageId, MessageMode, NodeId, OperatorId, PacketNumber, PathId, Record, RefusedDocument,
    SessionId, SignedRecord,
};

fn main() {
    for (name, bytes) in headers() {
        add(Kind::Header, name, &bytes);
    }
    for (name, bytes) in packets() {
        add(Kind::Packet, name, &bytes);
    }
    for (name, bytes) in records() {
        add(Kind::Record, name, &bytes);
    }
}

fn add(kind: Kind, name: &str, bytes: &[u8]) {
    let file = kind.folder().join(name).with_extension("hex");
    if file.exists() {
        return;
    }
    fs::create_dir_all(kind.folder()).expect("a folder");
    let meaning = kind.meaning(bytes).expect("this version reads what it writes");
    fs::write(file.with_extension("txt"), meaning).expect("the meaning is written");
    fs::write(&file, to_hex(bytes)).expect("the bytes are written");
    println!("added {}", file.display());
}

fn headers() -> Vec<(&'static str, Vec<u8>)> {
    use overlan_wire::Kind as Sealed;
    let boot = BootId([0xb0; 16]);
    let data = Sealed::Data {
        session: SessionId(0x1122_3344_5566_7788),
        path: PathId(3),
        number: PacketNumber(1 << 33),
    };
    let kinds = [
        ("hello", Sealed::Hello { boot, counter: 0 }),
        ("cluster", Sealed::Cluster { boot, counter: u64::MAX }),
        ("data", data),
    ];
    let emit = |kind| {
        let mut bytes = Vec::new();
        Header { key: KeyId(0xfeed_beef), kind }.emit(&mut bytes);
        bytes
    };
    kinds.map(|(name, kind)| (name, emit(kind))).into()
}

fn fragment(mode: MessageMode, total: u32, offset: u32, payload: &[u8]) -> Frame<'_> {
    let order = if mode == MessageMode::Ordered { 7 } else { 0 };
    Frame::Fragment(Fragment {
        message: MessageId(42),
        mode,
        redelivered: true,
        stream: 3,
        order,
        total,
        offset,
        payload,
    })
}

fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let digest = |byte| Digest([byte; 32]);
    let record = records().swap_remove(0).1;
    let ranges = [(PacketNumber(90), PacketNumber(100)), (PacketNumber(5), PacketNumber(5))];
    let ack = Ack { path: PathId(1), delay_us: 250, ce: 3, ranges: ranges.into_iter().collect() };
    let mut unknown = packet(&[Frame::Pong { token: 1 }]);
    unknown.extend_from_slice(&[0xee, 0, 4, 1, 2, 3, 4]);
    unknown.extend_from_slice(&packet(&[Frame::Pong { token: 2 }]));
    vec![
        ("empty", Vec::new()),
        (
            "hello",
            packet(&[
                Frame::Hello { token: 1, digest: digest(0), record: &record },
                Frame::Ping { token: 0, padding: 64 },
            ]),
        ),
        (
            "hello-reply",
            packet(&[Frame::HelloReply { echo: 1, token: 2, digest: digest(0xd1), record: &record }]),
        ),
        ("hello-done", packet(&[Frame::HelloDone { echo: 2 }])),
        ("refused", packet(&[Frame::Refused { echo: 1, code: 1, others: false }])),
        ("refused-others", packet(&[Frame::Refused { echo: 1, code: 1, others: true }])),
        ("membership", packet(&[Frame::Membership(b"as the membership protocol has it")])),
        (
            "summary",
            packet(&[Frame::Summary {
                digest: digest(1),
                epoch: 12,
                agreed: digest(2),
                documents: Default::default(),
                refused: None,
            }]),
        ),
        (
            "summary-document",
            packet(&[Frame::Summary {
                digest: digest(1),
                epoch: 12,
                agreed: digest(2),
                documents: [4, 3].map(|version| DocumentId { version, digest: digest(version as u8) }),
                refused: None,
            }]),
        ),
        (
            "summary-refused",
            packet(&[Frame::Summary {
                digest: digest(1),
                epoch: 12,
                agreed: digest(2),
                documents: Default::default(),
                refused: Some(RefusedDocument {
                    document: DocumentId { version: 5, digest: digest(5) },
                    code: RefusedDocument::UNSIGNED,
                }),
            }]),
        ),
        ("buckets", packet(&[Frame::Buckets { first: 250, hashes: vec![0, 1, u64::MAX, 3, 4, 5] }])),
        (
            "leaves",
            packet(&[Frame::Leaves {
                bucket: 255,
                leaves: vec![(NodeId([1; 16]), 9, false), (NodeId([2; 16]), 10, true)],
            }]),
        ),
        ("want", packet(&[Frame::Want(vec![NodeId([1; 16]), NodeId([2; 16])])])),
        ("record", packet(&[Frame::Record(&record)])),
        ("probe", packet(&[Frame::Ping { token: 77, padding: 1_100 }, Frame::Pong { token: 76 }])),
        ("ack", packet(&[Frame::Ack(ack)])),
        (
            "accepted",
            packet(&[Frame::Accepted(Accepted {
                stream: 3,
                floor: MessageId(40),
                credit: 1 << 26,
                credit_in_all: 1 << 27,
                bitmap: &[0b101, 0xff],
            })]),
        ),
        ("run", run()),
        ("unreliable", packet(&[fragment(MessageMode::Unreliable, 5, 0, b"hello")])),
        ("reliable-last-fragment", packet(&[fragment(MessageMode::Reliable, 2_000, 1_995, b"ahead")])),
        ("ordered-empty", packet(&[fragment(MessageMode::Ordered, 0, 0, b"")])),
        ("unknown-frame", unknown),
    ]
}

fn run() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut run = RunWriter::start(&mut bytes, 3, MessageMode::Ordered, false, MessageId(42), 7);
    run.push(b"hello");
    run.push(b"");
    run.finish();
    bytes
}

fn packet(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.emit(&mut bytes));
    bytes
}

fn adapter(name: &str, address: &str, gateways: &[&str]) -> Adapter {
    let parse = |text: &str| text.parse().expect("an address");
    Adapter {
        name: name.into(),
        kind: "ether".into(),
        address: parse(address),
        port: 7_400,
        prefix_length: 24,
        mtu: 1_500,
        speed: 10_000,
        class_of_service: "control".into(),
        dscp: 46,
        status: AdapterStatus::Up,
        gateways: gateways.iter().map(|gateway| parse(gateway)).collect(),
    }
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let entry = Entry {
        id: NodeId([0x1d; 16]),
        boot: BootId([0xb0; 16]),
        version: 3,
        name: "knoten-ä".into(),
        sign_key: [0x51; 32],
        exchange_key: [0xec; 32],
        adapters: vec![
            adapter("eth0", "10.1.1.2", &["10.1.1.1"]),
            Adapter {
                status: AdapterStatus::Down,
                speed: 0,
                ..adapter("eth1", "fd00:0:1:2::2", &["fe80::1", "fd00:0:1:2::1"])
            },
        ],
        attributes: vec![("site".into(), "x".into()), ("rack".into(), String::new())],
        left: false,
        operator: None,
    };
    let small = Entry { name: "b".into(), adapters: vec![], attributes: vec![], left: true, ..entry.clone() };
    let forgotten = Forgotten { id: NodeId([0x1d; 16]), version: 3, by_key: [0x52; 32] };
    let signed = |record: Record| {
        let unsigned = record.to_unsigned_bytes().expect("it fits");
        SignedRecord::new(record, unsigned, &[0x5e; 64]).bytes().to_vec()
    };
    let mut newer = Record::Entry(small.clone()).to_unsigned_bytes().expect("it fits");
    newer.extend_from_slice(b"fields of a newer version");
    newer.extend_from_slice(&[0x5e; 64]);
    vec![
        ("entry", signed(Record::Entry(entry))),
        ("entry-left", signed(Record::Entry(small.clone()))),
        ("entry-operator", signed(Record::Entry(Entry { operator: Some(OperatorId([0x09; 8])), ..small }))),
        ("entry-newer", newer),
        ("forgotten", signed(Record::Forgotten(forgotten))),
    ]
}
