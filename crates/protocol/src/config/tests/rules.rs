//! Triton's rules, each broken once. A case is what the file says, and what is said of it.

use super::*;

/// What is wrong with a file whatever its model is, without the fixes.
fn problems(text: &str) -> Vec<String> {
    let mut config = config(text);
    let _undetermined = normalize(&mut config, "m", None);
    let setting = Setting {
        folder: "m",
        gpus: &[],
    };
    let problems = validate(&config, setting);
    let shown = |problem: &Problem| format!("{}: {}", problem.field, problem.message);
    problems.iter().map(shown).collect()
}

fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(problems(text), *expected, "{text}");
    }
}

fn with(base: &str, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(problems(&format!("{base} {text}")), *expected, "{text}");
    }
}

#[test]
fn platforms_and_backends_go_together() {
    #[rustfmt::skip]
    check(&[
        ("backend: 'onnxruntime'", &[]),
        ("backend: 'identity'", &[]),
        ("platform: 'onnxruntime_onnx'", &[]),
        ("platform: 'onnxruntime'", &["platform: unexpected platform type 'onnxruntime' for m"]),
        ("platform: 'onnxruntim' backend: 'onnxruntime'", &["platform: unexpected 'platform' and 'backend' pair, got:onnxruntim, onnxruntime"]),
        ("platform: 'onnxruntime_onnx' backend: 'tensorrt'", &["platform: unexpected 'platform' and 'backend' pair, got:onnxruntime_onnx, tensorrt"]),
        ("backend: 'tensorflow'", &["platform: unexpected 'platform' and 'backend' pair, got:, tensorflow"]),
        ("platform: 'anything' backend: 'identity'", &[]),
        ("platform: 'ensemble' backend: 'identity'", &[
            "backend: Ensemble model 'm' must have platform type 'ensemble' and empty backend type",
            "platform: ensemble scheduling must be set for ensemble m whose platform is ensemble"]),
        ("backend: 'identity' name: 'n'", &["name: unexpected directory name 'm' for model 'n', directory name must equal model name"]),
        ("backend: 'identity' max_batch_size: -2", &["max_batch_size: 'max_batch_size' must be non-negative value for m"]),
        ("backend: 'identity' version_policy { latest { } }", &["version_policy.latest.num_versions: at least one version must be available under the version policy of model 'm'"]),
        ("backend: 'identity' version_policy { specific { } }", &["version_policy.specific.versions: at least one version must be available under the version policy of model 'm'"]),
    ]);
}

#[test]
fn dynamic_batching_stays_within_its_sizes_and_priorities() {
    let base = "backend: 'identity' max_batch_size: 8";
    let order = [
        "dynamic_batching.default_queue_policy: Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m",
        "dynamic_batching.priority_queue_policy[1]: Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m",
    ];
    #[rustfmt::skip]
    with(base, &[
        ("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", &[]),
        ("dynamic_batching { preferred_batch_size: [ 0, 9 ] }", &[
            "dynamic_batching.preferred_batch_size[0]: dynamic batching preferred size must be positive for m",
            "dynamic_batching.preferred_batch_size[1]: dynamic batching preferred size must be <= max batch size for m"]),
        ("dynamic_batching { priority_levels: 3 default_priority_level: 3 }", &[]),
        ("dynamic_batching { priority_levels: 3 }", &["dynamic_batching.default_priority_level: default priority level must be in range [1, 3] for m"]),
        ("dynamic_batching { priority_levels: 3 default_priority_level: 4 }", &["dynamic_batching.default_priority_level: default priority level must be in range [1, 3] for m"]),
        ("dynamic_batching { priority_levels: 3 default_priority_level: 1 priority_queue_policy { key: 4 value { } } }", &["dynamic_batching.priority_queue_policy[4]: priority queue policy must have priority level in range [1, 3] for m"]),
        ("dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }", &["dynamic_batching.priority_levels: Only one priority level is allowed when 'preserve_ordering' is true for m"]),
        ("dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 } priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 1 } } }", &order),
        ("dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }", &[]),
    ]);
}

