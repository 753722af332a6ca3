use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn adapter(name: &str, index: u32, address: &str, prefix_length: u8, gateways: &[&str]) -> Adapter {
    Adapter {
        name: name.into(),
        index,
        kind: "ether".into(),
        address: ip(address),
        peer: None,
        prefix_length,
        mtu: 1500,
        speed: 0,
        enabled: true,
        up: true,
        loopback: false,
        gateways: gateways.iter().map(|gateway| ip(gateway)).collect(),
        usable: true,
    }
}

fn desired(local: &[(&str, Option<&str>)], remote: &[&str]) -> Desired {
    Desired {
        owner: Owner::from_port(7400).unwrap(),
        subnets: Vec::new(),
        local: local
            .iter()
            .map(|(address, via)| LocalAddress { address: ip(address), gateway: via.map(ip) })
            .collect(),
        remote: remote.iter().map(|address| ip(address)).collect(),
    }
}

fn with_subnet(subnet: &str, via: &str, adapter: &str) -> Desired {
    let subnet = Subnet { subnet: subnet.parse().unwrap(), via: ip(via), adapter: adapter.into() };
    Desired { subnets: vec![subnet], ..desired(&[], &[]) }
}

/// Two adapters, each with its own router.
fn two() -> Vec<Adapter> {
    vec![
        adapter("eth0", 2, "10.1.0.2", 24, &["10.1.0.1"]),
        adapter("eth1", 3, "10.2.0.2", 24, &[]),
        adapter("eth1", 3, "fd02::2", 64, &["fe80::1"]),
    ]
}

/// The routes as `ip route` writes them, without the table and the metric.
fn texts(plan: &Plan) -> Vec<String> {
    let text = |route: &Route| route.to_string().split(" metric").next().unwrap().to_owned();
    plan.routes.iter().map(text).collect()
}

#[test]
fn each_address_has_its_own_table_and_rule() {
    let desired =
        desired(&[("10.1.0.2", None), ("10.2.0.2", Some("10.2.0.1"))], &["10.3.0.2", "10.1.0.9", "10.2.0.9"]);
    let plan = plan(&desired, &two());
    assert_eq!(plan.refused, []);
    assert_eq!(
        texts(&plan),
        [
            "10.1.0.9/32 dev eth0 src 10.1.0.2",
            "10.2.0.9/32 via 10.1.0.1 dev eth0 src 10.1.0.2",
            "10.3.0.2/32 via 10.1.0.1 dev eth0 src 10.1.0.2",
            "10.1.0.9/32 via 10.2.0.1 dev eth1 src 10.2.0.2",
            "10.2.0.9/32 dev eth1 src 10.2.0.2",
            "10.3.0.2/32 via 10.2.0.1 dev eth1 src 10.2.0.2",
        ]
    );
    assert_eq!(plan.rules.len(), 2);
    assert_ne!(plan.rules[0].table, plan.rules[1].table);
    for route in &plan.routes {
        let rule = plan.rules.iter().find(|rule| Some(rule.from) == route.source).unwrap();
        assert!(rule.table == route.table && desired.owner.owns_table(route.table));
        assert_eq!(rule.priority - PRIORITY_BASE, rule.table - desired.owner.table(0));
        assert!(desired.owner.owns_route(route));
    }
}

#[test]
fn families_never_pair() {
    let plan = plan(&desired(&[("10.1.0.2", None), ("fd02::2", None)], &["10.3.0.2", "fd03::2"]), &two());
    assert_eq!(
        texts(&plan),
        ["10.3.0.2/32 via 10.1.0.1 dev eth0 src 10.1.0.2", "fd03::2/128 via fe80::1 dev eth1 src fd02::2"]
    );
}

#[test]
fn no_router_means_on_link_only_and_no_empty_rule() {
    let on_link = plan(&desired(&[("10.2.0.2", None)], &["10.3.0.2", "10.2.0.9"]), &two());
    assert_eq!(texts(&on_link), ["10.2.0.9/32 dev eth1 src 10.2.0.2"]);
    let none = plan(&desired(&[("10.2.0.2", None)], &["10.3.0.2"]), &two());
    assert_eq!(none, Plan::default());
}

#[test]
fn remote_addresses_that_are_no_hosts_are_refused() {
    let bad = [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::9",
        "ff02::1",
        "::1",
        "::ffff:1.2.3.4",
    ];
    let plan = plan(&desired(&[("10.1.0.2", None), ("fd02::2", None)], &bad), &two());
    assert_eq!((plan.routes.len(), plan.rules.len(), plan.refused.len()), (0, 0, bad.len()));
}

#[test]
fn own_and_broadcast_addresses_are_skipped() {
    let remote = ["10.1.0.2", "10.2.0.2", "10.1.0.255", "10.1.0.0", "10.1.0.1"];
    let plan = plan(&desired(&[("10.1.0.2", None)], &remote), &two());
    assert_eq!(texts(&plan), ["10.1.0.1/32 dev eth0 src 10.1.0.2"]);
}

