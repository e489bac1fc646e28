//! The same jobs by several rules.

use scheduler::simulate::jobs::{Played, RULES, play, rules};
use scheduler::{Node, trace};
use serde_json::{Map, Value, json};

use super::{list, name, rounded};
use crate::cli::{Format, SimulateArgs};
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Table};

pub(super) fn run(args: &SimulateArgs, nodes: &[Node], printer: &Printer) -> Outcome {
    if matches!(printer.format(), Format::Csv | Format::Html) {
        return Err(Failure::usage(
            "jobs are shown as a table, as JSON or as YAML",
        ));
    }
    let mut runs = Vec::new();
    for path in &args.pods {
        let jobs = list(path, trace::jobs)?;
        for policy in &args.policy {
            for rule in &args.rules {
                let Some(config) = rules(rule, policy) else {
                    let problem = format!("rule `{rule}` is not known");
                    return Err(Failure::usage(problem).hint(RULES.join(", ")));
                };
                let played = play(config, nodes.to_vec(), &jobs)
                    .map_err(|error| Failure::failed(error.to_string()))?;
                runs.push((name(path), policy, rule, played));
            }
        }
    }
    let documents = runs.iter().map(|(workload, policy, rule, played)| {
        let mut run = Map::new();
        run.insert("workload".to_owned(), json!(workload));
        run.insert("policy".to_owned(), json!(policy));
        run.insert("rules".to_owned(), json!(rule));
        let figures = played.figures();
        run.extend(figures.map(|(name, value)| (name.to_owned(), json!(rounded(value)))));
        Value::Object(run)
    });
    let document = json!({"runs": documents.collect::<Vec<_>>()});
    printer.print(&document, |_, style| {
        let mut table = Table::new(&[
            "WORKLOAD",
            "RULES",
            "MISSED",
            "BEST EFFORT",
            "WAIT",
            "P95",
            "WAIT OF 8 GPUS",
            "FAIRNESS",
            "ALLOCATED",
            "STOPPED",
        ]);
        for (workload, _, rule, played) in &runs {
            table.row(row(workload, rule, played));
        }
        table.render(style)
    })?;
    Ok(())
}

fn row(workload: &str, rule: &str, played: &Played) -> [String; 10] {
    let hours = |seconds: f64| format!("{:.2} h", seconds / 3_600.0);
    [
        workload.to_owned(),
        rule.to_owned(),
        format!("{:.2} %", played.missed_pct),
        format!("{:.0} GPU h", played.best_effort_gpu_h),
        hours(played.wait_mean_s),
        hours(played.wait_p95_s),
        hours(played.wait_large_mean_s),
        format!("{:.3}", played.jain),
        format!("{:.1} %", played.allocated_pct),
        played.preempted.to_string(),
    ]
}
