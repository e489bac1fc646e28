use super::svg::{bars, colour, curves, escape};
use super::{Curve, METRICS, Of, Outcome, Result, mean, names};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
svg{width:100%;max-width:40rem;height:auto}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}\
td:first-child,th:first-child{text-align:left}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}\
.key span{display:inline-block;width:1em;height:.7em;margin:0 .3em 0 1em}";

/// A page of its own: no script, nothing fetched. The same results give the same bytes.
pub fn page(results: &[Result<Outcome>]) -> String {
    let policies = names(results, |result| &result.policy);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kapok simulate</title><style>{STYLE}</style></head><body>\n\
         <h1>GPU allocation as demand grows</h1>\n\
         <p>Requests come in random order until they ask for 130 % of the cluster's GPUs; none leaves, none is tried twice. \
         Means over the seeds; demand and values in percent of all GPUs, fragmentation in percent of what is free.</p>\n<p class=\"key\">"
    );
    for (index, policy) in policies.iter().enumerate() {
        page.push_str(&format!(
            "<span style=\"background:{}\"></span>{}",
            colour(index),
            escape(policy)
        ));
    }
    page.push_str("</p>\n");
    for workload in names(results, |result| &result.workload) {
        page.push_str(&section(results, workload, &policies));
    }
    page + "</body></html>\n"
}

fn section(results: &[Result<Outcome>], workload: &str, policies: &[&str]) -> String {
    let of = |policy: &str| -> Vec<&Curve> {
        let own = results
            .iter()
            .filter(|result| result.workload == workload && result.policy == policy);
        own.map(|result| &result.outcome.curve).collect()
    };
    let by_policy: Vec<(&str, Vec<&Curve>)> = policies
        .iter()
        .map(|policy| (*policy, of(policy)))
        .collect();
    let lines = |value: Of| -> Vec<(&str, Vec<(f64, f64)>)> {
        let points = |curves: &[&Curve]| {
            (0..=130)
                .map(|at| (f64::from(at), mean(curves, at, value)))
                .collect()
        };
        by_policy
            .iter()
            .map(|(policy, curves)| (*policy, points(curves)))
            .collect()
    };
    let [(_, allocated), (_, ratio), _] = METRICS;
    let at_end: Vec<_> = by_policy
        .iter()
        .map(|(policy, curves)| (*policy, mean(curves, 130, allocated)))
        .collect();
    format!(
        "<h2>{}</h2>\n<div class=\"charts\"><figure><figcaption>Allocated</figcaption>{}</figure>\n<figure><figcaption>Fragmented, of what is free</figcaption>{}</figure>\n\
         <figure><figcaption>Allocated at 130 % demand</figcaption>{}</figure></div>\n{}",
        escape(workload),
        curves("Allocated GPUs by demand", &lines(allocated)),
        curves("Fragmentation by demand", &lines(ratio)),
        bars("Allocated GPUs at 130 % demand", &at_end),
        table(&by_policy),
    )
}

fn table(by_policy: &[(&str, Vec<&Curve>)]) -> String {
    let mut rows = String::new();
    for (policy, curves) in by_policy {
        rows.push_str(&format!("<tr><td>{}</td>", escape(policy)));
        for (_, value) in METRICS {
            for at in [90, 130] {
                rows.push_str(&format!("<td>{:.2}</td>", mean(curves, at, value)));
            }
        }
        rows.push_str(&format!("<td>{}</td></tr>\n", curves.len()));
    }
    format!(
        "<table><tr><th>policy</th><th>allocated at 90</th><th>at 130</th><th>fragmented at 90</th><th>at 130</th>\
         <th>of all GPUs at 90</th><th>at 130</th><th>seeds</th></tr>\n{rows}</table>\n"
    )
}
