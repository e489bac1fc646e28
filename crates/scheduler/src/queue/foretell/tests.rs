use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::{Config, Region, Wait};
use super::*;
use crate::cluster::Node;
use crate::request::Request;
use crate::simulate::Foretelling;
use crate::trace::{self, Pod};

fn node(name: &str, cores: u32, gpus: u8) -> Node {
    Node {
        name: name.to_owned(),
        cpu_milli: cores * 1_000,
        memory_mib: 100_000,
        gpus,
        model: "A100".to_owned(),
        region: "here".to_owned(),
        ..Node::default()
    }
}

fn job(id: u64, gpus: u8) -> Job {
    let request = Request {
        cpu_milli: 1_000,
        memory_mib: 1_000,
        gpus,
        gpu_milli: 1_000,
        ..Request::default()
    };
    Job::new(id, request)
}

fn queue(nodes: Vec<Node>, jobs: Vec<Job>) -> Queue {
    let mut queue = Queue::new(Config::default(), nodes).unwrap();
    for job in jobs {
        queue.submit(job, 0).unwrap();
    }
    queue.step(0);
    queue
}

fn explain(queue: &Queue, id: u64) -> Explanation {
    queue.explain(JobId(id), 0, &History::default()).unwrap()
}

/// Nodes `a` with four GPUs here and `b` with eight there; job 1 has taken three of `a`, with sixty cores.
fn two_nodes(asked: Job) -> Explanation {
    let there = Node {
        region: "there".to_owned(),
        model: "H100".to_owned(),
        ..node("b", 32, 8)
    };
    let first = Job {
        region: Region::Required("here".to_owned()),
        expected_ms: Some(600_000),
        request: Request {
            cpu_milli: 60_000,
            ..job(1, 3).request
        },
        ..job(1, 3)
    };
    let queue = queue(vec![node("a", 64, 4), there], vec![first, asked]);
    explain(&queue, 2)
}

#[test]
fn the_smallest_set_in_the_way_is_named_with_what_would_do() {
    let here = |job: Job| Job {
        region: Region::Required("here".to_owned()),
        ..job
    };
    let with = |gpus, change: &dyn Fn(&mut Request)| {
        let mut asked = job(2, gpus);
        change(&mut asked.request);
        asked
    };
    let cases = [
        (here(job(2, 2)), vec![Constraint::Region], "region `there`"),
        (
            here(with(1, &|request| request.cpu_milli = 5_000)),
            vec![Constraint::Region],
            "4000 thousandths of a CPU",
        ),
        (
            with(1, &|request| request.cpu_milli = 33_000),
            vec![Constraint::Cpu],
            "32000 thousandths of a CPU",
        ),
        (
            with(2, &|request| request.models = ["A100".to_owned()].into()),
            vec![Constraint::GpuModel],
            "GPUs of the model `H100`",
        ),
        (
            with(1, &|request| request.memory_mib = 200_000),
            vec![Constraint::Memory],
            "100000 MiB of memory",
        ),
        (job(2, 9), vec![Constraint::Gpus], "8 GPUs"),
        (
            Job {
                gang: 10,
                ..job(2, 1)
            },
            vec![Constraint::Gang],
            "9 members",
        ),
        // Neither alone would do: CPU is short wherever there are GPUs enough.
        (
            with(9, &|request| request.cpu_milli = 33_000),
            vec![Constraint::Cpu, Constraint::Gpus],
            "32000 thousandths of a CPU and 8 GPUs",
        ),
    ];
    for (asked, blocking, instead) in cases {
        let said = two_nodes(asked);
        let named: Vec<_> = said
            .blocking
            .iter()
            .map(|blocking| blocking.constraint)
            .collect();
        assert_eq!(named, blocking, "{said}");
        let text = said.to_string();
        let told = format!("  would start now with {instead}");
        assert!(text.lines().any(|line| line == told), "{text}");
    }
}

#[test]
fn an_explanation_reads_well_and_can_be_written_down() {
    let said = two_nodes(Job {
        region: Region::Required("here".to_owned()),
        ..job(2, 2)
    });
    let text = said.to_string();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("job 2: pending, TopologyPlacementFailed (0 of its members fit now)")
    );
    assert_eq!(lines.next(), Some("  in the way: region (here)"));
    // The job before it is expected to take ten minutes.
    assert_eq!(
        lines.next(),
        Some("  starts in about 10 min, in nine of ten cases within 10 min")
    );
    let json = serde_json::to_string(&said).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), said);
}

#[test]
fn a_dry_run_says_where_a_job_would_run_and_changes_nothing() {
    let queue = queue(vec![node("a", 64, 4)], vec![job(1, 3)]);
    let before = queue.save();
    let history = History::default();
    let fits = queue.dry_run(job(2, 1), 5, &history).unwrap();
    assert_eq!((fits.phase.as_str(), fits.places.len()), ("running", 1));
    let waits = queue.dry_run(job(3, 2), 5, &history).unwrap();
    assert_eq!(waits.reason, "TopologyPlacementFailed");
    assert_eq!(waits.blocking[0].possible, Some(1));
    let never = queue.dry_run(job(4, 5), 5, &history).unwrap();
    assert_eq!(
        (never.reason.as_str(), never.starts),
        (Wait::NoMatchingFlavor.word(), None)
    );
    assert_eq!(queue.save(), before);
}

/// Absent where the traces are: nothing to compare with.
fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/traces/openb");
    folder.is_dir().then_some(folder)
}

/// Every fourteenth node, so that kinds are there in their shares, and the list's pods.
fn trace(folder: &Path) -> (Vec<Node>, Vec<Pod>) {
    let text = fs::read_to_string(folder.join("openb_node_list_gpu_node.csv")).unwrap();
    let nodes = trace::nodes(&text)
        .unwrap()
        .into_iter()
        .step_by(14)
        .collect();
    let mut text = String::new();
    let file = fs::File::open(folder.join("openb_pod_list_default.csv.gz")).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    (nodes, trace::pods(&text).unwrap())
}

#[test]
fn what_is_foretold_comes_true() {
    let Some(folder) = folder() else { return };
    let (nodes, pods) = trace(&folder);
    let world = Foretelling {
        load: 1.0,
        jobs: 6_000,
        each: 10,
        seed: 7,
    };
    let foretold = world.run(nodes, &pods).unwrap();
    let share = |part: u32, of: u32| f64::from(part) / f64::from(of.max(1));
    assert!(foretold.explained >= 100, "{foretold:?}");
    assert!(
        share(foretold.advised, foretold.explained) > 0.9,
        "{foretold:?}"
    );
    assert!(share(foretold.kept, foretold.told) >= 0.99, "{foretold:?}");
    let covered = share(foretold.within_p90, foretold.estimated);
    assert!((0.85..=0.95).contains(&covered), "{foretold:?}");
}
