use crate::json::{Fault, Kind, Reader, string_end};
use crate::openai::DEPTH_MAX;

/// What a body says of the tokens that it will cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Of the body, without files written into it as `data:` URLs: those are no text.
    pub bytes: u64,
    /// The most that each answer may have.
    pub output_max: Option<u64>,
    /// Answers asked for.
    pub choices: u64,
}

/// Reads what bounds the answer. A field that makes no sense is left to the upstream to refuse.
pub fn demand(body: &[u8]) -> Demand {
    let mut demand = read(body).unwrap_or_default();
    demand.bytes = body.len() as u64 - files(body);
    demand
}

fn read(body: &[u8]) -> Result<Demand, Fault> {
    let mut reader = Reader::new(body, DEPTH_MAX)?;
    let [older, newer, responses, count, best_of, prompt] = reader.fields([
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n",
        "best_of",
        "prompt",
    ])?;
    let bounds = [newer, older, responses].into_iter().flatten();
    let count = count.and_then(whole).unwrap_or(1);
    let best_of = best_of.and_then(whole).unwrap_or(1);
    Ok(Demand {
        bytes: 0,
        output_max: bounds.filter_map(whole).max(),
        choices: count.max(best_of).saturating_mul(prompts(prompt)),
    })
}

fn whole(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// How many prompts a completion has: a list of texts or of lists of tokens is several.
fn prompts(prompt: Option<&str>) -> u64 {
    let mut several = 0;
    let Some(prompt) = prompt.filter(|prompt| prompt.starts_with('[')) else {
        return 1;
    };
    let counted = Reader::over(prompt, DEPTH_MAX).array::<Fault>(|element| {
        several += u64::from(element.kind()? != Kind::Number);
        element.skip().map(drop)
    });
    counted.map_or(1, |()| several.max(1))
}

/// Bytes of strings that are files.
fn files(body: &[u8]) -> u64 {
    const FILE: &[u8] = b"data:";
    let (mut at, mut bytes) = (0, 0);
    while let Some(next) = body
        .get(at..)
        .and_then(|rest| rest.iter().position(|byte| *byte == b'"'))
    {
        let start = at + next;
        at = string_end(body, start);
        if body
            .get(start + 1..at)
            .is_some_and(|text| text.starts_with(FILE))
        {
            bytes += at - start;
        }
    }
    bytes as u64
}