#[test]
fn adapters_that_are_missing_down_or_unfit_are_refused_and_come_back() {
    let wanted = desired(&[("10.1.0.2", None), ("10.9.9.9", None)], &["10.3.0.2"]);
    let mut adapters = two();
    adapters[0].enabled = false;
    let down = plan(&wanted, &adapters);
    assert_eq!((down.routes.len(), down.refused.len()), (0, 2));
    assert_eq!(down.refused[0].why, "adapter eth0 is down");
    adapters[0].enabled = true;
    adapters[0].usable = false;
    assert_eq!(plan(&wanted, &adapters).refused.len(), 2);
    adapters[0].usable = true;
    adapters[0].up = false;
    assert_eq!(plan(&wanted, &adapters).routes.len(), 1, "a lost carrier withdraws nothing");
}

#[test]
fn tables_stay_when_other_adapters_come() {
    let few = plan(&desired(&[("10.1.0.2", None)], &["10.3.0.2"]), &two());
    let more = plan(&desired(&[("fd02::2", None), ("10.1.0.2", None)], &["10.3.0.2", "fd03::1"]), &two());
    assert!(more.rules.contains(&few.rules[0]));
}

#[test]
fn slots_that_meet_move_on() {
    let (first, second) = (0..=u16::MAX)
        .map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
        .find_map(|other| {
            (hash(other) % SLOTS == hash(ip("10.1.0.2")) % SLOTS).then_some((ip("10.1.0.2"), other))
        })
        .unwrap();
    let locals = [first, second].map(|address| LocalAddress { address, gateway: None });
    let slots = slots(&locals, &mut Vec::new());
    assert_ne!(slots[&first], slots[&second]);
}

#[test]
fn limits_hold() {
    let remote: Vec<String> = (0..200_u32).map(|n| format!("10.3.{}.{}", n / 100, n % 100 + 1)).collect();
    let remote: Vec<&str> = remote.iter().map(String::as_str).collect();
    let locals: Vec<String> = (2..=100_u32).map(|n| format!("10.1.0.{n}")).collect();
    let adapters: Vec<Adapter> =
        (2..).zip(&locals).map(|(index, local)| adapter("eth0", index, local, 24, &["10.1.0.1"])).collect();
    let locals: Vec<(&str, Option<&str>)> = locals.iter().map(|local| (local.as_str(), None)).collect();
    let plan = plan(&desired(&locals, &remote), &adapters);
    assert_eq!(plan.rules.len(), MAX_ADDRESSES);
    assert!(plan.routes.len() <= MAX_HOST_ROUTES);
    assert_eq!(plan.refused.len(), locals.len() - MAX_ADDRESSES);
}

#[test]
fn configured_subnets_go_to_the_main_table() {
    for name in ["eth0", "10.1.0.2"] {
        let plan = plan(&with_subnet("10.9.0.0/16", "10.1.0.1", name), &two());
        assert_eq!(texts(&plan), ["10.9.0.0/16 via 10.1.0.1 dev eth0"]);
        assert_eq!((plan.routes[0].table, plan.routes[0].metric, plan.rules.len()), (TABLE_MAIN, 7400, 0));
    }
}

#[test]
fn wrong_subnets_are_refused_with_a_reason() {
    for (subnet, via, name, why) in [
        ("10.9.0.0/16", "10.7.0.1", "eth0", "not on the link of eth0 (10.1.0.2/24)"),
        ("10.9.0.0/16", "10.1.0.1", "eth7", "no adapter"),
        ("10.9.0.0/16", "fe80::1", "eth1", "different address families"),
        ("10.9.0.0/16", "10.1.0.2", "eth0", "own address"),
        ("224.0.0.0/4", "10.1.0.1", "eth0", "multicast"),
    ] {
        let plan = plan(&with_subnet(subnet, via, name), &two());
        assert!(plan.routes.is_empty() && plan.refused.len() == 1);
        assert!(plan.refused[0].why.contains(why), "{}", plan.refused[0]);
    }
    let mut twice = with_subnet("10.9.0.0/16", "10.1.0.1", "eth0");
    twice.subnets.push(twice.subnets[0].clone());
    let plan = plan(&twice, &two());
    assert_eq!((plan.routes.len(), plan.refused.len()), (1, 1));
}

#[test]
fn a_router_outside_of_the_prefix_is_onlink_if_the_kernel_knows_it() {
    let mut adapters = vec![adapter("eth0", 2, "10.1.0.2", 32, &["172.16.0.1"])];
    let known = plan(&desired(&[("10.1.0.2", None)], &["10.3.0.2", "172.16.0.1"]), &adapters);
    assert!(known.routes[0].onlink);
    assert_eq!(texts(&known)[1], "172.16.0.1/32 dev eth0 src 10.1.0.2");
    adapters[0].gateways.clear();
    let typo = plan(&desired(&[("10.1.0.2", Some("172.16.0.1"))], &["10.3.0.2"]), &adapters);
    assert_eq!((typo.routes.len(), typo.refused.len()), (0, 1));
}
