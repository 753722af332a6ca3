//! What the suites of this crate share: nodes on loopback addresses, and waiting.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use overlan_node::Config;
use overlan_node::config::{AdapterChoice, Security};

/// In a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(folder: &Path, network: u8, member: u8, port: u16) -> Config {
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

pub(crate) fn free_port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
