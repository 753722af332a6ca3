//! Adapters and their changes, compared with `ip`, in network namespaces.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use overlan_netlink::{Adapter, Change, Watch, snapshot};
use serde_json::Value;

use crate::lab::{Lab, PATIENCE, until};

/// What `ip -j -d addr` says, in our terms.
fn ip_says(lab: &Lab) -> Vec<(String, u64, String, String, u64, u64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut rows = Vec::new();
    for link in lab.json("addr") {
        let kind =
            link["linkinfo"]["info_kind"].as_str().unwrap_or_else(|| link["link_type"].as_str().unwrap());
        for address in link["addr_info"].as_array().unwrap() {
            rows.push((
                text(&link["ifname"]),
                link["ifindex"].as_u64().unwrap(),
                kind.to_owned(),
                text(&address["local"]),
                address["prefixlen"].as_u64().unwrap(),
                link["mtu"].as_u64().unwrap(),
            ));
        }
    }
    rows
}

fn we_say(adapters: &[Adapter]) -> Vec<(String, u64, String, String, u64, u64)> {
    let row = |adapter: &Adapter| {
        (
            adapter.name.clone(),
            adapter.index.into(),
            adapter.kind.clone(),
            adapter.address.to_string(),
            adapter.prefix_length.into(),
            adapter.mtu.into(),
        )
    };
    adapters.iter().map(row).collect()
}

fn find<'a>(adapters: &'a [Adapter], address: &str) -> &'a Adapter {
    adapters.iter().find(|adapter| adapter.address == address.parse::<IpAddr>().unwrap()).unwrap()
}

