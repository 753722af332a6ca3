//! From the file's shape to a valid [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use overlan_contract::assignment::{MAX_REPLICAS, MAX_RESPONSIBILITIES, Responsibility};
use overlan_contract::{Attributes, Kind};
use overlan_plugins_dist::Builtin;
use overlan_policy::{BreakerConfig, Limits, ProbationConfig};
use overlan_wire::limits::{MAX_ADAPTERS, MAX_ATTRIBUTES};
use toml::Spanned;

use super::expand::expand;
use super::file::{
    AdapterSection, BreakerSection, File, PolicySection, ProbationSection, ResponsibilitySection,
    RouteSection, Text,
};
use super::{
    AdapterChoice, Config, ConfigError, DEFAULT_JOURNAL_BYTES, DEFAULT_PORT, Overrides, PluginSource,
    PolicyChoice, RouteChoice, Security, keys, paths, value,
};

/// Bytes of a configuration at most.
const MAX_FILE: u64 = 8 << 20;
/// Most answers, seconds and faults of a probation.
const MAX_PROBATION: i64 = 1_000_000;
/// Most faults in a row that a breaker waits for.
const MAX_BREAKER_FAULTS: i64 = 1_000;
/// Longest time that a breaker stays open, in seconds: a day.
const MAX_BREAKER_SECONDS: i64 = 86_400;
/// Largest weight of a responsibility; its thousandths must fit the contract's type.
const MAX_WEIGHT: f64 = 1_000_000.0;

impl Config {
    /// Reads a file (none: defaults only) and lets `overrides` win.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what is allowed.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse("", Path::new(""), overrides);
        };
        let text = fs::File::open(path).and_then(|file| io::read_to_string(file.take(MAX_FILE + 1)));
        let text = text.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if text.len() as u64 > MAX_FILE {
            let message = format!("a configuration has at most {MAX_FILE} bytes; is it one?");
            return Err(ConfigError::Invalid { place: path.display().to_string(), message });
        }
        Self::parse(&text, path, overrides)
    }

    /// Parses the text of a file; relative paths in it are relative to the folder of `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what is allowed.
    pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let source = Source { text, path };
        if let Some((span, message)) =
            keys::date(text).and_then(|span| Some((span.clone(), keys::explain(text, &span)?)))
        {
            return Err(source.error(Some(span), message));
        }
        let file: File = toml::from_str(text).map_err(|error| source.refused(&error))?;
        Reading { source, overrides }.config(file)
    }
}

struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    fn error(&self, span: Option<Range<usize>>, message: String) -> ConfigError {
        let before = self.text.get(..span.map_or(0, |span| span.start)).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        ConfigError::Invalid { place: format!("{}:{line}", self.path.display()), message }
    }

    /// What the parser says of a wrong type lacks the key and what is allowed.
    fn refused(&self, error: &toml::de::Error) -> ConfigError {
        let wrong_type =
            error.message().starts_with("invalid type") || error.message().starts_with("invalid value");
        let explained = error.span().filter(|_| wrong_type).and_then(|span| keys::explain(self.text, &span));
        self.error(error.span(), explained.unwrap_or_else(|| error.message().to_owned()))
    }

    /// Adds the place of `at` to an error.
    fn at<T, V>(&self, at: &Spanned<V>, result: Result<T, String>) -> Result<T, ConfigError> {
        result.map_err(|message| self.error(Some(at.span()), message))
    }

    fn text<T>(&self, text: &Text, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        self.at(text, parse(text.get_ref()))
    }

    /// A path in the file is relative to the file.
    fn beside(&self, path: &Text) -> Result<PathBuf, ConfigError> {
        if path.get_ref().is_empty() {
            return self.at(path, Err("the path is empty; leave it out for the default".to_owned()));
        }
        Ok(self.path.parent().unwrap_or(Path::new("")).join(path.get_ref()))
    }
}

fn flag<T>(name: &str, result: Result<T, String>) -> Result<T, ConfigError> {
    result.map_err(|message| ConfigError::Invalid { place: name.to_owned(), message })
}

