use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::testing::until;

#[tokio::test]
async fn what_runs_never_needs_more_than_the_budget() {
    let pool = ComputePool::start(3).expect("starts");
    let busy = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    for round in 0..60 {
        let cores = 1 + round % 4;
        let (busy, most, done) = (Arc::clone(&busy), Arc::clone(&most), Arc::clone(&done));
        pool.submit(cores, move || {
            let used = cores.min(3);
            let now = busy.fetch_add(used, Ordering::SeqCst) + used;
            most.fetch_max(now, Ordering::SeqCst);
            std::thread::yield_now();
            busy.fetch_sub(used, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        })
        .expect("room");
    }
    until("all ran", || done.load(Ordering::SeqCst) == 60).await;
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn work_whose_caller_is_gone_is_skipped() {
    let pool = ComputePool::start(1).expect("starts");
    let (release, hold) = mpsc::sync_channel::<()>(0);
    pool.submit(1, move || hold.recv().expect("released"))
        .expect("room");
    let ran = Arc::new(AtomicUsize::new(0));
    let count = |ran: &Arc<AtomicUsize>| {
        let ran = Arc::clone(ran);
        move || ran.fetch_add(1, Ordering::SeqCst)
    };
    let mut gone = Box::pin(pool.run(count(&ran)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(gone.as_mut().poll(&mut context).is_pending());
    drop(gone);
    let stays = pool.run(count(&ran));
    release.send(()).expect("held");
    assert_eq!(stays.await, Ok(0));
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_costs_one_piece_of_work_and_no_thread() {
    let pool = ComputePool::start(1).expect("starts");
    let panicked: Result<(), _> = pool.run(|| panic!("in work")).await;
    assert_eq!(panicked, Err(Refused::Panicked));
    assert_eq!(pool.run(|| 7).await, Ok(7));
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let pool = ComputePool::start(1).expect("starts");
    let (release, hold) = mpsc::sync_channel::<()>(0);
    let (began, begins) = mpsc::sync_channel::<()>(1);
    pool.submit(1, move || {
        began.send(()).expect("watched");
        hold.recv().expect("released");
    })
    .expect("room");
    begins.recv().expect("begins");
    for _ in 0..QUEUE_MAX {
        pool.submit(1, || ()).expect("room");
    }
    assert_eq!(pool.submit(1, || ()), Err(Refused::Full));
    release.send(()).expect("held");
}

#[tokio::test]
async fn every_thread_ends_when_the_last_work_had_to_wait_for_cores() {
    let pool = ComputePool::start(2).expect("starts");
    let shared = Arc::downgrade(&pool.0.shared);
    let (release, hold) = mpsc::sync_channel::<()>(0);
    pool.submit(1, move || hold.recv().expect("released"))
        .expect("room");
    pool.submit(2, || ()).expect("room");
    drop(pool);
    release.send(()).expect("held");
    until("all threads ended", || shared.strong_count() == 0).await;
}

#[tokio::test]
async fn cores_that_are_taken_are_nobody_elses() {
    let pool = ComputePool::start(2).expect("starts");
    let one = pool.take(1).expect("free");
    assert!(pool.take(2).is_none());
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    pool.submit(2, move || {
        count.fetch_add(1, Ordering::SeqCst);
    })
    .expect("room");
    assert!(pool.take(1).is_none(), "somebody waits");
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    drop(one);
    until("it ran", || ran.load(Ordering::SeqCst) == 1).await;
    until("all is free", || pool.take(2).is_some()).await;
}

#[tokio::test]
async fn one_call_after_the_other_stays_on_one_thread() {
    let pool = ComputePool::start(4).expect("starts");
    let waiting = |count: usize| {
        let shared = Arc::clone(&pool.0.shared);
        until("the threads wait", move || {
            shared.state.lock().idle.len() == count
        })
    };
    waiting(4).await;
    let mut threads = std::collections::HashSet::new();
    for _ in 0..20 {
        let ran = pool.run(|| std::thread::current().id()).await;
        threads.insert(ran.expect("runs"));
        waiting(4).await;
    }
    assert_eq!(threads.len(), 1);
}
