//! Frames inside the seal.

use overlan_wire::frame::{Accepted, FRAGMENT_HEADER, Frames, RunWriter};
use overlan_wire::limits::{
    MAX_ACCEPT_BITMAP, MAX_ACK_RANGES, MAX_EPOCH, MAX_HEARD_BITMAP, MAX_MESSAGE, MAX_SUITES,
};
use overlan_wire::{
    Ack, Ballot, BootId, DecodeError, Fragment, Frame, MessageId, MessageMode, NodeId, PacketNumber, PathId,
    RefusedDocument, SessionId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::arbitrary::{digest, document_id, node_id};

/// Frames borrow; a leak for each test case is what that costs here.
fn leaked(max: usize) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..max).prop_map(|bytes| &*bytes.leak())
}

fn ack() -> impl Strategy<Value = Ack> {
    // Steps down from the largest number: disjoint, descending.
    let steps = vec((0..1_000u64, 1..1_000u64), 1..=MAX_ACK_RANGES);
    (any::<u32>(), any::<u32>(), any::<u64>(), 0..u64::MAX / 2, steps).prop_map(
        |(path, delay_us, ce, largest, steps)| {
            let mut next = largest + u64::MAX / 4;
            let range = |(width, gap): (u64, u64)| {
                let high = next;
                next = high - width - gap;
                (PacketNumber(high - width), PacketNumber(high))
            };
            Ack { path: PathId(path), delay_us, ce, ranges: steps.into_iter().map(range).collect() }
        },
    )
}

fn mode() -> impl Strategy<Value = MessageMode> {
    prop_oneof![Just(MessageMode::Unreliable), Just(MessageMode::Reliable), Just(MessageMode::Ordered)]
}

prop_compose! {
    fn fragment()(
        (message, redelivered, stream, order) in any::<(u64, bool, u16, u64)>(),
        mode in mode(),
        payload in leaked(1_500).prop_filter("of a message that has bytes", |payload| !payload.is_empty()),
        (before, after) in (0..MAX_MESSAGE as u32 / 2, 0..MAX_MESSAGE as u32 / 4),
    ) -> Fragment<'static> {
        let total = before + payload.len() as u32 + after;
        let message = MessageId(message);
        Fragment { message, mode, redelivered, stream, order, total, offset: before, payload }
    }
}

/// A run is only ever written message by message; reading it gives the frame.
fn run() -> impl Strategy<Value = Frame<'static>> {
    let fields = (any::<(u16, bool)>(), mode(), 0..u64::MAX / 2, 0..u64::MAX / 2);
    (fields, vec(leaked(100), 1..20)).prop_map(|(((stream, redelivered), mode, first, order), payloads)| {
        let mut bytes = Vec::new();
        let mut run = RunWriter::start(&mut bytes, stream, mode, redelivered, MessageId(first), order);
        payloads.iter().for_each(|payload| run.push(payload));
        run.finish();
        let Some(Ok(Frame::Run(run))) = Frames::new(bytes.leak()).next() else { panic!("a run") };
        assert!(run.payloads().eq(payloads));
        Frame::Run(run)
    })
}

fn refused() -> impl Strategy<Value = RefusedDocument> {
    (document_id(), any::<u8>()).prop_map(|(document, code)| RefusedDocument { document, code })
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (1..=MAX_EPOCH, node_id(), any::<[u8; 16]>()).prop_map(|(epoch, proposer, boot)| Ballot {
        epoch,
        proposer,
        boot: BootId(boot),
    })
}