fn socket_path(path: PathBuf) -> Result<PathBuf, String> {
    match std::os::unix::net::SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            let shown = path.display();
            Err(format!("{shown} can't be the path of a socket ({error}); choose one of 107 bytes at most"))
        }
    }
}

struct Reading<'a> {
    source: Source<'a>,
    overrides: &'a Overrides,
}

impl Reading<'_> {
    fn config(&self, file: File) -> Result<Config, ConfigError> {
        let (source, overrides) = (&self.source, self.overrides);
        let name = self.name(&file)?;
        let port = match (overrides.port, &file.node.port) {
            (Some(0), _) => return flag("--port", Err("the port must be from 1 to 65535".to_owned())),
            (Some(port), _) => port,
            (None, Some(port)) => source.at(port, value::integer("port", *port.get_ref(), 1..=65_535))?,
            (None, None) => DEFAULT_PORT,
        };
        let given = optional(&file.node.state_dir, |dir| source.beside(dir))?;
        let state_dir =
            overrides.state_dir.clone().or(given).unwrap_or_else(|| paths::default_state_dir(&name));
        let control = match (&overrides.control, &file.node.control) {
            (Some(path), _) => flag("--control", socket_path(path.clone()))?,
            (None, Some(path)) => source.at(path, socket_path(source.beside(path)?))?,
            (None, None) => flag("[node] control", socket_path(paths::default_control(&name)))?,
        };
        let metrics = optional(&file.node.metrics, |text| {
            source.text(text, |text| {
                text.parse()
                    .map_err(|_| format!("metrics `{text}` is no ADDRESS:PORT, such as 127.0.0.1:9464"))
            })
        })?;
        let cluster = optional(&file.cluster.name, |name| source.text(name, value::node_name))?;
        Ok(Config {
            attributes: self.attributes(&file.node.attributes)?,
            seeds: self.seeds(&file, port)?,
            quorum: optional(&file.cluster.quorum, |text| source.text(text, value::quorum))?
                .unwrap_or_default(),
            allow: optional(&file.cluster.allow, |ids| {
                ids.iter().map(|id| source.text(id, value::node_id)).collect()
            })?,
            operator_key: optional(&file.cluster.operator_key, |text| source.text(text, value::public_key))?,
            adapters: self.adapters(&file.adapter)?,
            routes: file.route.iter().map(|route| self.route(route.get_ref())).collect::<Result<_, _>>()?,
            policies: self.policies(&file)?,
            journal_bytes: match &file.policy.journal {
                Some(mib) => {
                    source.at(mib, value::integer::<u64>("journal", *mib.get_ref(), 0..=65_536))? << 20
                }
                None => DEFAULT_JOURNAL_BYTES,
            },
            responsibilities: self.responsibilities(&file.responsibility)?,
            // Last, so that a slip elsewhere is named first.
            security: self.security(&file)?,
            cluster: cluster.unwrap_or_else(|| "overlan".to_owned()),
            control: Some(control),
            name,
            state_dir,
            port,
            metrics,
            busy_poll: optional(&file.node.busy_poll, |switch| {
                source.at(switch, value::busy_poll(switch.get_ref()))
            })?
            .unwrap_or_default(),
            congestion: optional(&file.node.congestion, |text| source.text(text, value::congestion))?
                .unwrap_or_default(),
        })
    }

    fn name(&self, file: &File) -> Result<String, ConfigError> {
        if let Some(name) = &self.overrides.name {
            return flag("--name", value::node_name(name));
        }
        if let Some(name) = &file.node.name {
            return self.source.text(name, value::node_name);
        }
        let name = paths::host_name().ok_or_else(|| "give the node a name".to_owned());
        flag("[node] name", name.and_then(|name| value::node_name(&name)))
    }

    fn attributes(&self, map: &BTreeMap<String, Text>) -> Result<Attributes, ConfigError> {
        if let Some(last) = map.values().nth(MAX_ATTRIBUTES) {
            return self.source.at(last, Err(format!("a node has at most {MAX_ATTRIBUTES} attributes")));
        }
        let pair = |(key, text): (&String, &Text)| {
            let key = self.source.at(text, value::short_text("an attribute's key", key))?;
            Ok((key, self.source.text(text, |text| value::short_text("an attribute's value", text))?))
        };
        map.iter().map(pair).collect()
    }

    fn security(&self, file: &File) -> Result<Security, ConfigError> {
        let section = &file.cluster;
        let known = |text: &str| match text {
            "none" => Ok(false),
            "key" => Ok(true),
            _ => Err(format!(
                "security `{text}` is unknown; it must be \"key\" (default) or \"none\" (for labs)"
            )),
        };
        let keyed = match (&self.overrides.security, &section.security) {
            (Some(text), _) => flag("--security", known(text))?,
            (None, Some(text)) => self.source.text(text, known)?,
            (None, None) => true,
        };
        let given = optional(&section.key_file, |path| self.source.beside(path))?;
        match (keyed, self.overrides.key_file.clone().or(given)) {
            (false, _) => Ok(Security::None),
            (true, Some(path)) => Ok(Security::KeyFile(path)),
            (true, None) => flag(
                "[cluster] key_file",
                Err("a cluster key is needed: make one with `overlan keygen --out cluster.key`, copy it to every \
                     member and name it here or by --key-file (security = \"none\" is for labs)"
                    .to_owned()),
            ),
        }
    }

    fn seeds(&self, file: &File, port: u16) -> Result<Vec<std::net::SocketAddr>, ConfigError> {
        if !self.overrides.seeds.is_empty() {
            return self.overrides.seeds.iter().map(|text| flag("--seed", value::seed(text, port))).collect();
        }
        let seeds = file.cluster.seeds.iter().flatten();
        seeds.map(|text| self.source.text(text, |text| value::seed(text, port))).collect()
    }

    fn adapters(&self, sections: &[Spanned<AdapterSection>]) -> Result<Vec<AdapterChoice>, ConfigError> {
        let (names, addresses) = (&self.overrides.adapters, &self.overrides.addresses);
        if !names.is_empty() || !addresses.is_empty() {
            let named = names.iter().map(|name| {
                let name = Some(flag("--adapter", value::short_text("an adapter's name", name))?);
                Ok(AdapterChoice { name, ..AdapterChoice::default() })
            });
            let addressed = addresses.iter().map(|text| {
                let address = Some(flag("--address", value::address("address", text))?);
                Ok(AdapterChoice { address, ..AdapterChoice::default() })
            });
            return named.chain(addressed).collect();
        }
        if let Some(last) = sections.get(MAX_ADAPTERS) {
            return self.source.at(last, Err(format!("a node has at most {MAX_ADAPTERS} adapter addresses")));
        }
        let choices = sections.iter().map(|section| self.adapter(section)).collect::<Result<Vec<_>, _>>()?;
        for (index, (choice, section)) in choices.iter().zip(sections).enumerate() {
            let same = |other: &AdapterChoice| (&other.name, other.address) == (&choice.name, choice.address);
            if choices[..index].iter().any(same) {
                return self.source.at(section, Err("this adapter is already listed above".to_owned()));
            }
        }
        Ok(choices)
    }

    fn adapter(&self, section: &Spanned<AdapterSection>) -> Result<AdapterChoice, ConfigError> {
        let (source, this) = (&self.source, section.get_ref());
        if this.name.is_none() && this.address.is_none() {
            return source.at(section, Err("an [[adapter]] needs a name or an address".to_owned()));
        }
        let class = optional(&this.class_of_service, |text| {
            source.text(text, |text| value::short_text("class_of_service", text))
        })?
        .unwrap_or_default();
        let dscp =
            optional(&this.dscp, |dscp| source.at(dscp, value::integer("dscp", *dscp.get_ref(), 0..=63)))?;
        let ip = |what: &'static str, text: &Option<Text>| {
            optional(text, |text| source.text(text, |text| value::address(what, text)))
        };
        let (address, gateway) = (ip("address", &this.address)?, ip("gateway", &this.gateway)?);
        if let (Some(address), Some(gateway), Some(text)) = (address, gateway, &this.gateway)
            && address.is_ipv4() != gateway.is_ipv4()
        {
            return source.at(text, Err(format!("gateway {gateway} is of another family than {address}")));
        }
        Ok(AdapterChoice {
            name: optional(&this.name, |text| {
                source.text(text, |text| value::short_text("an adapter's name", text))
            })?,
            address,
            dscp: dscp.or_else(|| value::dscp_of(&class)).unwrap_or(0),
            class_of_service: class,
            gateway,
            speed: optional(&this.speed, |speed| {
                source.at(speed, value::integer("speed", *speed.get_ref(), 0..=i64::from(u32::MAX)))
            })?,
        })
    }

    fn route(&self, section: &RouteSection) -> Result<RouteChoice, ConfigError> {
        let source = &self.source;
        let subnet: overlan_netlink::Network = source.text(&section.subnet, |text| {
            text.parse().map_err(|error| format!("subnet `{text}`: {error}"))
        })?;
        let via = source.text(&section.via, |text| value::address("via", text))?;
        Ok(RouteChoice {
            subnet,
            via,
            adapter: source.text(&section.adapter, |text| value::short_text("an adapter's name", text))?,
        })
    }

    fn policies(&self, file: &File) -> Result<Vec<PolicyChoice>, ConfigError> {
        let sections = [
            (Kind::Assignment, &file.policy.assignment),
            (Kind::Sizing, &file.policy.sizing),
            (Kind::Failover, &file.policy.failover),
        ];
        let present = sections.into_iter().filter_map(|(kind, section)| Some((kind, section.as_ref()?)));
        present.map(|(kind, section)| self.policy(kind, section)).collect()
    }

    fn policy(&self, kind: Kind, section: &PolicySection) -> Result<PolicyChoice, ConfigError> {
        let source = |text: &Text| match text.get_ref().split_once(':') {
            Some(("builtin", name)) => {
                let builtin = self.source.at(text, builtin(kind, name))?;
                Ok(PluginSource::Builtin(builtin.name.to_owned()))
            }
            _ => Ok(PluginSource::File(self.source.beside(text)?)),
        };
        let source = optional(&section.plugin, source)?.unwrap_or_else(|| {
            PluginSource::Builtin(overlan_plugins_dist::default_for(kind).name.to_owned())
        });
        let mut limits = Limits::default();
        for (name, value) in &section.limits {
            let set = u64::try_from(*value.get_ref())
                .map_err(|_| format!("the limit {name} is {}; it must not be negative", value.get_ref()))
                .and_then(|number| limits.set(name, number).map_err(|error| error.to_string()));
            self.source.at(value, set)?;
        }
        let config = section.config.clone().into_iter().collect();
        let (probation, breaker) = (self.probation(&section.probation)?, self.breaker(&section.breaker)?);
        Ok(PolicyChoice { kind, source, config, limits, probation, breaker })
    }

    fn breaker(&self, section: &BreakerSection) -> Result<BreakerConfig, ConfigError> {
        let number = |what: &str, given: &Option<Spanned<i64>>, range: RangeInclusive<i64>| {
            optional(given, |number| {
                self.source.at(number, value::integer::<u32>(what, *number.get_ref(), range.clone()))
            })
        };
        let seconds = |number: Option<u32>| number.map(|seconds| Duration::from_secs(seconds.into()));
        let default = BreakerConfig::default();
        let first = seconds(number("seconds", &section.seconds, 1..=MAX_BREAKER_SECONDS)?);
        let first_backoff = first.unwrap_or(default.first_backoff);
        let least = first_backoff.as_secs() as i64;
        let most = seconds(number("max_seconds", &section.max_seconds, least..=MAX_BREAKER_SECONDS)?);
        Ok(BreakerConfig {
            faults_to_open: number("faults", &section.faults, 1..=MAX_BREAKER_FAULTS)?
                .unwrap_or(default.faults_to_open),
            first_backoff,
            max_backoff: most.unwrap_or(default.max_backoff).max(first_backoff),
        })
    }

    fn probation(&self, section: &ProbationSection) -> Result<ProbationConfig, ConfigError> {
        let number = |what: &str, given: &Option<Spanned<i64>>| {
            optional(given, |number| {
                self.source.at(number, value::integer::<u32>(what, *number.get_ref(), 0..=MAX_PROBATION))
            })
        };
        let default = ProbationConfig::default();
        Ok(ProbationConfig {
            answers: number("answers", &section.answers)?.unwrap_or(default.answers),
            time: number("seconds", &section.seconds)?
                .map_or(default.time, |seconds| Duration::from_secs(seconds.into())),
            faults: number("faults", &section.faults)?.unwrap_or(default.faults),
        })
    }

    fn requires(&self, section: &Spanned<ResponsibilitySection>) -> Result<Attributes, ConfigError> {
        let map = &section.get_ref().requires;
        if map.len() > MAX_ATTRIBUTES {
            let many = format!("a responsibility requires at most {MAX_ATTRIBUTES} attributes");
            return self.source.at(section, Err(many));
        }
        let pair = |(key, text): (&String, &Text)| {
            let key = self.source.at(text, value::short_text("a required attribute's key", key))?;
            let value =
                self.source.text(text, |text| value::printable("a required attribute's value", text))?;
            Ok((key, value))
        };
        map.iter().map(pair).collect()
    }

    fn responsibilities(
        &self,
        sections: &[Spanned<ResponsibilitySection>],
    ) -> Result<Vec<Responsibility>, ConfigError> {
        let mut duties = Vec::new();
        let mut names = BTreeSet::new();
        for section in sections {
            let this = section.get_ref();
            let replicas = optional(&this.replicas, |replicas| {
                let range = 1..=i64::from(MAX_REPLICAS);
                self.source.at(replicas, value::integer("replicas", *replicas.get_ref(), range))
            })?;
            let weight_milli =
                optional(&this.weight, |weight| self.source.at(weight, milli(*weight.get_ref())))?;
            let requires = self.requires(section)?;
            for name in self.source.text(&this.name, expand)? {
                let name =
                    self.source.text(&this.name, |_| value::short_text("a responsibility's name", &name))?;
                if !names.insert(name.clone()) {
                    let twice = format!("responsibility `{name}` is listed twice");
                    return self.source.at(&this.name, Err(twice));
                }
                duties.push(Responsibility {
                    name,
                    replicas: replicas.unwrap_or(1),
                    weight_milli: weight_milli.unwrap_or(1000),
                    requires: requires.clone(),
                });
            }
            if duties.len() > MAX_RESPONSIBILITIES {
                let many = format!("a cluster has at most {MAX_RESPONSIBILITIES} responsibilities");
                return self.source.at(section, Err(many));
            }
        }
        Ok(duties)
    }
}

