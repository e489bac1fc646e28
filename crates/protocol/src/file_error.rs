use std::fmt;

/// A mistake in a file that a person wrote, at the place to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    pub file: String,
    /// From 1, over the whole file; 0 when the file as a whole is at fault.
    pub line: usize,
    /// From 1, in characters; 0 when only the line is known.
    pub column: usize,
    /// What is wrong, and a hint where there is one.
    pub message: String,
}

impl FileError {
    /// Line and column of a byte offset.
    pub fn at_offset(file: &str, text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for place in [self.line, self.column] {
            if place == 0 {
                break;
            }
            write!(f, ":{place}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for FileError {}

/// The tail of a message about an unknown word: the nearest known one, else all of them.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    base::nearest(word, known.iter().copied()).map_or_else(
        || {
            let known: Vec<_> = known.iter().map(|word| format!("`{word}`")).collect();
            format!("; known: {}", known.join(", "))
        },
        |near| format!("; did you mean `{near}`?"),
    )
}
