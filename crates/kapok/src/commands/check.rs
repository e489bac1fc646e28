//! `kapok models check`: everything wrong in a repository, without a server and without loading a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use native::NodeEngine;
use onnx::RtenEngine;
use runtime::engine::Engine;
use runtime::{Builtin, Checked, Finding, Readers};
use serde_json::{Value, json};

use crate::cli::CheckArgs;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style};

pub(super) fn run(args: &CheckArgs, printer: &Printer) -> Outcome {
    let (repository, model) = place(args);
    // The first accepts what any engine for ONNX files does; none loads anything here.
    let engines: [Arc<dyn Engine>; 3] = [
        Arc::new(RtenEngine::default()),
        Arc::new(NodeEngine),
        Arc::new(Builtin),
    ];
    let gpus = crate::up::usable_gpus();
    let readers = Readers {
        engines: &engines,
        describe: &crate::up::describe,
        gpus: &gpus,
        completes: !args.disable_auto_complete_config,
    };
    let checked = runtime::check(std::slice::from_ref(&repository), readers)
        .map_err(|error| Failure::usage(base::chain(&error)))?;
    let document = document(&checked, model.as_deref())
        .ok_or_else(|| no_such_model(&checked, model.as_deref(), &repository))?;
    printer.print(&document, text)?;
    let problems = document["problems"].as_array().map_or(0, Vec::len);
    if problems == 0 {
        return Ok(());
    }
    let noun = if problems == 1 { "problem" } else { "problems" };
    Err(Failure::failed(format!("{problems} {noun}")))
}

/// A model's own folder is taken for what was meant.
fn place(args: &CheckArgs) -> (PathBuf, Option<String>) {
    let alone = args.repository.join("config.pbtxt").is_file()
        || args.repository.join("kapok.toml").is_file()
        || args.repository.join("1").is_dir();
    let absolute = args.repository.canonicalize();
    match absolute
        .as_deref()
        .map(|path| (path.parent(), path.file_name()))
    {
        Ok((Some(parent), Some(name))) if alone && args.model.is_none() => {
            (parent.to_owned(), Some(name.to_string_lossy().into_owned()))
        }
        _ => (args.repository.clone(), args.model.clone()),
    }
}

fn no_such_model(checked: &Checked, model: Option<&str>, repository: &Path) -> Failure {
    let model = model.unwrap_or_default();
    let failure = Failure::usage(format!(
        "there is no model `{model}` in `{}`",
        repository.display()
    ));
    match base::nearest(model, checked.models.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    }
}

/// None when the one model that is asked for does not exist.
fn document(checked: &Checked, model: Option<&str>) -> Option<Value> {
    let wanted = |name: &String| model.is_none_or(|model| model == name);
    let models: Vec<_> = checked.models.iter().filter(|name| wanted(name)).collect();
    if models.is_empty() && model.is_some() {
        return None;
    }
    let problem = |finding: &Finding| {
        json!({
            "model": finding.model,
            "file": finding.file.display().to_string(),
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
            "fix": finding.fix,
        })
    };
    let findings = checked.findings.iter();
    let problems: Vec<_> = findings
        .filter(|finding| wanted(&finding.model))
        .map(problem)
        .collect();
    Some(json!({ "models": models, "problems": problems }))
}

/// One problem a line, in the form that editors jump to, and below it what to do.
fn text(document: &Value, style: Style) -> String {
    let mut text = String::new();
    for problem in document["problems"].as_array().into_iter().flatten() {
        let mut place = problem["file"].as_str().unwrap_or_default().to_owned();
        for number in [&problem["line"], &problem["column"]] {
            if let Some(number) = number.as_u64().filter(|number| *number > 0) {
                place.push_str(&format!(":{number}"));
            }
        }
        let message = problem["message"].as_str().unwrap_or_default();
        text.push_str(&format!("{}: {message}\n", style.strong(&place)));
        if let Some(fix) = problem["fix"].as_str() {
            text.push_str(&format!("    {} {fix}\n", style.good("fix:")));
        }
    }
    if text.is_empty() {
        let count = document["models"].as_array().map_or(0, Vec::len);
        let noun = if count == 1 { "model" } else { "models" };
        text = format!("{count} {noun}, no problem found\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_printed_where_an_editor_finds_them() {
        let checked = Checked {
            models: vec!["a".to_owned(), "b".to_owned()],
            findings: vec![Finding {
                model: "b".to_owned(),
                file: PathBuf::from("repo/b/config.pbtxt"),
                line: 2,
                column: 5,
                message: "wrong".to_owned(),
                fix: Some("make it right".to_owned()),
            }],
        };
        let whole = document(&checked, None).expect("models");
        assert_eq!(
            text(&whole, Style::new(false)),
            "repo/b/config.pbtxt:2:5: wrong\n    fix: make it right\n"
        );
        let one = document(&checked, Some("a")).expect("a model");
        assert_eq!(text(&one, Style::new(false)), "1 model, no problem found\n");
        assert_eq!(document(&checked, Some("c")), None);
    }
}
