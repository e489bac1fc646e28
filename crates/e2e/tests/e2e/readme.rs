//! The README's examples run as they are written.
//!
//! A block of shell after the line `<!-- curl-test -->` is run with `localhost:8000` replaced by the test's own address.

use std::process::Command;

use e2e::repository;
use e2e::{Answer, FakeUpstream, Kapok, Repository};

fn examples(readme: &str) -> Vec<String> {
    let marked = readme.split("<!-- curl-test -->").skip(1);
    marked
        .map(|rest| {
            let block = rest
                .split("```")
                .nth(1)
                .expect("a block follows the marker");
            let (_language, commands) = block.split_once('\n').expect("a block has lines");
            commands.to_owned()
        })
        .collect()
}

#[test]
fn curl_examples_work() {
    let readme = include_str!("../../../../README.md");
    let examples = examples(readme);
    assert!(examples.len() >= 2, "the README has lost its curl examples");
    let fake = FakeUpstream::start(Answer::events().event("{\"choices\":[]}").done());
    let model = repository::fetched("all-minilm-l6-v2");
    let repository = Repository::new().link("all-minilm-l6-v2", &model);
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .upstream("llm", &fake.url())
        .start();
    for example in examples {
        // --fail-with-body turns an error answer into an exit code.
        let commands = example
            .replace("localhost:8000", &kapok.address().to_string())
            .replace("curl -", "curl --fail-with-body --max-time 60 -");
        let ran = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &commands])
            .output()
            .expect("bash runs");
        let shown = String::from_utf8_lossy(&ran.stdout);
        assert!(
            ran.status.success(),
            "{commands}\n{shown}\n{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(!shown.trim().is_empty(), "{commands} said nothing");
    }
}