#[test]
fn a_sequences_controls_are_complete_and_single() {
    let base = "backend: 'identity' max_batch_size: 8";
    let input = |name: &str, control: &str| {
        format!("control_input {{ name: '{name}' control {{ {control} }} }}")
    };
    let start = "kind: CONTROL_SEQUENCE_START";
    let corrid = "kind: CONTROL_SEQUENCE_CORRID";
    let control = "sequence_batching.control_input[0].control[0]";
    let types = "unexpected data type for control CONTROL_SEQUENCE_CORRID for m. Allowed data types are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING";
    for (inputs, expected) in [
        (input("S", &format!("{start} fp32_false_true: [ 0, 1 ]")), String::new()),
        (input("I", &format!("{corrid} data_type: TYPE_STRING")), String::new()),
        (input("", &format!("{start} fp32_false_true: [ 0, 1 ]")), "sequence_batching.control_input[0].name: sequence batching control tensor must have a name for m".to_owned()),
        (input("S", start), format!("{control}: sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for CONTROL_SEQUENCE_START for m")),
        (input("S", &format!("{start} fp32_false_true: [ 0, 1 ] bool_false_true: [ false, true ]")), format!("{control}: sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' and 'bool_false_true' for CONTROL_SEQUENCE_START for m")),
        (input("S", &format!("{start} int32_false_true: [ 0 ]")), format!("{control}: sequence batching control 'int32_false_true' must have exactly 2 entries for CONTROL_SEQUENCE_START for m")),
        (input("I", corrid), format!("{control}: {types}")),
        (input("I", &format!("{corrid} data_type: TYPE_FP32")), format!("{control}: {types}")),
        (input("I", &format!("{corrid} data_type: TYPE_INT64 int32_false_true: [ 0, 1 ]")), format!("{control}: sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for CONTROL_SEQUENCE_CORRID for m")),
        (format!("{0} {0}", input("S", &format!("{start} bool_false_true: [ false, true ]"))), "sequence_batching.control_input[1].name: sequence batching control tensor 'S' is specified for multiple control kinds for m\nsequence_batching.control_input[1].control[0]: sequence batching specifies multiple CONTROL_SEQUENCE_START tensors for m".to_owned()),
    ] {
        let text = format!("{base} sequence_batching {{ {inputs} }}");
        assert_eq!(problems(&text).join("\n"), expected, "{text}");
    }
    #[rustfmt::skip]
    with(base, &[
        ("sequence_batching { oldest { preferred_batch_size: [ 0, 9, 8 ] } }", &[
            "sequence_batching.oldest.preferred_batch_size[0]: sequence batching preferred batch size must be positive for m",
            "sequence_batching.oldest.preferred_batch_size[1]: sequence batching preferred batch size must be <= max batch size for m"]),
        ("sequence_batching { direct { minimum_slot_utilization: 1.5 } }", &["sequence_batching.direct.minimum_slot_utilization: sequence batching minimum slot utilization must be in range (0.0, 1.0] for m"]),
        ("sequence_batching { } response_cache { enable: true }", &["response_cache.enable: Response Cache does not currently support model m with sequence batching scheduler. Please disable the response cache."]),
        ("sequence_batching { iterative_sequence: true }", &[]),
    ]);
}

