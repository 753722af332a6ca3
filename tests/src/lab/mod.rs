//! Members and routers as network namespaces.
//!
//! ```text
//!            eth0 10.i.1.2/24 --- 10.i.1.1  router 1  (an interface mi for each member)
//! member i <
//!            eth1 10.i.2.2/24 --- 10.i.2.1  router 2
//! ```
//!
//! No two members share a subnet; only the routers forward. Unless [`Plan::routers_linked`], the
//! routers know nothing of each other, so that a first adapter reaches first addresses only. IPv6
//! labs have `fd00:0:i:k::/64` in the place of `10.i.k.0/24`.

pub mod capture;
pub mod faults;
pub mod inside;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait::wait_for;

/// Address family of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Only IPv4; IPv6 is switched off in every namespace.
    V4,
    /// Only IPv6.
    V6,
}

/// What lets a member reach beyond its own subnets before Overlan starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Nothing: reachability is Overlan's work.
    None,
    /// A kernel default route for each adapter, with ascending metrics.
    Defaults,
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Members, 1..=9.
    pub members: usize,
    /// Address family.
    pub family: Family,
    /// Kernel routes of the members.
    pub routing: Routing,
    /// Reverse-path filter of the members: 0 off, 1 strict, 2 loose.
    pub rp_filter: u8,
    /// A link between the routers, so that every adapter reaches every address.
    pub routers_linked: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (family, routing) = (Family::V4, Routing::None);
        Plan { members: 3, family, routing, rp_filter: 0, routers_linked: false }
    }
}

/// One of the two routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// On the members' first adapters.
    First,
    /// On the members' second adapters.
    Second,
}

impl Router {
    /// Both.
    pub const BOTH: [Router; 2] = [Router::First, Router::Second];

    /// The router that an adapter (0 or 1) is linked to.
    pub fn of(adapter: usize) -> Router {
        Router::BOTH[adapter]
    }

    fn number(self) -> usize {
        self as usize + 1
    }
}

/// A built lab; dropping it removes its namespaces.
#[derive(Debug)]
pub struct Lab {
    /// What was built.
    pub plan: Plan,
    prefix: String,
}

