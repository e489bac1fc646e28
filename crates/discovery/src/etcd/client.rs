use std::time::Duration;

use base::Tasks;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use protocol::resource::{EtcdSpec, Secret};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::Error;
use crate::http::Endpoint as Server;

/// For one answer of one member.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer: ten thousand servers of a few kilobytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The members of a cluster; calls go to the one that answered last, and to the others when it does not.
#[derive(Debug)]
pub(crate) struct Client {
    spec: EtcdSpec,
    current: usize,
    /// What etcd gave for user and password.
    token: Option<String>,
    tasks: Tasks,
}

impl Client {
    pub(crate) fn new(spec: &EtcdSpec, tasks: Tasks) -> Self {
        Self {
            spec: spec.clone(),
            current: 0,
            token: None,
            tasks,
        }
    }

    /// One call and its whole answer.
    pub(crate) async fn call(&mut self, path: &str, body: &Value) -> Result<Value, Error> {
        let answer = timeout(PATIENCE * 2, async {
            let response = self.open(path, body).await?;
            let whole = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| Error::Etcd(error.to_string()))?
                .to_bytes();
            serde_json::from_slice::<Value>(&whole)
                .map_err(|error| Error::Etcd(format!("its answer is not JSON: {error}")))
        });
        let mut answer = answer
            .await
            .unwrap_or_else(|_elapsed| Err(Error::Etcd("its answer does not end".to_owned())))?;
        // Calls that are streams in gRPC wrap their answer.
        Ok(match answer.get_mut("result") {
            Some(result) => result.take(),
            None => answer,
        })
    }

    /// The head of an answer, from the first member that gives one.
    pub(crate) async fn open(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, Error> {
        let mut last = Error::Etcd("no member is named".to_owned());
        for _ in 0..self.spec.endpoints.len() {
            match self.ask(path, body).await {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
            self.current = (self.current + 1) % self.spec.endpoints.len();
        }
        Err(last)
    }

    /// Asks one member, with a token where one is needed; a token that is no longer taken is asked for anew, once.
    async fn ask(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, Error> {
        let Some(user) = self.spec.user.clone() else {
            return self.ask_as(None, path, body).await;
        };
        if let Some(token) = &self.token {
            let answered = self.ask_as(Some(token), path, body).await;
            if !matches!(&answered, Err(Error::Etcd(why)) if stale(why)) {
                return answered;
            }
        }
        self.token = None;
        let token = self.log_in(&user).await?;
        let answered = self.ask_as(Some(&token), path, body).await;
        self.token = Some(token);
        answered
    }

    async fn log_in(&self, user: &str) -> Result<String, Error> {
        let Some(Secret::Value(password)) = &self.spec.password else {
            let why = format!("the password of user `{user}` was not looked up");
            return Err(Error::Etcd(why));
        };
        let body = json!({ "name": user, "password": password });
        let response = self.ask_as(None, "/v3/auth/authenticate", &body).await?;
        let answer = timeout(
            PATIENCE,
            Limited::new(response.into_body(), 64 << 10).collect(),
        );
        let answer = answer.await.ok().and_then(Result::ok);
        let answer = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let token = answer["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| Error::Etcd(format!("it gives user `{user}` no token")))
    }

    async fn ask_as(
        &self,
        token: Option<&str>,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, Error> {
        let member = self.spec.endpoints.get(self.current);
        let member = member.map_or("", String::as_str);
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request
            .body(Bytes::from(body.to_string()))
            .map_err(|error| Error::Etcd(error.to_string()))?;
        let server = Server::parse_any(member)?;
        let sent = server.send_either(&self.tasks, request, &self.spec.tls);
        let asked = timeout(PATIENCE, sent).await;
        let response =
            asked.map_err(|_elapsed| Error::Etcd(format!("{member} does not answer")))??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let told = timeout(
            PATIENCE,
            Limited::new(response.into_body(), 4 << 10).collect(),
        )
        .await;
        let told = told.ok().and_then(Result::ok).map(|told| told.to_bytes());
        let told = told.unwrap_or_default();
        let read: Value = serde_json::from_slice(&told).unwrap_or_default();
        let said = ["error", "message"].map(|name| read[name].as_str());
        // Some of its refusals are plain text.
        let text = String::from_utf8_lossy(&told);
        let message = said
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_else(|| text.trim());
        Err(Error::Etcd(format!("{member} answers {status}: {message}")))
    }

    /// The revision, and the keys and values under a prefix.
    pub(crate) async fn list(
        &mut self,
        prefix: &str,
    ) -> Result<(u64, Vec<(Vec<u8>, Vec<u8>)>), Error> {
        let answer = self.call("/v3/kv/range", &range(prefix)).await?;
        let revision = number(&answer["header"]["revision"])
            .ok_or_else(|| Error::Etcd("its answer has no revision".to_owned()))?;
        let pairs = answer["kvs"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let pairs = pairs
            .iter()
            .map(|pair| (bytes(&pair["key"]), bytes(&pair["value"])));
        Ok((revision, pairs.collect()))
    }

    /// A lease of so many seconds; its id, as text.
    pub(crate) async fn grant(&mut self, seconds: u64) -> Result<String, Error> {
        let answer = self
            .call("/v3/lease/grant", &json!({ "TTL": seconds.to_string() }))
            .await?;
        let id = answer["ID"].as_str().map(str::to_owned);
        id.ok_or_else(|| Error::Etcd("it grants no lease".to_owned()))
    }

    /// Whether the lease is still there, and now is for its whole time again.
    pub(crate) async fn keep_alive(&mut self, lease: &str) -> Result<bool, Error> {
        let answer = self
            .call("/v3/lease/keepalive", &json!({ "ID": lease }))
            .await?;
        Ok(number(&answer["TTL"]).is_some_and(|seconds| seconds > 0))
    }

    /// Ends the lease, and with it every key that hangs on it.
    pub(crate) async fn revoke(&mut self, lease: &str) -> Result<(), Error> {
        self.call("/v3/lease/revoke", &json!({ "ID": lease }))
            .await
            .map(drop)
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str, lease: &str) -> Result<(), Error> {
        let body = json!({
            "key": BASE64_STANDARD.encode(key),
            "value": BASE64_STANDARD.encode(value),
            "lease": lease,
        });
        self.call("/v3/kv/put", &body).await.map(drop)
    }
}

/// What etcd says of a token that has ended, or that was given before users or roles changed.
fn stale(why: &str) -> bool {
    ["invalid auth token", "revision in header is old"]
        .iter()
        .any(|part| why.contains(part))
}

/// All keys that begin so: up to the prefix with its last byte counted on.
pub(super) fn range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    // A prefix is UTF-8, which has no byte 255, so there is always a next one.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({ "key": BASE64_STANDARD.encode(prefix), "range_end": BASE64_STANDARD.encode(end) })
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

/// A 64-bit number, which JSON carries as text; absent where it is 0.
pub(super) fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}