/// Waits for the first change that `wanted` accepts.
async fn change(watch: &mut Watch, wanted: impl Fn(&Change) -> bool) -> Change {
    let wait = async {
        loop {
            let change = watch.changed().await.unwrap();
            if wanted(&change) {
                return change;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the change was never reported")
}

#[test]
fn snapshot_equals_ip() {
    let Some(lab) = Lab::new("snapshot_equals_ip") else { return };
    lab.two_adapters();
    lab.ip("link add bridge0 type bridge");
    lab.ip("link add mac0 link left type macvlan mode bridge");
    lab.ip("tuntap add tun0 mode tun");
    for (device, address) in [
        ("bridge0", "10.5.0.1/16"),
        ("mac0", "10.6.0.1/29"),
        ("mac0", "10.6.1.1/29"),
        ("mac0", "10.6.0.2/29"),
        ("tun0", "10.7.0.1 peer 10.7.0.9/32"),
        ("bridge0", "fd05::1/64 nodad"),
    ] {
        lab.ip(&format!("addr add {address} dev {device}"));
        lab.ip(&format!("link set {device} up"));
    }
    lab.ip("link set left mtu 1400");
    lab.ip("link set right mtu 9000");
    lab.run(async || {
        let adapters = until("the snapshot equals ip's listing", async || {
            let adapters = snapshot().await.unwrap();
            (we_say(&adapters) == ip_says(&lab)).then_some(adapters)
        })
        .await;
        assert!(find(&adapters, "127.0.0.1").loopback && !find(&adapters, "127.0.0.1").usable);
        assert_eq!(find(&adapters, "127.0.0.1").kind, "loopback");
        let left = find(&adapters, "10.1.0.2");
        assert!(left.up && left.enabled && left.usable && (&*left.kind, left.mtu) == ("veth", 1400));
        let kinds = ["10.5.0.1", "10.6.0.2", "10.7.0.1"].map(|address| find(&adapters, address).kind.clone());
        assert_eq!(kinds, ["bridge", "macvlan", "tun"]);
        let tun = find(&adapters, "10.7.0.1");
        assert!(tun.enabled && !tun.up, "a tunnel that nobody holds open has no carrier");
        assert_eq!(tun.peer, Some("10.7.0.9".parse().unwrap()));
        assert!(tun.is_on_link("10.7.0.9".parse().unwrap()) && !tun.is_on_link("10.7.0.1".parse().unwrap()));
        let link_local = adapters.iter().filter(|adapter| adapter.address.to_string().starts_with("fe80"));
        assert!(link_local.clone().count() > 0 && link_local.clone().all(|adapter| !adapter.usable));
    });
}

#[test]
fn gateways_default_first_and_in_their_subnet() {
    let Some(lab) = Lab::new("gateways_default_first_and_in_their_subnet") else { return };
    lab.two_adapters();
    lab.ip("addr add 10.11.0.2/24 dev left");
    lab.ip("route add 10.20.0.0/16 via 10.1.0.7 dev left");
    lab.ip("route add default via 10.1.0.1 dev left metric 200");
    lab.ip("route add default via 10.1.0.5 dev left metric 100 table 77");
    lab.ip("route add 10.21.0.0/16 via 10.11.0.1 dev left");
    lab.ip("route add 10.22.0.0/16 nexthop via 10.1.0.8 dev left nexthop via 10.2.0.8 dev right");
    lab.ip("route add 10.23.0.0/16 via 10.1.0.99 dev left proto 111");
    lab.ip("-6 route add default via fe80::1 dev right");
    lab.run(async || {
        let adapters = snapshot().await.unwrap();
        let gateways =
            |address| find(&adapters, address).gateways.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(gateways("10.1.0.2"), ["10.1.0.5", "10.1.0.1", "10.1.0.7", "10.1.0.8"]);
        assert_eq!(gateways("10.11.0.2"), ["10.11.0.1"]);
        assert_eq!(gateways("10.2.0.2"), ["10.2.0.8"]);
        assert_eq!(gateways("fd02::2"), ["fe80::1"]);
    });
}

#[test]
fn a_tentative_address_is_not_usable() {
    let Some(lab) = Lab::new("a_tentative_address_is_not_usable") else { return };
    lab.two_adapters();
    // Without carrier, duplicate detection cannot run.
    lab.ip("link set left-peer down");
    lab.ip("addr add fd01::2/64 dev left");
    lab.ip("addr add fd02::9/64 dev right nodad preferred_lft 0");
    lab.run(async || {
        let adapters = snapshot().await.unwrap();
        assert!(!find(&adapters, "fd01::2").usable, "tentative");
        assert!(!find(&adapters, "fd02::9").usable, "deprecated");
        assert!(find(&adapters, "fd02::2").usable);
    });
}

#[test]
fn a_link_down_is_reported_at_once() {
    let Some(lab) = Lab::new("a_link_down_is_reported_at_once") else { return };
    lab.two_adapters();
    lab.run(async || {
        let mut watch = Watch::new().unwrap();
        let index = until("the link is up", async || {
            let adapters = snapshot().await.unwrap();
            let left = find(&adapters, "10.1.0.2");
            left.up.then_some(left.index)
        })
        .await;
        lab.ip("link set left-peer down");
        let told = Instant::now();
        let down = change(&mut watch, |change| change.links_down.contains(&index)).await;
        eprintln!("carrier lost, reported {:?} after `ip` returned", told.elapsed());
        assert!(down.adapters);
        let adapters = snapshot().await.unwrap();
        let left = find(&adapters, "10.1.0.2");
        assert!(left.enabled && !left.up, "no carrier");
        assert!(find(&adapters, "10.2.0.2").up, "the other adapter is not concerned");

        lab.ip("link set left-peer up");
        until("the link is up again", async || {
            change(&mut watch, |change| change.adapters).await;
            find(&snapshot().await.unwrap(), "10.1.0.2").up.then_some(())
        })
        .await;
        lab.ip("link set left down");
        change(&mut watch, |change| change.links_down.contains(&index)).await;
        assert!(!find(&snapshot().await.unwrap(), "10.1.0.2").enabled);
    });
}

#[test]
fn addresses_routes_and_rules_are_reported() {
    let Some(lab) = Lab::new("addresses_routes_and_rules_are_reported") else { return };
    lab.two_adapters();
    lab.run(async || {
        let mut watch = Watch::new().unwrap();
        let address: IpAddr = "10.1.0.77".parse().unwrap();
        lab.ip("addr add 10.1.0.77/24 dev left");
        change(&mut watch, |change| change.adapters).await;
        lab.ip("addr del 10.1.0.77/24 dev left");
        change(&mut watch, |change| change.addresses_removed.iter().any(|removed| removed.1 == address))
            .await;
        for command in [
            "route add 10.20.0.0/16 via 10.1.0.1",
            "-6 route add fd20::/64 via fd02::1",
            "rule add from 10.1.0.2 lookup 77",
            "-6 rule add from fd02::2 lookup 77",
            "route del 10.20.0.0/16",
            "rule del from 10.1.0.2 lookup 77",
        ] {
            lab.ip(command);
            change(&mut watch, |change| change.routes).await;
        }
    });
}

#[test]
fn an_overrun_asks_for_a_resync() {
    let Some(lab) = Lab::new("an_overrun_asks_for_a_resync") else { return };
    lab.two_adapters();
    lab.run(async || {
        let mut watch = Watch::new().unwrap();
        // More notifications than the receive buffer holds, while nobody reads.
        let batch: String = (0..8000_u32)
            .map(|n| {
                format!("route add 10.{}.{}.{}/32 via 10.1.0.1\n", 100 + n / 62_500, n / 250 % 250, n % 250)
            })
            .collect();
        let file = std::env::temp_dir().join(format!("overlan-netlink-batch-{}", std::process::id()));
        std::fs::write(&file, batch).unwrap();
        lab.ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let overrun = change(&mut watch, |change| change.overrun).await;
        assert!(overrun.adapters && overrun.routes);
        // What happens now may be lost as well while the queue is still full; then another overrun tells.
        lab.ip("addr add 10.1.0.77/24 dev left");
        change(&mut watch, |change| change.adapters).await;
        assert!(!find(&snapshot().await.unwrap(), "10.1.0.77").gateways.is_empty());
        // Once all is read, the watch is as good as new.
        while let Ok(change) = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await {
            change.unwrap();
        }
        lab.ip("addr add 10.1.0.78/24 dev left");
        change(&mut watch, |change| change.adapters && !change.overrun).await;
    });
}
