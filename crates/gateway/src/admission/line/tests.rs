use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(600);

type Waits<'a> = Pin<Box<dyn Future<Output = Result<(usize, Place), Turned>> + 'a>>;

fn lines(places: &[u32]) -> Vec<Arc<Line>> {
    let clock = Clock::manual();
    let line = |max: &u32| {
        let line = Line::new();
        line.publish(Some(*max), &clock);
        line
    };
    places.iter().map(line).collect()
}

fn standing(class: Priority, queue_max: usize) -> Standing {
    Standing {
        class,
        cost: 1,
        queue_max,
        patience: LONG,
        now: Clock::manual().now(),
        end: None,
    }
}

fn poll(waits: &mut Waits<'_>) -> Option<Result<(usize, Place), Turned>> {
    match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

#[test]
fn without_a_limit_everybody_enters() {
    let line = Line::new();
    let places: Vec<_> = (0..1000).map(|_| line.enter()).collect();
    assert!(places.iter().all(Option::is_some));
    assert!(line.has_room());
}

#[tokio::test]
async fn the_first_place_in_any_line_is_taken_and_the_other_lines_are_left() {
    let lines = lines(&[1, 1]);
    let (first, second) = (lines[0].enter(), lines[1].enter());
    assert!(lines.iter().all(|line| !line.has_room()));
    let mut waits: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Standard, 9)));
    assert!(poll(&mut waits).is_none());
    drop(second);
    let (index, place) = poll(&mut waits).expect("a place").expect("a place");
    assert_eq!(index, 1);
    drop(waits);
    assert_eq!(lines[0].waiting() + lines[1].waiting(), 0);
    assert_eq!((lines[0].inside(), lines[1].inside()), (1, 1));
    drop((first, place));
    assert_eq!((lines[0].inside(), lines[1].inside()), (0, 0));
}

#[tokio::test]
async fn whoever_gives_up_after_it_was_granted_gives_the_place_on() {
    let lines = lines(&[1]);
    let inside = lines[0].enter();
    let mut leaves: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Standard, 9)));
    let mut stays: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Standard, 9)));
    assert!(poll(&mut leaves).is_none() && poll(&mut stays).is_none());
    drop(inside);
    drop(leaves);
    assert!(poll(&mut stays).expect("a place").is_ok());
    drop(stays);
    assert!(lines[0].has_room());
}

#[tokio::test]
async fn a_higher_class_displaces_and_a_full_line_refuses() {
    let lines = lines(&[1]);
    let _inside = lines[0].enter();
    let mut bulk: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Bulk, 1)));
    assert!(poll(&mut bulk).is_none());
    let refused = wait(&lines, standing(Priority::Bulk, 1)).await;
    assert_eq!(refused.expect_err("full"), Turned::Full { wait: None });
    let mut higher: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Realtime, 1)));
    assert!(poll(&mut higher).is_none());
    let displaced = poll(&mut bulk).expect("told").expect_err("displaced");
    assert_eq!(displaced, Turned::Displaced);
}

#[tokio::test]
async fn patience_ends() {
    let lines = lines(&[1]);
    let _inside = lines[0].enter();
    let short = Standing {
        patience: Duration::from_millis(1),
        ..standing(Priority::Standard, 9)
    };
    assert_eq!(wait(&lines, short).await.expect_err("late"), Turned::Waited);
    assert_eq!(lines[0].waiting(), 0);
}

#[tokio::test]
async fn more_places_let_in_who_waits() {
    let lines = lines(&[1]);
    let _inside = lines[0].enter();
    let mut waits: Waits<'_> = Box::pin(wait(&lines, standing(Priority::Standard, 9)));
    assert!(poll(&mut waits).is_none());
    lines[0].publish(None, &Clock::manual());
    assert!(poll(&mut waits).expect("a place").is_ok());
    assert!(lines[0].enter().is_some());
}

/// Sixteen who took 100 ms each have gone through.
fn known_to_take_100_ms(clock: &Clock) -> Arc<Line> {
    let line = Line::new();
    line.publish(Some(1), clock);
    for _ in 0..16 {
        let mut place = line.enter().expect("a place");
        clock.advance(Duration::from_millis(100));
        place.ended(Some(Ended::Done));
    }
    line
}

#[tokio::test]
async fn whoever_cannot_be_done_in_time_gives_its_turn_to_the_next() {
    let clock = Clock::manual();
    let lines = [known_to_take_100_ms(&clock)];
    let inside = lines[0].enter();
    let within = |ms: u64| Standing {
        now: clock.now(),
        end: Some(clock.now() + Duration::from_millis(ms)),
        ..standing(Priority::Standard, 9)
    };
    let mut short: Waits<'_> = Box::pin(wait(&lines, within(150)));
    let mut long: Waits<'_> = Box::pin(wait(&lines, within(500)));
    assert!(poll(&mut short).is_none() && poll(&mut long).is_none());
    clock.advance(Duration::from_millis(60));
    drop(inside);
    let turned = poll(&mut short).expect("told").expect_err("90 ms are left");
    let hold = Duration::from_millis(100);
    assert_eq!(turned, Turned::NoTime { hold });
    let (_, place) = poll(&mut long).expect("a place").expect("a place");
    drop((short, long));
    // With nobody behind it, whoever waits gets the place, whatever time is left.
    let mut alone: Waits<'_> = Box::pin(wait(&lines, within(20)));
    assert!(poll(&mut alone).is_none());
    drop(place);
    assert!(poll(&mut alone).expect("a place").is_ok());
    drop(alone);
    assert_eq!((lines[0].inside(), lines[0].waiting()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Callers come, are polled or not, get a place or not, and leave at any moment.
    #[test]
    fn nothing_leaks_whoever_leaves_when(
        places in prop::collection::vec(1u32..3, 1..4),
        steps in prop::collection::vec((0u32..6, any::<prop::sample::Index>(), 1u8..8), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let _inside = runtime.as_ref().expect("a runtime").enter();
        let lines = lines(&places);
        let mut waiting: Vec<Waits<'_>> = Vec::new();
        let mut entered: Vec<Place> = Vec::new();
        for (step, which, mask) in steps {
            let class = Priority::ALL[usize::from(mask) % 4];
            match step {
                0 => entered.extend(lines[which.index(lines.len())].enter()),
                1 => {
                    // Some of the lines, always in a row: a slice.
                    let from = which.index(lines.len());
                    let mut waits: Waits<'_> = Box::pin(wait(&lines[from..], standing(class, 3)));
                    match poll(&mut waits) {
                        None => waiting.push(waits),
                        Some(done) => entered.extend(done.ok().map(|(_, place)| place)),
                    }
                }
                2 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
                3 if !waiting.is_empty() => {
                    let index = which.index(waiting.len());
                    if let Some(done) = poll(&mut waiting[index]) {
                        entered.extend(done.ok().map(|(_, place)| place));
                        drop(waiting.swap_remove(index));
                    }
                }
                4 | 5 if !entered.is_empty() => drop(entered.swap_remove(which.index(entered.len()))),
                _ => {}
            }
            for (line, max) in lines.iter().zip(&places) {
                prop_assert!(line.inside() <= *max as usize);
                prop_assert_eq!(line.has_room(), line.inside() < *max as usize);
            }
        }
        drop((waiting, entered));
        for line in &lines {
            prop_assert_eq!((line.inside(), line.waiting()), (0, 0));
        }
    }
}
