//! Small messages through the API of two nodes in this process, and round trips between them:
//! `cargo run --release -p overlan-node --example throughput [MESSAGES [busy]]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlan_node::config::{AdapterChoice, BusyPoll};
use overlan_node::{Config, Fate, MessageMode, Node, NodeHandle};

const BATCH: usize = 1024;
const ROUNDS: usize = 10_000;

async fn node(folder: &std::path::Path, member: u8, busy_poll: BusyPoll) -> NodeHandle {
    let address = |member| IpAddr::V4(Ipv4Addr::new(127, 99, member, 1));
    let mut config = Config::new(format!("m{member}"), folder.join(format!("{member}")));
    config.adapters = vec![AdapterChoice { address: Some(address(member)), ..AdapterChoice::default() }];
    config.port = 7499;
    config.busy_poll = busy_poll;
    config.seeds = vec![SocketAddr::new(address(1), config.port)];
    Node::start(config).await.expect("it starts")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let total: usize = args.next().map_or(5_000_000, |text| text.parse().expect("a number of messages"));
    let total = total.next_multiple_of(BATCH);
    let busy = if args.next().is_some() { BusyPoll::Always } else { BusyPoll::Adaptive };
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (node(folder.path(), 1, busy).await, node(folder.path(), 2, busy).await);
    while a.send("m2", MessageMode::Unreliable, "").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for mode in [MessageMode::Unreliable, MessageMode::Reliable, MessageMode::Ordered] {
        let mut listener = b.listen().await.expect("it runs");
        let arrived = b.spawn_beside(async move {
            let (mut count, mut runs, mut last) = (0, Vec::new(), Instant::now());
            while let Ok(1..) =
                tokio::time::timeout(Duration::from_secs(1), listener.recv_many(&mut runs)).await
            {
                last = Instant::now();
                count += runs
                    .iter()
                    .flat_map(|run| run.payloads.iter())
                    .filter(|payload| payload.len() == 64)
                    .count();
                runs.clear();
                if count == total {
                    break;
                }
            }
            (count, last)
        });
        let start = Instant::now();
        let sender = a.clone();
        let sent = a.spawn_beside(async move {
            let payload = Bytes::from(vec![7; 64]);
            let mut last = None;
            for _ in 0..total / BATCH {
                let batch = std::iter::repeat_n(payload.clone(), BATCH);
                last = sender.send_batch("m2", mode, 0, batch).await.ok();
            }
            if let Some(mut last) = last {
                last.outcome().await;
            }
        });
        sent.await.expect("it ran");
        let (count, end) = arrived.await.expect("it ran");
        let seconds = end.duration_since(start).as_secs_f64();
        println!("{mode:?}: {count} of 64 bytes in {seconds:.2} s: {:.2} M/s", count as f64 / seconds / 1e6);
    }
    let mut listener = b.listen().await.expect("it runs");
    let echo = b.clone();
    b.spawn_beside(async move {
        while let Some(message) = listener.recv().await {
            let _ = echo.send("m1", MessageMode::Reliable, message.payload).await;
        }
    });
    let mut listener = a.listen().await.expect("it runs");
    let sender = a.clone();
    let times = a.spawn_beside(async move {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let receipt = sender.send("m2", MessageMode::Reliable, vec![7; 64]).await.expect("it is taken");
            listener.recv().await.expect("an echo");
            times.push(start.elapsed());
            drop(receipt);
        }
        times
    });
    let mut times = times.await.expect("it ran");
    times.sort_unstable();
    println!("round trip: p50 {:?}, p99 {:?}", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    let receipt = a.send("m2", MessageMode::Reliable, "").await.expect("it is taken");
    assert_eq!(receipt.fate().await, Fate::Delivered);
    a.leave().await;
    b.leave().await;
}
