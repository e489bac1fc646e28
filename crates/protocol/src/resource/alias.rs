//! An address that is chosen when nobody names it: absent and null mean different things.

use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One of Triton's extra ports. Written as an address, as null, or as `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alias {
    /// Nobody has said anything: whoever starts the node chooses.
    #[default]
    Auto,
    Off,
    At(SocketAddr),
}

impl Alias {
    /// None while it is off, or not chosen yet.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Auto | Self::Off => None,
        }
    }
}

impl Serialize for Alias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Off => serializer.serialize_none(),
            Self::At(address) => address.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Alias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None => Ok(Self::Off),
            Some(AUTO) => Ok(Self::Auto),
            Some(text) => text.parse().map(Self::At).map_err(|_| {
                D::Error::custom(format!(
                    "`{text}` is no address such as 127.0.0.1:8001, and neither `auto` nor null"
                ))
            }),
        }
    }
}

const AUTO: &str = "auto";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_an_address_stay_apart() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8001));
        for (alias, json) in [
            (Alias::Auto, "\"auto\""),
            (Alias::Off, "null"),
            (Alias::At(address), "\"127.0.0.1:8001\""),
        ] {
            assert_eq!(serde_json::to_string(&alias).unwrap(), json);
            assert_eq!(serde_json::from_str::<Alias>(json).unwrap(), alias);
        }
        let error = serde_json::from_str::<Alias>("\"8001\"").unwrap_err();
        assert!(
            error.to_string().contains("`8001` is no address"),
            "{error}"
        );
    }
}
