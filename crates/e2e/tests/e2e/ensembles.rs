//! Models made of real models, through the clients that users have.

use e2e::python::Script;
use e2e::{Kapok, Repository, repository};

/// Two readings of the same crops: is the line upside down, and what does it say. Both run per crop.
const LINES: &str = r#"
platform: "ensemble"
input { name: "crops" data_type: TYPE_FP32 dims: [-1, 3, 48, 192] }
output { name: "turned" data_type: TYPE_FP32 dims: [-1, 2] }
output { name: "text" data_type: TYPE_FP32 dims: [-1, -1, 6625] }
ensemble_scheduling {
  step {
    model_name: "pp-ocrv4-cls" model_version: -1
    input_map { key: "x" value: "crops" }
    output_map { key: "save_infer_model/scale_0.tmp_1" value: "turned" }
  }
  step {
    model_name: "pp-ocrv4-rec" model_version: -1
    input_map { key: "x" value: "crops" }
    output_map { key: "softmax_11.tmp_0" value: "text" }
  }
}
"#;

const PER_CROP: &str = r#"
[[pipeline.fan_out]]
step = "pp-ocrv4-cls"
over = ["crops"]

[[pipeline.fan_out]]
step = "pp-ocrv4-rec"
over = ["crops"]
"#;

#[test]
fn an_ensemble_of_two_models_through_tritonclient() {
    let repository = Repository::new()
        .file("lines/config.pbtxt", LINES)
        .file("lines/kapok.toml", PER_CROP)
        .link("pp-ocrv4-cls", &repository::fetched("pp-ocrv4-cls"))
        .link("pp-ocrv4-rec", &repository::fetched("pp-ocrv4-rec"));
    let kapok = Kapok::new().model_repo(repository.path()).start();
    println!(
        "{}",
        Script::new("triton_ensemble.py").against(&kapok).run()
    );
}
