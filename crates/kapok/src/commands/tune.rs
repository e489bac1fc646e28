//! `kapok models tune`: measures a model and writes down what is best for it, without a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use protocol::sidecar::{Sidecar, Threads};
use runtime::engine::Engine;
use runtime::{Builtin, Measured, Tune, Tuned};
use serde_json::{Value, json};

use crate::cli::TuneArgs;
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

/// Of one measurement: long enough for a median on a shared machine.
const TIME: Duration = Duration::from_millis(300);

const SIDECAR: &str = "kapok.toml";
const CONFIG: &str = "config.pbtxt";

pub(super) fn run(args: &TuneArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let mut engines = crate::up::all_engines(environment);
    engines.push(Arc::new(Builtin) as Arc<dyn Engine>);
    let tune = Tune {
        repository: &args.repo,
        model: &args.model,
        engines: &engines,
        cores: base::core_budget().get(),
        gpus: &crate::up::usable_gpus(),
        completes: !args.disable_auto_complete_config,
        time: TIME,
        clock: Clock::real(),
    };
    let tuned = tune.run().map_err(Failure::failed)?;
    let folder = args.repo.join(&args.model);
    let files = files(&folder, &tuned)?;
    if !args.dry_run {
        for file in &files {
            fs::write(&file.path, &file.text).map_err(|error| {
                Failure::failed(format!("cannot write `{}`: {error}", file.path.display()))
            })?;
        }
    }
    let document = document(&tuned, &files, args.dry_run);
    printer.print(&document, text)?;
    Ok(())
}

/// What is to be written, and where.
struct File {
    path: PathBuf,
    text: String,
}

/// The sidecar, and for a model that batches without saying how much, its configuration.
fn files(folder: &Path, tuned: &Tuned) -> Outcome<Vec<File>> {
    let path = folder.join(SIDECAR);
    let before = read(&path)?;
    let mut files = vec![sidecar(path, before.as_deref(), &tuned.best)];
    let config = folder.join(CONFIG);
    // What a person has written about batches stays.
    if tuned.batches && read(&config)?.is_none() {
        files.push(File {
            path: config,
            text: batching(tuned.best.batch),
        });
    }
    Ok(files)
}

fn read(path: &Path) -> Outcome<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!(
            "cannot read `{}`: {error}",
            path.display()
        ))),
    }
}

fn batching(batch: usize) -> String {
    let largest = format!("max_batch_size: {batch}\n");
    if batch > 1 {
        format!("{largest}dynamic_batching {{ }}\n")
    } else {
        largest
    }
}

/// The old text with three lines replaced or added. What cannot be changed so goes into a file beside it.
fn sidecar(path: PathBuf, before: Option<&str>, best: &Measured) -> File {
    let settings = [
        ("engine", format!("\"{}\"", best.engine)),
        ("lanes", best.lanes.to_string()),
        ("threads", best.threads.to_string()),
    ];
    let text = edited(before.unwrap_or_default(), &settings);
    let wanted = |sidecar: &Sidecar| {
        sidecar.engine.name() == Some(best.engine)
            && sidecar.lanes == Some(best.lanes)
            && sidecar.threads == Some(Threads::Fixed(best.threads))
    };
    if Sidecar::parse(&text, SIDECAR).is_ok_and(|sidecar| wanted(&sidecar)) {
        return File { path, text };
    }
    File {
        path: path.with_extension("toml.new"),
        text: edited("", &settings),
    }
}

/// Sets keys of the top level, which ends where the first table begins; all else stays as it is.
fn edited(text: &str, settings: &[(&str, String)]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let top = lines.iter().position(is_table).unwrap_or(lines.len());
    let (above, below) = lines.split_at(top);
    let key_of = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut result: Vec<String> = Vec::new();
    let mut missing: Vec<_> = settings.iter().collect();
    for line in above {
        let place = missing.iter().position(|(key, _)| *key == key_of(line));
        match place {
            Some(place) => {
                let (key, value) = missing.remove(place);
                let comment = line
                    .split_once('#')
                    .map(|(_, comment)| format!("  #{comment}"));
                result.push(format!("{key} = {value}{}", comment.unwrap_or_default()));
            }
            None => result.push((*line).to_owned()),
        }
    }
    let trailing = result
        .iter()
        .rev()
        .take_while(|line| line.trim().is_empty())
        .count();
    let at = result.len() - trailing;
    let added = missing
        .iter()
        .map(|(key, value)| format!("{key} = {value}"));
    result.splice(at..at, added);
    if !below.is_empty() && trailing == 0 {
        result.push(String::new());
    }
    result.extend(below.iter().map(|line| (*line).to_owned()));
    let mut text = result.join("\n");
    text.push('\n');
    text
}

