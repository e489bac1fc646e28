/// What is known of a request's tokens before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Of its text.
    pub bytes: u64,
    /// The most that it allows an answer to have.
    pub output_max: Option<u64>,
    /// Answers that it asks for; 0 if it asks for none, as embeddings do.
    pub choices: u64,
}

/// What a request used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub prompt: u64,
    pub output: u64,
}

impl Used {
    pub fn total(self) -> u64 {
        self.prompt.saturating_add(self.output)
    }
}

/// How many tokens a request will use, from what others used.
///
/// It remembers the largest values of late, not the mean: who reserves too much waits a little, and who reserves too
/// little lets too many in.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// Tokens in 1,024 bytes of a request.
    density: u64,
    /// Tokens of an answer that no `max_tokens` bounds.
    output: u64,
}

/// A token in three bytes: English has four, JSON and code less.
const DENSITY_FIRST: u64 = 342;
/// What a byte-level tokeniser makes of bytes that it knows no words for.
const DENSITY_MAX: u64 = 1024;
/// Until an answer has been seen.
const OUTPUT_FIRST: u64 = 512;
/// What a chat template adds to any prompt.
const TEMPLATE: u64 = 16;
/// A smaller request weighs too little against its template to learn from.
const BYTES_MIN: u64 = 64;
/// Of what the largest value was too much, this part is forgotten with each request.
const FORGOTTEN: u64 = 16;

impl Default for Estimate {
    fn default() -> Self {
        Self {
            density: DENSITY_FIRST,
            output: OUTPUT_FIRST,
        }
    }
}

impl Estimate {
    pub fn prompt(&self, ask: &Ask) -> u64 {
        let text = u128::from(ask.bytes) * u128::from(self.density);
        u64::try_from(text.div_ceil(1024)).unwrap_or(u64::MAX)
    }

    pub fn total(&self, ask: &Ask) -> u64 {
        let output = ask.output_max.unwrap_or(self.output);
        let template = if ask.choices > 0 { TEMPLATE } else { 0 };
        self.prompt(ask)
            .saturating_add(template)
            .saturating_add(output.saturating_mul(ask.choices))
    }

    pub fn learn(&mut self, ask: &Ask, used: Used) {
        if ask.bytes >= BYTES_MIN {
            let seen = u128::from(used.prompt) * 1024 / u128::from(ask.bytes);
            let seen = u64::try_from(seen).unwrap_or(DENSITY_MAX).min(DENSITY_MAX);
            self.density = largest_of_late(self.density, seen).max(1);
        }
        if ask.choices > 0 && ask.output_max.is_none() {
            let each = used.output.div_ceil(ask.choices);
            self.output = largest_of_late(self.output, each);
        }
    }
}

fn largest_of_late(known: u64, seen: u64) -> u64 {
    if seen >= known {
        seen
    } else {
        known - (known - seen).div_ceil(FORGOTTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: Ask = Ask {
        bytes: 1024,
        output_max: None,
        choices: 1,
    };

    #[test]
    fn a_bound_that_the_request_names_is_believed() {
        let estimate = Estimate::default();
        for (ask, expected) in [
            (
                Ask {
                    output_max: Some(100),
                    ..CHAT
                },
                342 + 16 + 100,
            ),
            (
                Ask {
                    output_max: Some(100),
                    choices: 3,
                    ..CHAT
                },
                342 + 16 + 300,
            ),
            (Ask { choices: 0, ..CHAT }, 342),
            (CHAT, 342 + 16 + 512),
            (
                Ask {
                    bytes: u64::MAX,
                    output_max: Some(u64::MAX),
                    choices: u64::MAX,
                },
                u64::MAX,
            ),
        ] {
            assert_eq!(estimate.total(&ask), expected, "{ask:?}");
        }
    }

    #[test]
    fn what_others_used_is_expected_of_the_next() {
        let mut estimate = Estimate::default();
        estimate.learn(
            &CHAT,
            Used {
                prompt: 500,
                output: 2000,
            },
        );
        assert_eq!(
            estimate.total(&CHAT),
            500 + 16 + 2000,
            "more is believed at once"
        );
        for _ in 0..200 {
            estimate.learn(
                &CHAT,
                Used {
                    prompt: 200,
                    output: 10,
                },
            );
        }
        assert_eq!(estimate.total(&CHAT), 200 + 16 + 10, "and less in time");
        let bounded = Ask {
            output_max: Some(7),
            ..CHAT
        };
        estimate.learn(
            &bounded,
            Used {
                prompt: 200,
                output: 7,
            },
        );
        assert_eq!(
            estimate.total(&CHAT),
            200 + 16 + 10,
            "a bounded answer says nothing of others"
        );
    }
}
