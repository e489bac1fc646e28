//! One number of a tensor's JSON: the common forms by hand, the rest by the standard library.

use std::str::FromStr;

/// A type that tensors in JSON are made of.
pub(super) trait Number: Sized {
    type Bytes: AsRef<[u8]>;

    /// None when the token is no number, or does not fit.
    fn read(token: &str) -> Option<Self>;

    fn bytes(self) -> Self::Bytes;
}

macro_rules! number {
    ($($kind:ty, $read:ident, $size:literal;)*) => {$(
        impl Number for $kind {
            type Bytes = [u8; $size];
            #[inline]
            fn read(token: &str) -> Option<Self> {
                $read(token)
            }
            #[inline]
            fn bytes(self) -> [u8; $size] {
                self.to_le_bytes()
            }
        }
    )*};
}
number! {
    u8, integer, 1; u16, integer, 2; u32, integer, 4; u64, integer, 8;
    i8, integer, 1; i16, integer, 2; i32, integer, 4; i64, integer, 8;
    f32, single, 4; f64, double, 8;
}

/// `±mantissa × 10^exponent`, with every digit of the token in the mantissa.
struct Decimal {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// Digits that a u64 holds whatever they are.
const DIGITS_MAX: usize = 19;

impl Decimal {
    /// None for more digits than fit, for an exponent, and for what is no number.
    #[inline]
    fn read(token: &str) -> Option<Self> {
        let (negative, digits) = match token.as_bytes() {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        // The point may be one of the characters.
        if digits.is_empty() || digits.len() > DIGITS_MAX {
            return None;
        }
        let (mut mantissa, mut exponent, mut point) = (0_u64, 0_i32, false);
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                mantissa = mantissa * 10 + u64::from(digit);
                exponent -= i32::from(point);
            } else if *byte == b'.' && !point {
                point = true;
            } else {
                return None;
            }
        }
        Some(Self {
            negative,
            mantissa,
            exponent,
        })
    }

    /// The nearest f64, where one operation on exact numbers gives it (Clinger 1990): mantissa and power are exact.
    #[inline]
    fn exact_double(&self) -> Option<f64> {
        const MANTISSA_MAX: u64 = 1 << 53;
        let power = POWERS.get(usize::try_from(-self.exponent).ok()?)?;
        if self.mantissa > MANTISSA_MAX {
            return None;
        }
        let number = self.mantissa as f64 / power;
        Some(if self.negative { -number } else { number })
    }
}

/// The powers of ten that are exact in an f64 and that up to 19 characters can ask for.
const POWERS: [f64; 20] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19,
];

#[inline]
fn integer<T: FromStr + TryFrom<i128>>(token: &str) -> Option<T> {
    match Decimal::read(token) {
        Some(decimal) if decimal.exponent == 0 && !token.ends_with('.') => {
            let magnitude = i128::from(decimal.mantissa);
            T::try_from(if decimal.negative {
                -magnitude
            } else {
                magnitude
            })
            .ok()
        }
        _ => token.parse().ok(),
    }
}

/// Whether the standard library may look at it: `inf` and `nan` are numbers to it.
fn begins_like_a_number(token: &str) -> bool {
    token.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

#[inline]
fn double(token: &str) -> Option<f64> {
    if let Some(number) = Decimal::read(token).and_then(|decimal| decimal.exact_double()) {
        return Some(number);
    }
    let number: f64 = token.parse().ok()?;
    (begins_like_a_number(token) && number.is_finite()).then_some(number)
}

#[inline]
fn single(token: &str) -> Option<f32> {
    let wide = Decimal::read(token).and_then(|decimal| decimal.exact_double());
    if let Some(number) = wide.and_then(narrow) {
        return Some(number);
    }
    let number: f32 = token.parse().ok()?;
    (begins_like_a_number(token) && number.is_finite()).then_some(number)
}

/// The f32 nearest to the decimal that `wide` is the nearest f64 of. Rounding twice goes wrong only where the first
/// result lies exactly between two f32; those, and what is not normal in f32, are left to the standard library.
#[inline]
fn narrow(wide: f64) -> Option<f32> {
    const DROPPED: u64 = (1 << 29) - 1;
    const HALF: u64 = 1 << 28;
    let normal =
        wide == 0.0 || (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&wide.abs());
    if !normal || wide.to_bits() & DROPPED == HALF {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted"
    )]
    Some(wide as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_that_are_read_by_hand_are_read_as_the_standard_library_does() {
        for token in [
            "0",
            "-0",
            "-0.0",
            "1",
            "0.1",
            "-123.456",
            "9007199254740992",
            "9007199254740993",
            "9999999999999999999",
            "99999999999999999999",
            "0.0000000000000001",
            "1.00000005960464477539",
            "1.0000000596046448",
            "16777217",
            "16777217.0",
            "33554435",
            "0.30000001192092896",
            "3.4028235e38",
            "1e-45",
            "123456789012345678.9",
        ] {
            let (wide, narrow) = (token.parse::<f64>().ok(), token.parse::<f32>().ok());
            assert_eq!(
                double(token).map(f64::to_bits),
                wide.map(f64::to_bits),
                "{token}"
            );
            assert_eq!(
                single(token).map(f32::to_bits),
                narrow.map(f32::to_bits),
                "{token}"
            );
        }
        for token in [
            "", "-", "nan", "inf", "-inf", "1e39", "true", "--1", "1-", "1..2", "{",
        ] {
            assert_eq!(single(token), None, "{token}");
            assert_eq!(integer::<i64>(token), None, "{token}");
        }
        assert_eq!(integer::<i8>("1."), None);
        assert_eq!(integer::<u64>("18446744073709551615"), Some(u64::MAX));
        assert_eq!(integer::<i64>("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer::<u8>("-0"), Some(0));
    }

    proptest! {
        #[test]
        fn short_decimals_round_correctly(whole in 0..100_000_000_u64, fraction in 0..1_000_000_000_u64, digits in 1..9_usize) {
            let token: String = format!("{whole}.{fraction:09}");
            let (token, _) = token.split_at(token.len() - 9 + digits);
            prop_assert_eq!(double(token), token.parse::<f64>().ok());
            prop_assert_eq!(single(token), token.parse::<f32>().ok());
        }

        #[test]
        fn the_shortest_form_of_any_f32_comes_back(bits in any::<u32>()) {
            let number = f32::from_bits(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(single(&number.to_string()).map(f32::to_bits), Some(bits));
        }

        #[test]
        fn halves_between_two_f32_round_to_even(bits in 0x3f80_0000_u32..0x4b00_0000) {
            let low = f64::from(f32::from_bits(bits));
            let middle = f64::midpoint(low, f64::from(f32::from_bits(bits + 1)));
            for token in [format!("{middle}"), format!("{middle}000000001"), format!("{:.1$}", middle, 12)] {
                prop_assert_eq!(single(&token), token.parse::<f32>().ok(), "{}", token);
            }
        }
    }
}
