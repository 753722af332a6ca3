//! Every decoder, on mutations of the corpus: it never panics, and what it accepts holds its promises.
//! `OVERLAN_FUZZ_RUNS` and `OVERLAN_FUZZ_SEED` set how long and where from.

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
