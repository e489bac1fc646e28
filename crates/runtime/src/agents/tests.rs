use protocol::config;

use super::*;

const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

fn objections_to(parameters: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("1")).expect("made");
    std::fs::write(folder.path().join("1/weights"), "abc").expect("written");
    let parameters: String = parameters
        .iter()
        .map(|(key, value)| format!("parameters {{ key: '{key}' value: '{value}' }} "))
        .collect();
    let text = format!(
        "model_repository_agents {{ agents {{ name: 'checksum' {parameters} }} agents {{ name: 'checksum' }} }}"
    );
    let config = config::parse("config.pbtxt", &text)
        .expect("a configuration")
        .config;
    let objections = objections(&config, folder.path());
    assert_eq!(
        look(&config, folder.path()).err(),
        objections.first().map(|problem| problem.message.clone())
    );
    let shown = |problem: &Problem| format!("{}: {}", problem.field, problem.message);
    objections.iter().map(shown).collect()
}

#[test]
fn files_are_the_ones_whose_sums_the_configuration_gives() {
    let field = |file: &str| format!("model_repository_agents.agents[0].parameters[{file}]");
    assert_eq!(objections_to(&[]), Vec::<String>::new());
    assert_eq!(objections_to(&[("MD5:1/weights", ABC)]), [""; 0]);
    assert_eq!(objections_to(&[("md5:1/weights", ABC)]), [""; 0]);
    assert_eq!(
        objections_to(&[
            ("MD5:1/gone", ABC),
            ("MD5:1/weights", "d726e132f91f16ebee703d96f6f73cb1"),
        ]),
        [
            format!(
                "{}: failed to open text file for read 1/gone: No such file or directory (os error 2)",
                field("MD5:1/gone")
            ),
            format!(
                "{}: Mismatched MD5 hash for file 1/weights, expect: d726e132f91f16ebee703d96f6f73cb1, got: {ABC}",
                field("MD5:1/weights")
            ),
        ]
    );
}
