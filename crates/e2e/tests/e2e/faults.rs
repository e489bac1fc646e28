//! The wall of sixteen: whatever a provider does, the caller gets the whole answer or the truth.

use e2e::chat::{Chat, End, Told};

use e2e::faults::{
    FALLBACK_MODEL, Gateway, Judgement, MODEL, Observed, SCENARIOS, Scenario, Stage, Verdict,
};
use e2e::provider::ANSWER;
use e2e::{Client, Kapok, Response};

const CHAT: &str = "/v1/chat/completions";

/// The law of the wall: a caller gets the whole answer, or is told in words.
fn honest(told: &Told) -> bool {
    match &told.end {
        End::Complete => told.text == ANSWER,
        End::Error { message, .. } => !message.is_empty(),
        End::Broken(_) | End::Hang => false,
    }
}

/// Everything as shipped, and the catalogue's 30 seconds.
fn play(scenario: Scenario) -> (Judgement, Observed) {
    let stage = Stage::of(scenario);
    let kapok = Kapok::new()
        .config(stage.kapok_yaml())
        .allow_log("upstream")
        .start();
    let observed = stage.play(&Gateway {
        address: kapok.address(),
        model: MODEL.to_owned(),
        fallback_model: Some(FALLBACK_MODEL.to_owned()),
    });
    let judged = stage.judge(&observed);
    if judged.verdict == Verdict::Fail {
        println!("{}: {observed:#?}", scenario.id);
    }
    (judged, observed)
}

/// Where the catalogue would like something else, and why kapok does not. The answer is whole or the error true all the same.
const LESS: &[(&str, Verdict, &str)] = &[
    (
        "S01",
        Verdict::Partial,
        "the catalogue wants the first asked again after its two seconds; another answers at once",
    ),
    (
        "S03",
        Verdict::Partial,
        "the catalogue wants the first asked again; no upstream sees a request twice, and another answers",
    ),
    (
        "S12",
        Verdict::Safe,
        "a fallback is asked for what is too long only if it is named for that",
    ),
];

/// S01 and S03, for what their verdicts do not say: each upstream is asked once, and nobody waits. Without another the
/// caller reads what the provider wrote, with its `Retry-After`, and its own next attempt is answered.
#[test]
fn what_is_refused_once_is_answered_by_another_at_once_or_told_as_it_is() {
    let last = format!(", fallback: [{{upstream: fallback, model: {FALLBACK_MODEL}}}]");
    for (id, status, wait) in [("S01", 429, Some("2")), ("S03", 500, None)] {
        let scenario = SCENARIOS.into_iter().find(|one| one.id == id);
        let stage = Stage::of(scenario.expect("a scenario"));
        let config = stage.kapok_yaml();
        let kapok = Kapok::new().config(config).allow_log("upstream").start();
        let told = Chat::streaming(MODEL, "x").ask(&kapok.http());
        assert_eq!(
            (&told.end, told.text.as_str()),
            (&End::Complete, ANSWER),
            "{id}"
        );
        let asked = (
            stage.primary.attempts().len(),
            stage.fallback.attempts().len(),
        );
        assert_eq!(asked, (1, 1), "{id}");

        let stage = Stage::of(stage.scenario);
        let config = stage.kapok_yaml();
        let alone = config.replace(&last, "");
        assert_ne!(config, alone, "{id}");
        let kapok = Kapok::new().config(alone).allow_log("upstream").start();
        let chat = Chat::streaming(MODEL, "x");
        let got = kapok.http().post(CHAT, chat.body());
        assert_eq!(
            (got.status, got.header("retry-after")),
            (status, wait),
            "{id}"
        );
        assert!(got.text().contains("\"error\""), "{id}: {}", got.text());
        assert_eq!(stage.primary.attempts().len(), 1, "{id}");
        let told = chat.ask(&kapok.http());
        assert_eq!(
            (told.end, told.text.as_str()),
            (End::Complete, ANSWER),
            "{id}"
        );
    }
}

/// What a provider says of its own refusal, without kapok.
fn said_by(stage: &Stage, body: &str) -> Response {
    let address = stage.primary.url().replace("http://", "");
    Client::to(address.parse().expect("an address")).post(CHAT, body)
}

/// S12 and S13, with a fallback that is named for them and without: what is too long goes to whoever is named for it, and
/// otherwise the client reads what the provider wrote.
#[test]
fn what_is_too_long_goes_where_the_owner_says_and_what_is_filtered_goes_nowhere() {
    for (id, named, rescued) in [
        ("S12", true, true),
        ("S12", false, false),
        ("S13", true, false),
        ("S13", false, false),
    ] {
        let scenario = SCENARIOS.into_iter().find(|one| one.id == id);
        let stage = Stage::of(scenario.expect("a scenario"));
        let mut config = stage.kapok_yaml();
        if named {
            let reasons = "{for: [failure, contextLength], upstream: fallback";
            config = config.replace("{upstream: fallback", reasons);
            assert!(config.contains(reasons), "{config}");
        }
        let kapok = Kapok::new().config(config).allow_log("upstream").start();
        for chat in [Chat::streaming(MODEL, "x"), Chat::whole(MODEL, "x")] {
            let (primary, fallback) = (stage.primary.attempts(), stage.fallback.attempts());
            let told = chat.ask(&kapok.http());
            let asked = stage.primary.attempts().len() - primary.len();
            assert_eq!(asked, 1, "{id}: {told:?}");
            let asked = stage.fallback.attempts().len() - fallback.len();
            assert_eq!(asked, usize::from(rescued), "{id}: {told:?}");
            if rescued {
                assert_eq!((told.end, told.text.as_str()), (End::Complete, ANSWER));
                assert_eq!(told.model.as_deref(), Some(FALLBACK_MODEL));
                continue;
            }
            let expected = said_by(&stage, &chat.body());
            let got = kapok.http().post(CHAT, chat.body());
            assert_eq!((got.status, &got.body), (400, &expected.body), "{id}");
        }
    }
}

/// One test, so that the long ones wait together: a minute in all.
#[test]
fn the_wall_of_sixteen_faults() {
    let judged: Vec<_> = std::thread::scope(|scope| {
        let plays = SCENARIOS.map(|scenario| (scenario, scope.spawn(move || play(scenario))));
        plays
            .into_iter()
            .map(|(scenario, play)| (scenario, play.join()))
            .collect()
    });
    let mut failed = Vec::new();
    for (scenario, judged) in judged {
        let least = LESS.iter().find(|(id, ..)| *id == scenario.id);
        let (least, reason) =
            least.map_or((Verdict::Pass, ""), |(_, verdict, why)| (*verdict, *why));
        match judged {
            Ok((judged, observed)) => {
                if let Some(call) = observed.calls.iter().find(|call| !honest(&call.told)) {
                    failed.push(format!(
                        "{}: neither whole nor told: {:?}",
                        scenario.id, call.told
                    ));
                }
                println!(
                    "{:4} {:42} {:8} {} {reason}",
                    scenario.id, scenario.title, judged.verdict, judged.why
                );
                if judged.verdict > least {
                    failed.push(format!(
                        "{} {}: {}",
                        scenario.id, judged.verdict, judged.why
                    ));
                }
            }
            Err(_) => failed.push(format!("{} panicked", scenario.id)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
