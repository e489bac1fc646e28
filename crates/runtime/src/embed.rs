//! Text in, vectors out: tokenise, run in sub-batches of similar length, pool, normalise, restore the order.

mod batches;
mod pipeline;

pub(crate) use pipeline::TextPipeline;

use std::sync::Arc;

use parking_lot::Mutex;
use protocol::{EmbedInputs, EmbedRequest, Embeddings, Timing};
use text::{Batch, Sequence, normalize, shorten};

use crate::call::{self, Call, Place};
use crate::error::Error;
use crate::join::join_all;
use crate::lifecycle::Track;
use crate::model::{ByEngine, Model};

/// Texts tokenised in one go, and their bytes: some milliseconds on one core.
const TEXTS_PER_JOB: usize = 64;
const BYTES_PER_JOB: usize = 256 << 10;

/// Embeds every input, and books the request. Cancel-safe, as its calls are.
pub(crate) async fn embed(
    model: &Arc<Model>,
    place: Place<'_>,
    request: EmbedRequest,
) -> Result<(Embeddings, Timing), Error> {
    let attempt = model.statistics.begin(place.clock);
    match admitted(model, place, request).await {
        Ok((embeddings, timing)) => {
            attempt.success(&timing);
            Ok((embeddings, timing))
        }
        Err(error) => {
            attempt.fail(&error);
            Err(error)
        }
    }
}

async fn admitted(
    model: &Arc<Model>,
    place: Place<'_>,
    request: EmbedRequest,
) -> Result<(Embeddings, Timing), Error> {
    let Some((engine, pipeline)) = model.by_engine().and_then(ByEngine::with_text) else {
        let message = format!(
            "model `{}` does not take text: its sidecar has no [text]",
            model.name
        );
        return Err(Error::request("model", message));
    };
    pipeline.check_dimensions(request.dimensions)?;
    // Before any work: whoever finds no lane later would have been tokenised for nothing.
    let Ok(_place) = engine.embeds.try_acquire() else {
        return Err(Error::QueueFull {
            model: model.name.clone(),
            waiting: engine.embeds_max.saturating_sub(engine.lanes),
        });
    };
    let arrived = place.clock.now();
    let sequences = tokenise(engine, pipeline, place, request.inputs).await?;
    let tokenised = place.clock.now();
    let tokens = sequences.iter().map(Sequence::len).sum();
    let rounds = batches::split(&sequences, pipeline.form());
    let work = Mutex::new(rounds.into_iter());
    let done = Mutex::new((vec![Vec::new(); sequences.len()], Timing::default()));
    // As many at a time as there are lanes: one request never fills the queue against the others.
    let workers = (0..engine.lanes).map(|_| async {
        loop {
            let Some(rows) = work.lock().next() else {
                return Ok::<(), Error>(());
            };
            let batch = pipeline.batch(rows.iter().map(|row| &sequences[*row]));
            let (vectors, timing) = run(
                (engine, &model.track),
                pipeline,
                place,
                (batch, rows.len(), request.dimensions),
            )
            .await?;
            let mut done = done.lock();
            for (row, vector) in rows.into_iter().zip(vectors) {
                done.0[row] = vector;
            }
            done.1 = done.1.plus(timing);
        }
    });
    join_all(workers).await?;
    let (vectors, parts) = done.into_inner();
    let computed = place.clock.now().saturating_duration_since(tokenised);
    let mut timing = scale(parts, computed);
    timing.input += tokenised.saturating_duration_since(arrived);
    let embeddings = Embeddings {
        model: request.model,
        vectors,
        tokens,
    };
    Ok((embeddings, timing))
}

/// On compute threads, some texts at a time, so that a long list does not keep a core from everybody else.
async fn tokenise(
    engine: &ByEngine,
    pipeline: &TextPipeline,
    place: Place<'_>,
    inputs: EmbedInputs,
) -> Result<Vec<Sequence>, Error> {
    let inputs = Arc::new(inputs);
    let count = len(&inputs);
    let mut sequences = Vec::with_capacity(count);
    while sequences.len() < count {
        if place.deadline.passed(place.clock.now()) {
            return Err(Error::Timeout {
                model: engine.name.clone(),
                place: "while tokenising for a call",
            });
        }
        let range = sequences.len()..job_end(&inputs, sequences.len());
        let (encoder, inputs) = (pipeline.encoder(), Arc::clone(&inputs));
        let encode = move || -> Result<Vec<Sequence>, Error> {
            let one = |index: usize| match inputs.as_ref() {
                EmbedInputs::Texts(texts) => encoder.encode(&texts[index]),
                EmbedInputs::Tokens(tokens) => encoder.sequence(&tokens[index]),
            };
            range
                .map(|index| {
                    one(index).map_err(|error| {
                        Error::request("input", format!("`input[{index}]`: {error}"))
                    })
                })
                .collect()
        };
        let encoded = place.compute.run(encode).await;
        sequences.extend(encoded.map_err(|refused| call::refused_error(&engine.name, refused))??);
    }
    Ok(sequences)
}

fn len(inputs: &EmbedInputs) -> usize {
    match inputs {
        EmbedInputs::Texts(texts) => texts.len(),
        EmbedInputs::Tokens(tokens) => tokens.len(),
    }
}

/// Where the job that begins with `first` ends; it has one text at least.
fn job_end(inputs: &EmbedInputs, first: usize) -> usize {
    let bytes = |index: usize| match inputs {
        EmbedInputs::Texts(texts) => texts[index].len(),
        EmbedInputs::Tokens(tokens) => size_of_val(tokens[index].as_slice()),
    };
    let last = len(inputs).min(first.saturating_add(TEXTS_PER_JOB));
    let mut end = first;
    let mut sum = 0_usize;
    while end < last {
        sum = sum.saturating_add(bytes(end));
        if end > first && sum > BYTES_PER_JOB {
            break;
        }
        end += 1;
    }
    end
}

/// One sub-batch: a call like any other, whose outputs are pooled where they were computed.
async fn run(
    (engine, track): (&ByEngine, &Track),
    pipeline: &TextPipeline,
    place: Place<'_>,
    (batch, texts, dimensions): (Batch, usize, Option<usize>),
) -> Result<(Vec<Vec<f32>>, Timing), Error> {
    let mut call = Call {
        items: texts,
        ..pipeline.inputs(&batch)?
    };
    track.keep_inputs(&engine.name, &call.inputs);
    let finish = pipeline.finish(batch);
    let finish = move |outputs: Vec<protocol::Tensor>| {
        let mut vectors = finish.pool(outputs)?;
        for vector in &mut vectors {
            if let Some(dimensions) = dimensions {
                shorten(vector, dimensions)
                    .map_err(|error| Error::request("dimensions", error.to_string()))?;
            }
            if finish.normalized() {
                normalize(vector);
            }
        }
        Ok(vectors)
    };
    call::run(engine, &place, &mut call, finish).await
}

/// Sub-batches run side by side, so their times can exceed the wall's; the shares are kept and the sum made to fit.
fn scale(parts: Timing, wall: std::time::Duration) -> Timing {
    let total = parts.total().as_secs_f64();
    if total == 0.0 {
        return Timing {
            output: wall,
            ..Timing::default()
        };
    }
    let share = |part: std::time::Duration| wall.mul_f64((part.as_secs_f64() / total).min(1.0));
    Timing {
        queue: share(parts.queue),
        input: share(parts.input),
        infer: share(parts.infer),
        output: share(parts.output),
    }
}

#[cfg(test)]
mod tests;