#[test]
fn a_states_first_value_fits_the_state() {
    let state = |initial: &str| {
        format!(
            "backend: 'identity' sequence_batching {{ state {{ input_name: 'S' data_type: TYPE_INT32 dims: [ -1, 2 ] {initial} }} }}"
        )
    };
    for (initial, expected) in [
        ("", None),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: [ 1, 2 ] zero_data: true }",
            None,
        ),
        (
            "initial_state { } initial_state { }",
            Some(
                "initial_state field for state input 'S' must contain exactly one or zero element. Found '2' elements.",
            ),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_FP32 }",
            Some(
                "The data type used for 'initial_state' field of state 'S' does not match the state data type.",
            ),
        ),
        (
            "initial_state { data_type: TYPE_INT32 }",
            Some("Field 'name' must be set when using initial_state for state input 'S'."),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: 1 }",
            Some(
                "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state input 'S'. 1 != 2",
            ),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: [ -1, 2 ] }",
            Some("'initial_state' field for state input name 'S' contains variable dimensions."),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: [ 1, 3 ] }",
            Some(
                "'initial_state' dim for input name 'S' doesn't match 'state' dim description. 3 != 2",
            ),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: [ 1, 2 ] }",
            Some("initial_state setting expects state'S' to have state_data set"),
        ),
        (
            "initial_state { name: 'i' data_type: TYPE_INT32 dims: [ 1, 2 ] data_file: '../x' }",
            Some(
                "'sequence_batching.state[0].initial_state' of model 'm' must be a path inside the model's `initial_state` folder",
            ),
        ),
    ] {
        let found: Vec<_> = problems(&state(initial));
        let expected: Vec<_> = expected
            .map(|message| format!("sequence_batching.state[0].initial_state: {message}"))
            .into_iter()
            .collect();
        assert_eq!(found, expected, "{initial}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn tensors_are_described_and_reshaped_without_loss() {
    let size = "has different size for dims and reshape for m";
    for (batch, tensor, expected) in [
        (1, "name: 't' data_type: TYPE_FP32 dims: [ -1, 3 ]", ""),
        (
            1,
            "data_type: TYPE_FP32 dims: 3",
            "name: model output must specify 'name' for m",
        ),
        (
            1,
            "name: 't' dims: 3",
            "data_type: model output 't' must specify 'data_type' for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32",
            "dims: model output 't' must specify 'dims' for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 3, 0 ]",
            "dims[1]: model output 't' dimension must be integer >= 1, or -1 to indicate a variable-size dimension for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 3 reshape { shape: [ 3, -2 ] }",
            "reshape.shape[1]: model output 't' reshape dimensions must be integer >= 1, or -1 to indicate a variable-size dimension for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 1 reshape { shape: [ ] }",
            "",
        ),
        (
            0,
            "name: 't' data_type: TYPE_FP32 dims: 1 reshape { shape: [ ] }",
            "reshape: model output 't' cannot have empty reshape for non-batching model as scalar tensors are not supported for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 2 reshape { shape: [ ] }",
            &format!("reshape: model output 't' {size}"),
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, 3 ] reshape { shape: 6 }",
            "",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, 3 ] reshape { shape: 5 }",
            &format!("reshape: model output 't' {size}"),
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: 2 }",
            &format!("reshape: model output 't' {size}"),
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }",
            "",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, 4, -1, 6 ] reshape { shape: [ 4, -1, 2, 6 ] }",
            &format!("reshape: model output 't' {size}"),
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ 2, -1, -1 ] }",
            "reshape: model output 't' has different number of variable-size dimensions for dims and reshape for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 3 is_shape_tensor: true",
            "is_shape_tensor: shape tensors are only supported for TensorRT platform for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 3 is_non_linear_format_io: true",
            "is_non_linear_format_io: Non-linear IO format is only supported for the TensorRT platform for m",
        ),
        (
            1,
            "name: 't' data_type: TYPE_FP32 dims: 3 label_filename: '../x'",
            "label_filename: label file path '../x' for output 't' in model 'm' is outside model directory",
        ),
    ] {
        let text = format!("backend: 'identity' max_batch_size: {batch} output {{ {tensor} }}");
        let expected: Vec<_> = Some(expected)
            .filter(|expected| !expected.is_empty())
            .map(|expected| format!("output[0].{expected}"))
            .into_iter()
            .collect();
        assert_eq!(problems(&text), expected, "{text}");
    }
    check(&[(
        "backend: 'identity' input { name: 'i' data_type: TYPE_FP32 dims: [ 3, 4 ] format: FORMAT_NHWC }",
        &["input[0].format: model input NHWC/NCHW require 3 dims for m"],
    )]);
}

