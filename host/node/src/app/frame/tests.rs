use proptest::prelude::*;

use overlan_core::Payloads;

use super::*;

fn modes() -> impl Strategy<Value = MessageMode> {
    prop_oneof![Just(MessageMode::Unreliable), Just(MessageMode::Reliable), Just(MessageMode::Ordered)]
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId)
}

fn message(streams: BoxedStrategy<u16>, redelivered: BoxedStrategy<bool>) -> impl Strategy<Value = Received> {
    let path = prop::option::of(any::<(u32, u16, u16)>().prop_map(|(ip, local, remote)| {
        let end = |port| SocketAddr::from((std::net::Ipv4Addr::from_bits(ip), port));
        (end(local), end(remote))
    }));
    let origin = (node(), ".{0,40}", path)
        .prop_map(|(node, name, path)| Arc::new(Origin { node, name: name.as_str().into(), path }));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (origin, any::<u64>(), modes(), streams, redelivered, any::<u64>(), payload).prop_map(
        |(origin, id, mode, stream, redelivered, time_ns, payload)| Received {
            origin,
            id: MessageId(id),
            mode,
            stream,
            redelivered,
            time_ns,
            payload: payload.into(),
        },
    )
}

/// Of one origin and time.
fn messages() -> impl Strategy<Value = Vec<Received>> {
    let any = prop::collection::vec(message(any::<u16>().boxed(), any::<bool>().boxed()), 0..5);
    any.prop_map(|mut messages| {
        if let Some(Received { origin, time_ns, .. }) = messages.first().cloned() {
            for message in &mut messages {
                (message.origin, message.time_ns) = (origin.clone(), time_ns);
            }
        }
        messages
    })
}

fn frames() -> impl Strategy<Value = Frame> {
    let payload = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let fates = || {
        prop_oneof![
            Just(Fate::Delivered),
            Just(Fate::Expired),
            Just(Fate::PeerLostState),
            Just(Fate::Abandoned)
        ]
    };
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
        (any::<u64>(), node(), fates()).prop_map(|(token, node, fate)| Frame::Fate { token, node, fate }),
        (any::<u64>(), ".{0,40}").prop_map(|(token, error)| Frame::Failed { token, error }),
        message(any::<()>().prop_map(|()| 0).boxed(), Just(false).boxed()).prop_map(Frame::Message),
        (
            any::<u64>(),
            modes(),
            any::<u16>(),
            any::<u32>(),
            "[a-z:]{0,20}",
            prop::collection::vec(payload(), 0..9)
        )
            .prop_map(|(token, mode, stream, lifetime_ms, to, payloads)| Frame::SendBatch {
                token,
                mode,
                stream,
                lifetime_ms,
                to: Target::parse(&to),
                payloads
            }),
        (any::<u32>(), prop::collection::vec(any::<u16>(), 0..5))
            .prop_map(|(credit, streams)| Frame::ListenBatch { credit, streams }),
        (any::<u64>(), any::<u32>(), node(), fates()).prop_map(|(token, count, node, fate)| Frame::Fates {
            token,
            count,
            node,
            fate
        }),
        messages().prop_map(Frame::Messages),
        ".{0,40}".prop_map(Frame::Error),
    ]
}

proptest! {
    #[test]
    fn round_trip(frame in frames()) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        prop_assert_eq!(bytes.len() - 4, u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        prop_assert_eq!(Frame::parse(Bytes::copy_from_slice(&bytes[4..])).unwrap(), frame);
    }

    #[test]
    fn runs_are_written_as_their_messages(messages in messages()) {
        let run = |message: &Received| {
            let Received { origin, id: first, mode, stream, redelivered, time_ns, payload } = message.clone();
            let payloads = Payloads::one(payload);
            ReceivedRun { origin, first, mode, stream, redelivered, time_ns, payloads }
        };
        let runs: Vec<_> = messages.iter().map(run).collect();
        let mut bytes = Vec::new();
        emit_runs(&runs, &mut bytes);
        prop_assert!(runs.into_iter().flatten().eq(messages.clone()));
        if !messages.is_empty() {
            prop_assert_eq!(Frame::parse(Bytes::copy_from_slice(&bytes[4..])).unwrap(), Frame::Messages(messages));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::parse(bytes.into());
    }

    #[test]
    fn a_cut_frame_is_refused_or_another(frame in frames(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        let body = &bytes[4..];
        let cut = cut.index(body.len());
        if let Ok(other) = Frame::parse(Bytes::copy_from_slice(&body[..cut])) {
            prop_assert_ne!(other, frame);
        }
    }
}
