//! Three real nodes over loopback addresses: real UDP, real plugins, the Unix socket.

mod common;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use common::{PATIENCE, config, eventually, free_port};
use overlan_node::app::{Frame, Target};
use overlan_node::client::{Control, Stream};
use overlan_node::config::{BusyPoll, PluginSource};
use overlan_node::status::{MemberState, MemberStatus};
use overlan_node::{
    Config, Fate, Impairment, Kind, ListenOptions, MessageMode, Node, NodeHandle, Responsibility,
    SendFailure, StartError,
};

async fn cluster(folder: &Path, network: u8) -> Vec<NodeHandle> {
    let port = free_port();
    let mut nodes = Vec::new();
    for member in 1..=3 {
        nodes.push(Node::start(config(folder, network, member, port)).await.unwrap());
    }
    let all = &nodes;
    eventually("one table", || async move {
        let mut digests = Vec::new();
        for node in all {
            let status = node.status().await.unwrap().core;
            if status.alive != 3 || !status.agreed {
                return false;
            }
            digests.push(status.table_digest);
        }
        digests.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
    nodes
}

#[tokio::test]
async fn members_agree_exchange_messages_and_leave() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = cluster(folder.path(), 71).await;
    let mut listeners = Vec::new();
    for node in &nodes {
        listeners.push(node.listen().await.unwrap());
    }
    for mode in [MessageMode::Reliable, MessageMode::Ordered] {
        let receipt = nodes[0].send("all", mode, b"hello".to_vec()).await.unwrap();
        assert_eq!(receipt.nodes().count(), 2);
        assert_eq!(receipt.fate().await, Fate::Delivered);
    }
    for listener in &mut listeners[1..] {
        for _ in 0..2 {
            let message = listener.recv().await.unwrap();
            assert_eq!((&*message.origin.name, &message.payload[..]), ("m1", &b"hello"[..]));
        }
    }
    let large: Vec<u8> = (0..5_000_000_u32).map(|byte| byte as u8).collect();
    let receipt = nodes[2].send("m2", MessageMode::Reliable, large.clone()).await.unwrap();
    assert_eq!(receipt.fate().await, Fate::Delivered);
    assert_eq!(listeners[1].recv().await.unwrap().payload, large);
    let unknown = nodes[0].send("nobody", MessageMode::Reliable, b"x".to_vec()).await;
    assert_eq!(unknown.unwrap_err(), SendFailure::UnknownNode("nobody".into()));
    nodes[2].leave().await;
    let first = &nodes[0];
    eventually("the farewell", || async {
        let members = first.members().await.unwrap();
        members.iter().any(|member| member.name == "m3" && member.state == MemberState::Left)
    })
    .await;
    for node in &nodes[..2] {
        node.leave().await;
    }
    assert!(nodes[0].status().await.is_err());
}

#[tokio::test]
async fn a_file_in_the_place_of_the_control_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 78, 1, free_port());
    let path = config.control.clone().unwrap();
    std::fs::write(&path, "precious").unwrap();
    let Err(StartError::Control { why, .. }) = Node::start(config).await else { panic!("it is refused") };
    assert!(why.contains("no socket"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_refused_socket_is_opened_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    for (member, busy_poll) in [(1, BusyPoll::Never), (2, BusyPoll::Adaptive), (3, BusyPoll::Always)] {
        let mut config = config(folder.path(), 76, member, free_port());
        config.busy_poll = busy_poll;
        let taken = std::net::UdpSocket::bind((Ipv4Addr::new(127, 76, member, 1), config.port)).unwrap();
        let node = Node::start(config).await.unwrap();
        let complains = async || {
            let problems = node.status().await.unwrap().core.problems;
            problems.iter().any(|problem| problem.contains("in use"))
        };
        eventually("the complaint", &complains).await;
        drop(taken);
        eventually("the socket", async || !complains().await).await;
        node.leave().await;
    }
}

#[tokio::test]
async fn a_cut_address_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = cluster(folder.path(), 72).await;
    let mut listener = nodes[1].listen().await.unwrap();
    let mut receipts = Vec::new();
    for sequence in 0..200_u32 {
        if sequence == 50 {
            let cut = Ipv4Addr::new(127, 72, 2, 1).into();
            assert!(nodes[1].impair(cut, Impairment::DropBoth).await.unwrap());
        }
        let payload = sequence.to_be_bytes().to_vec();
        receipts.push(nodes[0].send("m2", MessageMode::Ordered, payload).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for sequence in 0..200_u32 {
        let message = tokio::time::timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload[..], sequence.to_be_bytes());
    }
    for receipt in receipts {
        assert_eq!(receipt.fate().await, Fate::Delivered);
    }
    for node in &nodes {
        node.leave().await;
    }
}

/// A batch through one stream while another is held up, then beside the driver.
#[tokio::test]
async fn batches_pass_in_order_and_streams_hold_up_themselves_alone() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = cluster(folder.path(), 74).await;
    let only = |stream| ListenOptions { streams: [stream].into_iter().collect(), ..ListenOptions::default() };
    let mut listener = nodes[1].listen_with(only(1)).await.unwrap();
    let batch = |from: u32| (from..from + 10_000).map(|number| Bytes::from(number.to_be_bytes().to_vec()));
    // Nobody listens to stream 2.
    let mut held_up = nodes[0].send_batch("m2", MessageMode::Ordered, 2, batch(0)).await.unwrap();
    let mut receipt = nodes[0].send_batch("m2", MessageMode::Ordered, 1, batch(0)).await.unwrap();
    let mut expected = 0_u32;
    let mut runs = Vec::new();
    while expected < 10_000 {
        let count = listener.recv_many(&mut runs).await;
        assert_eq!(count, runs.iter().map(|run| run.payloads.len()).sum::<usize>());
        for message in runs.drain(..).flatten() {
            assert_eq!((message.stream, &message.payload[..]), (1, &expected.to_be_bytes()[..]));
            expected += 1;
        }
    }
    let outcome = receipt.outcome().await;
    assert_eq!((outcome[0].delivered, &outcome[0].failed[..]), (10_000, &[][..]));
    held_up.cancel().await;
    assert!(held_up.outcome().await[0].failed.iter().all(|(_, fate)| *fate == Fate::Expired));
    let node = nodes[0].clone();
    let beside = nodes[0].spawn_beside(async move {
        let receipt = node.send_batch("all", MessageMode::Reliable, 1, batch(0).take(5)).await;
        receipt.map(|receipt| receipt.nodes().len())
    });
    assert_eq!(beside.await.unwrap(), Ok(2));
    for _ in 0..5 {
        listener.recv().await.unwrap();
    }
    // A batch that is open when the node leaves.
    let mut open = nodes[0].send_batch("m2", MessageMode::Reliable, 7, batch(0).take(100)).await.unwrap();
    nodes[0].leave().await;
    let outcome = open.outcome().await;
    assert_eq!(outcome[0].failed.len(), 100);
    assert!(outcome[0].failed.iter().all(|(_, fate)| *fate == Fate::Abandoned));
    for node in &nodes[1..] {
        node.leave().await;
    }
}

