//! Configuration files of members.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::lab::Lab;

/// The port members listen on, unless a test says otherwise.
pub const PORT: u16 = 7400;

/// One `[[adapter]]`.
#[derive(Clone, Debug, Default)]
pub struct Adapter {
    /// Interface name, or empty.
    pub name: String,
    /// Address, where it is picked by that.
    pub address: Option<IpAddr>,
    /// Class of service, or empty.
    pub class_of_service: String,
    /// Gateway.
    pub gateway: Option<IpAddr>,
    /// Speed in Mbit/s; 0: the kernel's.
    pub speed: u32,
}

/// One `[[responsibility]]`.
#[derive(Clone, Debug)]
pub struct Responsibility {
    /// Name or range of names.
    pub name: String,
    /// Primary and standbys.
    pub replicas: u32,
}

/// What a member's configuration file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[node] name`.
    pub name: String,
    /// `[node] port`.
    pub port: u16,
    /// `[node] state_dir` and `control` lie in it.
    pub folder: PathBuf,
    /// `[cluster] key_file`.
    pub key_file: PathBuf,
    /// `[cluster] operator_key`, or empty.
    pub operator_key: String,
    /// `[cluster] quorum`, or empty.
    pub quorum: &'static str,
    /// `[cluster] seeds`.
    pub seeds: Vec<SocketAddr>,
    /// `[[adapter]]`, in order of preference.
    pub adapters: Vec<Adapter>,
    /// `[[route]]`: subnet, via, adapter.
    pub routes: Vec<(String, IpAddr, String)>,
    /// `[policy.KIND] plugin`: kind, plugin.
    pub policies: Vec<(&'static str, String)>,
    /// `[[responsibility]]`.
    pub responsibilities: Vec<Responsibility>,
    /// Lines put at the end as they are.
    pub extra: String,
}

impl Config {
    /// Only what every member needs; files lie in `folder`.
    pub fn new(name: &str, folder: &Path, key_file: &Path) -> Config {
        Config {
            name: name.into(),
            port: PORT,
            folder: folder.into(),
            key_file: key_file.into(),
            operator_key: String::new(),
            quorum: "",
            seeds: Vec::new(),
            adapters: Vec::new(),
            routes: Vec::new(),
            policies: Vec::new(),
            responsibilities: Vec::new(),
            extra: String::new(),
        }
    }

    /// Adds a lab member's adapters with their gateways, the first adapter first.
    #[must_use]
    pub fn with_lab_adapters(mut self, lab: &Lab, member: usize) -> Config {
        self.adapters = (0..2)
            .map(|adapter| Adapter {
                name: Lab::adapter_name(adapter).into(),
                gateway: Some(lab.gateway(member, adapter)),
                ..Adapter::default()
            })
            .collect();
        self
    }

    /// Where the member's control socket is.
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Sets the plugin of a policy kind.
    pub fn set_policy(&mut self, kind: &'static str, plugin: &str) {
        self.policies.retain(|(known, _)| *known != kind);
        self.policies.push((kind, plugin.into()));
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a string takes everything");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (state, control) = (self.folder.join("state"), self.control());
        writeln!(out, "[node]\nname = {:?}\nport = {}", self.name, self.port)?;
        writeln!(out, "state_dir = {state:?}\ncontrol = {control:?}\n")?;
        writeln!(out, "[cluster]\nname = \"test\"\nkey_file = {:?}", self.key_file)?;
        if !self.quorum.is_empty() {
            writeln!(out, "quorum = {:?}", self.quorum)?;
        }
        if !self.operator_key.is_empty() {
            writeln!(out, "operator_key = {:?}", self.operator_key)?;
        }
        let seeds: Vec<String> = self.seeds.iter().map(SocketAddr::to_string).collect();
        writeln!(out, "seeds = {seeds:?}\n")?;
        for adapter in &self.adapters {
            writeln!(out, "[[adapter]]")?;
            for (key, value) in [("name", &adapter.name), ("class_of_service", &adapter.class_of_service)] {
                if !value.is_empty() {
                    writeln!(out, "{key} = {value:?}")?;
                }
            }
            for (key, value) in [("address", adapter.address), ("gateway", adapter.gateway)] {
                if let Some(value) = value {
                    writeln!(out, "{key} = \"{value}\"")?;
                }
            }
            if adapter.speed != 0 {
                writeln!(out, "speed = {}", adapter.speed)?;
            }
            writeln!(out)?;
        }
        for (subnet, via, adapter) in &self.routes {
            writeln!(out, "[[route]]\nsubnet = {subnet:?}\nvia = \"{via}\"\nadapter = {adapter:?}\n")?;
        }
        for (kind, plugin) in &self.policies {
            writeln!(out, "[policy.{kind}]\nplugin = {plugin:?}\n")?;
        }
        for duty in &self.responsibilities {
            writeln!(out, "[[responsibility]]\nname = {:?}\nreplicas = {}\n", duty.name, duty.replicas)?;
        }
        out.push_str(&self.extra);
        Ok(())
    }
}
