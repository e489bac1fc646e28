use crate::oip::proto::model_metadata_response::TensorMetadata;
use crate::oip::proto::repository_index_response::ModelIndex;
use crate::oip::proto::{ModelMetadataResponse, RepositoryIndexResponse, ServerMetadataResponse};
use crate::oip::rest::EXTENSIONS;
use crate::{IndexEntry, ModelMetadata, TensorSpec};

pub fn server_metadata(version: &str) -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "kapok".to_owned(),
        version: version.to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

pub fn model_metadata(metadata: ModelMetadata) -> ModelMetadataResponse {
    ModelMetadataResponse {
        name: metadata.name,
        versions: metadata.versions,
        platform: metadata.platform,
        inputs: metadata.inputs.into_iter().map(tensor).collect(),
        outputs: metadata.outputs.into_iter().map(tensor).collect(),
    }
}

fn tensor(spec: TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name,
        datatype: spec.dtype.name().to_owned(),
        shape: spec.shape,
    }
}

pub fn repository_index(entries: Vec<IndexEntry>) -> RepositoryIndexResponse {
    RepositoryIndexResponse {
        models: entries
            .into_iter()
            .map(|entry| ModelIndex {
                name: entry.name,
                version: entry.version,
                state: entry.state.name().to_owned(),
                reason: entry.reason,
            })
            .collect(),
    }
}
