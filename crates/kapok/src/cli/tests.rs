use clap::CommandFactory as _;

use super::*;

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    let mut root = Cli::command();
    let mut pages = vec![(String::from("kapok"), root.render_long_help().to_string())];
    // clap writes `help` itself, and nobody calls what is hidden.
    let ours = root
        .get_subcommands_mut()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set());
    for command in ours {
        pages.push((
            command.get_name().to_owned(),
            command.render_long_help().to_string(),
        ));
    }
    for (name, page) in pages {
        assert!(page.contains("Examples:\n  "), "{name}:\n{page}");
    }
}

#[test]
fn examples_in_help_parse() {
    let texts = [
        EXAMPLES,
        up::EXAMPLES,
        ask::INFER_EXAMPLES,
        ask::EMBED_EXAMPLES,
        ask::CHAT_EXAMPLES,
    ]
    .into_iter()
    .chain([
        ask::MODELS_EXAMPLES,
        ask::EXPLAIN_EXAMPLES,
        simulate::EXAMPLES,
    ]);
    let mut seen = 0;
    for line in texts.flat_map(str::lines) {
        let Some(start) = line.find("kapok ").filter(|_| line.starts_with("  ")) else {
            continue;
        };
        // What follows two spaces is the remark; what follows `<` or `>` is the shell's.
        let command = line
            .split_at(start)
            .1
            .split("   ")
            .next()
            .unwrap_or_default();
        let words = words(command.split(['<', '>']).next().unwrap_or_default());
        Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

/// Splits as a shell does, as far as the examples need it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for each in line.chars() {
        match each {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn flags_of_up_arrive() {
    let cli = Cli::try_parse_from([
        "kapok",
        "up",
        "--model-repo",
        "a",
        "--model-repo",
        "b",
        "--upstream",
        "x=http://h:1",
        "--listen",
        "0.0.0.0:9000",
        "--triton-ports",
        "off",
        "--set",
        "node.queueMax=1",
        "--log-format",
        "json",
        "-o",
        "json",
    ])
    .expect("good flags");
    let Command::Up(args) = cli.command else {
        panic!("not up");
    };
    assert_eq!(cli.output, Format::Json);
    assert_eq!(args.model_repo.len(), 2);
    assert_eq!(args.triton_ports, Some(Switch::Off));
    assert_eq!(args.log_format, LogFormat::Json);
    for wrong in [
        &["kapok"][..],
        &["kapok", "upp"],
        &["kapok", "up", "--listen", "8000"],
        &["kapok", "infer", "m"],
        &["kapok", "models", "list", "--output", "xml"],
    ] {
        let error = Cli::try_parse_from(wrong).expect_err("a mistake");
        assert_eq!(error.exit_code(), 2, "{wrong:?}");
    }
}
