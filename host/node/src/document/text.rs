//! The file of `overlan apply`, TOML or JSON, which `overlan get` writes as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use overlan_contract::Kind;
use overlan_contract::assignment::{MAX_RESPONSIBILITIES, Responsibility};
use overlan_core::document::{Document, PolicyChoice};
use overlan_wire::Digest;
use overlan_wire::limits::MAX_DOCUMENT;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{builtin, expand, milli};

/// What a cluster document says, as text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File")]
pub struct Content {
    /// The version that the change is made from: it is refused where another is in force. Without it, the one in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// `[[responsibility]]`; all that there are, so that a text without this key is refused.
    pub responsibility: Vec<ResponsibilityText>,
    /// `[policy.KIND]`.
    #[serde(skip_serializing_if = "PolicyTexts::is_empty")]
    pub policy: PolicyTexts,
}

/// [`Content`] as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Option<u64>,
    responsibility: Option<Vec<ResponsibilityText>>,
    #[serde(default)]
    policy: PolicyTexts,
}

impl TryFrom<File> for Content {
    type Error = DocumentError;

    fn try_from(file: File) -> Result<Self, DocumentError> {
        let File { version, responsibility, policy } = file;
        let responsibility = responsibility.ok_or_else(|| {
            DocumentError(
                "it names no responsibility, and would take every one away; write `responsibility = []` before the first \
                 section where that is meant"
                    .to_owned(),
            )
        })?;
        Ok(Content { version, responsibility, policy })
    }
}

/// One `[[responsibility]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponsibilityText {
    /// Or a pattern such as `shard-{0..63}`.
    name: String,
    #[serde(default = "one_replica")]
    replicas: u32,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: f64,
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    requires: Pairs,
}

/// The `[policy.KIND]` sections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assignment: Option<PolicyText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sizing: Option<PolicyText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failover: Option<PolicyText>,
}

/// One `[policy.KIND]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// `builtin:NAME`, or the name of a component that was pushed.
    pub plugin: String,
    /// Of the component; a shipped plugin's is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Bytes of the component; a shipped plugin's are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// What the plugin is configured with.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub config: Pairs,
}

/// Texts by key; a key given twice is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub BTreeMap<String, String>);

/// What is wrong with the text, by field and value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(pub(crate) String);

fn one_replica() -> u32 {
    1
}

fn one() -> f64 {
    1.0
}

/// Checked where it is read: JSON, which it may pass on in, has no word for what is no number.
fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let weight = f64::deserialize(deserializer)?;
    milli(weight).map_err(serde::de::Error::custom)?;
    Ok(weight)
}

