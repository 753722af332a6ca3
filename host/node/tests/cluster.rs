//! Three real nodes over loopback addresses: real UDP, real plugins, the Unix socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use overlan_node::app::{Frame, Target};
use overlan_node::client::{Control, Stream};
use overlan_node::config::{AdapterChoice, PluginSource, Security};
use overlan_node::status::{MemberState, MemberStatus};
use overlan_node::{Config, Fate, Impairment, Kind, MessageMode, Node, NodeHandle, SendFailure, StartError};

/// In a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(folder: &Path, network: u8, member: u8, port: u16) -> Config {
    let key = folder.join("cluster.key");
    if !key.exists() {
        std::fs::write(&key, overlan_node::new_cluster_key()).unwrap();
    }
    let address = |member, number| IpAddr::V4(Ipv4Addr::new(127, network, member, number));
    let adapter =
        |number| AdapterChoice { address: Some(address(member, number)), ..AdapterChoice::default() };
    let mut config = Config::new(format!("m{member}"), folder.join(format!("state-{member}")));
    config.port = port;
    config.security = Security::KeyFile(key);
    config.control = Some(folder.join(format!("m{member}.sock")));
    config.adapters = vec![adapter(1), adapter(2)];
    if member > 1 {
        config.seeds = vec![SocketAddr::new(address(1, 1), port)];
    }
    config
}

fn free_port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
            assert_eq!((message.name.as_str(), &message.payload[..]), ("m1", &b"hello"[..]));
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
        let payload = sequence.to_be_bytes();
        receipts.push(nodes[0].send("m2", MessageMode::Ordered, payload).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for sequence in 0..200_u32 {
        let message = tokio::time::timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload, sequence.to_be_bytes());
    }
    for receipt in receipts {
        assert_eq!(receipt.fate().await, Fate::Delivered);
    }
    for node in &nodes {
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
        payload: b"hello".to_vec(),
    };
    sending.writer.write(&frame("nobody")).await.unwrap();
    sending.writer.write(&frame("m1")).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Failed { token: 7, .. })));
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Queued { token: 7, .. })));
    let fate = sending.reader.next().await.unwrap();
    assert!(matches!(fate, Some(Frame::Fate { token: 7, fate: Fate::Delivered, .. })), "{fate:?}");
    let Some(Frame::Message(message)) = listening.reader.next().await.unwrap() else { panic!("no message") };
    assert_eq!(message.payload, b"hello");
    sending.writer.write(&Frame::Error("a client has none".into())).await.unwrap();
    sending.writer.flush().await.unwrap();
    assert!(matches!(sending.reader.next().await.unwrap(), Some(Frame::Error(_))));
    node.leave().await;
    assert!(!socket.exists());
}
