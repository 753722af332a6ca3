//! Every decoder, on mutations of the corpus: it never panics, and what it accepts holds its promises.

use overlan_tests::corpus::Kind;
use overlan_tests::fuzz::fuzz;
use overlan_wire::frame::Frames;
use overlan_wire::limits::{MAX_ACCEPT_BITMAP, MAX_ACK_RANGES, MAX_ADAPTERS, MAX_MESSAGE, MAX_RECORD};
use overlan_wire::{Frame, Header, Reader, Record, SignedRecord};

fn inputs(kind: Kind) -> Vec<Vec<u8>> {
    kind.files().into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn headers() {
    fuzz("headers", &inputs(Kind::Header), |input| {
        let mut reader = Reader::new(input);
        if let Ok(header) = Header::parse(&mut reader) {
            let read = input.len() - reader.rest().len();
            let mut written = Vec::new();
            header.emit(&mut written);
            // The reserved bytes are ignored where they are read.
            assert_eq!(written[..2], input[..2]);
            assert_eq!(written[4..], input[4..read]);
        }
    });
}

#[test]
fn packets() {
    fuzz("packets", &inputs(Kind::Packet), |input| {
        let mut accepted = Vec::new();
        for frame in Frames::new(input).map_while(Result::ok) {
            match &frame {
                Frame::Fragment(fragment) => {
                    assert!(fragment.total as usize <= MAX_MESSAGE);
                    assert!(
                        u64::from(fragment.offset) + fragment.payload.len() as u64
                            <= u64::from(fragment.total)
                    );
                }
                Frame::Ack(ack) => {
                    assert!((1..=MAX_ACK_RANGES).contains(&ack.ranges.len()));
                    assert!(ack.ranges.iter().all(|(low, high)| low <= high));
                    assert!(ack.ranges.windows(2).all(|pair| pair[1].1 < pair[0].0));
                }
                Frame::Run(run) => {
                    assert_eq!(run.payloads().count(), usize::from(run.count()));
                    assert_eq!(run.payloads().map(<[u8]>::len).sum::<usize>(), run.bytes());
                }
                Frame::Accepted(accepted) => assert!(accepted.bitmap.len() <= MAX_ACCEPT_BITMAP),
                Frame::Buckets { first, hashes } => assert!(usize::from(*first) + hashes.len() <= 256),
                _ => {}
            }
            accepted.push(frame);
        }
        let mut written = Vec::new();
        accepted.iter().for_each(|frame| frame.emit(&mut written));
        let again: Result<Vec<Frame<'_>>, _> = Frames::new(&written).collect();
        assert_eq!(again, Ok(accepted));
    });
}

#[test]
fn records() {
    fuzz("records", &inputs(Kind::Record), |input| {
        let Ok(signed) = SignedRecord::parse(input) else { return };
        assert!(input.len() <= MAX_RECORD);
        assert_eq!(signed.bytes(), input);
        if let Record::Entry(entry) = &signed.record {
            assert!(!entry.name.is_empty());
            assert!(entry.adapters.len() <= MAX_ADAPTERS);
            assert!(entry.adapters.iter().all(|adapter| adapter.port != 0 && adapter.dscp < 64));
        }
        // Whatever was read can be written and reads the same.
        let unsigned = signed.record.to_unsigned_bytes().expect("it fitted when it was read");
        let again = SignedRecord::new(signed.record.clone(), unsigned, signed.signed_part().1);
        assert_eq!(SignedRecord::parse(again.bytes()).map(|read| read.record), Ok(signed.record));
    });
}

#[test]
fn identifiers() {
    let examples = ["00112233445566778899aabbccddeeff", "", "ß", "0x11", "FFEEDDCCBBAA99887766554433221100"];
    let examples: Vec<Vec<u8>> = examples.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz("identifiers", &examples, |input| {
        if let Ok(text) = std::str::from_utf8(input)
            && let Ok(id) = text.parse::<overlan_wire::NodeId>()
        {
            assert_eq!(id.to_string(), text.to_lowercase());
        }
    });
}

#[test]
fn application_frames() {
    use overlan_node::app::frame::MAX_FRAME;
    use overlan_node::app::{Frame, Origin, Received, Target};
    let (token, node) = (7, overlan_wire::NodeId([1; 16]));
    let (mode, payload) = (overlan_wire::MessageMode::Ordered, bytes::Bytes::from("hello"));
    let to = |text: &str| Target::parse(text);
    let send = |to| Frame::Send { token, mode, lifetime_ms: 9, to, payload: payload.clone() };
    let end = |text: &str| text.parse().expect("an address");
    let path = Some((end("10.1.1.2:7400"), end("10.2.1.2:7400")));
    let received = Received {
        origin: std::sync::Arc::new(Origin { node, name: "a".into(), path }),
        id: overlan_wire::MessageId(3),
        mode,
        stream: 0,
        redelivered: false,
        time_ns: 1,
        payload: payload.clone(),
    };
    let payloads = vec![payload.clone(); 3];
    let frames = [
        send(to("b")),
        send(to("role:leader")),
        send(to("all")),
        Frame::Listen { credit: 1 },
        Frame::Credit { credit: u32::MAX },
        Frame::Queued { token, nodes: vec![node; 3] },
        Frame::Fate { token, node, fate: overlan_node::Fate::Delivered },
        Frame::Failed { token, error: "no such member".into() },
        Frame::Message(received.clone()),
        Frame::Messages(vec![received; 3]),
        Frame::SendBatch { token, mode, stream: 1, lifetime_ms: 9, to: to("b"), payloads },
        Frame::ListenBatch { credit: 1, streams: vec![0, 1] },
        Frame::Fates { token, count: 3, node, fate: overlan_node::Fate::Expired },
        Frame::Error("malformed".into()),
    ];
    let bodies: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| {
            let mut bytes = Vec::new();
            frame.emit(&mut bytes);
            bytes.split_off(4)
        })
        .collect();
    fuzz("application frames", &bodies, |input| {
        let Ok(frame) = Frame::parse(bytes::Bytes::copy_from_slice(input)) else { return };
        let mut written = Vec::new();
        frame.emit(&mut written);
        let length = u32::from_be_bytes(written[..4].try_into().expect("a length")) as usize;
        assert_eq!(length, written.len() - 4);
        assert!((1..=MAX_FRAME).contains(&length));
        assert_eq!(Frame::parse(written.split_off(4).into()).expect("what was written can be read"), frame);
    });
}

