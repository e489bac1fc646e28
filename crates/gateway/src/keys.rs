use std::collections::HashMap;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use policy::Scopes;
use protocol::ApiError;
use protocol::resource::{KeySpec, Scope};
use sha2::{Digest, Sha256};

use base::ErrorKind;

use crate::admission::KeyRules;
use crate::headers::{API_KEY, X_API_KEY};
use crate::snapshot::Patterns;

/// The credentials of a snapshot. None configured means everybody may.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<[u8; 32], Key>);

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// None means all models.
    models: Option<Patterns>,
    scopes: Scopes,
    pub(crate) rules: KeyRules,
}

impl Keys {
    /// `before` is what was known under this name.
    pub(crate) fn add(
        &mut self,
        name: &str,
        spec: &KeySpec,
        before: Option<&KeyRules>,
    ) -> Result<(), String> {
        let digest = parse_hex(&spec.sha256)
            .ok_or_else(|| "sha256 is not 64 hexadecimal digits".to_owned())?;
        let models = spec.models.as_deref().map(Patterns::new).transpose()?;
        let key = Key {
            name: name.to_owned(),
            scopes: Scopes::of(spec.scopes.as_deref(), models.is_some()),
            models,
            rules: KeyRules::new(name, spec, before),
        };
        match self.0.insert(digest, key) {
            None => Ok(()),
            Some(other) => Err(format!("is the same key as `{}`", other.name)),
        }
    }

    /// Every key's rules by its name.
    pub(crate) fn rules(&self) -> HashMap<&str, &KeyRules> {
        let keys = self.0.values();
        keys.map(|key| (key.name.as_str(), &key.rules)).collect()
    }

    pub(crate) fn required(&self) -> bool {
        !self.0.is_empty()
    }

    /// The caller's key; none when no key is needed.
    ///
    /// The secret is hashed before anything is compared, and the table is keyed by the hash: what time the look-up
    /// takes depends on the hash alone, of which a caller can choose no part, so it says nothing about any key.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<&Key>, ApiError> {
        if !self.required() {
            return Ok(None);
        }
        let Some(presented) = presented(headers) else {
            let message =
                "this server needs a key: send `Authorization: Bearer …`, `api-key` or `x-api-key`";
            return Err(
                ApiError::new(ErrorKind::Unauthenticated, message).with_code("missing_api_key")
            );
        };
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let key = self.0.get(&digest).ok_or_else(|| {
            ApiError::new(ErrorKind::Unauthenticated, "the key is not known here")
                .with_code("invalid_api_key")
        })?;
        Ok(Some(key))
    }
}

impl Key {
    pub(crate) fn may_use(&self, model: &str) -> Result<(), ApiError> {
        if self.sees(model) {
            return Ok(());
        }
        let message = format!("key `{}` may not use model `{model}`", self.name);
        Err(ApiError::new(ErrorKind::Denied, message)
            .with_code("model_not_allowed")
            .with_param("model"))
    }

    pub(crate) fn sees(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.matches(model))
    }

    /// Whether it is for calls of this kind.
    pub(crate) fn opens(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.has(scope) {
            return Ok(());
        }
        let (name, scope) = (&self.name, scope.name());
        let message = format!("key `{name}` is not for this call, which needs the scope `{scope}`");
        Err(ApiError::new(ErrorKind::Denied, message).with_code("call_not_allowed"))
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    bearer
        .or_else(|| headers.get(API_KEY).map(|value| value.as_bytes()))
        .or_else(|| headers.get(X_API_KEY).map(|value| value.as_bytes()))
        .map(<[u8]>::trim_ascii)
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(models: Option<&[&str]>) -> Keys {
        let mut keys = Keys::default();
        let spec = KeySpec {
            // printf %s sesame | sha256sum
            sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272".to_owned(),
            models: models.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            ..KeySpec::default()
        };
        keys.add("team", &spec, None).expect("a valid key");
        keys
    }

    fn check(name: &'static str, value: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        keys(None)
            .check(&headers)
            .map(|key| key.expect("a key is required").name.clone())
            .map_err(|error| error.code.unwrap_or_default().to_owned())
    }

    #[test]
    fn a_key_opens_under_each_header_and_nothing_else_does() {
        for (name, value, expected) in [
            ("authorization", "Bearer sesame", Ok("team")),
            ("authorization", "bearer sesame", Ok("team")),
            ("api-key", "sesame", Ok("team")),
            ("x-api-key", "sesame", Ok("team")),
            ("authorization", "Basic sesame", Err("missing_api_key")),
            ("authorization", "Bearer sesam", Err("invalid_api_key")),
            ("authorization", "Bearer ", Err("invalid_api_key")),
            ("x-other", "sesame", Err("missing_api_key")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(check(name, value), expected, "{name}: {value}");
        }
        assert!(matches!(Keys::default().check(&HeaderMap::new()), Ok(None)));
    }

    #[test]
    fn a_key_for_some_models_gives_no_orders_and_keeps_out_of_the_admin_api() {
        let keys = keys(Some(&["chat-*", "magika"]));
        let key = keys.0.values().next().expect("one key");
        assert!(key.may_use("chat-small").is_ok());
        assert!(key.may_use("magika").is_ok());
        assert!(key.may_use("magika2").is_err());
        for (scope, opens) in [
            (Scope::Inference, true),
            (Scope::Models, true),
            (Scope::Metrics, true),
            (Scope::Orders, false),
            (Scope::Admin, false),
            (Scope::Jobs, false),
        ] {
            assert_eq!(key.opens(scope).is_ok(), opens, "{scope:?}");
        }
    }

    #[test]
    fn a_digest_must_be_one() {
        let mut keys = Keys::default();
        for text in ["", "zz", &"+1".repeat(32), &"a".repeat(63)] {
            let spec = KeySpec {
                sha256: text.to_owned(),
                models: None,
                ..KeySpec::default()
            };
            assert!(keys.add("k", &spec, None).is_err(), "{text}");
        }
    }
}
