use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::inside::stays_inside;

/// Operators that a model brings; `model_operations` of its configuration names libraries too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomOps {
    /// ONNX Runtime's operator libraries, registered in this order. A relative path is inside the model's folder. Their
    /// code runs in kapok's process unless `isolation` says otherwise.
    pub libs: Vec<PathBuf>,
}

impl CustomOps {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            self.libs
                .iter()
                .all(|lib| lib.is_absolute() || stays_inside(lib)),
            &["custom_ops", "libs"],
            "paths inside the model's folder, or absolute ones",
        );
    }
}
