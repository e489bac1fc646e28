//! The wall of sixteen: whatever a provider does, the caller gets the whole answer or the truth.

use e2e::Kapok;
use e2e::faults::{FALLBACK_MODEL, Gateway, Judgement, MODEL, SCENARIOS, Scenario, Stage, Verdict};

/// Everything as shipped, and the catalogue's 30 seconds.
fn play(scenario: Scenario) -> Judgement {
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
    judged
}

/// Where kapok does less than the catalogue would like, and why.
const LESS: &[(&str, Verdict, &str)] = &[
    (
        "S01",
        Verdict::Partial,
        "another upstream answers at once, so the first is not asked again after its two seconds",
    ),
    ("S03", Verdict::Partial, "never the same upstream twice"),
    (
        "S12",
        Verdict::Safe,
        "a request that is too long is the caller's to shorten",
    ),
];

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
            Ok(judged) => {
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
