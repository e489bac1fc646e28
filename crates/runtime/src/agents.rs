//! Repository agents: who looks at a model's files before it is loaded. There is one, Triton's `checksum`.

use std::path::Path;

use protocol::config::{ChecksumOf, Problem, checksums};
use protocol::oip::proto::ModelConfig;

mod md5;

/// What the agents that a valid configuration names have against the model's files, in the agents' order.
pub(crate) fn objections(config: &ModelConfig, folder: &Path) -> Vec<Problem> {
    checksums(config)
        .filter_map(|asked| objection(&asked, folder))
        .collect()
}

/// As [`objections`], for a load: the first ends it.
pub(crate) fn look(config: &ModelConfig, folder: &Path) -> Result<(), String> {
    let first = checksums(config).find_map(|asked| objection(&asked, folder));
    first.map_or(Ok(()), |problem| Err(problem.message))
}

fn objection(asked: &ChecksumOf<'_>, folder: &Path) -> Option<Problem> {
    let ChecksumOf {
        field,
        file,
        expected,
    } = asked;
    let message = match md5::of_file(&folder.join(file)) {
        Ok(found) if found == *expected => return None,
        Ok(found) => {
            format!("Mismatched MD5 hash for file {file}, expect: {expected}, got: {found}")
        }
        Err(error) => format!("failed to open text file for read {file}: {error}"),
    };
    Some(Problem::new(field.clone(), message))
}

#[cfg(test)]
mod tests;
