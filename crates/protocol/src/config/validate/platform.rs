//! The backend, and the platform that must go with it.

use super::super::ensemble::PLATFORM as ENSEMBLE;
use super::super::normalize::platforms;
use super::{Context, Problem};

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let config = context.config;
    let (platform, backend) = (config.platform.as_str(), config.backend.as_str());
    let name = context.name();
    let mut report = |field: &str, message: String, fix: &str| {
        problems.push(Problem::new(field, message).fix(fix));
    };
    if backend.is_empty() {
        // With neither, `normalize` has said that nothing names a backend.
        if platform != ENSEMBLE && !platform.is_empty() {
            report(
                "platform",
                format!("unexpected platform type '{platform}' for {name}"),
                "use backend: \"onnxruntime\" for an ONNX model, or platform: \"ensemble\"",
            );
        }
        return;
    }
    if platform == ENSEMBLE {
        report(
            "backend",
            format!(
                "Ensemble model '{name}' must have platform type '{ENSEMBLE}' and empty backend type"
            ),
            "remove `backend`",
        );
    }
    if let Some(known) = platforms(backend)
        && !known.contains(&platform)
    {
        report(
            "platform",
            format!("unexpected 'platform' and 'backend' pair, got:{platform}, {backend}"),
            &format!(
                "leave `platform` out, or set platform: \"{}\"",
                known.join("\" or \"")
            ),
        );
    }
}
