use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use protocol::{DataType, Tensor, TensorSpec};
use telemetry::metrics::{Gauge, Registry};

use super::*;
use crate::engine::{EngineError, Lane, Loaded, Run};
use crate::metrics::Metrics;
use crate::testing::{far, until};

#[derive(Debug)]
struct Nothing(Vec<TensorSpec>);

impl Loaded for Nothing {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.0
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Still))
    }

    fn steady(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Still;

impl Lane for Still {
    fn run(&mut self, _call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        Ok(Vec::new())
    }
}

/// Runs until it is stopped, and says when it begins and has ended.
#[derive(Debug)]
struct Endless(mpsc::Sender<&'static str>);

impl Lane for Endless {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let _told = self.0.send("runs");
        while !call.stop.is_set() {
            std::thread::yield_now();
        }
        let _told = self.0.send("stopped");
        Err(EngineError::Stopped)
    }
}

/// Counts the answers it gets.
struct Counting(Arc<AtomicUsize>);

impl Reply for Counting {
    fn gone(&self) -> bool {
        false
    }

    fn answer(self: Box<Self>, _answered: Answered) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn pending(deadline: Deadline, answers: &Arc<AtomicUsize>) -> Box<Pending> {
    Box::new(Pending {
        call: Call {
            rows: 1,
            ..Call::default()
        },
        arrived: Clock::real().now(),
        deadline,
        reply: Box::new(Counting(Arc::clone(answers))),
    })
}

fn queue(lanes: usize, waiting_max: usize) -> (Arc<Queue>, Gauge) {
    made(Settings::single(lanes, waiting_max))
}

fn made(settings: Settings) -> (Arc<Queue>, Gauge) {
    let lane = || Box::new(Still) as Box<dyn Lane>;
    with_lanes(settings, lane)
}

fn with_lanes(settings: Settings, lane: impl Fn() -> Box<dyn Lane>) -> (Arc<Queue>, Gauge) {
    let lanes = settings.lanes;
    let loaded: Arc<dyn Loaded> = Arc::new(Nothing(vec![TensorSpec::new(
        "x",
        DataType::Fp32,
        vec![-1],
    )]));
    let slots = (0..lanes).map(|_| Slot::new(lane())).collect();
    let metrics = Metrics::register(&Registry::new(), 1).model(
        "m",
        "1",
        &protocol::oip::proto::ModelConfig::default(),
    );
    let depth = metrics.pending.clone();
    let clock = Clock::real();
    let tools = Tools {
        clock: clock.clone(),
        compute: ComputePool::start(1).expect("starts"),
        buffers: BufferPool::default(),
        timer: Timer::start(clock).expect("starts"),
    };
    let queue = Queue::new(
        ("m", loaded, None),
        slots,
        settings,
        (Statistics::new(metrics), 1),
        (tools, None),
    );
    (queue, depth)
}

fn poll<F: Future>(future: &mut std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn is_held(poll: &Poll<Result<Held, Error>>) -> bool {
    matches!(poll, Poll::Ready(Ok(_)))
}

#[tokio::test]
async fn lanes_go_out_in_order_of_arrival() {
    let (queue, depth) = queue(1, 8);
    let clock = Clock::real();
    let first = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect("free");
    let mut second = pin!(queue.acquire(Call::default(), far(), &clock));
    let mut third = pin!(queue.acquire(Call::default(), far(), &clock));
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut third).is_pending());
    assert_eq!(depth.get(), 2);
    drop(first);
    assert!(poll(&mut third).is_pending());
    let second = poll(&mut second);
    assert!(is_held(&second));
    drop(second);
    assert!(is_held(&poll(&mut third)));
    assert_eq!(depth.get(), 0);
}

#[tokio::test]
async fn a_lane_of_one_s_own_goes_to_the_most_urgent() {
    let (queue, _) = made(Settings {
        levels: vec![batch::Policy::default(); 2],
        level_default: 1,
        ..Settings::single(1, 8)
    });
    let clock = Clock::real();
    let ask = |priority| Call {
        priority,
        ..Call::default()
    };
    let first = queue.acquire(ask(0), far(), &clock).await.expect("free");
    let mut second = pin!(queue.acquire(ask(0), far(), &clock));
    let mut third = pin!(queue.acquire(ask(1), far(), &clock));
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut third).is_pending());
    drop(first);
    assert!(poll(&mut second).is_pending());
    assert!(is_held(&poll(&mut third)));
}