#[test]
fn batch_inputs_and_outputs_know_their_tensors() {
    let base = "backend: 'onnxruntime' input { name: 'I' data_type: TYPE_FP32 dims: -1 } output { name: 'O' data_type: TYPE_FP32 dims: -1 }";
    #[rustfmt::skip]
    with(base, &[
        ("batch_input { kind: BATCH_ITEM_SHAPE target_name: 'B' data_type: TYPE_INT32 source_input: 'I' }", &[]),
        ("batch_input { target_name: 'B' data_type: TYPE_INT32 source_input: ['I', 'I'] }", &["batch_input[0].source_input: batch input kind 'BATCH_ELEMENT_COUNT' expects 1 source input, got 2 for m"]),
        ("batch_input { target_name: 'B' data_type: TYPE_INT64 source_input: 'I' }", &["batch_input[0].data_type: batch input data type must be TYPE_INT32 or TYPE_FP32 for m"]),
        ("batch_input { target_name: 'B' data_type: TYPE_INT32 source_input: 'X' }", &["batch_input[0].source_input[0]: unknown source input name 'X' for m"]),
        ("batch_input { kind: 9 target_name: 'B' data_type: TYPE_INT32 source_input: 'I' }", &["batch_input[0].kind: unknown batch input kind '9' for m"]),
        ("batch_output { target_name: 'O' source_input: 'I' }", &[]),
        ("batch_output { target_name: 'O' }", &["batch_output[0].source_input: batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source input, got 0 for m"]),
        ("batch_output { target_name: ['O', 'O'] source_input: 'I' }", &["batch_output[0].target_name[1]: target output name 'O' can only be specified once for m"]),
        ("batch_output { target_name: 'X' source_input: 'I' }", &["batch_output[0].target_name[0]: unknown target output name 'X' for m"]),
    ]);
}

#[test]
fn instances_run_where_there_is_something_to_run_on() {
    let base = "backend: 'identity'";
    #[rustfmt::skip]
    with(base, &[
        ("instance_group { kind: KIND_CPU count: 2 }", &[]),
        ("instance_group { kind: KIND_MODEL }", &[]),
        ("instance_group { gpus: [ 0 ] }", &["instance_group[0].gpus: instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs"]),
        ("instance_group { kind: KIND_MODEL gpus: [ 0 ] }", &["instance_group[0].gpus: instance group m_0 of model m has kind KIND_MODEL but specifies one or more GPUs"]),
        ("instance_group { kind: KIND_GPU }", &["instance_group[0].kind: instance group m_0 of model m has kind KIND_GPU but no GPUs are available"]),
        ("instance_group { } instance_group { name: 'g' kind: KIND_GPU gpus: [ 42 ] }", &["instance_group[1].kind: instance group g of model m specifies invalid or unsupported gpu id 42. GPUs with at least the minimum required CUDA compute compatibility of 6.000000 are: "]),
        ("instance_group { profile: '1' }", &["instance_group[0].profile: instance group m_0 of model m and platform specifies profile field which is only supported for TensorRT models"]),
        ("instance_group { secondary_devices { device_id: 1 } }", &["instance_group[0].secondary_devices: `instance_group[0].secondary_devices` of model 'm' is not supported by this version"]),
    ]);
    let mut config = config("backend: 'identity' instance_group { kind: KIND_GPU gpus: [ 1 ] }");
    normalize(&mut config, "m", None).expect("named");
    let setting = Setting {
        folder: "m",
        gpus: &[0, 1],
    };
    assert_eq!(validate(&config, setting), []);
}

