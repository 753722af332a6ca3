//! Routes and rules in the kernel, compared with `ip`, in network namespaces.

use std::net::IpAddr;
use std::process::Command;

use overlan_netlink::{
    Desired, LocalAddress, MAX_HOST_ROUTES, Owner, PROTOCOL, Plan, Reconciler, Subnet, Watch, can_admin,
    clear_all, installed, plan, snapshot,
};

use crate::lab::{Lab, PATIENCE, say_skipped};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner(port: u16) -> Owner {
    Owner::from_port(port).unwrap()
}

/// Two IPv4 adapters and an IPv6 one with a router each, remote addresses on and off the link, a configured subnet.
fn desired(port: u16) -> Desired {
    let local = [("10.1.0.2", "10.1.0.1"), ("10.2.0.2", "10.2.0.1"), ("fd02::2", "fd02::1")];
    Desired {
        owner: owner(port),
        subnets: vec![
            Subnet { subnet: "10.9.0.0/16".parse().unwrap(), via: ip("10.1.0.1"), adapter: "left".into() },
            Subnet { subnet: "fd09::/48".parse().unwrap(), via: ip("fd02::1"), adapter: "right".into() },
        ],
        local: local
            .map(|(address, via)| LocalAddress { address: ip(address), gateway: Some(ip(via)) })
            .into(),
        remote: ["10.3.0.2", "10.1.0.9", "fd03::2", "fd02::9"].map(ip).into(),
    }
}

/// The entries that [`desired`] leads to: 2 subnets; 2 host routes for each of 3 addresses; 3 rules.
const ENTRIES: usize = 2 + 6 + 3;

async fn planned(port: u16) -> Plan {
    let plan = plan(&desired(port), &snapshot().await.unwrap());
    assert_eq!(plan.refused, []);
    assert_eq!(plan.routes.len() + plan.rules.len(), ENTRIES);
    plan
}

/// All routes and rules of the namespace as `ip` prints them, sorted.
fn state(lab: &Lab) -> Vec<String> {
    let mut lines = Vec::new();
    for listing in ["-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule"] {
        lines.extend(lab.ip(&format!("-d {listing}")).lines().map(|line| line.trim().to_owned()));
    }
    lines.sort();
    lines
}

/// Lines of `ip` that carry our protocol number.
fn ours(lab: &Lab) -> Vec<String> {
    let tag = format!("proto {PROTOCOL}");
    state(lab).into_iter().filter(|line| line.contains(&tag)).collect()
}

#[test]
fn apply_is_idempotent_and_clear_leaves_no_trace() {
    let Some(lab) = Lab::new("apply_is_idempotent_and_clear_leaves_no_trace") else { return };
    lab.two_adapters();
    let before = state(&lab);
    lab.run(async || {
        let plan = planned(7400).await;
        let reconciler = Reconciler::new(owner(7400));
        assert_eq!(reconciler.check(&plan).await.unwrap().added.len(), ENTRIES);
        assert_eq!(state(&lab), before, "a check changes nothing");

        let first = reconciler.apply(&plan).await.unwrap();
        assert_eq!((first.added.len(), first.refused.len()), (ENTRIES, 0), "{:?}", first.refused);
        assert_eq!(ours(&lab).len(), ENTRIES);
        let shown = reconciler.show().await.unwrap();
        assert_eq!(shown.routes.len() + shown.rules.len(), ENTRIES);
        assert!(plan.routes.iter().all(|route| shown.routes.contains(route)));
        assert!(plan.rules.iter().all(|rule| shown.rules.contains(rule)));

        let installed = state(&lab);
        let second = reconciler.apply(&plan).await.unwrap();
        assert_eq!((second.unchanged.len(), second.is_change()), (ENTRIES, false));
        assert_eq!(state(&lab), installed);

        let main = lab.ip(&format!("route show proto {PROTOCOL}"));
        assert!(main.starts_with("10.9.0.0/16 via 10.1.0.1 dev left "), "{main}");
        let cleared = reconciler.clear().await.unwrap();
        assert_eq!(cleared.removed.len(), ENTRIES);
        assert_eq!(state(&lab), before);
    });
}