/// What an owner had not accepted goes to the next one.
#[tokio::test]
async fn a_message_for_a_role_follows_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut nodes = Vec::new();
    for member in 1..=3 {
        let mut config = config(folder.path(), 75, member, port);
        config.responsibilities = vec![Responsibility {
            name: "leader".into(),
            replicas: 2,
            weight_milli: 1_000,
            requires: Vec::new(),
        }];
        config.busy_poll = [BusyPoll::Never, BusyPoll::Adaptive, BusyPoll::Always][usize::from(member - 1)];
        nodes.push(Node::start(config).await.unwrap());
    }
    let owner = async |node: &NodeHandle| {
        let plan = node.plan().await.unwrap();
        plan.duties.iter().find(|duty| duty.name == "leader")?.owners.first().cloned()
    };
    let all = &nodes;
    let one_owner = || async {
        let mut owners = Vec::new();
        for node in all {
            if node.status().await.unwrap().core.alive != 3 {
                return false;
            }
            owners.push(owner(node).await);
        }
        owners[0].is_some() && owners.windows(2).all(|pair| pair[0] == pair[1])
    };
    eventually("one plan", one_owner).await;
    let name = owner(&nodes[0]).await.unwrap();
    let first = nodes.iter().position(|node| node.config().name == name).unwrap();
    let sender = &nodes[(first + 1) % 3];
    // The owner of now has no listener.
    let mut receipt =
        sender.send_batch("role:leader", MessageMode::Ordered, 0, ["a".into(), "b".into()]).await.unwrap();
    assert_eq!(receipt.nodes(), [nodes[first].id()]);
    let mut listeners = Vec::new();
    for other in [(first + 1) % 3, (first + 2) % 3] {
        listeners.push(nodes[other].listen().await.unwrap());
    }
    nodes[first].abort().await;
    let outcome = tokio::time::timeout(PATIENCE, receipt.outcome()).await.unwrap();
    assert_eq!(outcome[0].moved.len(), 2, "{outcome:?}");
    let last = outcome.last().unwrap();
    assert_eq!((last.delivered, &last.got[..]), (2, &[0, 1][..]), "{outcome:?}");
    let at = nodes.iter().position(|node| node.id() == last.node).unwrap();
    let listener = &mut listeners[(at + 2 - first) % 3];
    for text in ["a", "b"] {
        let message = listener.recv().await.unwrap();
        assert_eq!((&message.payload[..], message.redelivered), (text.as_bytes(), true));
    }
    for (_, node) in nodes.iter().enumerate().filter(|(index, _)| *index != first) {
        node.leave().await;
    }
}

