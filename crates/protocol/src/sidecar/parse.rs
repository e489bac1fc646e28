//! TOML to [`Sidecar`], with the place of every mistake.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Sidecar, Threads};
use crate::file_error::{FileError, did_you_mean};
use crate::inside::stays_inside;

pub(super) fn parse(text: &str, file: &str) -> Result<Sidecar, Vec<FileError>> {
    let sidecar: Sidecar =
        toml::from_str(text).map_err(|error| vec![located(&error, text, file)])?;
    let problems = sidecar.problems();
    if problems.is_empty() {
        return Ok(sidecar);
    }
    // The text has just been read as TOML.
    let table = DeTable::parse(text).map_err(|error| vec![located(&error, text, file)])?;
    Err(problems
        .into_iter()
        .map(|problem| {
            let offset = offset_of(table.get_ref(), &problem.path);
            let message = format!("`{}`: {}", problem.path.join("."), problem.message);
            FileError::at_offset(file, text, offset, message)
        })
        .collect())
}

fn located(error: &toml::de::Error, text: &str, file: &str) -> FileError {
    let offset = error.span().map_or(text.len(), |span| span.start);
    FileError::at_offset(file, text, offset, hinted(error.message()))
}

/// Serde's ``unknown field `x`, expected one of `a`, `b` `` becomes a guess at what was meant.
pub(super) fn hinted(message: &str) -> String {
    let message = message.trim_end();
    let Some((fault, expected)) = message.split_once(", expected ") else {
        return message.replace('\n', "; ");
    };
    if !fault.starts_with("unknown ") {
        return message.replace('\n', "; ");
    }
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let word = fault.split('`').nth(1).unwrap_or_default();
    format!("{fault}{}", did_you_mean(word, &known))
}

/// Where the value of the longest known part of the path begins.
fn offset_of(table: &DeTable<'_>, path: &[String]) -> usize {
    let mut table = table;
    let mut offset = 0;
    for key in path {
        let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        offset = value.span().start;
        match Spanned::get_ref(value) {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    offset
}

/// A field whose value can be read but makes no sense.
pub(super) struct Problem {
    pub(super) path: Vec<String>,
    pub(super) message: String,
}

impl Sidecar {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut check = |holds: bool, path: &[&str], message: &str| {
            if !holds {
                let path = path.iter().map(|&part| part.to_owned()).collect();
                let message = message.to_owned();
                found.push(Problem { path, message });
            }
        };
        check(self.lanes != Some(0), &["lanes"], "at least 1 lane");
        let none = self.threads == Some(Threads::Fixed(0));
        check(!none, &["threads"], "at least 1 thread");
        let tolerance = |value: f64| value.is_finite() && value >= 0.0;
        let message = "a number from 0 up";
        check(tolerance(self.agree.atol), &["agree", "atol"], message);
        check(tolerance(self.agree.rtol), &["agree", "rtol"], message);
        check(
            (-1.0..=1.0).contains(&self.agree.min_cosine),
            &["agree", "min_cosine"],
            "a cosine lies between -1 and 1",
        );
        if let Some(text) = &self.text {
            check(
                stays_inside(&text.tokenizer),
                &["text", "tokenizer"],
                "a path inside the model's folder",
            );
            check(
                !text.output.is_empty(),
                &["text", "output"],
                "the name of one of the model's outputs",
            );
            check(
                text.max_tokens > 0,
                &["text", "max_tokens"],
                "at least 1 token",
            );
        }
        self.versions.check(&mut check);
        self.slo.check(&mut check);
        self.batch.check(&mut check);
        self.swap.check(&mut check);
        self.memory.check(&mut check);
        self.integrity.check(&mut check);
        self.pipeline.check(&mut check);
        self.sequence.check(&mut check);
        self.custom_ops.check(&mut check);
        for (input, shape) in &self.warmup.shapes {
            check(
                shape.iter().all(|dim| *dim > 0) && crate::tensor::element_count(shape).is_some(),
                &["warmup", "shapes", input],
                "every dimension is at least 1, and their product can be addressed",
            );
        }
        found
    }
}

/// For the fuzzer: whatever the bytes, an answer; and what is accepted is valid and the same after being written out.
pub fn fuzz_sidecar(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Sidecar::parse(text, "kapok.toml") {
        Ok(sidecar) => {
            assert!(sidecar.problems().is_empty(), "accepted although wrong");
            let written = serde_json::to_string(&sidecar).unwrap_or_default();
            let read = serde_json::from_str(&written).ok();
            assert_eq!(Some(sidecar), read, "changed by being written out");
        }
        Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
    }
}
