//! Multi-Instance GPU: which instances a device can hold, and where on it they may start.
//!
//! Reading order: this file (profiles and their names), [`Automaton`] (every state of one device, so that an illegal
//! placement has no number), [`plan`] (how much each state is worth).
//! Sources: NVIDIA's MIG User Guide, "Supported MIG Profiles" (names, slices, instances of each profile), and the starts
//! that `nvidia-smi mig -lgipp` prints. What one model has, the others of its family have too, under other names.

mod automaton;
pub mod plan;

pub use automaton::Automaton;

/// Sizes and starts are in memory slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub memory: u8,
    pub compute: u8,
    /// Has the media extensions, of which a device has one set.
    pub media: bool,
    pub starts: &'static [u8],
}

/// What devices have in common whose instances differ in name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    pub memory: u8,
    pub compute: u8,
    pub shapes: &'static [Shape],
    index: usize,
}

/// One model: its family, and what the family's shapes are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub model: &'static str,
    pub gib: u16,
    pub family: &'static Family,
    /// In the order of the family's shapes.
    pub profiles: &'static [&'static str],
}

const fn shape(memory: u8, compute: u8, starts: &'static [u8]) -> Shape {
    Shape {
        memory,
        compute,
        media: false,
        starts,
    }
}

const fn media(shape: Shape) -> Shape {
    Shape {
        media: true,
        ..shape
    }
}

/// A memory slice is left over when seven instances have one each.
static EIGHT: Family = Family {
    memory: 8,
    compute: 7,
    shapes: &[
        shape(1, 1, &[0, 1, 2, 3, 4, 5, 6]),
        media(shape(1, 1, &[0, 1, 2, 3, 4, 5, 6])),
        shape(2, 1, &[0, 2, 4, 6]),
        shape(2, 2, &[0, 2, 4]),
        shape(4, 3, &[0, 4]),
        shape(4, 4, &[0]),
        shape(8, 7, &[0]),
    ],
    index: 0,
};

static FOUR: Family = Family {
    memory: 4,
    compute: 4,
    shapes: &[
        shape(1, 1, &[0, 1, 2, 3]),
        media(shape(1, 1, &[0, 1, 2, 3])),
        shape(2, 2, &[0, 2]),
        media(shape(2, 2, &[0, 2])),
        shape(4, 4, &[0]),
    ],
    index: 1,
};

macro_rules! geometry {
    ($family:ident, $model:literal, $gib:literal, $($profile:literal)+) => {
        Geometry { model: $model, gib: $gib, family: &$family, profiles: &[$($profile),+] }
    };
}

/// An `A100` is told from another by its memory.
pub static GEOMETRIES: [Geometry; 8] = [
    geometry!(EIGHT, "A100", 40, "1g.5gb" "1g.5gb+me" "1g.10gb" "2g.10gb" "3g.20gb" "4g.20gb" "7g.40gb"),
    geometry!(EIGHT, "A100", 80, "1g.10gb" "1g.10gb+me" "1g.20gb" "2g.20gb" "3g.40gb" "4g.40gb" "7g.80gb"),
    geometry!(EIGHT, "H100", 80, "1g.10gb" "1g.10gb+me" "1g.20gb" "2g.20gb" "3g.40gb" "4g.40gb" "7g.80gb"),
    geometry!(EIGHT, "H100", 94, "1g.12gb" "1g.12gb+me" "1g.24gb" "2g.24gb" "3g.47gb" "4g.47gb" "7g.94gb"),
    geometry!(EIGHT, "GH200", 96, "1g.12gb" "1g.12gb+me" "1g.24gb" "2g.24gb" "3g.48gb" "4g.48gb" "7g.96gb"),
    geometry!(EIGHT, "H200", 141, "1g.18gb" "1g.18gb+me" "1g.35gb" "2g.35gb" "3g.71gb" "4g.71gb" "7g.141gb"),
    geometry!(EIGHT, "B200", 180, "1g.23gb" "1g.23gb+me" "1g.45gb" "2g.45gb" "3g.90gb" "4g.90gb" "7g.180gb"),
    geometry!(FOUR, "A30", 24, "1g.6gb" "1g.6gb+me" "2g.12gb" "2g.12gb+me" "4g.24gb"),
];

impl Geometry {
    /// Index into the family's shapes.
    pub fn shape(&self, profile: &str) -> Option<u8> {
        let at = self.profiles.iter().position(|name| *name == profile)?;
        u8::try_from(at).ok()
    }

    pub fn automaton(&self) -> &'static Automaton {
        Automaton::of(self.family)
    }
}

/// Index into [`GEOMETRIES`] of a GPU's model as people write it (`A100`, `NVIDIA-A100-SXM4-80GB`, `H100 NVL`). Where the
/// name does not say how much memory it has, `memory_mib` does, and else the model's first is meant.
pub fn geometry_of(model: &str, memory_mib: u32) -> Option<u8> {
    let upper = model.to_ascii_uppercase();
    let words = || {
        upper
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
    };
    let number =
        |word: &str| -> Option<u16> { word.strip_suffix("GB").unwrap_or(word).parse().ok() };
    // A vendor rounds down what a driver counts in MiB, or up.
    let near = |gib: u16| u32::from(gib).abs_diff(memory_mib / 1_000) <= u32::from(gib) / 12;
    let named: Vec<(u8, &Geometry)> = (0_u8..)
        .zip(&GEOMETRIES)
        .filter(|(_, geometry)| words().any(|word| word == geometry.model))
        .collect();
    let said = |geometry: &Geometry| {
        words().any(|word| number(word) == Some(geometry.gib))
            || geometry.gib == 94 && words().any(|word| word == "NVL")
    };
    let found = named.iter().find(|(_, geometry)| said(geometry));
    let found = found.or_else(|| named.iter().find(|(_, geometry)| near(geometry.gib)));
    found.or_else(|| named.first()).map(|(at, _)| *at)
}

/// All names of profiles, for errors.
pub fn known() -> Vec<&'static str> {
    let all = GEOMETRIES.iter().flat_map(|geometry| geometry.profiles);
    let mut names: Vec<_> = all.copied().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
