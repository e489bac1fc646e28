//! The wall of faults before kapok and other gateways: a score-card.
//!
//! Each gateway gets the same: the faulty provider, one fallback, two retries, 30 s where it must be said; all else is as
//! shipped. One that knows models by name gets the fallback as another model; the routers of model servers get the two
//! providers as two workers of one model, and what asks for the fallback by name is not judged of them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use e2e::faults::{FALLBACK_MODEL, Gateway, Judgement, MODEL, Observed, SCENARIOS, Stage, Verdict};

use super::gateway::peers::{LITELLM, SMG, VLLM_ROUTER, litellm_command, python};
use super::results::Outcome;
use super::samples::Sample;
use super::{Bench, empty_dir, free_port};
use crate::http::Http;
use crate::kapok::Kapok;
use crate::process::Running;

/// LiteLLM imports for most of a minute on a busy machine; seventeen routers at a time are not quick either.
const START_TIME_MAX: Duration = Duration::from_secs(240);

/// Running gateways, one for each stage or one for all.
struct System {
    gateways: Vec<Gateway>,
    /// Stopped when the last scenario has been played.
    _plain: Vec<Running>,
    _kapoks: Vec<Kapok>,
}

type Start = fn(&Bench<'_>, &Path, &[Stage]) -> Result<System>;

const SYSTEMS: [(&str, Start); 5] = [
    ("no gateway", nothing),
    ("kapok", kapok),
    ("vllm-router", vllm_router),
    ("smg", smg),
    ("LiteLLM", litellm),
];

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let scratch = empty_dir(&bench.scratch, "faults")?;
    let mut card = Vec::new();
    for (name, start) in SYSTEMS {
        let stages = SCENARIOS.map(Stage::of);
        let system = match start(bench, &scratch, &stages) {
            Ok(system) => system,
            Err(error) => {
                eprintln!("without {name}: {error:#}");
                continue;
            }
        };
        eprintln!("{name}: {} faults, two minutes at most", stages.len());
        card.push((name, play(&stages, &system)?));
    }
    print!("{}", shown(&card));
    let samples = card.iter().flat_map(|(name, cells)| {
        let cells = SCENARIOS.iter().zip(cells);
        cells.map(|(scenario, (judged, observed))| Sample {
            case: format!("{} {}", scenario.id, scenario.title),
            target: (*name).to_owned(),
            round: 0,
            figures: figures(judged, observed),
        })
    });
    Ok(Outcome {
        name: "faults",
        method: format!(
            "{} faults of a provider with one fallback, times as failoverbench v0.1 publishes them, judged by its rules on our \
             own wall; all scenarios of a gateway at a time; verdict 0 is pass, 1 partial, 2 safe (not rescued, but told \
             truly), 3 fail (hung, sold a part as the whole, or broke a rule)",
            SCENARIOS.len()
        ),
        samples: samples.collect(),
        compare: None,
        reference: "failoverbench, September 2026, 16 scenarios (pass/partial/safe/fail): Portkey 11/2/0/3, Bifrost 9/3/3/1, \
                    LiteLLM 9/3/4/0, no gateway 4/0/12/0",
    })
}

type Cell = (Judgement, Observed);

fn play(stages: &[Stage], system: &System) -> Result<Vec<Cell>> {
    std::thread::scope(|scope| {
        let plays: Vec<_> = stages
            .iter()
            .zip(&system.gateways)
            .map(|(stage, gateway)| {
                scope.spawn(|| {
                    let observed = stage.play(gateway);
                    (stage.judge(&observed), observed)
                })
            })
            .collect();
        let cell = |play: std::thread::ScopedJoinHandle<'_, Cell>| {
            play.join().map_err(|_| anyhow!("a scenario panicked"))
        };
        plays.into_iter().map(cell).collect()
    })
}

fn figures(
    judged: &Judgement,
    observed: &Observed,
) -> std::collections::BTreeMap<&'static str, f64> {
    let slowest = observed.calls.iter().map(|call| call.told.took).max();
    let count = |attempts: usize| f64::from(u32::try_from(attempts).unwrap_or(u32::MAX));
    [
        ("verdict", f64::from(judged.verdict as u8)),
        ("slowest_call_s", slowest.unwrap_or_default().as_secs_f64()),
        ("primary_attempts", count(observed.primary.len())),
        ("fallback_attempts", count(observed.fallback.len())),
    ]
    .into()
}

fn shown(card: &[(&str, Vec<Cell>)]) -> String {
    let mut text = String::new();
    let mut line = |what: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{what}");
    };
    for (name, cells) in card {
        let of = |verdict| {
            let same = |(judged, _): &&Cell| judged.verdict == verdict;
            cells.iter().filter(same).count()
        };
        line(format_args!(
            "\n{name}: {} pass, {} partial, {} safe, {} fail",
            of(Verdict::Pass),
            of(Verdict::Partial),
            of(Verdict::Safe),
            of(Verdict::Fail)
        ));
        for (scenario, (judged, _)) in SCENARIOS.iter().zip(cells) {
            let why: String = judged.why.chars().take(110).collect();
            line(format_args!(
                "  {:4} {:40} {:8} {why}",
                scenario.id, scenario.title, judged.verdict
            ));
        }
    }
    text
}

