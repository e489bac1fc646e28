//! Where each value of a YAML document stands.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

/// A value and its place.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) at: Location,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Map(Vec<(String, Located)>),
    List(Vec<Located>),
    Text(String),
    Other,
}

impl Located {
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.body {
            Body::Map(members) => members
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            Body::List(elements) => elements.get(key.parse::<usize>().ok()?),
            Body::Text(_) | Body::Other => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) => Some(text),
            Body::Map(_) | Body::List(_) | Body::Other => None,
        }
    }

    /// The place of the longest part of the path that is there.
    pub(super) fn place(&self, path: &[String]) -> Location {
        let mut here = self;
        for step in path {
            let Some(next) = here.get(step) else {
                break;
            };
            here = next;
        }
        here.at
    }
}

impl Located {
    /// The fields that lead to the value at a place, joined by dots; none when no value begins there.
    pub(super) fn path_to(&self, at: Location) -> Option<String> {
        let step = |name: &str, value: &Self| {
            if let Some(inner) = value.path_to(at) {
                return Some(format!("{name}.{inner}"));
            }
            let here = (value.at.line(), value.at.column()) == (at.line(), at.column());
            here.then(|| name.to_owned())
        };
        match &self.body {
            Body::Map(members) => members.iter().find_map(|(name, value)| step(name, value)),
            Body::List(elements) => elements
                .iter()
                .enumerate()
                .find_map(|(index, value)| step(&index.to_string(), value)),
            Body::Text(_) | Body::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::<Body>::deserialize(deserializer)?;
        Ok(Self {
            at: referenced,
            body: value,
        })
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            members.push((key, map.next_value()?));
        }
        Ok(Body::Map(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Body, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Body::List(elements))
    }

    fn visit_str<E>(self, text: &str) -> Result<Body, E> {
        Ok(Body::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_unit<E>(self) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_none<E>(self) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Body, E> {
        Ok(Body::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Body::Other)
    }
}