#[test]
fn each_path_leaves_by_its_adapter() {
    let Some(lab) = Lab::new("each_path_leaves_by_its_adapter") else { return };
    lab.two_adapters();
    // The host's own opinion sends everything left.
    lab.ip("route add default via 10.1.0.1 dev left");
    lab.run(async || {
        Reconciler::new(owner(7400)).apply(&planned(7400).await).await.unwrap();
        for (from, to, expected) in [
            ("10.1.0.2", "10.3.0.2", "via 10.1.0.1 dev left"),
            ("10.2.0.2", "10.3.0.2", "via 10.2.0.1 dev right"),
            ("10.1.0.2", "10.1.0.9", "dev left"),
            ("10.2.0.2", "10.1.0.9", "via 10.2.0.1 dev right"),
            ("10.2.0.2", "10.99.0.1", "via 10.1.0.1 dev left"),
            ("fd02::2", "fd03::2", "via fd02::1 dev right"),
        ] {
            let route = lab.ip(&format!("route get {to} from {from}"));
            assert!(route.contains(&format!("from {from} {expected}")), "{from} -> {to}: {route}");
        }
    });
}

#[test]
fn what_is_deleted_by_hand_comes_back() {
    let Some(lab) = Lab::new("what_is_deleted_by_hand_comes_back") else { return };
    lab.two_adapters();
    lab.run(async || {
        let plan = planned(7400).await;
        let reconciler = Reconciler::new(owner(7400));
        reconciler.apply(&plan).await.unwrap();
        let full = state(&lab);
        let mut watch = Watch::new().unwrap();
        let table = plan.rules[0].table;
        for command in [
            "route del 10.9.0.0/16".to_owned(),
            "-6 route del fd09::/48".to_owned(),
            format!("route flush table {table}"),
            format!("rule del from 10.1.0.2 lookup {table}"),
            "-6 rule flush".to_owned(),
        ] {
            lab.ip(&command);
            assert_ne!(state(&lab), full);
            let change = tokio::time::timeout(PATIENCE, watch.changed()).await.expect(&command).unwrap();
            assert!(change.routes, "{command}");
            let report = reconciler.apply(&plan).await.unwrap();
            assert!(!report.added.is_empty() && report.removed.is_empty(), "{command}: {report:?}");
            // `ip -6 rule flush` takes the kernel's own rule for the main table away as well.
            if command.contains("flush") && command.contains("-6") {
                lab.ip("-6 rule add from all lookup main pref 32766 proto kernel");
            }
            assert_eq!(state(&lab), full, "{command}");
        }
    });
}

#[test]
fn the_kernel_drops_routes_of_a_downed_adapter_and_they_come_back() {
    let Some(lab) = Lab::new("the_kernel_drops_routes_of_a_downed_adapter_and_they_come_back") else {
        return;
    };
    lab.two_adapters();
    lab.run(async || {
        let reconciler = Reconciler::new(owner(7400));
        reconciler.apply(&planned(7400).await).await.unwrap();
        let full = ours(&lab);
        lab.ip("link set left down");
        let while_down = plan(&desired(7400), &snapshot().await.unwrap());
        assert_eq!(while_down.refused.len(), 2, "an address and a subnet: {:?}", while_down.refused);
        let report = reconciler.apply(&while_down).await.unwrap();
        assert!(report.added.is_empty());
        assert_eq!(ours(&lab).len(), ENTRIES - 4, "the subnet, two host routes and a rule are gone");
        lab.ip("link set left up");
        reconciler.apply(&planned(7400).await).await.unwrap();
        assert_eq!(ours(&lab), full);
    });
}

