use proptest::prelude::*;

use super::*;

fn frames() -> impl Strategy<Value = Frame> {
    let modes = || {
        prop_oneof![Just(MessageMode::Unreliable), Just(MessageMode::Reliable), Just(MessageMode::Ordered)]
    };
    let node = || any::<[u8; 16]>().prop_map(NodeId);
    let payload = || prop::collection::vec(any::<u8>(), 0..200);
    let fates = prop_oneof![
        Just(Fate::Delivered),
        Just(Fate::Expired),
        Just(Fate::PeerLostState),
        Just(Fate::Abandoned)
    ];
    prop_oneof![
        (any::<u64>(), modes(), any::<u32>(), "[a-z:]{0,20}", payload()).prop_map(
            |(token, mode, lifetime_ms, to, payload)| Frame::Send {
                token,
                mode,
                lifetime_ms,
                to: Target::parse(&to),
                payload
            }
        ),
        any::<u32>().prop_map(|credit| Frame::Listen { credit }),
        any::<u32>().prop_map(|credit| Frame::Credit { credit }),
        (any::<u64>(), prop::collection::vec(node(), 0..5))
            .prop_map(|(token, nodes)| Frame::Queued { token, nodes }),
        (any::<u64>(), node(), fates).prop_map(|(token, node, fate)| Frame::Fate { token, node, fate }),
        (any::<u64>(), ".{0,40}").prop_map(|(token, error)| Frame::Failed { token, error }),
        (node(), ".{0,40}", any::<u64>(), modes(), any::<u64>(), payload()).prop_map(
            |(from, name, id, mode, time_ns, payload)| Frame::Message(Received {
                from,
                name,
                id: MessageId(id),
                mode,
                time_ns,
                path: "x".into(),
                payload
            })
        ),
        ".{0,40}".prop_map(Frame::Error),
    ]
}

proptest! {
    #[test]
    fn round_trip(frame in frames()) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        prop_assert_eq!(bytes.len() - 4, u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        prop_assert_eq!(Frame::parse(&bytes[4..]).unwrap(), frame);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::parse(&bytes);
    }

    #[test]
    fn a_cut_frame_is_refused_or_another(frame in frames(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        let body = &bytes[4..];
        let cut = cut.index(body.len());
        if let Ok(other) = Frame::parse(&body[..cut]) {
            prop_assert_ne!(other, frame);
        }
    }
}