#[tokio::test]
async fn policies_swap_and_clients_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 73, 1, free_port());
    let socket = config.control.clone().unwrap();
    let again = config.clone();
    let node = Node::start(config).await.unwrap();
    // The same state directory twice.
    let twice = Node::start(Config { control: None, ..again.clone() }).await;
    assert!(matches!(twice, Err(StartError::State(_))));
    // The same control socket twice.
    let state_dir = folder.path().join("other");
    let twice = Node::start(Config { state_dir, ..again }).await;
    assert!(matches!(twice, Err(StartError::Control { .. })));

    let loaded = || async { node.policy_list().iter().all(|policy| policy.plugin.starts_with("builtin:")) };
    eventually("the default policies", loaded).await;
    let knet = PluginSource::Builtin("knet-compat".into());
    let status = node.policy_set(Kind::Failover, &knet, Vec::new()).await.unwrap();
    assert_eq!(status.previous.as_deref(), Some("builtin:fast"));
    assert_eq!(node.policy_rollback(Kind::Failover).await.unwrap().plugin, "builtin:fast");
    let wrong = node.policy_set_bytes(Kind::Sizing, "x".into(), b"no wasm".to_vec(), Vec::new()).await;
    assert!(wrong.is_err());

    let control = Control::new(&socket);
    let members: Vec<MemberStatus> = control.get("/v1/members").await.unwrap();
    assert!(members.iter().any(|member| member.this && member.name == "m1"));
    let nothing = control.get::<serde_json::Value>("/v1/nothing").await.unwrap_err();
    assert!(nothing.to_string().contains("CONTROL.md"), "{nothing}");
    let unknown = control.post::<serde_json::Value>("/v1/forget/nobody", "text/plain", "").await.unwrap_err();
    assert!(unknown.to_string().contains("nobody"), "{unknown}");

    // To the node itself, over two streams.
    let mut listening = Stream::connect(&socket).await.unwrap();
    listening.writer.write(&Frame::Listen { credit: 1 }).await.unwrap();
    listening.writer.flush().await.unwrap();
    let mut sending = Stream::connect(&socket).await.unwrap();
    let frame = |to: &str| Frame::Send {
        token: 7,
        mode: MessageMode::Reliable,
        lifetime_ms: 0,
        to: Target::parse(to),
        payload: "hello".into(),
    };
    sending.writer.write(&frame("nobody")).await.unwrap();
    sending.writer.write(&frame("m1")).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Failed { token: 7, .. })));
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Queued { token: 7, .. })));
    let fate = sending.reader.next().await.unwrap();
    assert!(matches!(fate, Some(Frame::Fate { token: 7, fate: Fate::Delivered, .. })), "{fate:?}");
    let batch = Frame::SendBatch {
        token: 40,
        mode: MessageMode::Ordered,
        stream: 3,
        lifetime_ms: 0,
        to: Target::parse("m1"),
        payloads: vec!["one".into(), "two".into(), "three".into()],
    };
    let mut batches = Stream::connect(&socket).await.unwrap();
    batches.writer.write(&Frame::ListenBatch { credit: 9, streams: vec![3] }).await.unwrap();
    batches.writer.flush().await.unwrap();
    listening.writer.write(&Frame::Credit { credit: 3 }).await.unwrap();
    listening.writer.flush().await.unwrap();
    sending.writer.write(&batch).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Queued { token: 40, .. })));
    let fates = sending.reader.next().await.unwrap();
    assert!(
        matches!(fates, Some(Frame::Fates { token: 40, count: 3, fate: Fate::Delivered, .. })),
        "{fates:?}"
    );
    let mut texts = Vec::new();
    while texts.len() < 3 {
        let Some(Frame::Messages(messages)) = batches.reader.next().await.unwrap() else {
            panic!("no messages")
        };
        texts.extend(messages.into_iter().map(|message| (message.stream, message.payload)));
    }
    assert_eq!(texts, [(3, "one".into()), (3, "two".into()), (3, "three".into())]);
    let Some(Frame::Message(message)) = listening.reader.next().await.unwrap() else { panic!("no message") };
    assert_eq!(&message.payload[..], b"hello");
    // A stream listens once. What was accepted for it comes all the same.
    listening.writer.write(&Frame::Listen { credit: 1 }).await.unwrap();
    listening.writer.flush().await.unwrap();
    let mut last = Vec::new();
    while let Some(frame) = listening.reader.next().await.unwrap() {
        last.push(frame);
    }
    let is_refused = |frame: &&Frame| matches!(frame, Frame::Error(text) if text.contains("second Listen"));
    let refusals = last.iter().filter(is_refused).count();
    assert_eq!((refusals, last.len()), (1, 4), "{last:?}");
    // What the nodes say to each other is no client's business.
    let components = overlan_wire::limits::COMPONENT_STREAM;
    let Frame::SendBatch { mode, lifetime_ms, to, payloads, .. } = batch else { panic!("it is one") };
    let batch = Frame::SendBatch { token: 50, mode, stream: components, lifetime_ms, to, payloads };
    sending.writer.write(&batch).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Failed { token: 50, .. })));
    let mut nosy = Stream::connect(&socket).await.unwrap();
    nosy.writer.write(&Frame::ListenBatch { credit: 9, streams: vec![3, components] }).await.unwrap();
    nosy.writer.flush().await.unwrap();
    assert!(
        matches!(nosy.reader.next().await.unwrap(), Some(Frame::Error(text)) if text.contains("above 255"))
    );
    sending.writer.write(&Frame::Error("a client has none".into())).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Error(_))));
    node.leave().await;
    assert!(!socket.exists());
}
