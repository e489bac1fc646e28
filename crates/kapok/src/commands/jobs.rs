//! `kapok submit` and `kapok jobs`.

mod manifest;
mod show;

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{JobsArgs, JobsCommand, ServerArgs, SubmitArgs};
use crate::client::{Client, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::Printer;

pub(super) use show::explained;

/// Asked again after so long: well within any proxy's patience.
const WAIT: Duration = Duration::from_secs(20);

pub(super) fn submit(args: &SubmitArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let manifests = manifest::read(args)?;
    let client = Client::public(&args.server, environment)?;
    block_on(async {
        for manifest in &manifests {
            one(&client, args, manifest, printer).await?;
        }
        Ok(())
    })
}

async fn one(client: &Client, args: &SubmitArgs, manifest: &Value, printer: &Printer) -> Outcome {
    if args.dry_run {
        let told = client
            .post_json("/api/v1/jobs?dryRun=true", manifest)
            .await?;
        printer.print(&told.json()?, show::explained)?;
        return Ok(());
    }
    let mut job = client.post_json("/api/v1/jobs", manifest).await?.json()?;
    let id = job["status"]["id"].as_str().unwrap_or_default().to_owned();
    if args.follow {
        follow(client, &id, None, printer).await?;
        job = ended(client, &id, false).await?;
    } else if args.wait {
        job = ended(client, &id, true).await?;
    }
    if !args.follow || printer.format() != crate::cli::Format::Table {
        printer.print(&job, show::submitted)?;
    }
    if (args.follow || args.wait)
        && matches!(
            job["status"]["state"].as_str(),
            Some("Failed" | "Cancelled")
        )
    {
        let message = job["status"]["message"].as_str().unwrap_or_default();
        return Err(
            Failure::failed(format!("job `{id}`: {message}")).hint(format!("kapok jobs logs {id}"))
        );
    }
    Ok(())
}

/// The job when it has ended; a model's also when it answers.
async fn ended(client: &Client, id: &str, model_answers: bool) -> Outcome<Value> {
    loop {
        let job = client.get(&format!("/api/v1/jobs/{id}")).await?.json()?;
        let serves = model_answers && !job["spec"]["model"].is_null();
        match job["status"]["state"].as_str() {
            Some("Succeeded" | "Failed" | "Cancelled") => return Ok(job),
            Some("Running") if serves => return Ok(job),
            _ => {}
        }
        let wait = if serves {
            Duration::from_millis(200)
        } else {
            WAIT
        };
        let path = format!("/api/v1/jobs/{id}?waitMs={}", wait.as_millis());
        client.get(&path).await?;
    }
}

pub(super) fn jobs(args: &JobsArgs, printer: &Printer, environment: &Environment) -> Outcome {
    match &args.command {
        None => {
            let mut path = format!("/api/v1/jobs?limit={}", args.limit);
            for (name, value) in [("state", &args.state), ("tenant", &args.tenant)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", super::escaped(value)));
                }
            }
            let listed = ask(&args.server, environment, &path)?;
            printer.print(&listed["jobs"], show::list)?;
        }
        Some(JobsCommand::Show { id, server }) => {
            let path = format!("/api/v1/jobs/{}", super::escaped(id));
            let job = ask(server, environment, &path)?;
            printer.print(&job, show::whole)?;
        }
        Some(JobsCommand::Cancel { id, server }) => {
            let client = Client::public(server, environment)?;
            let path = format!("/api/v1/jobs/{}/cancel", super::escaped(id));
            let job = block_on(async { client.post_json(&path, &json!({})).await?.json() })?;
            printer.print(&job, show::submitted)?;
        }
        Some(JobsCommand::Logs {
            id,
            follow: on,
            tail,
            server,
        }) => {
            let client = Client::public(server, environment)?;
            block_on(async {
                if *on {
                    return follow(&client, id, *tail, printer).await;
                }
                let mut path = format!("/api/v1/jobs/{}/logs", super::escaped(id));
                if let Some(lines) = tail {
                    path.push_str(&format!("?tail={lines}"));
                }
                let reply = client.get(&path).await?;
                printer.write(&String::from_utf8_lossy(&reply.body))?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn ask(server: &ServerArgs, environment: &Environment, path: &str) -> Outcome<Value> {
    let client = Client::public(server, environment)?;
    block_on(async { client.get(path).await?.json() })
}

/// Prints what a job prints until it has ended. One that waits prints nothing yet, and one that is started again goes on.
async fn follow(client: &Client, id: &str, tail: Option<usize>, printer: &Printer) -> Outcome {
    let id = super::escaped(id);
    let mut shown = 0_usize;
    loop {
        let job = client.get(&format!("/api/v1/jobs/{id}")).await?.json()?;
        let over = matches!(
            job["status"]["state"].as_str(),
            Some("Succeeded" | "Failed" | "Cancelled")
        );
        if job["status"]["attempts"].as_u64().unwrap_or_default() > 0 {
            let tail = tail.filter(|_| shown == 0);
            let tail = tail.map_or_else(String::new, |lines| format!("&tail={lines}"));
            let path = format!("/api/v1/jobs/{id}/logs?follow={}{tail}", !over);
            if let Some(mut body) = client.open(&path).await? {
                let mut seen = 0;
                while let Some(piece) = client.piece(&mut body).await? {
                    // What came before is sent again.
                    let new = shown.saturating_sub(seen).min(piece.len());
                    seen += piece.len();
                    printer.write(&String::from_utf8_lossy(
                        piece.get(new..).unwrap_or_default(),
                    ))?;
                }
                shown = shown.max(seen);
            }
        }
        if over {
            return Ok(());
        }
        client.get(&format!("/api/v1/jobs/{id}?waitMs=200")).await?;
    }
}