/// A shipped plugin of the kind.
pub(crate) fn builtin(kind: Kind, name: &str) -> Result<&'static Builtin, String> {
    let shipped = overlan_plugins_dist::BUILTINS.iter().filter(|builtin| builtin.kind == kind);
    if let Some(builtin) = shipped.clone().find(|builtin| builtin.name == name) {
        return Ok(builtin);
    }
    let names: Vec<String> = shipped.map(|builtin| format!("\"builtin:{}\"", builtin.name)).collect();
    Err(format!("no {kind} plugin `{name}` is shipped; use {} or the path of a component", names.join(", ")))
}

/// A weight in thousandths.
pub(crate) fn milli(weight: f64) -> Result<u32, String> {
    if !(0.0..=MAX_WEIGHT).contains(&weight) {
        return Err(format!(
            "weight is {weight}; it must be from 0 to {MAX_WEIGHT} (1.0 is an ordinary duty)"
        ));
    }
    match (weight * 1000.0).round() as u32 {
        0 if weight > 0.0 => Err(format!("weight is {weight}; the least above 0 is 0.001")),
        milli => Ok(milli),
    }
}

fn optional<T, U>(
    value: &Option<T>,
    parse: impl FnOnce(&T) -> Result<U, ConfigError>,
) -> Result<Option<U>, ConfigError> {
    value.as_ref().map(parse).transpose()
}

#[cfg(test)]
mod tests;