#[tokio::test]
async fn one_more_than_the_bound_is_refused() {
    let (queue, _) = queue(1, 2);
    let clock = Clock::real();
    let _held = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect("free");
    let mut one = pin!(queue.acquire(Call::default(), far(), &clock));
    let mut two = pin!(queue.acquire(Call::default(), far(), &clock));
    assert!(poll(&mut one).is_pending());
    assert!(poll(&mut two).is_pending());
    let error = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect_err("full");
    assert_eq!(
        error.to_string(),
        "Exceeds maximum queue size: queue of model `m` is full (2 waiting)"
    );
}

#[tokio::test]
async fn who_leaves_the_line_frees_the_place() {
    let (queue, depth) = queue(1, 1);
    let clock = Clock::real();
    let held = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect("free");
    {
        let mut leaves = pin!(queue.acquire(Call::default(), far(), &clock));
        assert!(poll(&mut leaves).is_pending());
        assert_eq!(queue.waiting(), 1);
    }
    assert_eq!((queue.waiting(), depth.get()), (0, 0));
    let mut stays = pin!(queue.acquire(Call::default(), far(), &clock));
    assert!(poll(&mut stays).is_pending());
    drop(held);
    assert!(is_held(&poll(&mut stays)));
}

#[tokio::test]
async fn a_lane_handed_to_somebody_who_left_goes_on() {
    let (queue, _) = queue(1, 2);
    let clock = Clock::real();
    let held = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect("free");
    {
        let mut leaves = pin!(queue.acquire(Call::default(), far(), &clock));
        assert!(poll(&mut leaves).is_pending());
        drop(held);
        // The lane is in its hands now, and it goes without having looked.
    }
    assert_eq!(queue.idle(), 1);
}

#[tokio::test]
async fn the_deadline_holds_in_the_line() {
    let (queue, _) = queue(1, 2);
    let clock = Clock::real();
    let passed = Deadline::after(clock.now(), Duration::ZERO);
    assert!(
        queue
            .acquire(Call::default(), passed, &clock)
            .await
            .is_err()
    );
    let _held = queue
        .acquire(Call::default(), far(), &clock)
        .await
        .expect("free");
    let soon = Deadline::after(clock.now(), Duration::from_millis(5));
    let error = queue
        .acquire(Call::default(), soon, &clock)
        .await
        .expect_err("late");
    assert_eq!(
        error.to_string(),
        "deadline passed in the queue of model `m`"
    );
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test]
async fn a_batch_is_stopped_when_those_have_left_who_did_not_expire() {
    let (says, told) = mpsc::channel();
    let settings = Settings {
        rows_max: 8,
        ..Settings::single(1, 8)
    };
    let (queue, _) = with_lanes(settings, || Box::new(Endless(says.clone())));
    let clock = Clock::real();
    let answers = Arc::default();
    let (go, waits) = mpsc::channel::<()>();
    // The one compute thread is busy until the deadline of one of the two has passed.
    let busy = move || assert!(waits.recv().is_err(), "nothing is sent");
    queue.tools.compute.submit(1, busy).expect("room");
    let held = queue.acquire(Call::default(), far(), &clock).await;
    let soon = Deadline::after(clock.now(), Duration::from_millis(20));
    let expires = queue.submit(pending(soon, &answers)).expect("room");
    let stays = queue.submit(pending(far(), &answers)).expect("room");
    drop(held);
    assert_eq!(queue.waiting(), 0, "both are in one batch");
    until("the deadline has passed", || soon.passed(clock.now())).await;
    drop(go);
    assert_eq!(told.recv(), Ok("runs"));
    assert_eq!(answers.load(Ordering::SeqCst), 1, "told that it is late");
    drop(stays);
    let ended = told.recv_timeout(Duration::from_secs(20));
    assert_eq!(ended, Ok("stopped"));
    expires.settled();
}

