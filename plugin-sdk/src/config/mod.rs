//! A policy's configuration: key/value strings in, a checked struct out.

mod de;
mod within;

use serde::de::DeserializeOwned;

pub use within::Within;

/// The configuration of a policy as the deployer wrote it: `config = { key = "value" }`.
///
/// Parse it into a struct that derives `serde::Deserialize` (with `#[serde(default)]`). Values are
/// strings; fields may be numbers, [`Within`], `bool` (`true` or `false`), strings, `Option`s, enums
/// of unit variants, lists (`a, b`) and maps (`a=1, b=2`). A key that is no field is an error.
///
/// ```
/// use overlan_plugin_sdk::{Config, Within};
///
/// #[derive(serde::Deserialize)]
/// struct Options {
///     interval_ms: Within<10, 60_000>,
/// }
///
/// let config: Config = [("interval_ms", "5")].into_iter().collect();
/// let error = config.parse::<Options>().err().unwrap();
/// assert_eq!(error.to_string(), "`interval_ms` is `5`; it must be a whole number from 10 to 60000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    pairs: Vec<(String, String)>,
}

impl Config {
    /// The pairs in the order they were given.
    ///
    /// ```
    /// # use overlan_plugin_sdk::Config;
    /// // For keys that are not known beforehand, such as the names of nodes.
    /// let config: Config = [("n1", "3"), ("n0", "1")].into_iter().collect();
    /// let weights: Result<Vec<u32>, _> = config.pairs().iter().map(|(_, weight)| weight.parse()).collect();
    /// assert_eq!(weights, Ok(vec![3, 1]));
    /// ```
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Parses the pairs into `T`.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use overlan_plugin_sdk::{Config, Within};
    ///
    /// #[derive(Default, serde::Deserialize)]
    /// #[serde(default)]
    /// struct Options {
    ///     percent: BTreeMap<String, Within<1, 100>>,
    ///     site: Option<String>,
    /// }
    ///
    /// let config: Config = [("percent", "gold=50, bulk=5")].into_iter().collect();
    /// let options: Options = config.parse()?;
    /// assert_eq!((options.percent["bulk"].value(), options.site), (5, None));
    /// # Ok::<(), overlan_plugin_sdk::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The first key that is unknown, twice there, missing, or has a value that is not allowed.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        T::deserialize(de::Pairs::new(&self.pairs))
    }

    /// For policies without configuration.
    ///
    /// ```
    /// # use overlan_plugin_sdk::Config;
    /// assert_eq!(Config::default().expect_empty(), Ok(()));
    /// let error = Config::from_iter([("slack", "5")]).expect_empty().unwrap_err();
    /// assert_eq!(error.to_string(), "unknown key `slack`; this policy takes no configuration");
    /// ```
    ///
    /// # Errors
    /// The first key, if there is any.
    pub fn expect_empty(&self) -> Result<(), ConfigError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(ConfigError::UnknownKey { key: key.clone(), allowed: Vec::new() }),
        }
    }
}

impl From<Vec<(String, String)>> for Config {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Config { pairs }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Config {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Config { pairs: pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect() }
    }
}

/// What is wrong with a configuration. No variant leaves a policy behind.
///
/// ```
/// use overlan_plugin_sdk::ConfigError;
///
/// /// A rule between two keys.
/// fn check(interval_ms: u32, timeout_ms: u32) -> Result<(), ConfigError> {
///     match timeout_ms <= interval_ms {
///         true => Ok(()),
///         false => Err(ConfigError::Other("`timeout_ms` must not be above `interval_ms`".into())),
///     }
/// }
///
/// assert_eq!(check(200, 100), Ok(()));
/// assert_eq!(check(100, 200).unwrap_err().to_string(), "`timeout_ms` must not be above `interval_ms`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The policy has no such key.
    #[error("unknown key `{key}`; {}", describe(allowed))]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys the policy has.
        allowed: Vec<String>,
    },
    /// The key stands there twice.
    #[error("key `{key}` is given twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The policy cannot do without the key.
    #[error("key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// The value is not allowed for the key.
    #[error("`{key}` is `{value}`; it must be {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What would be valid.
        allowed: String,
    },
    /// Anything else, in a sentence; for rules between keys.
    #[error("{0}")]
    Other(String),
}

impl ConfigError {
    /// Says that the value of a key is not allowed, and what would be.
    ///
    /// ```
    /// # use overlan_plugin_sdk::ConfigError;
    /// let error = ConfigError::value("interval_ms", "25", "a multiple of 10");
    /// assert_eq!(error.to_string(), "`interval_ms` is `25`; it must be a multiple of 10");
    /// ```
    pub fn value(key: &str, value: &str, allowed: &str) -> Self {
        ConfigError::Value { key: key.into(), value: value.into(), allowed: allowed.into() }
    }