fn address(url: &str) -> Result<SocketAddr> {
    let text = url.trim_start_matches("http://");
    text.parse()
        .with_context(|| format!("`{url}` is no address"))
}

/// The provider itself.
fn nothing(_: &Bench<'_>, _: &Path, stages: &[Stage]) -> Result<System> {
    let gateways = stages.iter().map(|stage| {
        Ok(Gateway {
            address: address(&stage.primary.url())?,
            model: MODEL.to_owned(),
            fallback_model: None,
        })
    });
    Ok(System {
        gateways: gateways.collect::<Result<_>>()?,
        _plain: Vec::new(),
        _kapoks: Vec::new(),
    })
}

fn kapok(bench: &Bench<'_>, scratch: &Path, stages: &[Stage]) -> Result<System> {
    let mut gateways = Vec::new();
    let mut kapoks = Vec::new();
    for stage in stages {
        let dir = empty_dir(scratch, stage.scenario.id)?;
        fs::write(dir.join("kapok.yaml"), stage.kapok_yaml())?;
        let mut command = Kapok::up(&bench.binary, &dir);
        command.args(["--config", "kapok.yaml"]);
        let kapok = Kapok::start(&mut command, &dir)?;
        gateways.push(Gateway {
            address: address(kapok.public().base())?,
            model: MODEL.to_owned(),
            fallback_model: Some(FALLBACK_MODEL.to_owned()),
        });
        kapoks.push(kapok);
    }
    Ok(System {
        gateways,
        _plain: Vec::new(),
        _kapoks: kapoks,
    })
}

fn vllm_router(bench: &Bench<'_>, _: &Path, stages: &[Stage]) -> Result<System> {
    let python = python(bench, "vllm-router", VLLM_ROUTER)?;
    let program = python.with_file_name("vllm-router");
    routers("vllm-router", &program, &["--log-level", "warning"], stages)
}

fn smg(bench: &Bench<'_>, _: &Path, stages: &[Stage]) -> Result<System> {
    let python = python(bench, "smg", SMG)?;
    let program = python.with_file_name("smg");
    routers("smg", &program, &["launch", "--log-level", "warn"], stages)
}

/// Two retries, by which they mean three attempts in all, and 30 s are said; they retry more and wait longer as shipped.
fn routers(name: &str, program: &Path, start: &[&str], stages: &[Stage]) -> Result<System> {
    let mut gateways = Vec::new();
    let mut plain = Vec::new();
    for stage in stages {
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args(start)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .arg("--worker-urls")
            .args([stage.primary.url(), stage.fallback.url()])
            .args(["--policy", "round_robin", "--retry-max-retries", "3"])
            .args(["--request-timeout-secs", "30"])
            .args(["--prometheus-port", &free_port()?.to_string()])
            // They look for a tokenizer on the Internet.
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        plain.push((Running::start(name, &mut command)?, port));
        gateways.push(Gateway {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            model: MODEL.to_owned(),
            fallback_model: None,
        });
    }
    for (running, port) in &mut plain {
        let http = Http::new(&format!("127.0.0.1:{port}"));
        // Their own word for "workers are registered".
        running.wait_for("readiness", START_TIME_MAX, || {
            let reply = http.get("/readiness").ok()?;
            (reply.status == 200).then_some(())
        })?;
    }
    Ok(System {
        gateways,
        _plain: plain.into_iter().map(|(running, _)| running).collect(),
        _kapoks: Vec::new(),
    })
}

fn litellm(bench: &Bench<'_>, scratch: &Path, stages: &[Stage]) -> Result<System> {
    let python = python(bench, "litellm", LITELLM)?;
    let mut models = String::new();
    let mut fallbacks = String::new();
    for stage in stages {
        let id = stage.scenario.id;
        for (name, url) in [
            (id.to_owned(), stage.primary.url()),
            (format!("{id}-fallback"), stage.fallback.url()),
        ] {
            let _infallible = writeln!(
                models,
                "- model_name: {name}\n  litellm_params: {{ model: openai/{name}, api_base: \"{url}/v1\", api_key: none }}"
            );
        }
        let _infallible = writeln!(fallbacks, "  - {id}: [{id}-fallback]");
    }
    let config = scratch.join("litellm.yaml");
    fs::write(
        &config,
        format!(
            "model_list:\n{models}router_settings:\n  num_retries: 2\n  timeout: 30\n  fallbacks:\n{fallbacks}  \
             context_window_fallbacks:\n{fallbacks}"
        ),
    )?;
    let port = free_port()?;
    let mut command = litellm_command(&python, &config, port);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running::start("LiteLLM", &mut command)?;
    let http = Http::new(&format!("127.0.0.1:{port}"));
    running.wait_for("readiness", START_TIME_MAX, || {
        let reply = http.get("/health/readiness").ok()?;
        (reply.status == 200).then_some(())
    })?;
    let gateways = stages.iter().map(|stage| Gateway {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        model: stage.scenario.id.to_owned(),
        fallback_model: Some(format!("{}-fallback", stage.scenario.id)),
    });
    Ok(System {
        gateways: gateways.collect(),
        _plain: vec![running],
        _kapoks: Vec::new(),
    })
}