#[tokio::test]
async fn all_who_wait_are_refused_one_after_another_when_no_thread_takes_more() {
    const WAITING: usize = 20_000;
    let (queue, _) = queue(1, WAITING);
    let clock = Clock::real();
    let answers = Arc::default();
    let held = queue.acquire(Call::default(), far(), &clock).await;
    let submit = |_| queue.submit(pending(far(), &answers)).expect("room");
    let places: Vec<Place> = (0..WAITING).map(submit).collect();
    let (go, waits) = mpsc::channel::<()>();
    let (says, told) = mpsc::channel();
    let busy = move || {
        says.send(()).expect("heard");
        assert!(waits.recv().is_err(), "nothing is sent");
    };
    queue.tools.compute.submit(1, busy).expect("room");
    told.recv()
        .expect("it runs, and takes no place in the queue");
    while queue.tools.compute.submit(1, || {}).is_ok() {}
    drop(held);
    assert_eq!(answers.load(Ordering::SeqCst), WAITING);
    assert_eq!((queue.waiting(), queue.idle()), (0, 1));
    drop(go);
    places.into_iter().for_each(Place::settled);
}

fn eight_bytes() -> Call {
    let one_row = Tensor::from_elements("x", DataType::Fp32, vec![1, 2], vec![0_f32; 2]);
    Call {
        inputs: vec![one_row.expect("two elements")],
        rows: 1,
        ..Call::default()
    }
}

/// A queue whose calls have been taking a millisecond.
fn short(lanes: usize) -> Arc<Queue> {
    let (queue, _) = queue(lanes, 8);
    for _ in 0..16 {
        queue.timed(8, Duration::from_millis(1));
    }
    queue
}

#[tokio::test]
async fn a_short_call_keeps_its_thread_when_nothing_speaks_against_it() {
    let clock = Clock::real();
    let near = || Deadline::after(clock.now(), Duration::from_millis(50));
    let queue = short(2);
    let direct = |thread, deadline| queue.direct(&eight_bytes(), deadline, thread);
    assert!(direct(Thread::MustLeave, far()).is_none());
    assert!(
        direct(Thread::MayKeep, near()).is_none(),
        "it needs another to be told in time"
    );
    let first = direct(Thread::MayKeep, far()).expect("a lane and a core");
    assert!(first.blocks);
    assert!(
        direct(Thread::MayKeep, far()).is_none(),
        "the only core is taken"
    );
    drop(first);
    assert!(direct(Thread::MayKeep, far()).is_some());
    // Whoever is in line comes first.
    let lanes = [
        queue.acquire(Call::default(), far(), &clock).await,
        queue.acquire(Call::default(), far(), &clock).await,
    ];
    assert!(direct(Thread::MayKeep, far()).is_none(), "no lane");
    let answers = Arc::default();
    let place = queue.submit(pending(far(), &answers)).expect("room");
    assert!(direct(Thread::MayKeep, far()).is_none());
    drop((place, lanes));
    queue.timed(8, Duration::from_secs(1));
    assert!(
        direct(Thread::MayKeep, far()).is_none(),
        "it may take long again"
    );
}

#[tokio::test]
async fn a_call_that_keeps_its_thread_is_stopped_at_its_deadline() {
    let clock = Clock::real();
    let queue = short(1);
    let direct = |ms| {
        let deadline = Deadline::after(clock.now(), Duration::from_millis(ms));
        let direct = queue.direct(&eight_bytes(), deadline, Thread::MayKeep);
        (direct.expect("a lane and a core"), deadline)
    };
    // Its alarm comes in vain, and the next call's is set instead.
    let (ended, _) = direct(150);
    let stop = ended.stop.clone();
    drop(ended);
    let (stays, deadline) = direct(300);
    until("the call is stopped", || stays.stop.is_set()).await;
    assert!(deadline.passed(clock.now()));
    assert!(!stop.is_set(), "nobody stops what has ended");
}
