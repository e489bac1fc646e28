use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in a secret's place wherever it could be seen.
const REDACTED: &str = "(redacted)";

/// A secret is named, not written: an environment variable or a file; `value` is for tests, and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    Value(String),
}

/// Names without what they hold, for environments that often hold keys.
pub(super) struct NamesOnly<'a>(pub(super) &'a BTreeMap<String, String>);

impl fmt::Debug for NamesOnly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.keys().map(|name| (name, REDACTED));
        f.debug_map().entries(names).finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.debug_tuple("Value").field(&REDACTED).finish(),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Env(name) => map.serialize_entry("env", name)?,
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Value(_) => map.serialize_entry("value", REDACTED)?,
        }
        map.end()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    env: Option<String>,
    file: Option<PathBuf>,
    value: Option<String>,
}

const EXPECTED: &str = "a secret is one of `env: NAME`, `file: PATH` or, in tests, `value: …`";

impl<'de> Deserialize<'de> for Secret {
    /// By hand, because serde's own message for a secret written in the wrong place would show it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
        match Shape::deserialize(MapAccessDeserializer::new(map))? {
            Shape {
                env: Some(name),
                file: None,
                value: None,
            } => Ok(Secret::Env(name)),
            Shape {
                env: None,
                file: Some(path),
                value: None,
            } => Ok(Secret::File(path)),
            Shape {
                env: None,
                file: None,
                value: Some(value),
            } => Ok(Secret::Value(value)),
            Shape { .. } => Err(A::Error::custom(EXPECTED)),
        }
    }
}
