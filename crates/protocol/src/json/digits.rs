/// What the eight digits at the front are as a number; none unless there are eight.
#[inline]
pub(crate) fn eight(bytes: &[u8]) -> Option<u64> {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const THREES: u64 = 0x3333_3333_3333_3333;
    let word = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    // A digit's high half is 3, and still is when 6 is added; a byte that carries into its neighbour is none itself.
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & HIGH;
    if (word & HIGH) | (carried >> 4) != THREES {
        return None;
    }
    // Neighbours are joined to numbers of two digits, these to four, these to eight.
    let pairs = (word & 0x0F0F_0F0F_0F0F_0F0F).wrapping_mul(10 << 8 | 1) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(100 << 16 | 1) >> 16;
    Some((fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(10_000 << 32 | 1) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_digits_are_read_at_once_and_nothing_else_is() {
        for text in ["00000000", "12345678", "99999999", "10000001", "12345678.9"] {
            assert_eq!(eight(text.as_bytes()), text.get(..8).unwrap().parse().ok());
        }
        for text in [
            "1234567",
            "1234567.",
            "1234:678",
            "/2345678",
            "1234567\u{7f}",
            ",1234567",
            "",
        ] {
            assert_eq!(eight(text.as_bytes()), None, "{text}");
        }
        for (place, byte) in (0..8).flat_map(|place| (0..=u8::MAX).map(move |byte| (place, byte))) {
            let mut text = *b"48151623";
            text[place] = byte;
            assert_eq!(eight(&text).is_some(), byte.is_ascii_digit(), "{text:?}");
        }
    }
}
