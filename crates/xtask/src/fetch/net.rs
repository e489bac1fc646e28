//! HTTP for downloads: one agent, the machine's certificates, resumable transfers of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::progress::Progress;
use crate::workspace::env;

/// Attempts that bring no new byte before a source counts as dead.
const FRUITLESS_MAX: u32 = 3;

/// An index page of a package with thousands of files is about 5 MB.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// A client that trusts what this machine trusts.
pub(crate) fn agent() -> Result<Agent> {
    let mut config = Agent::config_builder()
        .user_agent(concat!("kapok-xtask/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        // A stalled transfer is given up and resumed; a slow one is not.
        .timeout_per_read(Some(Duration::from_secs(60)));
    let roots = roots()?;
    if !roots.is_empty() {
        config = config.tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&roots))
                .build(),
        );
    }
    Ok(config.build().new_agent())
}

/// `PIP_CERT`, then what the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` included); none means Mozilla's list.
fn roots() -> Result<Vec<Certificate<'static>>> {
    let mut roots: Vec<_> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|der| Certificate::from_der(der.as_ref()).to_owned())
        .collect();
    if let Some(path) = env("PIP_CERT") {
        let pem = fs::read(&path).with_context(|| format!("cannot read PIP_CERT `{path}`"))?;
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) =
                item.with_context(|| format!("in PIP_CERT `{path}`"))?
            {
                roots.push(certificate);
            }
        }
    }
    Ok(roots)
}

/// A small page, and its content type.
pub(crate) fn page(agent: &Agent, url: &str, accept: &str) -> Result<(String, String)> {
    let mut answer = agent
        .get(url)
        .header(header::ACCEPT, accept)
        .call()
        .with_context(|| format!("GET {url}"))?;
    let kind = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let text = answer
        .body_mut()
        .with_config()
        .limit(PAGE_BYTES_MAX)
        .read_to_string()
        .with_context(|| format!("reading {url}"))?;
    Ok((kind, text))
}

/// Brings `url` to `<to>.part`, resuming what is there, and gives that path back for the caller to verify and rename.
pub(crate) fn download(agent: &Agent, url: &str, to: &Path, bytes_max: u64) -> Result<PathBuf> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut fruitless = 0;
    loop {
        let before = fs::metadata(&part).map_or(0, |meta| meta.len());
        match attempt(agent, url, &part, bytes_max) {
            Ok(()) => return Ok(part),
            Err(error) => {
                let after = fs::metadata(&part).map_or(0, |meta| meta.len());
                fruitless = if after > before { 0 } else { fruitless + 1 };
                // An answer such as 404 will not change; a broken transfer may.
                let answered = error
                    .downcast_ref::<ureq::Error>()
                    .is_some_and(|e| matches!(e, ureq::Error::StatusCode(400..=499)));
                if answered || fruitless >= FRUITLESS_MAX {
                    return Err(error.context(format!("GET {url}")));
                }
            }
        }
    }
}

fn attempt(agent: &Agent, url: &str, part: &Path, bytes_max: u64) -> Result<()> {
    let have = fs::metadata(part).map_or(0, |meta| meta.len());
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let answer = match request.call() {
        // Nothing beyond what is there: complete, or another file's part. The checksum tells; a wrong one starts over.
        Err(ureq::Error::StatusCode(416)) => return Ok(()),
        other => other?,
    };
    let start = if answer.status() == StatusCode::PARTIAL_CONTENT {
        ensure!(
            range_start(&answer) == Some(have),
            "the server resumed at another byte than asked"
        );
        have
    } else {
        0
    };
    let total = answer.body().content_length().map(|rest| start + rest);
    if let Some(total) = total {
        ensure!(
            total <= bytes_max,
            "{total} bytes offered, at most {bytes_max} expected"
        );
    }
    receive(answer, part, start, Limits { total, bytes_max })
}

struct Limits {
    total: Option<u64>,
    bytes_max: u64,
}

fn receive(answer: Response<Body>, part: &Path, start: u64, limits: Limits) -> Result<()> {
    let mut file = open_at(part, start)?;
    let name = part.file_stem().unwrap_or_default().to_string_lossy();
    let mut progress = Progress::start(&name, start, limits.total);
    let mut body = answer.into_body().into_reader();
    let mut buffer = vec![0; 256 << 10];
    let mut have = start;
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        have += read as u64;
        ensure!(
            have <= limits.bytes_max,
            "more than the {} bytes expected",
            limits.bytes_max
        );
        file.write_all(buffer.get(..read).unwrap_or_default())?;
        progress.at(have);
    }
    progress.done(have);
    if limits.total.is_some_and(|total| have != total) {
        bail!("the transfer ended after {have} bytes");
    }
    Ok(())
}

fn open_at(part: &Path, start: u64) -> Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(part)
        .with_context(|| format!("cannot write `{}`", part.display()))?;
    file.set_len(start)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

fn range_start(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}
