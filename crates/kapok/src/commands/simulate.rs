//! `kapok simulate`: policies on the same arrivals, side by side.

mod jobs;
mod progress;
mod timing;

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use scheduler::simulate::report::{self, Result as Run};
use scheduler::simulate::{Churn, Inflation, MARKS, Outcome as Inflated, Stay};
use scheduler::{Error, Node, policy, trace};
use serde_json::{Value, json};

use crate::cli::{Arrival, Format, SimulateArgs};
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};
use progress::Progress;

/// Text of one list, unpacked.
const TEXT_BYTES_MAX: u64 = 1 << 30;

pub(super) fn run(args: &SimulateArgs, printer: &Printer) -> Outcome {
    let nodes = tiled(list(&args.nodes, trace::nodes)?, args.tile);
    if nodes.iter().all(|node| node.gpus == 0) {
        return Err(Failure::usage(format!(
            "no node in `{}` has a GPU",
            args.nodes.display()
        )));
    }
    if args.arrival == Arrival::Jobs {
        return jobs::run(args, &nodes, printer);
    }
    let mut pods = Vec::new();
    for path in &args.pods {
        pods.push((name(path), list(path, trace::pods)?));
    }
    let mut jobs = Vec::new();
    for (workload, pods) in &pods {
        for policy in &args.policy {
            if !policy::known(policy) {
                let known = policy::NAMES.map(|(name, _)| name).join(", ");
                return Err(Failure::usage(format!("policy `{policy}` is not known")).hint(known));
            }
            for seed in args.seeds.first..=args.seeds.last {
                jobs.push(Job {
                    workload,
                    pods,
                    policy,
                    seed,
                });
            }
        }
    }
    match args.arrival {
        Arrival::Inflate if args.timing => timing::run(&jobs, &nodes, printer),
        Arrival::Inflate => inflated(&all(&jobs, |job| job.inflate(&nodes))?, printer),
        Arrival::Trace | Arrival::Poisson | Arrival::Jobs => {
            stayed(&all(&jobs, |job| job.stay(&nodes, args))?, printer)
        }
    }
}

fn tiled(nodes: Vec<Node>, times: u32) -> Vec<Node> {
    if times == 1 {
        return nodes;
    }
    let tile = |number: u32| {
        nodes.iter().map(move |node| Node {
            name: format!("{}-{number}", node.name),
            ..node.clone()
        })
    };
    (0..times).flat_map(tile).collect()
}

struct Job<'a> {
    workload: &'a str,
    pods: &'a [trace::Pod],
    policy: &'a str,
    seed: u64,
}

impl Job<'_> {
    fn inflate(&self, nodes: &[Node]) -> Result<Run<Inflated>, Error> {
        let world = Inflation::new(nodes, self.pods, self.seed)?;
        let outcome = world.run(world.policy(self.policy)?);
        Ok(self.result(outcome))
    }

    fn stay(&self, nodes: &[Node], args: &SimulateArgs) -> Result<Run<Stay>, Error> {
        let world = if args.arrival == Arrival::Poisson {
            Churn::poisson(nodes, self.pods, args.load, args.days, self.seed)?
        } else {
            Churn::trace(nodes, self.pods, self.seed)?
        };
        let outcome = world.run(world.policy(self.policy)?);
        Ok(self.result(outcome))
    }

    fn result<T>(&self, outcome: T) -> Run<T> {
        Run {
            workload: self.workload.to_owned(),
            policy: self.policy.to_owned(),
            seed: self.seed,
            outcome,
        }
    }
}

