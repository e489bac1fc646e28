use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Precision;

/// `threads`: of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Measured at load: a lane a core, or one lane on all cores, whichever serves more; the latter is sooner done when
    /// both serve the same.
    Auto,
    Fixed(usize),
}

impl Serialize for Threads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(threads) => threads.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ThreadsVisitor)
    }
}

struct ThreadsVisitor;

impl Visitor<'_> for ThreadsVisitor {
    type Value = Threads;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of threads or `auto`")
    }

    fn visit_u64<E: de::Error>(self, threads: u64) -> Result<Threads, E> {
        usize::try_from(threads)
            .map(Threads::Fixed)
            .map_err(|_| E::custom("so many threads cannot be counted"))
    }

    fn visit_i64<E: de::Error>(self, threads: i64) -> Result<Threads, E> {
        let threads = u64::try_from(threads);
        self.visit_u64(threads.map_err(|_| E::custom("at least 1 thread"))?)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Threads, E> {
        if word == "auto" {
            return Ok(Threads::Auto);
        }
        Err(E::invalid_value(de::Unexpected::Str(word), &self))
    }
}

/// `precision`: the numbers that FP32 models are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bfloat16 where the processor has it, the outputs agree within the model's tolerance and it is faster.
    #[default]
    Auto,
    Fp32,
    Bf16,
}

impl PrecisionChoice {
    pub fn allows(self, precision: Precision) -> bool {
        match self {
            Self::Auto => true,
            Self::Fp32 => precision == Precision::Fp32,
            Self::Bf16 => precision == Precision::Bf16,
        }
    }
}
