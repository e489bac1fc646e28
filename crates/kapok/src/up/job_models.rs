//! The models of this process, as jobs want them.

use std::collections::BTreeMap;

use jobs::executor::Answer;
use jobs::local::Models;
use protocol::model::LoadRequest;
use protocol::oip::proto::ModelConfig;
use protocol::{ApiError, config};
use runtime::Runtime;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct JobModels {
    pub(super) models: Runtime,
    /// The public address.
    pub(super) endpoint: String,
}

impl JobModels {
    /// As it serves, or as it would by its files.
    async fn config(&self, model: &str) -> Result<ModelConfig, ApiError> {
        if let Ok(config) = self.models.config(model, None) {
            return Ok(config);
        }
        let (models, name) = (self.models.clone(), model.to_owned());
        let outline =
            tokio::task::spawn_blocking(move || models.outline(&name, &super::describe)).await;
        let outline = outline.map_err(|error| error.to_string()).flatten();
        outline.map_err(ApiError::invalid)
    }

    fn is_known(&self, model: &str) -> bool {
        self.models.config(model, None).is_ok()
    }

    async fn load_with(&self, model: &str, config: Option<String>) -> Result<(), ApiError> {
        let request = LoadRequest {
            model: model.to_owned(),
            config,
            files: BTreeMap::new(),
        };
        self.models.load(request).await
    }
}

impl Models for JobModels {
    fn answers(&self, model: &str) -> bool {
        self.models.model_ready(model, None).unwrap_or(false)
    }

    fn check<'a>(&'a self, model: &'a str, batch_size: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.config(model).await {
                Ok(config) => fits(model, &config, batch_size),
                // What its files do not tell, or why they cannot be read, is told by the load.
                Err(_) => Ok(()),
            }
        })
    }

    fn load<'a>(
        &'a self,
        model: &'a str,
        batch_size: Option<u32>,
        gpus: &'a [u8],
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let plain = batch_size.is_none() && gpus.is_empty();
            if plain && self.is_known(model) {
                return Ok(());
            }
            if plain {
                return self.load_with(model, None).await;
            }
            let config = match self.config(model).await {
                Ok(config) => config,
                Err(_) => {
                    self.load_with(model, None).await?;
                    self.models.config(model, None)?
                }
            };
            if let Some(size) = batch_size {
                fits(model, &config, size)?;
            }
            match wanted(&config, batch_size, gpus) {
                None if self.is_known(model) => Ok(()),
                other => self.load_with(model, other).await,
            }
        })
    }

    fn unload<'a>(&'a self, model: &'a str) -> Answer<'a, ()> {
        Box::pin(self.models.unload(model, false))
    }

    fn endpoint(&self) -> String {
        self.endpoint.clone()
    }
}

/// The configuration to load it with instead of its own; none where its own will do.
fn wanted(config: &ModelConfig, batch_size: Option<u32>, gpus: &[u8]) -> Option<String> {
    let mut wanted: Value = serde_json::from_str(&config::to_json(config)).unwrap_or_default();
    let own = wanted["max_batch_size"].clone();
    if let Some(size) = batch_size
        && fixed(config).is_none()
    {
        wanted["max_batch_size"] = json!(size);
    }
    if !gpus.is_empty() {
        wanted["instance_group"] = json!([{ "kind": "KIND_GPU", "count": 1, "gpus": gpus }]);
    }
    let same = gpus.is_empty() && wanted["max_batch_size"] == own;
    (!same).then(|| wanted.to_string())
}

/// A model whose file fixes how many items a call has can have no other batch.
fn fits(model: &str, config: &ModelConfig, batch_size: u32) -> Result<(), ApiError> {
    match fixed(config) {
        Some(limit) if limit != i64::from(batch_size) => Err(ApiError::invalid(format!(
            "`batchSize` {batch_size} cannot be had: the first dimension of model `{model}` is fixed to {limit}; leave \
             `batchSize` out, or export the model with an open first dimension"
        ))
        .with_param("spec.batchSize")),
        _ => Ok(()),
    }
}

/// The first dimension of an input, where that is not left to the request.
fn fixed(config: &ModelConfig) -> Option<i64> {
    if config.max_batch_size > 0 {
        return None;
    }
    let inputs = config.input.iter();
    let mut firsts = inputs.filter_map(|input| input.dims.first().copied());
    firsts.find(|first| *first != -1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_batch_size: i32, dims: &[&[i64]]) -> ModelConfig {
        let input = |dims: &&[i64]| protocol::oip::proto::ModelInput {
            dims: dims.to_vec(),
            ..Default::default()
        };
        ModelConfig {
            max_batch_size,
            input: dims.iter().map(input).collect(),
            ..ModelConfig::default()
        }
    }

    #[test]
    fn a_batch_that_a_model_cannot_have_is_refused_with_its_limit() {
        for (max, dims, size, refused) in [
            (8, &[&[3_i64, 224][..]][..], 64, None),
            (0, &[&[-1, 3]], 64, None),
            (0, &[&[1, 3]], 1, None),
            (0, &[&[1, 3]], 64, Some("fixed to 1")),
            (0, &[&[-1, 3], &[4]], 2, Some("fixed to 4")),
        ] {
            let told = fits("m", &config(max, dims), size).map_err(|error| error.message);
            match refused {
                None => assert_eq!(told, Ok(())),
                Some(words) => assert!(told.is_err_and(|told| told.contains(words)), "{dims:?}"),
            }
        }
    }

    #[test]
    fn a_model_is_loaded_otherwise_only_where_its_own_configuration_will_not_do() {
        let own = config(8, &[&[3]]);
        assert_eq!(wanted(&own, Some(8), &[]), None);
        assert_eq!(wanted(&own, None, &[]), None);
        let other = wanted(&own, Some(4), &[]).unwrap_or_default();
        assert!(other.contains("\"max_batch_size\":4"), "{other}");
        assert!(wanted(&own, None, &[1]).is_some_and(|config| config.contains("KIND_GPU")));
    }
}