impl Lab {
    /// Builds a lab.
    ///
    /// # Panics
    /// Where a part of it cannot be made.
    pub fn new(plan: Plan) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Lab { plan, prefix: format!("ovl-{}-{count}-", std::process::id()) };
        lab.build();
        lab
    }

    /// The namespace of member `member` (from 0).
    pub fn member(&self, member: usize) -> String {
        format!("{}m{}", self.prefix, member + 1)
    }

    /// The namespace of a router.
    pub fn router(&self, router: Router) -> String {
        format!("{}r{}", self.prefix, router.number())
    }

    /// Interface name of a member's adapter (0 or 1).
    pub fn adapter_name(adapter: usize) -> &'static str {
        ["eth0", "eth1"][adapter]
    }

    /// Address of a member's adapter.
    pub fn address(&self, member: usize, adapter: usize) -> IpAddr {
        self.host(member, adapter, 2)
    }

    /// Address of the router on a member's adapter.
    pub fn gateway(&self, member: usize, adapter: usize) -> IpAddr {
        self.host(member, adapter, 1)
    }

    /// Prefix length of every member's subnet.
    pub fn prefix_length(&self) -> u8 {
        match self.plan.family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    fn host(&self, member: usize, adapter: usize, host: u8) -> IpAddr {
        let (subnet, link) = (member as u8 + 1, adapter as u8 + 1);
        match self.plan.family {
            Family::V4 => Ipv4Addr::new(10, subnet, link, host).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0, subnet.into(), link.into(), 0, 0, 0, host.into()).into(),
        }
    }

    /// Address and prefix length as `ip` takes them.
    fn cidr(&self, address: IpAddr) -> String {
        format!("{address}/{}", self.prefix_length())
    }

    fn build(&self) {
        assert!((1..=9).contains(&self.plan.members), "a lab has 1 to 9 members");
        let members = (0..self.plan.members).map(|member| self.member(member));
        let routers = Router::BOTH.map(|router| self.router(router));
        let namespaces: Vec<String> = members.chain(routers).collect();
        ip_batch("", &namespaces.iter().map(|name| format!("netns add {name}\n")).collect::<String>());
        for namespace in &namespaces {
            self.set_kernel_switches(namespace);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        for member in 0..self.plan.members {
            for adapter in 0..2 {
                self.build_link(member, adapter);
            }
        }
        if self.plan.routers_linked {
            self.link_routers();
        }
        for router in Router::BOTH {
            faults::prepare(self, router);
        }
        for namespace in &namespaces {
            wait_for_links(namespace);
        }
        for member in 0..self.plan.members {
            (0..2).for_each(|adapter| self.add_default_route(member, adapter));
        }
    }

    fn set_kernel_switches(&self, namespace: &str) {
        let router = Router::BOTH.iter().any(|&router| self.router(router) == namespace);
        let rp_filter = if router { "0".into() } else { self.plan.rp_filter.to_string() };
        let forward = if router { "1" } else { "0" };
        let v4_only = if self.plan.family == Family::V4 { "1" } else { "0" };
        inside::namespace(namespace, || {
            for scope in ["all", "default"] {
                set(&format!("ipv4/conf/{scope}/rp_filter"), &rp_filter);
                set(&format!("ipv4/conf/{scope}/forwarding"), forward);
                set(&format!("ipv6/conf/{scope}/disable_ipv6"), v4_only);
                set(&format!("ipv6/conf/{scope}/forwarding"), forward);
                set(&format!("ipv6/conf/{scope}/accept_ra"), "0");
                set(&format!("ipv6/conf/{scope}/accept_dad"), "0");
                set(&format!("ipv6/conf/{scope}/keep_addr_on_down"), "1");
            }
        });
    }

    fn build_link(&self, member: usize, adapter: usize) {
        let (inner, outer) = (self.member(member), self.router(Router::of(adapter)));
        let (eth, port) = (Lab::adapter_name(adapter), format!("m{}", member + 1));
        let (address, gateway) =
            (self.cidr(self.address(member, adapter)), self.cidr(self.gateway(member, adapter)));
        let nodad = if self.plan.family == Family::V6 { "nodad" } else { "" };
        // One segment per buffer: what the routers see is what the wire would carry.
        ip_batch(
            &inner,
            &format!(
                "link add {eth} gso_max_segs 1 type veth peer name {port} netns {outer}\n\
                 address add {address} dev {eth} {nodad}\nlink set {eth} up\n"
            ),
        );
        ip_batch(&outer, &format!("address add {gateway} dev {port} {nodad}\nlink set {port} up\n"));
    }

    /// Adds the kernel default route of an adapter, where the plan has one: taking the adapter down
    /// removes it.
    pub(crate) fn add_default_route(&self, member: usize, adapter: usize) {
        if self.plan.routing == Routing::Defaults {
            let (gateway, eth) = (self.gateway(member, adapter), Lab::adapter_name(adapter));
            let route =
                format!("route replace default via {gateway} dev {eth} metric {}\n", 100 * (adapter + 1));
            ip_batch(&self.member(member), &route);
        }
    }

    fn link_routers(&self) {
        let [first, second] = Router::BOTH.map(|router| self.router(router));
        let (left, right) = match self.plan.family {
            Family::V4 => ("10.255.0.1", "10.255.0.2"),
            Family::V6 => ("fd00:0:ff::1", "fd00:0:ff::2"),
        };
        ip_batch(&first, &format!("link add core type veth peer name core netns {second}\n"));
        for (router, namespace, own, other) in
            [(Router::First, &first, left, right), (Router::Second, &second, right, left)]
        {
            let mut batch = format!(
                "address add {} dev core\nlink set core up\n",
                self.cidr(own.parse().expect("an address"))
            );
            for member in 0..self.plan.members {
                let far = self.host(member, 2 - router.number(), 0);
                batch += &format!("route add {} via {other} dev core onlink\n", self.cidr(far));
            }
            ip_batch(namespace, &batch);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_namespaces(|name| name.starts_with(&self.prefix));
    }
}

/// Runs `ip`, which must succeed, and gives what it printed.
///
/// # Panics
/// Where it fails.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().expect("ip can be run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until the kernel has noticed, some time after the fact, that the links have their carrier.
fn wait_for_links(namespace: &str) {
    wait_for("the links of the lab", Duration::from_secs(10), || {
        let down = ip(&["-n", namespace, "-br", "link", "show", "type", "veth"]);
        down.lines().all(|line| line.split_whitespace().nth(1) == Some("UP")).then_some(())
    });
}

/// Gives `ip` several commands at once; empty `namespace`: here.
fn ip_batch(namespace: &str, commands: &str) {
    let mut ip = Command::new("ip");
    if !namespace.is_empty() {
        ip.args(["-n", namespace]);
    }
    feed(ip.args(["-batch", "-"]), commands);
}

/// Runs a command that reads `input`, and must succeed.
pub(crate) fn feed(command: &mut Command, input: &str) -> String {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("its output");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} with {input}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sets a network switch of the calling thread's namespace.
fn set(name: &str, value: &str) {
    let path = Path::new("/proc/sys/net").join(name);
    // A kernel without IPv6 has nothing to switch off.
    if path.exists() {
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Removes what killed runs left behind: namespaces named after processes that are gone.
fn sweep() {
    remove_namespaces(|name| {
        let process = name.strip_prefix("ovl-").and_then(|rest| rest.split('-').next());
        process.is_some_and(|process| !Path::new("/proc").join(process).exists())
    });
}

fn remove_namespaces(doomed: impl Fn(&str) -> bool) {
    let Ok(listed) = std::fs::read_dir("/run/netns") else { return };
    for name in listed.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if doomed(&name) {
            let _ = Command::new("ip").args(["netns", "del", &name]).stdin(Stdio::null()).output();
        }
    }
}