#[test]
fn measurements() {
    use overlan_node::bench::{Header, Kind, Report};
    let header = Header { kind: Kind::Data, run: 1, sequence: 2 }.emit(20);
    let report = Report { messages: 1, bytes: 2, expected: 3, nanoseconds: 4 }.emit(5);
    fuzz("measurements", &[header, report], |input| {
        if let Some(header) = Header::parse(input) {
            assert_eq!(Header::parse(&header.emit(input.len())), Some(header));
        }
        if let Some(report) = Report::parse(input) {
            assert_eq!(Report::parse(&report.emit(0)), Some(report));
        }
    });
}

#[test]
fn key_files() {
    use overlan_seal::{Identity, Keyring, OperatorKey};
    let mut keyring = Keyring::generate(core::array::from_fn(|index| index as u8));
    keyring.add(core::array::from_fn(|index| 0x40 + index as u8)).expect("a secret");
    let identity = Identity::generate(core::array::from_fn(|index| index as u8));
    let operator = OperatorKey::generate(core::array::from_fn(|index| index as u8));
    let texts = [keyring.to_text(), identity.to_text(), operator.to_text()];
    let corpus = texts.map(|text| text.as_bytes().to_vec());
    fuzz("key files", &corpus, |input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(keyring) = Keyring::parse(&text) {
            let again = Keyring::parse(&keyring.to_text()).expect("what was written can be read");
            assert!(again.ids().eq(keyring.ids()));
        }
        if let Ok(operator) = OperatorKey::parse(&text) {
            let again = OperatorKey::parse(&operator.to_text()).expect("what was written can be read");
            assert_eq!(again.public(), operator.public());
        }
        if let Ok(identity) = Identity::parse(&text) {
            let again = Identity::parse(&identity.to_text()).expect("what was written can be read");
            assert_eq!(again.node_id(), identity.node_id());
        }
    });
}

#[test]
fn configurations() {
    use overlan_node::config::{Config, Overrides};
    let file = std::path::Path::new("node.toml");
    let sections: Vec<Vec<u8>> = CONFIGURATION.split_inclusive("\n\n").map(Into::into).collect();
    let corpus: Vec<Vec<u8>> = [vec![CONFIGURATION.into()], sections].concat();
    fuzz("configurations", &corpus, |input| {
        let text = String::from_utf8_lossy(input);
        match Config::parse(&text, file, &Overrides::default()) {
            Ok(config) => {
                let printable = |text: &str| text.chars().all(overlan_wire::codec::is_printable);
                let pairs = config.attributes.iter();
                assert!(pairs.flat_map(|(key, value)| [key, value]).all(|text| printable(text)));
                assert!(config.responsibilities.iter().all(|duty| printable(&duty.name)));
                assert!(config.adapters.len() <= MAX_ADAPTERS && config.port != 0);
            }
            Err(error) => {
                let error = error.to_string();
                // The key that every configuration needs has no line.
                assert!(
                    error.starts_with("node.toml:") || error.starts_with("[cluster] key_file"),
                    "{error}"
                );
            }
        }
    });
}

const CONFIGURATION: &str = r#"[node]
name = "a"
state_dir = "state"
control = "a.sock"
port = 7401
metrics = "127.0.0.1:9464"
attributes = { site = "x" }

[cluster]
name = "prod"
key_file = "cluster.key"
seeds = ["10.2.0.2:7400", "fd00::2"]
quorum = "majority"
security = "key"
allow = ["00112233445566778899aabbccddeeff"]
operator_key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

[[adapter]]
name = "eth0"
address = "10.1.0.2"
class_of_service = "af41"
dscp = 10
gateway = "10.1.0.1"
speed = 1000

[[route]]
subnet = "10.9.0.0/16"
via = "10.1.0.1"
adapter = "eth0"

[policy.failover]
plugin = "builtin:fast"
config = { key = "value" }

[[responsibility]]
name = "shard-{0..63}"
replicas = 2
weight = 1.5
requires = { site = "x" }

"#;
