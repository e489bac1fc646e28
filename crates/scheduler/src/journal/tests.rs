use super::*;
use crate::cluster::Node;
use crate::policy::{GpuPacking, Random};
use crate::state::Obstacle;

fn node(name: &str, model: &str, cores: u32, gpus: u8) -> Node {
    Node {
        name: name.to_owned(),
        model: model.to_owned(),
        cpu_milli: cores * 1_000,
        memory_mib: 1_000,
        gpus,
        ..Node::default()
    }
}

fn cluster() -> Cluster {
    let nodes = vec![
        node("a", "T4", 8, 2),
        node("b", "A10", 64, 4),
        node("c", "A10", 1, 1),
    ];
    Cluster::new(nodes).unwrap()
}

fn request(cores: u32, gpus: u8, gpu_milli: u16) -> Request {
    Request {
        cpu_milli: cores * 1_000,
        memory_mib: 10,
        gpus,
        gpu_milli,
        ..Request::default()
    }
}

#[test]
fn a_journal_decided_again_comes_out_the_same() {
    let policies: [fn() -> Box<dyn Policy>; 2] = [|| Box::new(GpuPacking), || Box::new(Random)];
    for policy in policies {
        let mut first = Recorder::new(cluster(), policy(), 7);
        for job in 0..40_u8 {
            let milli = if job % 3 == 0 { 1_000 } else { 300 };
            let placed = first.ask(job.into(), request(1, 1, milli)).unwrap();
            if placed.is_some() && job % 4 == 1 {
                first.leave(job.into()).unwrap();
            }
        }
        let journal = first.take();
        let mut again = Recorder::new(cluster(), policy(), 7);
        assert_eq!(again.replay(&journal), Ok(None));
        assert_eq!(
            again.scheduler().cluster().states(),
            first.scheduler().cluster().states()
        );
    }
}

#[test]
fn a_journal_that_was_changed_is_noticed_where_it_was() {
    let mut first = Recorder::new(cluster(), Box::new(GpuPacking), 7);
    for job in 0..3 {
        first.ask(job, request(1, 1, 1_000)).unwrap();
    }
    let mut journal = first.take();
    if let Event::Asked {
        placement: Some(placement),
        ..
    } = &mut journal[1]
    {
        placement.node += 1;
    }
    let mut again = Recorder::new(cluster(), Box::new(GpuPacking), 7);
    assert_eq!(
        again
            .replay(&journal)
            .unwrap()
            .map(|difference| difference.event),
        Some(1)
    );
}

#[test]
fn jobs_come_once_and_leave_once() {
    let mut recorder = Recorder::new(cluster(), Box::new(GpuPacking), 7);
    recorder.ask(1, request(1, 1, 500)).unwrap();
    assert_eq!(
        recorder.ask(1, request(1, 1, 500)),
        Err(Error::JobRuns { job: 1 })
    );
    recorder.leave(1).unwrap();
    assert_eq!(recorder.leave(1), Err(Error::JobUnknown { job: 1 }));
}

#[test]
fn a_decision_names_the_best_nodes_and_what_is_wrong_with_the_others() {
    let mut recorder = Recorder::new(cluster(), Box::new(GpuPacking), 7);
    recorder.ask(1, request(1, 1, 500)).unwrap();
    let scheduler = recorder.scheduler();
    let on_a10 = Request {
        models: ["A10".to_owned()].into(),
        ..request(2, 1, 400)
    };
    let decision = scheduler.explain(&scheduler.ask(&on_a10), 5);
    assert_eq!(decision.feasible, 1);
    assert_eq!(
        decision.chosen.as_ref().map(|chosen| chosen.name.as_str()),
        Some("b")
    );
    assert_eq!(decision.rejected[&Obstacle::Kind].examples, ["a"]);
    assert_eq!(decision.rejected[&Obstacle::Cpu].examples, ["c"]);
    let ask = scheduler.ask(&on_a10);
    let chosen = decision.chosen.unwrap().placement;
    assert_eq!(
        scheduler.place(&ask).map(|placed| placed.placement),
        Some(chosen)
    );

    let too_large = scheduler.ask(&request(1, 8, 1_000));
    let decision = scheduler.explain(&too_large, 5);
    assert_eq!(decision.chosen, None);
    let text = decision.to_string();
    assert!(
        text.starts_with("gpupacking: no node can take it; 0 feasible; 1 nodes: too little CPU free (`c`); 2 nodes: no GPU"),
        "{text}"
    );
}