#[test]
fn the_rest_is_checked_or_refused_by_name() {
    let base = "backend: 'identity' max_batch_size: 2";
    let metric = |control: &str| format!("model_metrics {{ metric_control {{ {control} }} }}");
    let family = "metric_identifier { family: 'f' }";
    let buckets = metric(&format!(
        "{family} histogram_options {{ buckets: [ 1, 10 ] }}"
    ));
    let unsorted = metric(&format!(
        "{family} histogram_options {{ buckets: [ 10, 1 ] }}"
    ));
    let none = metric(&format!("{family} histogram_options {{ }}"));
    let unnamed = metric("metric_identifier { } histogram_options { buckets: 1 }");
    let bare = metric("");
    #[rustfmt::skip]
    with(base, &[
        (&buckets, &[]),
        (&unsorted, &["model_metrics.metric_control[0].histogram_options.buckets: histogram options must specify 'buckets' in increasing order"]),
        (&none, &["model_metrics.metric_control[0].histogram_options: histogram options must specify non-empty 'buckets'"]),
        (&unnamed, &["model_metrics.metric_control[0].metric_identifier: metric identifier must specify non-empty 'family'"]),
        (&bare, &[
            "model_metrics.metric_control[0]: metric control must specify 'metric_identifier'",
            "model_metrics.metric_control[0]: metric control must specify 'histogram_options'"]),
        ("model_transaction_policy { decoupled: true } response_cache { enable: true }", &["response_cache.enable: Response Cache does not currently support model m with 'decoupled' transaction policy. Please disable the response cache."]),
        ("model_warmup { name: 'w' batch_size: 3 inputs { key: 'i' value { dims: [ -1 ] } } }", &[
            "model_warmup[0].inputs[i].data_type: warmup setting expects input 'i' to have data_type set",
            "model_warmup[0].inputs[i].dims: warmup setting expects all variable-size dimensions are specified for input 'i'",
            "model_warmup[0].inputs[i]: warmup setting expects input 'i' to have input_data_type set",
            "model_warmup[0].batch_size: warmup sample 'w' has batch_size 3, but max_batch_size of model 'm' is 2"]),
        ("optimization { execution_accelerators { cpu_execution_accelerator { name: 'openvino' } } }", &[]),
        ("optimization { execution_accelerators { cpu_execution_accelerator { name: 'x' } } }", &["optimization.execution_accelerators.cpu_execution_accelerator[0].name: unknown Execution Accelerator 'x' is requested"]),
        ("default_model_filename: '../../x'", &["default_model_filename: 'default_model_filename' of model 'm' must be a path inside the version's folder"]),
        ("cc_model_filenames { key: '7.5' value: '/x' }", &["cc_model_filenames[7.5].value: 'cc_model_filenames[7.5].value' of model 'm' must be a path inside the version's folder"]),
        ("model_repository_agents { agents { name: 'checksum' parameters { key: 'MD5:1/weights' value: 'd726e132f91f16ebee703d96f6f73cb1' } } }", &[]),
        ("model_repository_agents { agents { name: 'checksum' } agents { name: 'decrypt' parameters { key: 'k' value: 'v' } } }", &["model_repository_agents.agents[1].name: unable to find 'libtritonrepoagent_decrypt.so' for repo agent 'decrypt'"]),
        ("model_repository_agents { agents { name: 'checksum' parameters { key: 'weights' value: 'd7' } } }", &["model_repository_agents.agents[0].parameters[weights]: failed to parse key: weights"]),
        ("model_repository_agents { agents { name: 'checksum' parameters { key: 'SHA256:w' value: 'd7' } } }", &["model_repository_agents.agents[0].parameters[SHA256:w]: Unsupported checksum algorithm: SHA256"]),
        ("model_repository_agents { agents { name: 'checksum' parameters { key: 'md5:../w' value: 'd7' } } }", &["model_repository_agents.agents[0].parameters[md5:../w]: 'model_repository_agents.agents[0].parameters[md5:../w]' of model 'm' must be a path inside the model's folder"]),
        ("runtime: 'libtriton_identity.so'", &[]),
        ("runtime: 'model.py'", &["runtime: unable to find Python backend based backend library 'model.py' for model 'm'"]),
        ("runtime: 'libother.so'", &["runtime: unable to find backend library 'libother.so' for model 'm'"]),
        ("runtime: '../../libother.so'", &["runtime: backend library name '../../libother.so' escapes backend directory, for model 'm', check model config runtime field"]),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn the_flow_of_an_ensemble_leads_somewhere() {
    let head = "platform: 'ensemble' input { name: 'a' data_type: TYPE_FP32 dims: 1 } output { name: 'z' data_type: TYPE_FP32 dims: 1 }";
    let step = |inputs: &[&str], outputs: &[&str]| {
        let map = |side: &str, names: &[&str]| -> String {
            let entry = |name: &&str| format!("{side}_map {{ key: '{name}' value: '{name}' }} ");
            names.iter().map(entry).collect()
        };
        format!(
            "step {{ model_name: 's' {}{} }}",
            map("input", inputs),
            map("output", outputs)
        )
    };
    for (steps, expected) in [
        (vec![step(&["a"], &["z"])], vec![]),
        (vec![step(&["b"], &["z"]), step(&["a"], &["b"])], vec![]),
        (
            vec![],
            vec!["ensemble_scheduling.step: must specify 'step' for ensemble 'm'"],
        ),
        (
            vec!["step { }".to_owned()],
            vec![
                "ensemble_scheduling.step[0].model_name: must specify 'model_name' in step 0 of ensemble 'm'",
                "ensemble_scheduling.step[0].input_map: must specify 'input_map' in step 0 of ensemble 'm'",
                "ensemble_scheduling.step[0].output_map: must specify 'output_map' in step 0 of ensemble 'm'",
            ],
        ),
        (
            vec![step(&["x"], &["z"])],
            vec![
                "input[0]: ensemble input 'a' for ensemble m' is not used",
                "output[0]: output 'z' for ensemble 'm' is not written: at least one of its depending tensors, 'x', is not connected",
                "ensemble_scheduling.step[0].input_map[x]: ensemble tensor 'x' is unused in ensemble 'm'",
            ],
        ),
        (
            vec![step(&["a"], &["b"])],
            vec![
                "output[0]: ensemble output 'z' for ensemble m' is not used",
                "ensemble_scheduling.step[0].output_map[b]: ensemble tensor 'b' is unused in ensemble 'm'",
            ],
        ),
        (
            vec![step(&["a"], &["z"]), step(&["a"], &["z"])],
            vec![
                "ensemble_scheduling.step[1].output_map[z]: ensemble tensor 'z' can appear in an output map only once for ensemble 'm' step 1",
            ],
        ),
        (
            vec![step(&["a", "c"], &["b"]), step(&["b"], &["c", "z"])],
            vec![
                "output[0]: output 'z' for ensemble 'm' is not written: at least one of its depending tensors, 'c', is not connected",
                "ensemble_scheduling.step[0].output_map[b]: ensemble tensor 'b' is unused in ensemble 'm'",
                "ensemble_scheduling.step[0].input_map[c]: ensemble tensor 'c' is unused in ensemble 'm'",
            ],
        ),
    ] {
        let text = format!("{head} ensemble_scheduling {{ {} }}", steps.join(" "));
        assert_eq!(problems(&text), expected, "{text}");
    }
    let text = "backend: 'identity' instance_group { } optimization { } model_warmup { } ensemble_scheduling { step { model_name: 's' input_map { key: 'a' value: 'a' } output_map { key: 'a' value: 'b' } } }";
    assert_eq!(
        problems(text),
        [
            "ensemble_scheduling: ensemble scheduling cannot be set for model 'm' whose platform is not ensemble",
            "instance_group: instance group should not be specified for ensemble 'm'",
            "optimization: optimization should not be specified for ensemble 'm'",
            "model_warmup: model_warmup can not be specified for ensemble 'm'",
            "ensemble_scheduling.step[0].input_map[a]: ensemble tensor 'a' is unused in ensemble 'm'",
            "ensemble_scheduling.step[0].output_map[a]: ensemble tensor 'b' is unused in ensemble 'm'",
        ]
    );
}

fn against(text: &str, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Vec<String> {
    let mut config = config(text);
    normalize(&mut config, "m", Some(&holding("model.onnx"))).expect("an ONNX model");
    let problems = against_model(&config, inputs, outputs);
    let shown = |problem: &Problem| format!("{}: {problem}", problem.field);
    problems.iter().map(shown).collect()
}

#[test]
fn what_contradicts_the_model_is_named_with_what_would_fit() {
    let x = [spec("x", DataType::Fp32, &[-1, 3])];
    let one = [spec("x", DataType::Fp32, &[1, 3])];
    let scalar = [spec("x", DataType::Fp32, &[])];
    let flat = [spec("x", DataType::Fp32, &[-1])];
    let subject = "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,3]) but the model configuration specifies";
    let batch = "dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete shape";
    let optional = "unable to load model 'm', optional input 'x' is not supported for models that support batching; set max_batch_size: 0, or optional: false";
    #[rustfmt::skip]
    let cases = [
        (2, "name: 'x' data_type: TYPE_FP32 dims: 3", &x, vec![]),
        (0, "name: 'x' data_type: TYPE_FP32 dims: [ -1, 3 ]", &x, vec![]),
        (0, "name: 'x' data_type: TYPE_FP32 dims: [ 5, 3 ]", &x, vec![]),
        (0, "name: 'x' data_type: TYPE_FP32 dims: 1", &scalar, vec![]),
        (2, "name: 'y' data_type: TYPE_FP32 dims: 3", &x, vec!["input[0].name: unexpected inference input 'y', allowed inputs are: x; did you mean 'x'?".to_owned()]),
        (2, "name: 'x' data_type: TYPE_STRING dims: 3", &x, vec!["input[0].data_type: unable to load model 'm', configuration expects datatype TYPE_STRING for input 'x', model provides TYPE_FP32; set data_type: TYPE_FP32".to_owned()]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: 4", &x, vec![format!("input[0].dims: {subject} 2 {batch} [-1,4]); set dims: [3]")]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: -1", &x, vec![format!("input[0].dims: {subject} 2 {batch} [-1,-1]); set dims: [3]")]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: [ 3, 1 ]", &x, vec![format!("input[0].dims: {subject} 3 {batch} [-1,3,1]); set dims: [3]")]),
        (0, "name: 'x' data_type: TYPE_FP32 dims: 3", &x, vec![format!("input[0].dims: {subject} 1 dimensions (shape [3]); set dims: [-1,3]")]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: 3", &one, vec!["input[0].dims: model 'm', tensor 'x': for the model to support batching the shape should have at least 1 dimension and the first dimension must be -1; but shape expected by the model is [1,3]; input 'x' has its first dimension fixed at 1: set max_batch_size: 0 and dims: [1,3], or re-export with a dynamic first axis".to_owned()]),
        (0, "name: 'x' data_type: TYPE_FP32 dims: 2", &scalar, vec!["input[0].dims: unable to load model 'm', scalar tensor 'x', should only provide 1 in the model configuration when the model doesn't support batching. Model configuration provided: [2].; set dims: [ 1 ]".to_owned()]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true", &flat, vec![]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: 3 allow_ragged_batch: true", &x, vec!["input[0].dims: unable to load model 'm', configuration expects model provides input with shape [-1]  for ragged input 'x', model provides [-1,3]; set allow_ragged_batch: false".to_owned()]),
        (2, "name: 'x' data_type: TYPE_FP32 dims: 3 optional: true", &x, vec![
            "input: unable to load model 'm', configuration expects 0 inputs, model provides 1; the model's inputs are: x".to_owned(),
            format!("input[0].optional: {optional}")]),
    ];
    for (batch, input, model, expected) in cases {
        let text = format!("max_batch_size: {batch} input {{ {input} }}");
        assert_eq!(against(&text, model.as_slice(), &[]), expected, "{text}");
    }
}

#[test]
fn a_sequences_signals_are_inputs_of_the_model() {
    let text = "max_batch_size: 2 input { name: 'x' data_type: TYPE_FP32 dims: 1 } sequence_batching {
        control_input { name: 'S' control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
        control_input { name: 'I' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
        state { input_name: 'a' output_name: 'b' data_type: TYPE_FP32 dims: 1 } }";
    let x = spec("x", DataType::Fp32, &[-1, 1]);
    let start = spec("S", DataType::Fp32, &[-1, 1]);
    let id = spec("I", DataType::Uint64, &[-1, 1]);
    let state = spec("a", DataType::Fp32, &[-1, 1]);
    let good = [x.clone(), start.clone(), id.clone(), state.clone()];
    assert_eq!(against(text, &good, &[]), Vec::<String>::new());
    let wide = spec("S", DataType::Int32, &[-1, 2]);
    assert_eq!(
        against(text, &[x, wide, state], &[]),
        [
            "input: unable to load model 'm', configuration expects 4 inputs, model provides 3; the model's inputs are: x, S, a",
            "sequence_batching.control_input[0].name: unable to load model 'm', sequence control 'S' in model has dims [2] but dims [1] is expected",
            "sequence_batching.control_input[0].name: unable to load model 'm', sequence control 'S', the model expects data-type INT32 but the model configuration specifies data-type TYPE_FP32",
            "sequence_batching.control_input[1].name: configuration specified sequence control 'I', but model does not provide that input",
        ]
    );
}