fn frame() -> impl Strategy<Value = Frame<'static>> {
    prop_oneof![
        (any::<u64>(), digest(), leaked(1_100)).prop_map(|(token, digest, record)| Frame::Hello {
            token,
            digest,
            record
        }),
        (any::<u64>(), any::<u64>(), digest(), leaked(1_100))
            .prop_map(|(echo, token, digest, record)| Frame::HelloReply { echo, token, digest, record }),
        any::<u64>().prop_map(|echo| Frame::HelloDone { echo }),
        (any::<u64>(), any::<u8>(), any::<bool>()).prop_map(|(echo, code, others)| Frame::Refused {
            echo,
            code,
            others
        }),
        leaked(1_500).prop_map(Frame::Membership),
        (digest(), any::<u64>(), digest(), [document_id(), document_id()], option::of(refused())).prop_map(
            |(digest, epoch, agreed, documents, refused)| Frame::Summary {
                digest,
                epoch,
                agreed,
                documents,
                refused
            }
        ),
        [option::of(ballot()), option::of(ballot())]
            .prop_map(|[in_force, above]| Frame::Plans { in_force, above }),
        (option::of(node_id()), any::<bool>(), [leaked(MAX_HEARD_BITMAP + 1), leaked(MAX_HEARD_BITMAP + 1)])
            .prop_map(|(agreed_by, contested, [tables, documents])| Frame::Heard {
                agreed_by: agreed_by.filter(|id| *id != NodeId::default()),
                contested,
                tables,
                documents
            }),
        (0..=200u8, vec(any::<u64>(), 0..=56)).prop_map(|(first, hashes)| Frame::Buckets { first, hashes }),
        (any::<u8>(), vec((node_id(), any::<u64>(), any::<bool>()), 0..40))
            .prop_map(|(bucket, leaves)| Frame::Leaves { bucket, leaves }),
        vec(node_id(), 0..60).prop_map(Frame::Want),
        leaked(1_100).prop_map(Frame::Record),
        (any::<[u64; 2]>(), any::<[u8; 16]>(), leaked(MAX_SUITES), any::<[u8; 32]>()).prop_map(
            |([number, session], cookie, suites, key)| Frame::SessionOpen {
                number,
                session: SessionId(session),
                cookie,
                suites,
                request: core::array::from_fn(|index| key[index % 32]),
            }
        ),
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(echo, key)| Frame::SessionAccept {
            echo: SessionId(echo),
            answer: core::array::from_fn(|index| key[index % 32]),
        }),
        (any::<u64>(), any::<[u8; 16]>())
            .prop_map(|(echo, cookie)| Frame::SessionCookie { echo: SessionId(echo), cookie }),
        (any::<u32>(), 0..9_000u16).prop_map(|(token, padding)| Frame::Ping { token, padding }),
        any::<u32>().prop_map(|token| Frame::Pong { token }),
        ack().prop_map(Frame::Ack),
        fragment().prop_map(Frame::Fragment),
        run(),
        (any::<(u16, u64, u64, u64)>(), leaked(MAX_ACCEPT_BITMAP + 1)).prop_map(
            |((stream, floor, credit, credit_in_all), bitmap)| Frame::Accepted(Accepted {
                stream,
                floor: MessageId(floor),
                credit,
                credit_in_all,
                bitmap
            })
        ),
        any::<u64>().prop_map(|seen| Frame::CountAsked { seen }),
        any::<(u64, u64)>().prop_map(|(seen, next)| Frame::Count { seen, next }),
    ]
}

fn parse(bytes: &[u8]) -> Result<Vec<Frame<'_>>, DecodeError> {
    Frames::new(bytes).collect()
}

