use protocol::resource::{JobSpec, JobState, Metadata, RestartPolicy, Submission};

use super::*;
use crate::store::Record;

fn node(name: &str, cores: u32) -> Node {
    Node {
        name: name.to_owned(),
        cpu_milli: cores * 1_000,
        memory_mib: 64_000,
        region: "gz".to_owned(),
        ..Node::default()
    }
}

fn config() -> Config {
    Config {
        queue_max: 2,
        history_max: 2,
        restart: (Duration::from_secs(1), Duration::from_secs(1)),
        step: Duration::from_secs(1),
    }
}

fn desk(records: Vec<Record>) -> Desk {
    let nodes = vec![vec![node("a", 4)]];
    Desk::restore(config(), nodes, records, Timestamp::from_millis(1_000)).expect("a desk")
}

fn submission(cores: u32) -> Submission {
    let mut spec = JobSpec {
        command: vec!["work".to_owned()],
        ..JobSpec::default()
    };
    spec.resources.cpu = protocol::resource::Cores::from_milli(cores * 1_000);
    Submission {
        metadata: Metadata {
            name: "j".to_owned(),
            ..Metadata::default()
        },
        spec,
    }
}

impl Desk {
    fn submitted(&mut self, submission: Submission) -> String {
        self.submit(submission).expect("it is taken").status.id
    }

    fn state(&self, id: &str) -> (JobState, String) {
        let job = self.get(id).expect("it is known");
        (job.status.state, job.status.reason)
    }

    fn later(&mut self, seconds: u64) {
        self.at(self.now.plus(Duration::from_secs(seconds)));
        self.advance();
    }

    /// What the executor tells of the job's last start.
    fn tell(&mut self, id: &str, progress: Progress) {
        let attempt = self.get(id).expect("it is known").status.attempts;
        let run = RunId {
            job: id.to_owned(),
            attempt,
        };
        self.event(0, Event::Run(run, progress));
        self.advance();
    }

    fn end(&mut self, id: &str, how: How) {
        let ended = Ended {
            how,
            end: None,
            message: "so it ended".to_owned(),
        };
        self.tell(id, Progress::Ended(ended));
    }

    fn told(&mut self) -> Vec<String> {
        let orders = self.orders();
        orders
            .into_iter()
            .map(|(_, order)| match order {
                Order::Start(run) => format!("start {}", run.id),
                Order::Stop(run, _) => format!("stop {run}"),
                Order::Forget(job) => format!("forget {job}"),
            })
            .collect()
    }
}

const READY: Progress = Progress::Ready { endpoint: None };

#[test]
fn a_job_starts_runs_and_ends() {
    let mut desk = desk(Vec::new());
    let id = desk.submitted(submission(1));
    assert_eq!(desk.told(), [format!("start {id}/1")]);
    assert_eq!(desk.state(&id).0, JobState::Starting);
    desk.tell(&id, READY);
    assert_eq!(desk.state(&id).0, JobState::Running);
    desk.end(&id, How::Succeeded);
    assert_eq!(desk.state(&id).0, JobState::Succeeded);
    let job = desk.get(&id).expect("history");
    for kind in [
        ConditionType::QuotaReserved,
        ConditionType::Admitted,
        ConditionType::Finished,
    ] {
        assert!(job.status.holds(kind), "{kind:?}");
    }
    assert_eq!(desk.counts(), [0, 0, 1]);
}

#[test]
fn jobs_that_do_not_fit_together_run_one_after_the_other() {
    let mut desk = desk(Vec::new());
    let first = desk.submitted(submission(3));
    let second = desk.submitted(submission(3));
    assert_eq!(desk.told(), [format!("start {first}/1")]);
    assert_eq!(desk.state(&second).0, JobState::Queued);
    desk.end(&first, How::Succeeded);
    assert_eq!(desk.told(), [format!("start {second}/1")]);
}

#[test]
fn a_full_queue_and_an_unknown_region_are_refused_in_words() {
    let mut desk = desk(Vec::new());
    for _ in 0..3 {
        desk.submitted(submission(4));
    }
    let refused = desk.submit(submission(4)).expect_err("two wait already");
    assert!(refused.message.contains("jobs.queueMax"), "{refused}");
    let mut elsewhere = submission(1);
    elsewhere.spec.region = Some("mars".to_owned());
    let refused = desk.submit(elsewhere).expect_err("no such region");
    assert!(refused.message.contains("there are: `gz`"), "{refused}");
    assert_eq!(refused.param.as_deref(), Some("spec.region"));
}

