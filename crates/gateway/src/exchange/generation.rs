use std::time::Instant;

use protocol::openai::usage::Usage;
use telemetry::Details;

/// What is learnt of a generative model's answer while it passes by.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    /// Whether a stream was asked for.
    pub(crate) stream: bool,
    /// When the first part of a streamed answer came, and the latest.
    first: Option<Instant>,
    latest: Option<Instant>,
    /// About as many tokens, where they are not told.
    pieces: u64,
    usage: Option<Usage>,
    details: Option<Box<Details>>,
}

/// What a stream's events said since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) usage: Option<Usage>,
    pub(crate) details: Option<Box<Details>>,
    /// Pieces of text so far.
    pub(crate) pieces: u64,
    /// Whether any of the answer came: text, a call of a tool, the end.
    pub(crate) begun: bool,
}

impl Generation {
    /// A part of a stream whose events nobody reads.
    pub(crate) fn part(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.latest = Some(now);
    }

    /// Of a stream that is read, event by event.
    pub(crate) fn heard(&mut self, now: Instant, said: &mut Said) {
        if said.begun {
            self.stream = true;
            self.part(now);
        }
        self.pieces = said.pieces;
        self.usage = said.usage.or(self.usage);
        if let Some(new) = said.details.take() {
            let old = self.details.take().unwrap_or_default();
            self.details = Some(Box::new(Details {
                id: old.id.or(new.id),
                model: old.model.or(new.model),
                finish_reason: new.finish_reason.or(old.finish_reason),
            }));
        }
    }

    /// What is told of it in the end; `told` is what was read of the body besides.
    pub(crate) fn told(
        &mut self,
        (started, task, provider): (Instant, &'static str, &'static str),
        told: Option<Usage>,
    ) -> telemetry::Generation {
        let usage = self.usage.or(told);
        let ms =
            |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
        let output = usage.map_or(self.pieces, |usage| usage.output);
        let streamed = self.first.zip(self.latest).filter(|_| self.stream);
        telemetry::Generation {
            operation: task,
            provider,
            stream: self.stream,
            input_tokens: usage.map(|usage| usage.prompt),
            output_tokens: usage.map(|usage| usage.output),
            first_token_ms: streamed.map(|(first, _)| ms(started, first)),
            // The first one is not waited for.
            per_token_ms: streamed
                .filter(|_| output > 1)
                .map(|(first, latest)| ms(first, latest) / (output - 1) as f64),
            details: self.details.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_of_tokens_and_the_upstreams_own_count_comes_first() {
        let start = base::Clock::manual().now();
        let at = |ms| start + Duration::from_millis(ms);
        let heard = |begun, pieces, usage: Option<(u64, u64)>| Said {
            begun,
            pieces,
            usage: usage.map(|(prompt, output)| Usage { prompt, output }),
            details: None,
        };
        for (told, expected) in [
            (None, (Some(30.0), Some(10.0), None)),
            (Some((7, 5)), (Some(30.0), Some(5.0), Some(5))),
            (Some((7, 1)), (Some(30.0), None, Some(1))),
        ] {
            let mut generation = Generation::default();
            generation.heard(at(10), &mut heard(false, 0, None));
            generation.heard(at(30), &mut heard(true, 1, None));
            generation.heard(at(50), &mut heard(true, 3, told));
            let told = generation.told((start, "chat", "vllm"), None);
            let found = (told.first_token_ms, told.per_token_ms, told.output_tokens);
            assert_eq!(found, expected, "{told:?}");
        }
    }

    #[test]
    fn what_is_no_stream_has_no_first_token() {
        let start = base::Clock::manual().now();
        let mut generation = Generation::default();
        generation.part(start);
        let usage = Usage {
            prompt: 3,
            output: 4,
        };
        let told = generation.told((start, "embeddings", "kapok"), Some(usage));
        assert_eq!((told.first_token_ms, told.per_token_ms), (None, None));
        assert_eq!((told.input_tokens, told.output_tokens), (Some(3), Some(4)));
    }
}
