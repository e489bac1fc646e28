use super::*;
use crate::chat::{Chat, End, Told};
use crate::client::Client;

fn ask(provider: &Provider, chat: &Chat) -> Told {
    let address = provider.url().replace("http://", "");
    chat.ask(&Client::to(address.parse().expect("an address")))
}

#[test]
fn the_answer_has_sixty_words_and_comes_in_sixty_tokens() {
    assert_eq!(ANSWER.split_whitespace().count(), 60);
    let provider = Provider::healthy();
    for chat in [
        Chat::streaming("m", "two words"),
        Chat::whole("m", "two words"),
    ] {
        let told = ask(&provider, &chat);
        assert_eq!((told.end, told.text.as_str()), (End::Complete, ANSWER));
        let usage = told.usage.expect("both say it");
        assert_eq!(usage["completion_tokens"], 60);
        assert_eq!(usage["prompt_tokens"], 2);
        assert_eq!(told.model.as_deref(), Some("m"));
    }
}

#[test]
fn a_prefix_is_continued_or_refused() {
    let (said, left) = ANSWER.split_at(ANSWER.find(" flowers").expect("it does"));
    let chat = Chat::streaming("m", "").with(
        "messages",
        json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": said}]),
    );
    let provider = Provider::healthy();
    assert_eq!(ask(&provider, &chat).text, left);
    assert_eq!(provider.attempts()[0].prefix.as_deref(), Some(said));
    let provider = Provider::start(Fault::None, Prefix::Refused);
    let told = ask(&provider, &chat);
    assert!(
        matches!(told.end, End::Error { status: 400, .. }),
        "{told:?}"
    );
    assert!(provider.attempts()[0].prefix_refused);
}

fn told(fault: Fault) -> Told {
    ask(&Provider::start(fault, Prefix::Continued), &patient())
}

fn patient() -> Chat {
    Chat::streaming("m", "x").within(Duration::from_secs(20))
}

const BRIEF: Duration = Duration::from_millis(100);

#[test]
fn refusals_come_so_often_and_no_more() {
    for (refusal, status) in [
        (
            Refusal::RateLimit {
                retry_after_s: Some(2),
            },
            429,
        ),
        (Refusal::ServerError, 500),
        (Refusal::Overloaded, 503),
        (Refusal::ContextLength, 400),
    ] {
        let provider = Provider::start(Fault::Refuses { refusal, first: 1 }, Prefix::Continued);
        let first = ask(&provider, &patient());
        assert!(matches!(first.end, End::Error { status: said, .. } if said == status));
        assert_eq!(ask(&provider, &patient()).text, ANSWER);
    }
    let provider = Provider::start(Fault::Flaps(BRIEF), Prefix::Continued);
    let down = ask(&provider, &patient());
    assert!(matches!(down.end, End::Error { status: 503, .. }));
    crate::wait::until("it to recover", || {
        (ask(&provider, &patient()).end == End::Complete).then_some(())
    });
}

#[test]
fn connections_break_and_stall_where_they_should() {
    for fault in [Fault::Resets { first: 1 }, Fault::Silent(BRIEF)] {
        assert!(matches!(told(fault).end, End::Broken(_)), "{fault:?}");
    }
    for (fault, words) in [
        (Fault::CutsAfter(40), 40),
        (Fault::StallsAfter(40, BRIEF), 40),
        (Fault::CutsAfter(60), 60),
    ] {
        let cut = told(fault);
        assert!(matches!(cut.end, End::Broken(_)), "{cut:?}");
        assert_eq!(cut.text.split_whitespace().count(), words, "{fault:?}");
    }
    let slow = told(Fault::SlowStart(BRIEF));
    assert!(slow.first_text.is_some_and(|at| at >= BRIEF), "{slow:?}");
}

#[test]
fn garbled_and_unended_streams_are_whole_otherwise() {
    let garbled = told(Fault::GarblesAt(10));
    assert_eq!((garbled.garbled, garbled.text.as_str()), (1, ANSWER));
    let unended = told(Fault::NoDone);
    assert!(!unended.done_seen && unended.text == ANSWER);
}