#[test]
fn a_time_out_stops_a_job_and_says_so() {
    let mut desk = desk(Vec::new());
    let mut limited = submission(1);
    limited.spec.timeout_seconds = Some(5);
    let id = desk.submitted(limited);
    desk.tell(&id, READY);
    desk.told();
    desk.later(4);
    assert!(desk.told().is_empty());
    desk.later(1);
    assert_eq!(desk.told(), [format!("stop {id}/1")]);
    assert_eq!(desk.state(&id).0, JobState::Stopping);
    desk.end(&id, How::Stopped);
    let expected = (JobState::Cancelled, reason::TIMED_OUT.to_owned());
    assert_eq!(desk.state(&id), expected);
    let message = desk.get(&id).expect("history").status.message;
    assert!(
        message.contains("`timeoutSeconds`, which is 5"),
        "{message}"
    );
}

#[test]
fn a_failed_job_is_started_again_after_a_wait_and_not_for_ever() {
    let mut desk = desk(Vec::new());
    let mut stubborn = submission(1);
    stubborn.spec.restart.policy = RestartPolicy::OnFailure;
    stubborn.spec.restart.limit = 1;
    let id = desk.submitted(stubborn);
    desk.end(&id, How::Failed);
    assert_eq!(desk.told(), [format!("start {id}/1")]);
    assert_eq!(
        desk.state(&id),
        (JobState::Queued, reason::RESTARTED.to_owned())
    );
    desk.later(1);
    assert_eq!(desk.told(), [format!("start {id}/2")]);
    desk.end(&id, How::Failed);
    let expected = (JobState::Failed, reason::RESTART_LIMIT.to_owned());
    assert_eq!(desk.state(&id), expected);
}

#[test]
fn cancelling_works_in_every_state() {
    let mut desk = desk(Vec::new());
    let running = desk.submitted(submission(4));
    let waiting = desk.submitted(submission(4));
    desk.cancel(&waiting).expect("known");
    assert_eq!(desk.state(&waiting).0, JobState::Cancelled);
    desk.told();
    desk.cancel(&running).expect("known");
    assert_eq!(desk.told(), [format!("stop {running}/1")]);
    assert_eq!(desk.state(&running).0, JobState::Stopping);
    // Twice is as good as once.
    desk.cancel(&running).expect("known");
    assert!(desk.told().is_empty());
    desk.end(&running, How::Stopped);
    assert_eq!(desk.state(&running).0, JobState::Cancelled);
    desk.cancel(&running).expect("known");
    assert_eq!(desk.state(&running).0, JobState::Cancelled);
    assert!(desk.cancel("nothing").is_err());
}

#[test]
fn the_oldest_finished_job_is_forgotten_with_what_it_printed() {
    let mut desk = desk(Vec::new());
    let ids: Vec<String> = (0..3).map(|_| desk.submitted(submission(1))).collect();
    for id in &ids {
        desk.end(id, How::Succeeded);
    }
    assert!(desk.get(&ids[0]).is_err());
    assert!(desk.told().contains(&format!("forget {}", ids[0])));
    assert_eq!(desk.changes().1, [1]);
    let query = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let listed: Vec<String> = desk
        .list(&query)
        .into_iter()
        .map(|job| job.status.id)
        .collect();
    assert_eq!(listed, [ids[2].clone(), ids[1].clone()]);
}

#[test]
fn after_a_restart_history_is_there_and_what_ran_here_starts_again() {
    let mut before = desk(Vec::new());
    let done = before.submitted(submission(1));
    before.end(&done, How::Succeeded);
    let ran = before.submitted(submission(3));
    before.tell(&ran, READY);
    let waited = before.submitted(submission(3));
    let (records, _) = before.changes();
    let known = Desk::known(&records);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].id.to_string(), format!("{ran}/1"));

    let mut after = desk(records);
    assert_eq!(after.state(&done).0, JobState::Succeeded);
    after.end(&ran, How::Lost);
    after.later(1);
    let told = after.told();
    // The place that is free goes to either of them, once.
    assert_eq!(told.len(), 1, "{told:?}");
    let jobs = [format!("start {ran}/2"), format!("start {waited}/1")];
    assert!(jobs.contains(&told[0]), "{told:?}");
    assert!(
        after
            .get(&ran)
            .expect("known")
            .status
            .holds(ConditionType::Requeued)
    );
    let new = after.submit(submission(1)).expect("room").status.id;
    assert_ne!(new, done);
}

