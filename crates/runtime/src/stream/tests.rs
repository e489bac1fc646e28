use std::time::Duration;

use base::{Clock, Deadline, ErrorKind};
use protocol::InferRequest;
use protocol::oip::proto::StatisticDuration;

use crate::Runtime;
use crate::testing::{self, REPEAT, builtin, config, far, ints, outs, repository, start, until};

async fn repeating() -> (Runtime, tempfile::TempDir) {
    let root = repository(&[
        ("repeat/config.pbtxt", REPEAT),
        ("echo/config.pbtxt", &builtin("identity", "")),
    ]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    (runtime, root)
}

fn repeat(values: &[i32], delays_ms: &[u32]) -> InferRequest {
    InferRequest {
        id: Some("r".to_owned()),
        ..testing::repeat("repeat", values, delays_ms)
    }
}

fn idle(runtime: &Runtime) -> usize {
    let model = runtime.model("repeat", None).expect("ready");
    model.by_engine().expect("an engine").queue.idle()
}

fn count(sum: Option<StatisticDuration>) -> u64 {
    sum.map_or(0, |sum| sum.count)
}

#[tokio::test]
async fn a_decoupled_model_answers_as_often_as_it_likes_and_frees_its_lane() {
    let (runtime, _root) = repeating().await;
    for (values, delays) in [(&[4, 5, 6][..], &[0, 1, 0][..]), (&[], &[]), (&[7], &[0])] {
        let answered = outs(&runtime, repeat(values, delays)).await;
        assert_eq!(answered, (values.to_vec(), None));
        assert_eq!(idle(&runtime), 1);
    }
    let statistics = runtime.statistics(Some("repeat"), None).expect("known");
    let (totals, responses) = (
        &statistics[0].inference_stats,
        &statistics[0].response_stats,
    );
    assert_eq!(count(totals.as_ref().and_then(|totals| totals.success)), 3);
    assert_eq!(count(responses["0"].success), 2);
    assert_eq!(count(responses["0"].empty_response), 1);
    assert_eq!(count(responses["2"].success), 1);
    assert_eq!(responses.len(), 3);
}

#[tokio::test]
async fn a_model_that_is_not_decoupled_answers_a_stream_once() {
    let (runtime, _root) = repeating().await;
    let mut stream = runtime
        .stream(ints("echo", &[1]), far())
        .await
        .expect("begins");
    let answer = stream.next().await.expect("no error").expect("an answer");
    assert!(answer.last);
    assert_eq!(stream.next().await.expect("no error"), None);
}

#[tokio::test]
async fn a_decoupled_model_takes_no_plain_request() {
    let (runtime, _root) = repeating().await;
    let error = runtime
        .infer(repeat(&[1], &[0]), far())
        .await
        .expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(
        error.message,
        "ModelInfer RPC doesn't support models with decoupled transaction policy"
    );
}

#[tokio::test]
async fn a_dropped_stream_frees_its_lane_in_the_middle_of_a_delay() {
    let (runtime, _root) = repeating().await;
    let request = repeat(&[1, 2], &[0, 3_600_000]);
    let mut stream = runtime.stream(request, far()).await.expect("begins");
    assert!(stream.next().await.expect("no error").is_some());
    let waiting = tokio::time::timeout(Duration::from_millis(5), stream.next()).await;
    assert!(waiting.is_err() && idle(&runtime) == 0);
    drop(stream);
    assert_eq!(idle(&runtime), 1);
    let statistics = runtime.statistics(Some("repeat"), None).expect("known");
    assert_eq!(count(statistics[0].response_stats["1"].cancel), 1);
    let failed = statistics[0]
        .inference_stats
        .as_ref()
        .and_then(|stats| stats.fail);
    assert_eq!(count(failed), 1);
}

#[tokio::test]
async fn the_next_answer_survives_a_caller_who_looked_away() {
    let (runtime, _root) = repeating().await;
    let request = repeat(&[1, 2], &[20, 20]);
    let mut stream = runtime.stream(request, far()).await.expect("begins");
    let mut outs = Vec::new();
    until("both answers", || {
        let mut next = Box::pin(stream.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(answer) = next.as_mut().poll(&mut context) {
            let Some(answer) = answer.expect("no error") else {
                return true;
            };
            outs.push(
                answer.response.outputs[0]
                    .elements::<i32>()
                    .expect("aligned")[0],
            );
        }
        false
    })
    .await;
    assert_eq!(outs, [1, 2]);
}

#[tokio::test]
async fn a_deadline_ends_a_stream_between_two_answers() {
    let (runtime, _root) = repeating().await;
    let deadline = Deadline::after(Clock::real().now(), Duration::from_millis(100));
    let request = repeat(&[1, 2], &[0, 3_600_000]);
    let mut stream = runtime.stream(request, deadline).await.expect("begins");
    assert!(stream.next().await.expect("in time").is_some());
    let error = stream.next().await.expect_err("late");
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(idle(&runtime), 1);
    assert_eq!(stream.next().await.expect("ended"), None);
}