/// On as many threads as there are cores; results in the order of the jobs.
fn all<T: Send>(
    jobs: &[Job<'_>],
    work: impl Fn(&Job<'_>) -> Result<Run<T>, Error> + Sync,
) -> Outcome<Vec<Run<T>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let progress = Mutex::new(Progress::new(jobs.len()));
    thread::scope(|scope| {
        for _ in 0..base::core_budget().get().min(jobs.len()) {
            scope.spawn(|| {
                while let Some((index, job)) = take(&next, jobs) {
                    let result = work(job);
                    done.lock().push((index, result));
                    progress.lock().advance();
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_by_key(|(index, _)| *index);
    let results = done.into_iter().map(|(_, result)| result);
    results
        .collect::<Result<Vec<_>, Error>>()
        .map_err(|error| Failure::failed(error.to_string()))
}

fn take<'a, 'b>(next: &AtomicUsize, jobs: &'a [Job<'b>]) -> Option<(usize, &'a Job<'b>)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, jobs.get(index)?))
}

fn inflated(results: &[Run<Inflated>], printer: &Printer) -> Outcome {
    let text = match printer.format() {
        Format::Csv => report::csv(results),
        Format::Html => report::page(results),
        Format::Table | Format::Json | Format::Yaml => {
            let document = document(results, |outcome| {
                let mut figures = json!({"arrived": outcome.arrived, "placed": outcome.placed});
                for (metric, value) in report::METRICS {
                    figures[metric] = MARKS
                        .iter()
                        .map(|mark| {
                            (
                                mark.to_string(),
                                json!(rounded(value(outcome.curve.at(*mark)))),
                            )
                        })
                        .collect();
                }
                figures
            });
            printer.print(&document, |_, style| inflated_table(results, style))?;
            return Ok(());
        }
    };
    printer.write(&text)?;
    Ok(())
}

fn stayed(results: &[Run<Stay>], printer: &Printer) -> Outcome {
    match printer.format() {
        Format::Csv => printer.write(&report::stay_csv(results))?,
        Format::Html => {
            return Err(Failure::usage(
                "`--output html` shows curves of demand, which only `--arrival inflate` has",
            ));
        }
        Format::Table | Format::Json | Format::Yaml => {
            let document = document(results, |stay| {
                let figures = report::figures(stay);
                figures
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(rounded(*value))))
                    .collect()
            });
            printer.print(&document, |_, style| stayed_table(results, style))?;
        }
    }
    Ok(())
}

fn document<T>(results: &[Run<T>], figures: impl Fn(&T) -> Value) -> Value {
    let runs = results.iter().map(|result| {
        let mut run =
            json!({"workload": result.workload, "policy": result.policy, "seed": result.seed});
        if let (Some(run), Value::Object(figures)) = (run.as_object_mut(), figures(&result.outcome))
        {
            run.extend(figures);
        }
        run
    });
    json!({"runs": runs.collect::<Vec<_>>()})
}

/// Means over the seeds, which follow one another.
fn inflated_table(results: &[Run<Inflated>], style: Style) -> String {
    let mut table = Table::new(&[
        "WORKLOAD",
        "POLICY",
        "SEEDS",
        "AT 90 %",
        "AT 100 %",
        "AT 130 %",
        "FRAGMENTED AT 90 %",
        "PLACED",
    ]);
    for group in groups(results) {
        let mean =
            |of: &dyn Fn(&Inflated) -> f64| average(group.iter().map(|run| of(&run.outcome)));
        let allocated = |mark| {
            format!(
                "{:.2}",
                mean(&|outcome| outcome.curve.at(mark).allocated_pct)
            )
        };
        table.row([
            group[0].workload.clone(),
            group[0].policy.clone(),
            group.len().to_string(),
            allocated(90),
            allocated(100),
            allocated(130),
            format!(
                "{:.1}",
                mean(&|outcome| outcome.curve.at(90).frag_ratio_pct)
            ),
            format!(
                "{:.1} %",
                mean(&|outcome| 100.0 * f64::from(outcome.placed)
                    / f64::from(outcome.arrived.max(1)))
            ),
        ]);
    }
    format!(
        "GPUs allocated as requests ask for so many percent of them\n{}",
        table.render(style)
    )
}

fn stayed_table(results: &[Run<Stay>], style: Style) -> String {
    let mut table = Table::new(&[
        "WORKLOAD",
        "POLICY",
        "SEEDS",
        "ALLOCATED",
        "WAIT",
        "P95",
        "WAIT OF 8 GPUS",
        "PLACED",
    ]);
    for group in groups(results) {
        let mean = |of: &dyn Fn(&Stay) -> f64| average(group.iter().map(|run| of(&run.outcome)));
        let hours = |of: &dyn Fn(&Stay) -> f64| format!("{:.2} h", mean(of) / 3_600.0);
        table.row([
            group[0].workload.clone(),
            group[0].policy.clone(),
            group.len().to_string(),
            format!("{:.2} %", mean(&|stay| stay.allocated_pct)),
            hours(&|stay| stay.wait_mean_s),
            hours(&|stay| stay.wait_p95_s),
            hours(&|stay| stay.wait_large_mean_s),
            format!(
                "{:.1} %",
                mean(&|stay| 100.0 * f64::from(stay.placed) / f64::from(stay.arrived.max(1)))
            ),
        ]);
    }
    table.render(style)
}

fn groups<T>(results: &[Run<T>]) -> impl Iterator<Item = &[Run<T>]> {
    results.chunk_by(|left, right| left.workload == right.workload && left.policy == right.policy)
}

fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// Four places, so that documents are short and the same everywhere.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn list<T>(path: &Path, parse: impl Fn(&str) -> Result<Vec<T>, Error>) -> Outcome<Vec<T>> {
    let text = read(path)
        .map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", path.display())))?;
    parse(&text).map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))
}

fn read(path: &Path) -> std::io::Result<String> {
    let file = std::fs::File::open(path)?;
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if zipped {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut text = String::new();
    reader
        .by_ref()
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)?;
    if reader.read(&mut [0])? > 0 {
        return Err(std::io::Error::other(format!(
            "more than {TEXT_BYTES_MAX} bytes of text"
        )));
    }
    Ok(text)
}

/// Of the list: the file's name up to the first `.csv`.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = name.find(".csv").unwrap_or(name.len());
    name.get(..end).unwrap_or_default().to_owned()
}
