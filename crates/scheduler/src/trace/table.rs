//! Rows and named columns of a CSV (RFC 4180, without line breaks in quotes), and what is wrong with them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::Error;

/// Rows of one file; each becomes a node or a pod in memory.
const ROWS_MAX: usize = 4_000_000;

/// Seconds of three thousand years: sums of milliseconds stay far from the ends of the types.
const NUMBER_MAX: f64 = 1e11;

pub(super) struct Table<'a> {
    lines: std::str::Lines<'a>,
    columns: BTreeMap<String, usize>,
}

pub(super) struct Row<'a> {
    /// As editors count: the header is 1.
    number: usize,
    columns: &'a BTreeMap<String, usize>,
    fields: Vec<Cow<'a, str>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(text: &'a str, required: &[&str]) -> Result<Self, Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            let first = required.first().copied().unwrap_or_default();
            return Err(error(1, first, "is missing: there is nothing in the file"));
        }
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let fields = split(header).map_err(|(_, problem)| error(1, "", problem))?;
        let mut columns = BTreeMap::new();
        for (at, name) in fields.iter().enumerate() {
            if columns.insert(name.trim().to_owned(), at).is_some() {
                return Err(error(1, name, "is there twice"));
            }
        }
        for name in required {
            if !columns.contains_key(*name) {
                return Err(error(1, name, "is missing"));
            }
        }
        Ok(Self { lines, columns })
    }

    pub(super) fn rows<T>(
        self,
        mut parse: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut parsed = Vec::new();
        for (line, number) in self.lines.zip(2..) {
            if line.trim().is_empty() {
                continue;
            }
            if parsed.len() >= ROWS_MAX {
                let problem = format!("there are more than {ROWS_MAX} rows");
                return Err(error(number, "", problem));
            }
            let name = |at: usize| {
                let mut names = self.columns.iter();
                names
                    .find(|(_, column)| **column == at)
                    .map_or("", |(name, _)| name)
            };
            let fields = split(line).map_err(|(at, problem)| error(number, name(at), problem))?;
            if fields.len() > self.columns.len() {
                let (more, columns) = (fields.len(), self.columns.len());
                let problem = format!("{more} fields for {columns} columns");
                return Err(error(number, name(columns - 1), problem));
            }
            parsed.push(parse(&Row {
                number,
                columns: &self.columns,
                fields,
            })?);
        }
        if parsed.is_empty() {
            let first = self.columns.iter().min_by_key(|(_, at)| **at);
            let first = first.map_or("", |(name, _)| name);
            return Err(error(2, first, "is missing: there are no rows"));
        }
        Ok(parsed)
    }
}

impl Row<'_> {
    /// Must not be empty.
    pub(super) fn text(&self, column: &str) -> Result<&str, Error> {
        match self.optional_text(column) {
            "" => Err(self.problem(column, "is empty")),
            text => Ok(text),
        }
    }

    pub(super) fn optional_text(&self, column: &str) -> &str {
        let at = self.columns.get(column);
        at.and_then(|at| self.fields.get(*at))
            .map_or("", |text| text.trim())
    }

    /// A whole number up to `max`, which the type holds.
    pub(super) fn whole<T: TryFrom<u64>>(&self, column: &str, max: u64) -> Result<T, Error> {
        let text = self.text(column)?;
        let number = match text.parse::<u64>() {
            Ok(number) => Some(number),
            // Some tools write `8.0`.
            Err(_) => text.strip_suffix(".0").and_then(|text| text.parse().ok()),
        };
        let Some(number) = number else {
            let what = if text.starts_with('-') {
                "negative"
            } else if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(self.problem(column, format!("{} is above {max}", shown(text))));
            } else {
                "no whole number"
            };
            return Err(self.problem(column, format!("`{}` is {what}", shown(text))));
        };
        let fits = (number <= max).then(|| T::try_from(number).ok()).flatten();
        fits.ok_or_else(|| self.problem(column, format!("{number} is above {max}")))
    }

    /// 0 when empty.
    pub(super) fn optional_whole<T: TryFrom<u64> + Default>(
        &self,
        column: &str,
        max: u64,
    ) -> Result<T, Error> {
        if self.optional_text(column).is_empty() {
            return Ok(T::default());
        }
        self.whole(column, max)
    }

    /// Not negative, and no more than [`NUMBER_MAX`].
    pub(super) fn optional_number(&self, column: &str) -> Result<Option<f64>, Error> {
        let text = self.optional_text(column);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(number) if (0.0..=NUMBER_MAX).contains(&number) => Ok(Some(number)),
            Ok(number) if number > NUMBER_MAX => {
                Err(self.problem(column, format!("`{}` is above {NUMBER_MAX}", shown(text))))
            }
            Ok(number) if number < 0.0 => {
                Err(self.problem(column, format!("`{}` is negative", shown(text))))
            }
            _ => Err(self.problem(column, format!("`{}` is no number", shown(text)))),
        }
    }

    pub(super) fn problem(&self, column: &str, problem: impl Into<String>) -> Error {
        error(self.number, column, problem)
    }
}

fn error(row: usize, column: &str, problem: impl Into<String>) -> Error {
    Error::Csv {
        row,
        column: shown(column),
        problem: problem.into(),
    }
}

/// At most 40 characters of what somebody wrote.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(40).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Fields of a line; else the place of the one that is wrong, and what is.
fn split(line: &str) -> Result<Vec<Cow<'_, str>>, (usize, &'static str)> {
    if !line.contains('"') {
        return Ok(line.split(',').map(Cow::Borrowed).collect());
    }
    let mut fields = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut closed) = (false, false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => (quoted, closed) = (false, true),
            '"' if field.is_empty() && !closed => quoted = true,
            '"' => {
                return Err((
                    fields.len(),
                    "has a quote in a field that does not begin with one",
                ));
            }
            ',' if !quoted => {
                fields.push(Cow::Owned(std::mem::take(&mut field)));
                closed = false;
            }
            _ if closed => return Err((fields.len(), "goes on after its quote is closed")),
            _ => field.push(character),
        }
    }
    if quoted {
        return Err((fields.len(), "has a quote that is not closed"));
    }
    fields.push(Cow::Owned(field));
    Ok(fields)
}