#[test]
fn durations_are_known_after_a_restart() {
    let mut before = desk(Vec::new());
    for _ in 0..2 {
        let id = before.submitted(submission(4));
        before.tell(&id, READY);
        before.at(before.now.plus(Duration::from_secs(1_200)));
        before.end(&id, How::Succeeded);
    }
    let starts = |desk: &mut Desk| {
        let first = desk.submitted(submission(4));
        desk.tell(&first, READY);
        let told = desk.foretell(&submission(4)).expect("it would be taken");
        format!("{told:?}")
    };
    let (records, _) = before.changes();
    let known = starts(&mut desk(records));
    assert!(known.contains("starts in about 20 min"), "{known}");
    let unknown = starts(&mut desk(Vec::new()));
    assert!(!unknown.contains("20 min"), "{unknown}");
}

#[test]
fn estimates_that_turn_out_too_short_grow() {
    let mut desk = desk(Vec::new());
    let known = desk.submitted(submission(4));
    desk.tell(&known, READY);
    desk.later(1_200);
    desk.end(&known, How::Succeeded);
    let mut told = Vec::new();
    for _ in 0..20 {
        let first = desk.submitted(submission(4));
        desk.tell(&first, READY);
        let second = desk.submitted(submission(4));
        desk.standing(&second).expect("it is known");
        // Asked again, the first word counts.
        desk.later(36_000);
        desk.standing(&second).expect("it is known");
        let held = &desk.jobs[&desk.by_id[&second]];
        told.push(held.foretold.expect("it was told").1);
        // Not a duration to learn from.
        desk.end(&first, How::Failed);
        desk.tell(&second, READY);
        desk.end(&second, How::Failed);
    }
    let (first, last) = (told[0], told[19]);
    assert!(last.p90_ms > 2 * first.p90_ms, "{told:?}");
}

#[test]
fn a_realtime_job_takes_the_place_of_a_lesser_one_which_waits_again() {
    let mut desk = desk(Vec::new());
    let mut lesser = submission(4);
    lesser.spec.qos_level = 1;
    let lesser = desk.submitted(lesser);
    desk.tell(&lesser, READY);
    desk.told();
    let mut urgent = submission(4);
    urgent.spec.priority = protocol::resource::JobPriority::Realtime;
    let urgent = desk.submitted(urgent);
    assert_eq!(desk.told(), [format!("stop {lesser}/1")]);
    let status = desk.get(&lesser).expect("known").status;
    assert!(status.holds(ConditionType::Preempted), "{status:?}");
    assert!(status.message.contains(&urgent), "{}", status.message);
    desk.end(&lesser, How::Stopped);
    assert_eq!(desk.told(), [format!("start {urgent}/1")]);
    let waits = desk.get(&lesser).expect("known").status;
    assert_eq!((waits.state, waits.preemptions), (JobState::Queued, 1));
    desk.end(&urgent, How::Succeeded);
    assert_eq!(desk.told(), [format!("start {lesser}/2")]);
}

#[test]
fn a_job_that_held_too_much_memory_has_failed_for_that() {
    let mut desk = desk(Vec::new());
    let id = desk.submitted(submission(1));
    desk.end(&id, How::OutOfMemory);
    let expected = (JobState::Failed, reason::OUT_OF_MEMORY.to_owned());
    assert_eq!(desk.state(&id), expected);
}

#[test]
fn a_dry_run_says_what_would_happen_and_keeps_nothing() {
    let mut desk = desk(Vec::new());
    let told = desk.foretell(&submission(1)).expect("it would be taken");
    assert!(
        format!("{told:?}").contains("it would start at once, on `a`"),
        "{told:?}"
    );
    desk.submitted(submission(4));
    let told = desk.foretell(&submission(2)).expect("it would be taken");
    assert!(format!("{told:?}").contains("it would wait"), "{told:?}");
    assert_eq!(desk.counts(), [0, 1, 0]);
}