#[test]
fn what_others_installed_is_never_touched() {
    let Some(lab) = Lab::new("what_others_installed_is_never_touched") else { return };
    lab.two_adapters();
    let table = 1_007_400_000 + 42;
    for command in [
        "route add 10.9.0.0/16 via 10.1.0.254 proto static".to_owned(),
        "route add 10.8.0.0/16 via 10.1.0.254 metric 7400".to_owned(),
        "route add 10.7.0.0/16 via 10.1.0.254 metric 9000".to_owned(),
        "-6 route add fd09::/48 via fd02::fe metric 7400".to_owned(),
        // In the very tables and at the priorities that are ours, but not by our number.
        format!("route add 10.3.0.2/32 via 10.1.0.1 table {table} metric 7400"),
        format!("rule add from 10.1.0.2 lookup {table} pref 7442"),
        // By our number, but of another node.
        "route add 10.9.0.0/16 via 10.1.0.253 proto 111 metric 7401".to_owned(),
        "rule add from 10.1.0.2 lookup 1007401042 pref 7442 protocol 111".to_owned(),
    ] {
        lab.ip(&command);
    }
    let before = state(&lab);
    lab.run(async || {
        let mut desired = desired(7400);
        for subnet in ["10.8.0.0/16", "10.7.0.0/16", "10.2.0.0/24"] {
            let subnet = subnet.parse().unwrap();
            desired.subnets.push(Subnet { subnet, via: ip("10.1.0.1"), adapter: "left".into() });
        }
        let plan = plan(&desired, &snapshot().await.unwrap());
        let reconciler = Reconciler::new(owner(7400));
        let report = reconciler.apply(&plan).await.unwrap();
        let refused: Vec<&str> = report.refused.iter().map(|refusal| &refusal.what[..10]).collect();
        assert_eq!(refused, ["10.9.0.0/1", "fd09::/48 ", "10.8.0.0/1", "10.2.0.0/2"], "{:?}", report.refused);
        let after = state(&lab);
        assert!(before.iter().all(|line| after.contains(line)), "everything is still there");
        assert!(
            after.iter().any(|line| line.contains("10.7.0.0/16 via 10.1.0.1") && line.contains("proto 111"))
        );

        // Theirs gone, ours comes; theirs back, ours gives way.
        lab.ip("route del 10.9.0.0/16 via 10.1.0.254 proto static");
        assert_eq!(reconciler.apply(&plan).await.unwrap().added.len(), 1);
        lab.ip("route add 10.9.0.0/16 via 10.1.0.254 proto static");
        assert_eq!(reconciler.apply(&plan).await.unwrap().removed.len(), 1);

        reconciler.clear().await.unwrap();
        assert_eq!(state(&lab), before);
    });
}

#[test]
fn two_nodes_on_one_host_and_leftovers() {
    let Some(lab) = Lab::new("two_nodes_on_one_host_and_leftovers") else { return };
    lab.two_adapters();
    let before = state(&lab);
    lab.run(async || {
        let (a, b) = (Reconciler::new(owner(7400)), Reconciler::new(owner(7500)));
        for (reconciler, port) in [(&a, 7400), (&b, 7500)] {
            let report = reconciler.apply(&planned(port).await).await.unwrap();
            assert_eq!((report.added.len(), report.refused.len()), (ENTRIES, 0), "{:?}", report.refused);
        }
        let of_b = b.show().await.unwrap();
        // A node that was killed finds what it left, changed tables and all, when it starts again.
        let restarted = Reconciler::new(owner(7400));
        let smaller = Desired { remote: vec![ip("10.3.0.2")], ..desired(7400) };
        let smaller = plan(&smaller, &snapshot().await.unwrap());
        let report = restarted.apply(&smaller).await.unwrap();
        assert_eq!((report.added.len(), report.removed.len(), report.unchanged.len()), (0, 5, 6));
        a.clear().await.unwrap();
        assert_eq!(b.show().await.unwrap(), of_b);
        assert_eq!(installed().await.unwrap(), of_b);
        let report = clear_all().await.unwrap();
        assert_eq!(report.removed.len(), ENTRIES);
        assert_eq!(state(&lab), before);
    });
}