    /// Names the pair in which a value was found wrong.
    fn at(self, key: &str, value: &str) -> Self {
        match self {
            ConfigError::Value { allowed, .. } => ConfigError::value(key, value, &allowed),
            ConfigError::Other(allowed) => ConfigError::value(key, value, &allowed),
            ConfigError::DuplicateKey { key: inner } => {
                ConfigError::value(key, value, &format!("without a second `{inner}`"))
            }
            other => other,
        }
    }
}

fn describe(allowed: &[String]) -> String {
    if allowed.is_empty() {
        return "this policy takes no configuration".into();
    }
    format!("allowed keys are {}", allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default)]
    struct Options {
        interval_ms: Within<10, 60_000>,
        count: u8,
        offset: i32,
        loud: bool,
        mode: Mode,
        site: Option<String>,
        percent: BTreeMap<String, Within<1, 100>>,
        names: Vec<String>,
    }

    impl Default for Options {
        fn default() -> Self {
            Options {
                interval_ms: Within::new(200),
                count: 3,
                offset: 0,
                loud: false,
                mode: Mode::Passive,
                site: None,
                percent: BTreeMap::new(),
                names: Vec::new(),
            }
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Passive,
        VeryActive,
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Options, ConfigError> {
        pairs.iter().copied().collect::<Config>().parse()
    }

    fn refused(key: &str, value: &str) -> String {
        parse(&[(key, value)]).unwrap_err().to_string()
    }

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(parse(&[]), Ok(Options::default()));
    }

    #[test]
    fn every_type_is_parsed_from_strings() {
        let options = parse(&[
            ("interval_ms", "500"),
            ("count", " 7 "),
            ("offset", "-5"),
            ("loud", "true"),
            ("mode", "very-active"),
            ("site", "x"),
            ("percent", "gold=50, bulk = 5"),
            ("names", "a, b"),
        ]);
        let expected = Options {
            interval_ms: Within::new(500),
            count: 7,
            offset: -5,
            loud: true,
            mode: Mode::VeryActive,
            site: Some("x".into()),
            percent: [("bulk".into(), Within::new(5)), ("gold".into(), Within::new(50))].into(),
            names: vec!["a".into(), "b".into()],
        };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn an_unknown_key_names_the_allowed_ones() {
        assert_eq!(
            refused("intervall_ms", "5"),
            "unknown key `intervall_ms`; allowed keys are interval_ms, count, offset, loud, mode, site, percent, names"
        );
        let error = [("x", "1")].into_iter().collect::<Config>().expect_empty().unwrap_err();
        assert_eq!(error.to_string(), "unknown key `x`; this policy takes no configuration");
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_allowed() {
        let range = "it must be a whole number from 10 to 60000";
        assert_eq!(refused("interval_ms", "5"), format!("`interval_ms` is `5`; {range}"));
        assert_eq!(refused("interval_ms", "5ms"), format!("`interval_ms` is `5ms`; {range}"));
        assert_eq!(refused("interval_ms", "-1"), format!("`interval_ms` is `-1`; {range}"));
        assert_eq!(refused("count", "256"), "`count` is `256`; it must be a whole number from 0 to 255");
        assert_eq!(refused("loud", "yes"), "`loud` is `yes`; it must be true or false");
        assert_eq!(refused("mode", "off"), "`mode` is `off`; it must be one of passive, very-active");
        assert_eq!(
            refused("percent", "gold=0"),
            "`percent` is `gold=0`; it must be a whole number from 1 to 100 for `gold`"
        );
        assert_eq!(refused("percent", "gold"), "`percent` is `gold`; it must be pairs like `a=1, b=2`");
    }

    #[test]
    fn a_fraction_is_finite() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Fractions {
            share: f64,
        }
        let parse = |value: &str| [("share", value)].into_iter().collect::<Config>().parse::<Fractions>();
        assert_eq!(parse("-2.5e3"), Ok(Fractions { share: -2_500.0 }));
        for value in ["nan", "inf", "-infinity", "1e400", "half"] {
            let refused = parse(value).unwrap_err().to_string();
            assert_eq!(refused, format!("`share` is `{value}`; it must be a finite number such as 0.5"));
        }
    }

    #[test]
    fn a_key_given_twice_or_missing_is_refused() {
        assert_eq!(
            parse(&[("count", "1"), ("count", "2")]).unwrap_err().to_string(),
            "key `count` is given twice"
        );

        #[derive(Debug, Deserialize)]
        struct Strict {
            #[expect(dead_code, reason = "only its absence matters")]
            needed: u32,
        }
        assert_eq!(Config::default().parse::<Strict>().unwrap_err().to_string(), "key `needed` is missing");
    }
}