impl Pairs {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of texts, such as { key = \"value\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.contains_key(&key) {
                        return Err(serde::de::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    pairs.insert(key, value);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

impl PolicyTexts {
    fn is_empty(&self) -> bool {
        *self == PolicyTexts::default()
    }

    /// The section of a kind.
    pub fn of(&mut self, kind: Kind) -> &mut Option<PolicyText> {
        match kind {
            Kind::Assignment => &mut self.assignment,
            Kind::Sizing => &mut self.sizing,
            Kind::Failover => &mut self.failover,
        }
    }
}

impl Content {
    /// Reads TOML, or JSON where the text begins with a brace.
    ///
    /// # Errors
    /// The first thing that is wrong, by field and value.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.trim_start().starts_with('{') {
            let mut json = serde_json::Deserializer::from_str(text);
            let content = read(&mut json, |error: serde_json::Error| error.to_string())?;
            json.end().map_err(|error| DocumentError(error.to_string()))?;
            return Ok(content);
        }
        let toml = toml::Deserializer::parse(text);
        let toml = toml.map_err(|error| {
            // Not the line itself, which a key file given by mistake would have in a log.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            DocumentError(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        read(toml, |error: toml::de::Error| error.message().to_owned())
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts and numbers always have a form in TOML")
    }

    /// What a document says.
    pub fn of(document: &Document) -> Self {
        let mut policy = PolicyTexts::default();
        for choice in &document.policies {
            *policy.of(choice.kind) = Some(PolicyText {
                plugin: choice.plugin.clone(),
                sha256: Some(choice.sha256.to_string()),
                size: Some(choice.size),
                config: Pairs(choice.config.iter().cloned().collect()),
            });
        }
        Content { policy, ..Self::of_duties(document.version, &document.responsibilities) }
    }

    /// These duties, and nothing of policies.
    pub(super) fn of_duties(version: u64, duties: &[Responsibility]) -> Self {
        let responsibility = |duty: &Responsibility| ResponsibilityText {
            name: duty.name.clone(),
            replicas: duty.replicas,
            weight: f64::from(duty.weight_milli) / 1_000.0,
            requires: Pairs(duty.requires.iter().cloned().collect()),
        };
        Content {
            version: Some(version),
            responsibility: duties.iter().map(responsibility).collect(),
            policy: PolicyTexts::default(),
        }
    }

    /// The duties.
    pub(super) fn responsibilities(&self) -> Result<Vec<Responsibility>, DocumentError> {
        let mut duties = Vec::new();
        let mut names = BTreeSet::new();
        // What few bytes of text ask for is bounded while it is made, not when it is there.
        let mut bytes = 0;
        for (index, section) in self.responsibility.iter().enumerate() {
            let of = |what: String| DocumentError(format!("responsibility[{index}].{what}"));
            let weight_milli = milli(section.weight).map_err(of)?;
            for name in expand(&section.name).map_err(|why| of(format!("name: {why}")))? {
                if !names.insert(name.clone()) {
                    return Err(of(format!("name: responsibility `{name}` is listed twice")));
                }
                bytes += name.len() + section.requires.bytes();
                if duties.len() == MAX_RESPONSIBILITIES || bytes > MAX_DOCUMENT {
                    return Err(of(format!(
                        "`{name}` is one too many: a document has at most {MAX_RESPONSIBILITIES} responsibilities, in \
                         {MAX_DOCUMENT} bytes"
                    )));
                }
                let requires = section.requires.0.clone().into_iter().collect();
                duties.push(Responsibility { name, replicas: section.replicas, weight_milli, requires });
            }
        }
        Ok(duties)
    }

    /// The policies, by digest.
    pub(super) fn policies(&self) -> Result<Vec<PolicyChoice>, DocumentError> {
        let mut texts = self.policy.clone();
        let present = Kind::ALL.into_iter().filter_map(|kind| Some((kind, texts.of(kind).take()?)));
        present.map(|(kind, text)| text.choice(kind)).collect()
    }
}

impl PolicyText {
    fn choice(self, kind: Kind) -> Result<PolicyChoice, DocumentError> {
        let PolicyText { plugin, sha256, size, config } = self;
        let wrong = |what: String| DocumentError(format!("policy.{kind}.{what}"));
        let named = sha256.map(|text| {
            text.parse::<Digest>()
                .map_err(|_| wrong(format!("sha256 `{text}` must have 64 hexadecimal digits")))
        });
        let named = named.transpose()?;
        let (sha256, size) = match plugin.strip_prefix("builtin:") {
            Some(name) => {
                let builtin = builtin(kind, name).map_err(|why| wrong(format!("plugin: {why}")))?;
                let shipped = builtin.sha256.parse().map_err(|_| wrong("plugin: no digest".to_owned()))?;
                match named {
                    // Of another release: members that have it not fetch it.
                    Some(other) if other != shipped => (other, size),
                    _ => {
                        let bytes = builtin.wasm.len() as u32;
                        match size {
                            Some(other) if other != bytes => {
                                return Err(wrong(format!("size is {other}; {plugin} has {bytes} bytes")));
                            }
                            _ => (shipped, Some(bytes)),
                        }
                    }
                }
            }
            None => match named {
                Some(sha256) => (sha256, size),
                None => {
                    return Err(wrong(format!(
                        "plugin `{plugin}` is no shipped one (\"builtin:NAME\"): distribute it with `overlan policy push \
                         {kind} FILE`, or give its sha256 and size as `overlan get` shows them"
                    )));
                }
            },
        };
        let size = size.ok_or_else(|| wrong("size is missing: the bytes of the component".to_owned()))?;
        Ok(PolicyChoice { kind, plugin, sha256, size, config: config.0.into_iter().collect() })
    }
}

fn read<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
    message: impl Fn(D::Error) -> String,
) -> Result<T, DocumentError> {
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message = message(error.into_inner());
        DocumentError(if path == "." { message } else { format!("{path}: {message}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        version = 4
        [[responsibility]]
        name = "shard-{0..3}"
        replicas = 2
        weight = 1.5
        requires = { site = "x" }
        [[responsibility]]
        name = "leader"
        [policy.failover]
        plugin = "builtin:fast"
        [policy.sizing]
        plugin = "mine.wasm"
        sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
        size = 70000
        config = { key = "value" }
    "#;

    fn document(content: &Content) -> Result<Document, String> {
        let from = overlan_wire::DocumentId { version: 4, digest: Digest([1; 32]) };
        let signed = super::super::compose(content, "prod", from, None).map_err(|error| error.to_string())?;
        Ok(signed.document().clone())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let first = document(&Content::parse(TEXT).unwrap()).unwrap();
        assert_eq!(first.responsibilities.len(), 5);
        assert_eq!((first.version, first.policies.len()), (5, 2));
        let content = Content::of(&first);
        for text in [content.to_toml(), serde_json::to_string(&content).unwrap()] {
            let again = Content::parse(&text).unwrap();
            assert_eq!(again, content, "{text}");
            assert_eq!(document(&again).unwrap(), first);
        }
    }

    #[test]
    fn each_error_names_the_field() {
        for (text, field) in [
            ("", "names no responsibility"),
            ("# nothing of responsibility\n", "names no responsibility"),
            ("{}", "names no responsibility"),
            ("version = 4", "names no responsibility"),
            ("[policy.failover]\nplugin = \"builtin:fast\"", "names no responsibility"),
            ("respons = 1", "respons"),
            ("[[responsibility]]\nname = \"a\"\nweight = 0.0001", "responsibility[0].weight"),
            ("[[responsibility]]\nname = \"a\"\nreplica = 1", "responsibility[0].replica"),
            ("[[responsibility]]\nname = \"a\"\nreplicas = \"x\"", "responsibility[0].replicas"),
            ("[[responsibility]]\nname = \"a\"\nreplicas = 0", "replicas is 0"),
            ("[[responsibility]]\nname = \"a\"\nweight = -1", "responsibility[0].weight"),
            ("[[responsibility]]\nname = \"a\"\nweight = nan", "weight is NaN"),
            ("[[responsibility]]\nname = \"a\"\n[[responsibility]]\nname = \"a\"", "listed twice"),
            ("[[responsibility]]\nname = \"a-{3..1}\"", "responsibility[0].name"),
            ("[[responsibility]]\nreplicas = 1", "name"),
            ("[policy.other]\nplugin = \"x\"", "other"),
            ("responsibility = []\n[policy.sizing]\nplugin = \"builtin:fast\"", "policy.sizing.plugin"),
            (
                "responsibility = []\n[policy.sizing]\nplugin = \"builtin:mtu-fit\"\nsize = 1",
                "policy.sizing.size is 1",
            ),
            ("responsibility = []\n[policy.sizing]\nplugin = \"mine\"", "overlan policy push sizing"),
            (
                "responsibility = []\n[policy.sizing]\nplugin = \"mine\"\nsha256 = \"x\"",
                "policy.sizing.sha256",
            ),
            ("[policy.failover]\nplugin = \"builtin:fast\"\nconfig = { a = 1 }", "policy.failover.config"),
            ("{\"responsibility\": [{\"name\": \"a\", \"name\": \"b\"}]}", "duplicate field `name`"),
            (
                "{\"policy\": {\"sizing\": {\"plugin\": \"x\", \"config\": {\"a\": \"1\", \"a\": \"2\"}}}}",
                "`a`",
            ),
            ("{\"responsibility\": []} trailing", "trailing"),
            (
                "[[responsibility]]\nname = \"a{0..9999}\"\n[[responsibility]]\nname = \"b{0..9999}\"",
                "responsibility[1].`b6384` is one too many",
            ),
        ] {
            let error = match Content::parse(text) {
                Ok(content) => document(&content).expect_err(text),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(field), "{text}: {error}");
        }
        let large = "x".repeat(1 << 16);
        let text = format!("[[responsibility]]\nname = \"a{{0..999}}\"\nrequires = {{ site = \"{large}\" }}");
        let error = document(&Content::parse(&text).unwrap()).unwrap_err();
        assert!(error.contains("`a15` is one too many"), "{error}");
    }

    #[test]
    fn a_key_given_for_a_document_is_not_shown() {
        let error = Content::parse("# A cluster key.\nactive 5104a522 75e3c451\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && !error.contains("75e3"), "{error}");
    }
}
