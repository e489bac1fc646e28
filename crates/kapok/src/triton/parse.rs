//! `--flag=value`, `--flag value`, and `--flag` alone where that means true.

use super::flags::{FLAGS, Flag, Takes};

#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) flag: &'static Flag,
    /// `true` for a flag that stands alone.
    pub(super) value: &'a str,
}

pub(super) fn parse(words: &[String]) -> Result<Vec<Given<'_>>, String> {
    let mut given = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else {
            return Err(format!("`{word}` is no flag"));
        };
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let flag = find(name)?;
        let value = match (attached, flag.takes) {
            (Some(value), Takes::Nothing) => boolean(flag.name, value)?,
            (None, Takes::Nothing) => "true",
            (Some(value), Takes::Bool) => boolean(flag.name, value)?,
            (None, Takes::Bool) => match words.next_if(|next| word_of(next).is_some()) {
                Some(value) => boolean(flag.name, value)?,
                None => "true",
            },
            (Some(value), Takes::Value) => value,
            (None, Takes::Value) => words
                .next_if(|next| !next.starts_with("--"))
                .ok_or_else(|| format!("`--{name}` needs a value"))?,
        };
        given.push(Given { flag, value });
    }
    Ok(given)
}

fn find(name: &str) -> Result<&'static Flag, String> {
    let found = FLAGS.iter().find(|flag| flag.name == name);
    found.ok_or_else(|| {
        let near = base::nearest(name, FLAGS.iter().map(|flag| flag.name));
        let near = near.map_or_else(String::new, |near| format!("; did you mean `--{near}`?"));
        format!("Triton has no flag `--{name}`{near}")
    })
}

fn word_of(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" => Some("true"),
        "false" | "0" | "off" => Some("false"),
        _ => None,
    }
}

fn boolean(name: &str, text: &str) -> Result<&'static str, String> {
    word_of(text).ok_or_else(|| format!("`--{name}` is true or false, not `{text}`"))
}
