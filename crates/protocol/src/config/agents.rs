//! Repository agents, in the words of Triton and of its `checksum`.

use std::path::Path;

use super::Problem;
use crate::inside::stays_inside;
use crate::oip::proto::ModelConfig;

/// The agents there are.
const CHECKSUM: &str = "checksum";

/// A file that must have a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChecksumOf<'a> {
    /// The parameter.
    pub field: String,
    /// Below the model's folder.
    pub file: &'a str,
    /// MD5, in hex digits.
    pub expected: &'a str,
}

/// What `checksum` is asked to look at, in the order in which it is asked. Parameters that [`validate`] refuses are left
/// out.
pub fn checksums(config: &ModelConfig) -> impl Iterator<Item = ChecksumOf<'_>> {
    parameters(config).filter_map(|(field, key, expected)| {
        let (algorithm, file) = key.split_once(':')?;
        let right = algorithm.eq_ignore_ascii_case("md5") && stays_inside(Path::new(file));
        right.then_some(ChecksumOf {
            field,
            file,
            expected,
        })
    })
}

fn parameters(config: &ModelConfig) -> impl Iterator<Item = (String, &str, &str)> {
    let agents = config.model_repository_agents.iter();
    let agents = agents.flat_map(|all| all.agents.iter().enumerate());
    agents
        .filter(|(_, agent)| agent.name == CHECKSUM)
        .flat_map(|(index, agent)| {
            agent.parameters.iter().map(move |(key, value)| {
                let field = format!("model_repository_agents.agents[{index}].parameters[{key}]");
                (field, key.as_str(), value.as_str())
            })
        })
}

pub(super) fn validate(config: &ModelConfig, name: &str, problems: &mut Vec<Problem>) {
    let agents = config.model_repository_agents.iter();
    for (index, agent) in agents.flat_map(|all| &all.agents).enumerate() {
        if agent.name != CHECKSUM {
            let field = format!("model_repository_agents.agents[{index}].name");
            let agent = &agent.name;
            let message =
                format!("unable to find 'libtritonrepoagent_{agent}.so' for repo agent '{agent}'");
            let fix = format!("remove it; the agents of this server are: {CHECKSUM}");
            problems.push(Problem::new(field, message).fix(fix));
        }
    }
    for (field, key, _) in parameters(config) {
        let Some((algorithm, file)) = key.split_once(':') else {
            let fix = "write MD5:<file>, the file as seen from the model's folder";
            let message = format!("failed to parse key: {key}");
            problems.push(Problem::new(field, message).fix(fix));
            continue;
        };
        if !algorithm.eq_ignore_ascii_case("md5") {
            let fix = "write MD5:<file>; `[integrity] manifest` in kapok.toml checks SHA-256";
            let message = format!("Unsupported checksum algorithm: {algorithm}");
            problems.push(Problem::new(field, message).fix(fix));
        } else if !stays_inside(Path::new(file)) {
            let message =
                format!("'{field}' of model '{name}' must be a path inside the model's folder");
            problems.push(Problem::new(field, message));
        }
    }
}
