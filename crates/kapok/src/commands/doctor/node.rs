//! The node that runs here, if one does: whether it serves what it was last told.

use serde_json::Value;

use super::{Check, Verdict};
use crate::cli::ServerArgs;
use crate::client::{Client, block_on};
use crate::config::Environment;

/// A node on this machine answers at once.
const PATIENCE_SECONDS: u64 = 5;

/// Nothing where no node answers: kapok need not run to be well.
pub(super) fn checks(environment: &Environment) -> Vec<Check> {
    let args = ServerArgs {
        url: None,
        api_key: None,
        admin_url: None,
        timeout: PATIENCE_SECONDS,
    };
    let status = Client::admin(&args, environment).and_then(|client| {
        block_on(async move {
            client
                .get("/admin/v1/config")
                .await
                .and_then(|reply| reply.json())
        })
    });
    status.map(|status| of(&status)).unwrap_or_default()
}

fn of(status: &Value) -> Vec<Check> {
    let generation = &status["generation"];
    let file = status["file"].as_str().unwrap_or("no file");
    let mut checks = vec![match status["refused"].as_str() {
        Some(reason) => {
            let found = format!("refused: {reason}; generation {generation} serves");
            Check::new("configuration", Verdict::Warn, found)
                .fix(format!("correct {file}; the node reads it again by itself"))
        }
        None => {
            let found = format!("{file}, generation {generation}");
            Check::new("configuration", Verdict::Ok, found)
        }
    }];
    let fields = status["needs_restart"].as_array().into_iter().flatten();
    let fields: Vec<&str> = fields.filter_map(Value::as_str).collect();
    if !fields.is_empty() {
        let found = format!(
            "{} of the Node: the running values are kept",
            fields.join(", ")
        );
        let check = Check::new("needs a restart", Verdict::Warn, found);
        checks.push(check.fix("restart the node, or upgrade it: kill -USR2 PID"));
    }
    for pool in status["pools"].as_array().into_iter().flatten() {
        let (name, servers) = (pool["name"].as_str().unwrap_or_default(), &pool["servers"]);
        checks.push(match pool["error"].as_str() {
            Some(error) => {
                let found = format!("`{name}`: {error}; the last {servers} servers serve");
                Check::new("discovery", Verdict::Warn, found)
                    .fix("see to the source; it is asked again by itself")
            }
            None => Check::new(
                "discovery",
                Verdict::Ok,
                format!("`{name}`: {servers} servers"),
            ),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_in_force_is_told_with_its_remedy() {
        let status = json!({
            "file": "kapok.yaml", "generation": 3, "refused": "kapok.yaml:5:3: unknown field",
            "needs_restart": ["listen"],
            "pools": [{"name": "llm", "servers": 2, "error": "etcd: gone"}, {"name": "ok", "servers": 1}],
        });
        let found: Vec<_> = of(&status)
            .into_iter()
            .map(|check| (check.verdict, check.found, check.fix.is_empty()))
            .collect();
        let verdicts: Vec<_> = found.iter().map(|(verdict, _, _)| *verdict).collect();
        assert_eq!(
            verdicts,
            [Verdict::Warn, Verdict::Warn, Verdict::Warn, Verdict::Ok]
        );
        for (line, part) in ["kapok.yaml:5:3", "listen", "etcd: gone", "`ok`: 1"]
            .into_iter()
            .enumerate()
        {
            assert!(found[line].1.contains(part), "{found:?}");
            assert_eq!(found[line].2, found[line].0 == Verdict::Ok);
        }
        assert_eq!(of(&json!({"generation": 1})).len(), 1);
    }
}