#[test]
fn a_changed_router_replaces_ours() {
    let Some(lab) = Lab::new("a_changed_router_replaces_ours") else { return };
    lab.two_adapters();
    lab.run(async || {
        let reconciler = Reconciler::new(owner(7400));
        reconciler.apply(&planned(7400).await).await.unwrap();
        let mut changed = desired(7400);
        for local in &mut changed.local {
            local.gateway = Some(if local.address.is_ipv4() { ip("10.1.0.77") } else { ip("fd02::77") });
        }
        changed.local[1].gateway = Some(ip("10.2.0.77"));
        changed.subnets[0].via = ip("10.1.0.77");
        changed.subnets[1].via = ip("fd02::77");
        let plan = plan(&changed, &snapshot().await.unwrap());
        let report = reconciler.apply(&plan).await.unwrap();
        // Both subnets, and one host route for each address but the second, which has two (none is on its link).
        assert_eq!((report.added.len(), report.removed.len(), report.refused.len()), (6, 6, 0), "{report:?}");
        assert_eq!(reconciler.apply(&plan).await.unwrap().unchanged.len(), ENTRIES);
    });
}

/// The part of [`without_privilege_one_refusal_says_so`] that runs as another user.
#[test]
#[ignore = "run by without_privilege_one_refusal_says_so"]
fn as_nobody() {
    if can_admin() {
        return say_skipped("as_nobody", "this user has CAP_NET_ADMIN");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let plan = planned(7400).await;
        let report = Reconciler::new(owner(7400)).apply(&plan).await.unwrap();
        assert!(!report.is_change());
        assert_eq!(report.refused.len(), 1, "{:?}", report.refused);
        assert!(report.refused[0].why.contains("CAP_NET_ADMIN"));
        assert!(report.refused[0].what.starts_with(&ENTRIES.to_string()));
        Watch::new().unwrap();
    });
}

#[test]
fn without_privilege_one_refusal_says_so() {
    use std::os::unix::process::CommandExt as _;
    let Some(lab) = Lab::new("without_privilege_one_refusal_says_so") else { return };
    lab.two_adapters();
    assert!(can_admin());
    let output = lab.inside(|| {
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new(test);
        command
            .args(["--exact", "routes::as_nobody", "--ignored", "--nocapture"])
            .current_dir("/")
            .uid(65534)
            .gid(65534);
        command.output()
    });
    match output {
        Err(error) => {
            let why = format!("another user cannot run this binary: {error}");
            say_skipped("without_privilege_one_refusal_says_so", &why);
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && text.contains("1 passed") && !text.contains("SKIPPED"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_full_plan_is_applied_and_cleared() {
    let Some(lab) = Lab::new("a_full_plan_is_applied_and_cleared") else { return };
    lab.two_adapters();
    lab.run(async || {
        let remote = (0..u32::try_from(MAX_HOST_ROUTES).unwrap())
            .map(|n| IpAddr::from((0x0b00_0001 + n).to_be_bytes()));
        let full = Desired { remote: remote.collect(), ..desired(7400) };
        let plan = plan(&full, &snapshot().await.unwrap());
        let share = MAX_HOST_ROUTES / full.local.len();
        assert_eq!(
            plan.routes.len(),
            2 * share + 2,
            "two IPv4 addresses with their share each, and two subnets"
        );
        assert_eq!(plan.refused.len(), 1, "{:?}", plan.refused);
        let reconciler = Reconciler::new(owner(7400));
        for (what, expected) in [("apply", true), ("apply again", false)] {
            let start = std::time::Instant::now();
            assert_eq!(reconciler.apply(&plan).await.unwrap().is_change(), expected);
            eprintln!("{what}: {:?}", start.elapsed());
        }
        let start = std::time::Instant::now();
        snapshot().await.unwrap();
        eprintln!("snapshot: {:?}", start.elapsed());
        reconciler.clear().await.unwrap();
        assert_eq!(ours(&lab), [""; 0]);
    });
}
