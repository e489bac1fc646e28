//! Text of a client's in a message for it: enough to recognise it, never as long as a body.

use std::borrow::Cow;
use std::fmt;

/// Longer than any name that is in use; what is cut ends in `…`.
const NAME_CHARACTERS_MAX: usize = 128;

/// The dimensions that matter come first.
const SHAPE_CHARACTERS_MAX: usize = 200;

/// A name, or the beginning of a long one.
pub fn name(name: &str) -> Cow<'_, str> {
    cut(name, NAME_CHARACTERS_MAX)
}

/// A shape as `[1, 3]`, or the beginning of a long one.
pub fn shape(shape: &[impl fmt::Display]) -> String {
    let mut shown = "[".to_owned();
    for (index, dim) in shape.iter().enumerate() {
        // Not written out whole, because a small body has room for millions of them.
        if shown.len() > SHAPE_CHARACTERS_MAX {
            break;
        }
        let comma = if index == 0 { "" } else { ", " };
        shown = format!("{shown}{comma}{dim}");
    }
    shown.push(']');
    shape_text(&shown).into_owned()
}

/// A shape as the client wrote it, or the beginning of a long one.
pub(crate) fn shape_text(shape: &str) -> Cow<'_, str> {
    cut(shape, SHAPE_CHARACTERS_MAX)
}

fn cut(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(name("x"), "x");
        assert_eq!(name(&"é".repeat(128)), "é".repeat(128));
        assert_eq!(name(&"é".repeat(129)), format!("{}…", "é".repeat(128)));
        assert_eq!(shape(&[0_i64; 0]), "[]");
        assert_eq!(shape(&[1, -1]), "[1, -1]");
        let long = shape(&[1; 100_000]);
        assert!(long.starts_with("[1, 1, ") && long.ends_with('…'), "{long}");
        assert_eq!(long.chars().count(), 201);
    }
}
