//! The shape of the TOML file. Every value keeps its place, so that an error can name the line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// Text with its place.
pub(super) type Text = Spanned<String>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) node: NodeSection,
    #[serde(default)]
    pub(super) cluster: ClusterSection,
    #[serde(default)]
    pub(super) adapter: Vec<Spanned<AdapterSection>>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<RouteSection>>,
    #[serde(default)]
    pub(super) policy: PolicySections,
    #[serde(default)]
    pub(super) responsibility: Vec<Spanned<ResponsibilitySection>>,
}

/// A switch with more than two positions.
#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type: neither true, false nor a text")]
pub(super) enum Switch {
    Boolean(bool),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSection {
    pub(super) name: Option<Text>,
    pub(super) state_dir: Option<Text>,
    pub(super) control: Option<Text>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) metrics: Option<Text>,
    pub(super) busy_poll: Option<Spanned<Switch>>,
    pub(super) congestion: Option<Text>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterSection {
    pub(super) name: Option<Text>,
    pub(super) key_file: Option<Text>,
    pub(super) seeds: Option<Vec<Text>>,
    pub(super) quorum: Option<Text>,
    pub(super) security: Option<Text>,
    pub(super) allow: Option<Vec<Text>>,
    pub(super) operator_key: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdapterSection {
    pub(super) name: Option<Text>,
    pub(super) address: Option<Text>,
    pub(super) class_of_service: Option<Text>,
    pub(super) dscp: Option<Spanned<i64>>,
    pub(super) gateway: Option<Text>,
    pub(super) speed: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteSection {
    pub(super) subnet: Text,
    pub(super) via: Text,
    pub(super) adapter: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySections {
    pub(super) journal: Option<Spanned<i64>>,
    pub(super) assignment: Option<PolicySection>,
    pub(super) sizing: Option<PolicySection>,
    pub(super) failover: Option<PolicySection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySection {
    pub(super) plugin: Option<Text>,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) limits: BTreeMap<String, Spanned<i64>>,
    #[serde(default)]
    pub(super) probation: ProbationSection,
    #[serde(default)]
    pub(super) breaker: BreakerSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbationSection {
    pub(super) answers: Option<Spanned<i64>>,
    pub(super) seconds: Option<Spanned<i64>>,
    pub(super) faults: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerSection {
    pub(super) faults: Option<Spanned<i64>>,
    pub(super) seconds: Option<Spanned<i64>>,
    pub(super) max_seconds: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponsibilitySection {
    pub(super) name: Text,
    pub(super) replicas: Option<Spanned<i64>>,
    pub(super) weight: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) requires: BTreeMap<String, Text>,
}