fn document(tuned: &Tuned, files: &[File], dry_run: bool) -> Value {
    let one = |measured: &Measured| {
        json!({
            "engine": measured.engine,
            "lanes": measured.lanes,
            "threads": measured.threads,
            "batch": measured.batch,
            "median_ms": measured.median_ms,
            "items_per_second": measured.rate,
            "best": *measured == tuned.best,
        })
    };
    let left_out = tuned.left_out.iter();
    json!({
        "measured": tuned.measured.iter().map(one).collect::<Vec<_>>(),
        "left_out": left_out.map(|(engine, reason)| json!({ "engine": engine, "reason": reason })).collect::<Vec<_>>(),
        "written": !dry_run,
        "files": files.iter().map(|file| json!({
            "path": file.path.display().to_string(),
            "text": file.text,
        })).collect::<Vec<_>>(),
    })
}

fn text(document: &Value, style: Style) -> String {
    let mut table = Table::new(&[
        "ENGINE", "LANES", "THREADS", "BATCH", "MEDIAN", "ITEMS/S", "",
    ]);
    for one in document["measured"].as_array().into_iter().flatten() {
        table.row([
            one["engine"].as_str().unwrap_or_default().to_owned(),
            one["lanes"].to_string(),
            one["threads"].to_string(),
            one["batch"].to_string(),
            format!("{:.3} ms", one["median_ms"].as_f64().unwrap_or_default()),
            format!(
                "{:.1}",
                one["items_per_second"].as_f64().unwrap_or_default()
            ),
            if one["best"] == true { "best" } else { "" }.to_owned(),
        ]);
    }
    let mut text = table.render_with(style, |style, column, cell| match column {
        6 => style.good(cell),
        _ => cell.to_owned(),
    });
    for one in document["left_out"].as_array().into_iter().flatten() {
        let [engine, reason] =
            ["engine", "reason"].map(|key| one[key].as_str().unwrap_or_default());
        text.push_str(&format!("{engine} is left out: {reason}\n"));
    }
    let verb = if document["written"] == true {
        "wrote"
    } else {
        "would write"
    };
    for file in document["files"].as_array().into_iter().flatten() {
        let [path, content] = ["path", "text"].map(|key| file[key].as_str().unwrap_or_default());
        text.push_str(&format!("\n{verb} {}:\n{content}", style.strong(path)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best() -> Measured {
        Measured {
            engine: "rten",
            lanes: 2,
            threads: 1,
            batch: 8,
            median_ms: 1.0,
            rate: 10.0,
        }
    }

    #[test]
    fn what_a_person_wrote_stays_beside_what_is_measured() {
        let path = || PathBuf::from("m/kapok.toml");
        for (before, expected) in [
            (None, "engine = \"rten\"\nlanes = 2\nthreads = 1\n"),
            (
                Some("# Ours.\nlanes = 7 # was fast\n\n[agree]\nrtol = 0.1\n"),
                "# Ours.\nlanes = 2  # was fast\nengine = \"rten\"\nthreads = 1\n\n[agree]\nrtol = 0.1\n",
            ),
            (
                Some("[agree]\nrtol = 0.1"),
                "engine = \"rten\"\nlanes = 2\nthreads = 1\n\n[agree]\nrtol = 0.1\n",
            ),
        ] {
            let file = sidecar(path(), before, &best());
            assert_eq!(file.text, expected);
            assert_eq!(file.path, path());
        }
        // A key in quotes is not found, and would be there twice.
        let file = sidecar(path(), Some("\"lanes\" = 3\n"), &best());
        assert_eq!(file.path, PathBuf::from("m/kapok.toml.new"));
        assert_eq!(batching(8), "max_batch_size: 8\ndynamic_batching { }\n");
        assert_eq!(batching(1), "max_batch_size: 1\n");
    }
}
