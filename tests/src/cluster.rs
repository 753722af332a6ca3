//! Several members at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::binary;
use crate::config::{Adapter, Config};
use crate::lab::{Lab, Plan};
use crate::node::Node;
use crate::wait::wait_until;

/// Names of the members.
pub const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
/// By then a quiet cluster agrees.
pub const SETTLED: Duration = Duration::from_secs(30);

/// Members, the lab they stand in (if in one), and their files. Dropped in this order.
#[derive(Debug)]
pub struct Cluster {
    /// The members, as far as they are started.
    pub nodes: Vec<Node>,
    /// Where they stand; `None`: on loopback addresses.
    lab: Option<Lab>,
    folder: TempDir,
    loopback: u16,
}

impl Cluster {
    /// An empty lab with a cluster key.
    pub fn in_lab(plan: Plan) -> Cluster {
        Cluster { nodes: Vec::new(), lab: Some(Lab::new(plan)), folder: folder_with_key(), loopback: 0 }
    }

    /// On addresses 127.x.y.z of this host, which need no root. Each cluster has its own.
    pub fn on_loopback() -> Cluster {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let spread = std::process::id() as u16 % 2_000 * 30 + COUNT.fetch_add(1, Ordering::Relaxed) % 30;
        Cluster { nodes: Vec::new(), lab: None, folder: folder_with_key(), loopback: spread }
    }

    /// A lab with all of its members started and agreed, each knowing the first as its seed.
    pub fn started_in_lab(plan: Plan, adjust: impl Fn(usize, &mut Config)) -> Cluster {
        Cluster::in_lab(plan).started(plan.members, adjust)
    }

    /// Members on loopback addresses, all started and agreed.
    pub fn started_on_loopback(members: usize, adjust: impl Fn(usize, &mut Config)) -> Cluster {
        Cluster::on_loopback().started(members, adjust)
    }

    /// This cluster with so many members, all started and agreed.
    #[must_use]
    pub fn started(mut self, members: usize, adjust: impl Fn(usize, &mut Config)) -> Cluster {
        for member in 0..members {
            let mut config = self.config(member);
            adjust(member, &mut config);
            self.launch(member, config);
        }
        self.nodes.iter_mut().for_each(Node::wait_ready);
        self.wait_settled();
        self.nodes.iter().for_each(Node::wait_plugins);
        self
    }

    /// The lab.
    ///
    /// # Panics
    /// On loopback.
    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("this cluster stands in a lab")
    }

    /// Where files of a test may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Address of a member's adapter (0 or 1).
    pub fn address(&self, member: usize, adapter: usize) -> IpAddr {
        match &self.lab {
            Some(lab) => lab.address(member, adapter),
            None => {
                let [high, low] = (self.loopback + 256).to_be_bytes();
                Ipv4Addr::new(127, high, low, (member * 2 + adapter + 1) as u8).into()
            }
        }
    }

    /// Configuration of a member as tests start from: two adapters, the first member as seed.
    pub fn config(&self, member: usize) -> Config {
        let name = NAMES[member];
        let config = Config::new(name, &self.folder.path().join(name), &self.key_file());
        let mut config = match &self.lab {
            Some(lab) => config.with_lab_adapters(lab, member),
            None => {
                let adapter =
                    |adapter| Adapter { address: Some(self.address(member, adapter)), ..Adapter::default() };
                Config { adapters: (0..2).map(adapter).collect(), ..config }
            }
        };
        if member > 0 {
            config.seeds = vec![self.seed(0)];
        }
        config
    }

    /// A member's first address, as others name it as their seed.
    pub fn seed(&self, member: usize) -> SocketAddr {
        (self.address(member, 0), crate::config::PORT).into()
    }

    /// The cluster key's file.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("cluster.key")
    }

    /// Starts the next member and waits until it answers.
    pub fn start(&mut self, member: usize, config: Config) -> &mut Node {
        self.launch(member, config);
        let node = self.nodes.last_mut().expect("just pushed");
        node.wait_ready();
        node
    }

    /// Starts the next member without waiting.
    ///
    /// # Panics
    /// Where members are started out of order.
    pub fn launch(&mut self, member: usize, config: Config) {
        assert_eq!(member, self.nodes.len(), "members start in order");
        let namespace = self.lab.as_ref().map(|lab| lab.member(member));
        self.nodes.push(Node::launch(config, namespace.as_deref()));
    }

    /// Waits until all members see all alive and hold the same table; gives its digest.
    ///
    /// # Panics
    /// Where they do not settle.
    pub fn wait_settled(&self) -> String {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_settled_among(&all)
    }

    /// Waits until these members see each other alive and hold the same table; gives its digest.
    ///
    /// # Panics
    /// Where they do not settle.
    pub fn wait_settled_among(&self, members: &[usize]) -> String {
        let views = || -> Vec<(String, Vec<String>)> {
            let view = |&member: &usize| {
                let node = &self.nodes[member];
                (node.digest(), members.iter().map(|&other| node.state_of(NAMES[other])).collect())
            };
            members.iter().map(view).collect()
        };
        let settled = |views: &Vec<(String, Vec<String>)>| {
            let same = views.windows(2).all(|pair| pair[0].0 == pair[1].0);
            same && views.iter().all(|(_, states)| states.iter().all(|state| state == "alive"))
        };
        wait_until("members to see each other alive with one table", SETTLED, views, settled).remove(0).0
    }
}

fn folder_with_key() -> TempDir {
    let folder = tempfile::Builder::new().prefix("ovl-").tempdir().expect("a temporary folder");
    let key = folder.path().join("cluster.key");
    binary::run([std::ffi::OsStr::new("keygen"), "--out".as_ref(), key.as_os_str()]).ok();
    folder
}
