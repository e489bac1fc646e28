//! `kapok infer`: inputs from the shell become tensors of the model's types.

mod element;
mod input;
mod wire;

use protocol::DataType;
use serde_json::Value;

use crate::cli::InferArgs;
use crate::client::{Client, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

use input::Input;

/// From this many bytes on, numbers as text cost more than the model: about 25 ms of JSON on each side for 1 MB.
const JSON_BYTES_MAX: usize = 64 << 10;

pub(super) fn run(args: &InferArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let inputs: Vec<Input> = args
        .input
        .iter()
        .map(|text| Input::parse(text))
        .collect::<Outcome<_>>()?;
    let client = Client::public(&args.server, environment)?;
    let answer = block_on(infer(&client, args, &inputs))?;
    printer.print(&answer, table)?;
    Ok(())
}

async fn infer(client: &Client, args: &InferArgs, inputs: &[Input]) -> Outcome<Value> {
    let mut path = format!("/v2/models/{}", args.model);
    if let Some(version) = &args.model_version {
        path.push_str(&format!("/versions/{version}"));
    }
    let metadata = client.get(&path).await?.json()?;
    let tensors = inputs
        .iter()
        .map(|input| input.tensor(spec(&metadata, &input.name)?))
        .collect::<Outcome<Vec<_>>>()?;
    let bytes: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
    // The protocol has no JSON form for 16-bit floats.
    let halves = tensors
        .iter()
        .any(|tensor| matches!(tensor.dtype, DataType::Fp16 | DataType::Bf16));
    let binary =
        args.binary || halves || bytes > JSON_BYTES_MAX || inputs.iter().any(Input::is_raw);
    let request = wire::request(&tensors, binary)?;
    let reply = client
        .exchange(
            http::Method::POST,
            &format!("{path}/infer"),
            request.headers,
            request.body,
        )
        .await?;
    let mut answer = wire::answer(&reply)?;
    if let Some(timing) = reply.header("server-timing") {
        answer["server_timing"] = timing.into();
    }
    if let Some(id) = reply.header("x-request-id") {
        answer["request_id"] = id.into();
    }
    Ok(answer)
}

/// The model's own words on one input.
fn spec<'a>(metadata: &'a Value, name: &str) -> Outcome<&'a Value> {
    let inputs = metadata["inputs"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(spec) = inputs.iter().find(|spec| spec["name"] == name) {
        return Ok(spec);
    }
    let names: Vec<&str> = inputs
        .iter()
        .filter_map(|spec| spec["name"].as_str())
        .collect();
    let hint = match base::nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("its inputs: {}", names.join(", ")),
    };
    Err(Failure::failed(format!("the model has no input `{name}`")).hint(hint))
}

fn table(answer: &Value, style: Style) -> String {
    let mut table = Table::new(&["OUTPUT", "DATATYPE", "SHAPE", "DATA"]);
    for output in answer["outputs"].as_array().into_iter().flatten() {
        let shape: Vec<String> = numbers(&output["shape"]);
        table.row([
            output["name"].as_str().unwrap_or_default().to_owned(),
            output["datatype"].as_str().unwrap_or_default().to_owned(),
            format!("[{}]", shape.join(", ")),
            start(&output["data"]),
        ]);
    }
    let mut text = table.render_with(style, |style, column, cell| match column {
        0 => style.strong(cell),
        _ => cell.to_owned(),
    });
    let model = format!(
        "{} version {}  {}\n",
        answer["model_name"].as_str().unwrap_or_default(),
        answer["model_version"].as_str().unwrap_or_default(),
        answer["server_timing"].as_str().unwrap_or_default(),
    );
    text.push_str(&style.quiet(&model));
    text
}

fn numbers(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(Value::to_string).collect()
}

/// The first elements; a table is for a look, not for the data.
fn start(data: &Value) -> String {
    const SHOWN: usize = 8;
    let mut flat = Vec::new();
    flatten(data, &mut flat);
    let mut text: Vec<String> = flat
        .iter()
        .take(SHOWN)
        .map(|item| match item {
            Value::String(text) => text.clone(),
            Value::Number(number) => short(number),
            other => other.to_string(),
        })
        .collect();
    if flat.len() > SHOWN {
        text.push(format!("… {} in all", flat.len()));
    }
    text.join(", ")
}

fn short(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(real) if number.is_f64() => format!("{real:.6}"),
        Some(_) | None => number.to_string(),
    }
}

fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        other => into.push(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_input_name_gets_the_nearest_one() {
        let metadata = json!({"inputs": [{"name": "INPUT0"}, {"name": "mask"}]});
        let hint = |name| {
            let failure = spec(&metadata, name).expect_err("no such input");
            failure.hint.expect("a hint")
        };
        assert!(spec(&metadata, "mask").is_ok());
        assert_eq!(hint("INPUT1"), "did you mean `INPUT0`?");
        assert_eq!(hint("pixel_values"), "its inputs: INPUT0, mask");
    }

    #[test]
    fn outputs_are_shown_by_their_beginning() {
        let answer = json!({
            "model_name": "m", "model_version": "1",
            "outputs": [
                {"name": "p", "datatype": "FP32", "shape": [1, 9], "data": [0.5, 1, 2, 3, 4, 5, 6, 7, 8]},
                {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]},
            ],
        });
        assert_eq!(
            table(&answer, Style::new(false)),
            "OUTPUT  DATATYPE  SHAPE   DATA\n\
             p       FP32      [1, 9]  0.500000, 1, 2, 3, 4, 5, 6, 7, … 9 in all\n\
             label   BYTES     [1]     cat\n\
             m version 1  \n"
        );
    }
}
