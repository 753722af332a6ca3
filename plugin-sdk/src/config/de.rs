//! A serde format: pairs of strings to a struct.

use std::fmt::Display;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::ConfigError;

impl de::Error for ConfigError {
    fn custom<T: Display>(message: T) -> Self {
        ConfigError::Other(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_value(found, expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        ConfigError::value("", "", &expected.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        ConfigError::value("", "", &format!("one of {}", expected.join(", ")))
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        ConfigError::UnknownKey {
            key: key.into(),
            allowed: allowed.iter().copied().map(Into::into).collect(),
        }
    }

    fn missing_field(key: &'static str) -> Self {
        ConfigError::MissingKey { key: key.into() }
    }

    fn duplicate_field(key: &'static str) -> Self {
        ConfigError::DuplicateKey { key: key.into() }
    }
}

/// The whole configuration.
pub(super) struct Pairs<'de>(&'de [(String, String)]);

impl<'de> Pairs<'de> {
    pub(super) fn new(pairs: &'de [(String, String)]) -> Self {
        Pairs(pairs)
    }
}

impl<'de> Deserializer<'de> for Pairs<'de> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let pairs = self.0.iter().map(|(key, value)| (key.as_str(), Value { key, text: value.trim() }));
        visitor.visit_map(MapDeserializer::new(pairs))
    }

    /// Refuses unknown keys here, so that no author can forget `deny_unknown_fields`.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match self.0.iter().find(|(key, _)| !fields.contains(&key.as_str())) {
            Some((key, _)) => Err(de::Error::unknown_field(key, fields)),
            None => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// One value, with the key it belongs to for errors.
struct Value<'de> {
    key: &'de str,
    text: &'de str,
}

impl<'de> IntoDeserializer<'de, ConfigError> for Value<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Value<'_> {
    fn at<T>(&self, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
        result.map_err(|error| error.at(self.key, self.text))
    }

    fn refuse(&self, allowed: &str) -> ConfigError {
        ConfigError::value(self.key, self.text, allowed)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match self.text.parse::<$type>() {
                Ok(number) => self.at(visitor.$visit(number)),
                Err(_) => Err(self.refuse(&format!(concat!($what, " from {} to {}"), <$type>::MIN, <$type>::MAX))),
            }
        }
    )*};
}

/// Neither an infinity nor what is no number: no policy computes with either.
macro_rules! finite {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match self.text.parse::<$type>() {
                Ok(number) if number.is_finite() => self.at(visitor.$visit(number)),
                _ => Err(self.refuse("a finite number such as 0.5")),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.at(visitor.visit_borrowed_str(self.text))
    }

    numbers! {
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_i128 visit_i128 i128, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number";
        deserialize_u16 visit_u16 u16, "a whole number";
        deserialize_u32 visit_u32 u32, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_u128 visit_u128 u128, "a whole number";
    }

    finite! {
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.text.parse() {
            Ok(truth) => self.at(visitor.visit_bool(truth)),
            Err(_) => Err(self.refuse("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.at(visitor.visit_enum(StrDeserializer::<ConfigError>::new(self.text)))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let items = split(self.text).map(|text| Value { key: self.key, text });
        let list = visitor.visit_seq(SeqDeserializer::new(items));
        self.at(list)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let pairs = split(self.text)
            .map(|item| item.split_once('=').map(|(key, value)| (key.trim(), value.trim())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.refuse("pairs like `a=1, b=2`"))?;
        let values = pairs.into_iter().map(|(key, text)| (key, Value { key, text }));
        let map = visitor.visit_map(MapDeserializer::new(values)).map_err(|error| match error {
            ConfigError::Value { key, allowed, .. } => ConfigError::Other(format!("{allowed} for `{key}`")),
            other => other,
        });
        self.at(map)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct struct identifier ignored_any
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
