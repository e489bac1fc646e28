//! What this machine's processor computes fast.

use std::fs;

/// Instructions that engines choose by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processor {
    pub avx2: bool,
    pub avx512: bool,
    /// Products of 8-bit integers.
    pub avx512_vnni: bool,
    pub avx512_bf16: bool,
    /// Tiles: whole blocks of a product at once.
    pub amx_int8: bool,
    pub amx_bf16: bool,
}

impl Processor {
    pub fn here() -> Self {
        Self::of(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    /// As `/proc/cpuinfo` describes it; what it does not say is not there.
    pub fn of(description: &str) -> Self {
        let flags = description
            .lines()
            .find_map(|line| line.strip_prefix("flags"))
            .unwrap_or_default();
        let has = |flag| flags.split_ascii_whitespace().any(|word| word == flag);
        Self {
            avx2: has("avx2"),
            avx512: has("avx512f"),
            avx512_vnni: has("avx512_vnni"),
            avx512_bf16: has("avx512_bf16"),
            amx_int8: has("amx_int8"),
            amx_bf16: has("amx_bf16"),
        }
    }

    /// Whether FP32 products in bfloat16 are worth a try.
    pub fn computes_bf16(&self) -> bool {
        self.amx_bf16 || self.avx512_bf16
    }

    /// The names of what it has, best first.
    pub fn features(&self) -> Vec<&'static str> {
        let all = [
            (self.amx_bf16, "amx_bf16"),
            (self.amx_int8, "amx_int8"),
            (self.avx512_bf16, "avx512_bf16"),
            (self.avx512_vnni, "avx512_vnni"),
            (self.avx512, "avx512"),
            (self.avx2, "avx2"),
        ];
        let had = all.into_iter().filter(|(has, _)| *has);
        had.map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_tried_where_the_processor_has_it() {
        let check = |flags: &str, bf16, features: &[&str]| {
            let processor = Processor::of(&format!("model name\t: x\nflags\t\t: fpu {flags}\n"));
            assert_eq!(processor.computes_bf16(), bf16, "{flags}");
            assert_eq!(processor.features(), features, "{flags}");
        };
        check("avx2", false, &["avx2"]);
        check(
            "avx2 avx512f avx512_vnni",
            false,
            &["avx512_vnni", "avx512", "avx2"],
        );
        check("avx512f avx512_bf16", true, &["avx512_bf16", "avx512"]);
        check(
            "amx_bf16 amx_int8 amx_tile",
            true,
            &["amx_bf16", "amx_int8"],
        );
        assert_eq!(Processor::of(""), Processor::default());
    }
}
