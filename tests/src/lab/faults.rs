//! Faults, and how much each router forwards.

use std::process::Command;

use serde_json::Value;

use super::{Family, Lab, Router, feed, inside, ip, ip_batch};

const TABLE: &str = "inet overlan_lab";

/// Which of the packets that a router forwards a fault hits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hit {
    /// Only those of this member; `None`: anybody's.
    pub from: Option<usize>,
    /// Only those to this member; `None`: to anybody.
    pub to: Option<usize>,
}

impl Hit {
    /// Everything.
    pub const ALL: Hit = Hit { from: None, to: None };

    /// One way, from a member to another.
    pub fn one_way(from: usize, to: usize) -> Hit {
        Hit { from: Some(from), to: Some(to) }
    }

    fn expression(self) -> String {
        let name = |keyword: &str, member: Option<usize>| {
            member.map(|member| format!("{keyword} \"m{}\" ", member + 1)).unwrap_or_default()
        };
        name("iifname", self.from) + &name("oifname", self.to)
    }
}

/// Datagrams and bytes of IP that a router forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// UDP packets.
    pub packets: u64,
    /// Their bytes, IP header included.
    pub bytes: u64,
}

/// Lays the rule set that faults and counts are added to.
pub(super) fn prepare(lab: &Lab, router: Router) {
    let mut rules = format!(
        "add table {TABLE}\n\
         add chain {TABLE} counts {{ type filter hook forward priority -10; }}\n\
         add chain {TABLE} faults {{ type filter hook forward priority 0; }}\n"
    );
    for from in 0..lab.plan.members {
        for to in (0..lab.plan.members).filter(|&to| to != from) {
            let hit = Hit::one_way(from, to).expression();
            rules += &format!("add rule {TABLE} counts {hit} meta l4proto udp counter\n");
        }
    }
    nft(&lab.router(router), &rules);
}

fn nft(namespace: &str, rules: &str) {
    feed(Command::new("ip").args(["netns", "exec", namespace, "nft", "-f", "-"]), rules);
}

impl Lab {
    /// Takes a member's adapter down, administratively.
    pub fn link_down(&self, member: usize, adapter: usize) {
        ip(&["-n", &self.member(member), "link", "set", Lab::adapter_name(adapter), "down"]);
    }

    /// Takes it up again.
    pub fn link_up(&self, member: usize, adapter: usize) {
        ip(&["-n", &self.member(member), "link", "set", Lab::adapter_name(adapter), "up"]);
        self.add_default_route(member, adapter);
    }

    /// Pulls the cable at the router's end: the member's adapter loses its carrier.
    pub fn unplug(&self, member: usize, adapter: usize) {
        let port = format!("m{}", member + 1);
        ip(&["-n", &self.router(Router::of(adapter)), "link", "set", &port, "down"]);
    }

    /// Plugs it in again.
    pub fn plug(&self, member: usize, adapter: usize) {
        let port = format!("m{}", member + 1);
        ip(&["-n", &self.router(Router::of(adapter)), "link", "set", &port, "up"]);
    }

    /// Deletes the address of a member's adapter.
    pub fn address_delete(&self, member: usize, adapter: usize) {
        self.change_address("del", member, adapter, 2);
    }

    /// Adds it again.
    pub fn address_add(&self, member: usize, adapter: usize) {
        self.change_address("add", member, adapter, 2);
        self.add_default_route(member, adapter);
    }

    /// Replaces the address of a member's adapter by another of its subnet, and gives that.
    pub fn address_move(&self, member: usize, adapter: usize, host: u8) -> std::net::IpAddr {
        self.change_address("del", member, adapter, 2);
        self.change_address("add", member, adapter, host);
        self.add_default_route(member, adapter);
        self.host(member, adapter, host)
    }

    fn change_address(&self, verb: &str, member: usize, adapter: usize, host: u8) {
        let address = self.cidr(self.host(member, adapter, host));
        let nodad = if self.plan.family == Family::V6 && verb == "add" { "nodad" } else { "" };
        let eth = Lab::adapter_name(adapter);
        ip_batch(&self.member(member), &format!("address {verb} {address} dev {eth} {nodad}\n"));
    }

    /// Drops in the router what `hit` says, silently.
    pub fn drop_silently(&self, router: Router, hit: Hit) {
        nft(&self.router(router), &format!("add rule {TABLE} faults {} counter drop\n", hit.expression()));
    }

    /// Drops in the router at random this percentage (1 to 99) of what `hit` says.
    pub fn lose(&self, router: Router, hit: Hit, percent: u32) {
        let rule = format!("{} numgen random mod 100 < {percent} counter drop", hit.expression());
        nft(&self.router(router), &format!("add rule {TABLE} faults {rule}\n"));
    }

    /// Ends drops and losses in a router.
    pub fn heal(&self, router: Router) {
        nft(&self.router(router), &format!("flush chain {TABLE} faults\n"));
    }

    /// Switches a router off and on: nothing is forwarded, and who sends gets no word of it.
    pub fn router_dead(&self, router: Router, dead: bool) {
        let state = if dead { "down" } else { "up" };
        let batch: String =
            (1..=self.plan.members).map(|member| format!("link set m{member} {state}\n")).collect();
        ip_batch(&self.router(router), &batch);
    }

    /// UDP that a router forwarded (or would have, but for a fault) from a member to another, since
    /// the lab was built.
    pub fn forwarded(&self, router: Router, from: usize, to: usize) -> Forwarded {
        let mut list = Command::new("ip");
        list.args([
            "netns",
            "exec",
            &self.router(router),
            "nft",
            "-j",
            "list",
            "chain",
            "inet",
            "overlan_lab",
        ]);
        let listed = feed(list.arg("counts"), "");
        let listed: Value = serde_json::from_str(&listed).expect("nft -j gives JSON");
        let counted: Vec<&Value> = listed["nftables"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|object| object["rule"]["expr"].as_array())
            .filter_map(|rule| rule.iter().find_map(|part| part.get("counter")))
            .collect();
        // Rules stand in the order `prepare` added them.
        let position = from * (self.plan.members - 1) + to - usize::from(to > from);
        let field = |name: &str| counted[position][name].as_u64().expect("a count");
        Forwarded { packets: field("packets"), bytes: field("bytes") }
    }

    /// Writes a network switch of a member, for example `ipv4/conf/all/rp_filter`.
    pub fn set_switch(&self, member: usize, name: &str, value: &str) {
        inside::namespace(&self.member(member), || super::set(name, value));
    }
}