fn emit(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.emit(&mut bytes));
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(frames in vec(frame(), 0..6)) {
        let bytes = emit(&frames);
        prop_assert_eq!(parse(&bytes), Ok(frames));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_end(bytes: Vec<u8>) {
        // Each frame takes three bytes at least: the iterator cannot run on.
        prop_assert!(Frames::new(&bytes).count() <= bytes.len() / 3 + 1);
    }

    #[test]
    fn what_is_read_is_written_the_same(frames in vec(frame(), 1..4), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut bytes = emit(&frames);
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(read) = parse(&bytes) {
            let again = emit(&read);
            prop_assert_eq!(parse(&again), Ok(read));
        }
    }

    #[test]
    fn a_cut_packet_gives_whole_frames_and_one_error(frames in vec(frame(), 1..4), cut: prop::sample::Index) {
        let bytes = emit(&frames);
        let cut = &bytes[..cut.index(bytes.len())];
        let read: Vec<_> = Frames::new(cut).collect();
        let errors = read.iter().filter(|frame| frame.is_err()).count();
        let ends_between_frames = (0..frames.len()).any(|whole| emit(&frames[..whole]) == cut);
        prop_assert_eq!(errors, usize::from(!ends_between_frames));
        let whole: Vec<_> = read.into_iter().filter_map(Result::ok).collect();
        prop_assert_eq!(&whole[..], &frames[..whole.len()]);
    }

    #[test]
    fn unknown_frames_are_passed_over(before in frame(), body in vec(any::<u8>(), 0..300), after in frame()) {
        let mut bytes = emit(std::slice::from_ref(&before));
        bytes.push(0xee);
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&body);
        after.emit(&mut bytes);
        prop_assert_eq!(parse(&bytes), Ok(vec![before, after]));
    }

    #[test]
    fn fragments_lie_inside_their_message(fragment in fragment(), total: u32, offset: u32) {
        let forged = Fragment { total, offset, ..fragment };
        let bytes = emit(&[Frame::Fragment(forged)]);
        prop_assert_eq!(bytes.len(), FRAGMENT_HEADER + forged.payload.len());
        let fits = total as usize <= MAX_MESSAGE
            && u64::from(offset) + forged.payload.len() as u64 <= u64::from(total);
        prop_assert_eq!(parse(&bytes).is_ok(), fits);
    }

    #[test]
    fn overlapping_or_ascending_ranges_are_refused(ack in ack(), at: prop::sample::Index) {
        prop_assume!(ack.ranges.len() > 1);
        let mut twice = ack.clone();
        let at = at.index(ack.ranges.len());
        twice.ranges.truncate(MAX_ACK_RANGES - 1);
        twice.ranges.insert(at.min(MAX_ACK_RANGES - 1), ack.ranges[at]);
        prop_assume!(twice.ranges.windows(2).any(|pair| pair[0] == pair[1]));
        prop_assert!(parse(&emit(&[Frame::Ack(twice)])).is_err());
        let reversed = Ack { ranges: ack.ranges.iter().rev().copied().collect(), ..ack };
        prop_assert!(parse(&emit(&[Frame::Ack(reversed)])).is_err());
    }
}

/// What it says is for the first 3,200 members; a longer one is no frame of this version.
#[test]
fn longer_heard_bitmaps_are_refused() {
    let heard = |len: usize| {
        let mut bytes = vec![0x0f];
        bytes.extend_from_slice(&((16 + 1 + 2 + len + 2) as u16).to_be_bytes());
        bytes.extend_from_slice(&[0; 17]);
        bytes.extend_from_slice(&(len as u16).to_be_bytes());
        bytes.resize(bytes.len() + len + 2, 0);
        bytes
    };
    assert!(parse(&heard(MAX_HEARD_BITMAP)).is_ok());
    assert_eq!(parse(&heard(MAX_HEARD_BITMAP + 1)), Err(DecodeError::OutOfRange("heard bitmap")));
}

#[test]
fn more_ranges_than_the_limit_are_refused() {
    let range = |number: u64| [number.to_be_bytes(), number.to_be_bytes()].concat();
    let mut body = vec![0; 16];
    for step in 0..=MAX_ACK_RANGES as u64 {
        body.extend_from_slice(&range(1_000_000 - 2 * step));
    }
    let mut bytes = vec![0x22];
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&body);
    assert_eq!(parse(&bytes), Err(DecodeError::OutOfRange("ack range")));
}

#[test]
fn an_empty_message_is_one_empty_fragment() {
    let empty = Fragment {
        message: MessageId(1),
        mode: MessageMode::Reliable,
        redelivered: false,
        stream: 0,
        order: 0,
        total: 0,
        offset: 0,
        payload: &[],
    };
    let bytes = emit(&[Frame::Fragment(empty)]);
    assert_eq!(parse(&bytes), Ok(vec![Frame::Fragment(empty)]));
    let beyond = emit(&[Frame::Fragment(Fragment { offset: 1, ..empty })]);
    assert!(parse(&beyond).is_err());
    let pointless = emit(&[Frame::Fragment(Fragment { total: 9, ..empty })]);
    assert!(parse(&pointless).is_err());
}
