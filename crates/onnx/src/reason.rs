//! Words of a library, made fit to leave the process.

use std::path::Path;

/// As [`public`], for words about one model file: its folder goes even when its name has spaces.
pub(crate) fn about(model: &Path, message: &str) -> String {
    let folder = model.parent().map(|folder| folder.join(""));
    match folder.as_deref().and_then(Path::to_str) {
        Some(folder) if folder.len() > 1 => public(&message.replace(folder, "")),
        _ => public(message),
    }
}

/// The first line, with every absolute path reduced to its file name: libraries quote where the model, or their own
/// source, lies.
pub(crate) fn public(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty());
    let words: Vec<String> = line
        .unwrap_or("no reason given")
        .split_whitespace()
        .map(without_folders)
        .collect();
    // rten quotes names, and graphs need not name their operators.
    words
        .join(" ")
        .replace("operator \"\"", "an unnamed operator")
}

/// More of an exception is a dump of what it was about.
const LINES_MAX: usize = 4;

/// Exceptions of C++ libraries come in several lines: where in their source, then what. The what is what counts.
pub(crate) fn plain(message: &str) -> String {
    let source = |line: &&str| {
        let line = line.trim();
        let frame = ["Exception from ", "Check ", "FrontEnd API failed"];
        !line.is_empty() && !frame.iter().any(|start| line.starts_with(start))
    };
    let words: Vec<&str> = message
        .lines()
        .filter(source)
        .take(LINES_MAX)
        .map(str::trim)
        .collect();
    public(&words.join(" "))
}

fn without_folders(word: &str) -> String {
    // A path may follow an opening bracket or quote, or end a `file:/…` word.
    let Some(start) = word.find('/') else {
        return word.to_owned();
    };
    let (before, path) = word.split_at(start);
    let opened = before
        .chars()
        .all(|c| matches!(c, '(' | '[' | '"' | '\'' | '`' | '<' | '='))
        || before.ends_with(':');
    match path.rsplit_once('/') {
        Some((folders, name)) if opened && !folders.is_empty() => format!("{before}{name}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{about, public};

    #[test]
    fn only_the_first_line_leaves_and_no_folder() {
        let check = |message: &str, expected: &str| assert_eq!(public(message), expected);
        check(
            "Load model from /srv/models/a/1/model.onnx failed:bad\nstack",
            "Load model from model.onnx failed:bad",
        );
        check(
            "Status Message: /build/core/element_wise_ops.h:560 axis == 1",
            "Status Message: element_wise_ops.h:560 axis == 1",
        );
        check("open \"/tmp/x/y.onnx\": gone", "open \"y.onnx\": gone");
        check("file:/tmp/x/y.onnx", "file:y.onnx");
        check("3 / 4 and a/b stay", "3 / 4 and a/b stay");
        check("node /layer/MatMul_1 failed", "node MatMul_1 failed");
        check(
            "operator \"\" failed: axis",
            "an unnamed operator failed: axis",
        );
        check("operator \"add\" failed", "operator \"add\" failed");
        check("\n\n second", "second");
        check("", "no reason given");
    }

    #[test]
    fn an_exception_keeps_what_and_loses_where() {
        let exception = "Exception from src/core.cpp:84:\nCheck 'false' failed at src/report.cpp:151:\n\
                         FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted.\n\
                         -- No conversion rule found for operations: NoSuch-17\n\n";
        assert_eq!(
            super::plain(exception),
            "Model wasn't fully converted. -- No conversion rule found for operations: NoSuch-17"
        );
        assert_eq!(super::plain("one line"), "one line");
    }

    #[test]
    fn a_folder_with_spaces_does_not_leave_either() {
        let model = Path::new("/srv/my models/a/1/model.onnx");
        for (message, expected) in [
            (
                "Load model from /srv/my models/a/1/model.onnx failed:bad",
                "Load model from model.onnx failed:bad",
            ),
            ("no /srv/my models/a/1/weights.bin", "no weights.bin"),
        ] {
            assert_eq!(about(model, message), expected);
        }
        assert_eq!(about(Path::new("model.onnx"), "1 / 2"), "1 / 2");
    }
}
