use super::*;

/// A caller with no gateway at all, which shows that the wall can tell good from bad.
fn alone(id: &str) -> Judgement {
    let scenario = SCENARIOS.into_iter().find(|one| one.id == id);
    let stage = Stage::of(scenario.expect("a scenario"));
    let address = stage.primary.url().replace("http://", "");
    let gateway = Gateway {
        address: address.parse().expect("an address"),
        model: "primary".to_owned(),
        fallback_model: None,
    };
    stage.judge(&stage.play(&gateway))
}

#[test]
fn a_caller_without_a_gateway_is_rescued_from_little() {
    for (id, verdict) in [
        ("S02", Verdict::Safe),
        ("S04", Verdict::Safe),
        ("S05", Verdict::Safe),
        ("S08", Verdict::Safe),
        ("S10", Verdict::Pass),
        ("S11", Verdict::Pass),
        ("S12", Verdict::Safe),
        ("S13", Verdict::Pass),
        ("S14", Verdict::Safe),
    ] {
        let judged = alone(id);
        assert_eq!(judged.verdict, verdict, "{id}: {}", judged.why);
    }
}

fn observed(told: Vec<Told>, primary: &[u64], fallback: usize) -> Observed {
    let attempt = |at: &u64| Attempt {
        at: Duration::from_millis(*at),
        model: "primary".to_owned(),
        prefix: None,
        prefix_refused: false,
        answered: false,
        body: Vec::new(),
    };
    let calls = told.into_iter().map(|told| Call {
        began: Duration::ZERO,
        told,
    });
    Observed {
        calls: calls.collect(),
        primary: primary.iter().map(attempt).collect(),
        fallback: vec![attempt(&0); fallback],
        fallback_model: Some("fallback".to_owned()),
        alive: Some(true),
    }
}

fn told(text: &str) -> Told {
    Told {
        end: End::Complete,
        text: text.to_owned(),
        model: Some("fallback".to_owned()),
        usage: Some(serde_json::json!({"completion_tokens": 60})),
        garbled: 0,
        done_seen: true,
        took: Duration::from_secs(3),
        first_text: Some(Duration::from_secs(1)),
        headers: Vec::new(),
    }
}

#[test]
fn what_must_not_be_fails_and_what_should_not_is_partial() {
    let judge = |id: &str, seen: &Observed| {
        let scenario = SCENARIOS.iter().find(|one| one.id == id);
        verdict::judge(scenario.expect("a scenario"), seen).verdict
    };
    let hung = Told {
        end: End::Hang,
        ..told(ANSWER)
    };
    let wrong_name = Told {
        model: Some("primary".to_owned()),
        ..told(ANSWER)
    };
    let unnamed = Told {
        usage: None,
        ..told(ANSWER)
    };
    for (id, seen, verdict) in [
        (
            "S01",
            observed(vec![told(ANSWER)], &[0, 2100], 0),
            Verdict::Pass,
        ),
        (
            "S01",
            observed(vec![told(ANSWER)], &[0, 300], 0),
            Verdict::Partial,
        ),
        (
            "S01",
            observed(vec![told(ANSWER)], &[0, 9, 20], 0),
            Verdict::Fail,
        ),
        (
            "S02",
            observed(vec![told(ANSWER)], &[0; 7], 1),
            Verdict::Fail,
        ),
        (
            "S08",
            observed(vec![told("The kapok")], &[0], 0),
            Verdict::Fail,
        ),
        ("S08", observed(vec![hung], &[0], 0), Verdict::Fail),
        (
            "S12",
            observed(vec![told(ANSWER)], &[0, 0], 1),
            Verdict::Fail,
        ),
        (
            "S13",
            observed(vec![told(ANSWER)], &[0], 1),
            Verdict::Partial,
        ),
        (
            "S15",
            observed(vec![told(ANSWER)], &[0, 60_000], 1),
            Verdict::Fail,
        ),
        ("S16", observed(vec![told(ANSWER)], &[0], 1), Verdict::Pass),
        ("S16", observed(vec![unnamed], &[0], 1), Verdict::Partial),
    ] {
        assert_eq!(judge(id, &seen), verdict, "{id}: {seen:?}");
    }
    let mut seen = observed(vec![wrong_name], &[0], 1);
    seen.fallback[0].answered = true;
    assert_eq!(judge("S16", &seen), Verdict::Fail);
}
