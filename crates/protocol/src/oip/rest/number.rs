//! One number of a tensor's JSON: the common forms by hand, the rest by the standard library.

use std::str::FromStr;

use crate::json::eight;

/// A type that tensors in JSON are made of.
pub(super) trait Number: Sized {
    type Bytes: AsRef<[u8]>;

    /// The number at the front and how long it is, if it is of a common form, fits, and ends there.
    fn scan(bytes: &[u8]) -> Option<(Self, usize)>;

    /// None when the token is no number, or does not fit.
    fn read(token: &str) -> Option<Self>;

    fn bytes(self) -> Self::Bytes;
}

macro_rules! number {
    ($($kind:ty, $read:ident, $of:ident, $size:literal;)*) => {$(
        impl Number for $kind {
            type Bytes = [u8; $size];
            #[inline]
            fn scan(bytes: &[u8]) -> Option<(Self, usize)> {
                let (decimal, length) = Decimal::scan(bytes)?;
                let ends = matches!(
                    bytes.get(length),
                    None | Some(b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')
                );
                ends.then(|| decimal.$of()).flatten().map(|number| (number, length))
            }
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
    u8, integer, integer, 1; u16, integer, integer, 2; u32, integer, integer, 4; u64, integer, integer, 8;
    i8, integer, integer, 1; i16, integer, integer, 2; i32, integer, integer, 4; i64, integer, integer, 8;
    f32, single, single, 4; f64, double, double, 8;
}

/// `±mantissa × 10^exponent`, with every digit of the token in the mantissa.
struct Decimal {
    negative: bool,
    mantissa: u64,
    exponent: i32,
    /// Written with digits alone.
    whole: bool,
}

/// Digits that a u64 holds whatever they are.
const DIGITS_MAX: usize = 19;

/// Digits of an exponent that is read here.
const EXPONENT_DIGITS_MAX: usize = 3;

impl Decimal {
    /// The number at the front, and its length. None for more digits than fit, and for what is no number.
    #[inline]
    fn scan(bytes: &[u8]) -> Option<(Self, usize)> {
        let negative = bytes.first() == Some(&b'-');
        let first = usize::from(negative);
        let (mut mantissa, mut at) = digits(bytes, first, 0);
        let mut count = at - first;
        if count == 0 {
            return None;
        }
        let mut exponent = 0_i32;
        let mut whole = true;
        if bytes.get(at) == Some(&b'.') {
            whole = false;
            let point = at + 1;
            let mut from = point;
            if mantissa == 0 {
                // Zeros in front are no digits of the mantissa.
                count = 0;
                while bytes.get(from) == Some(&b'0') {
                    from += 1;
                }
            }
            (mantissa, at) = digits(bytes, from, mantissa);
            if at == point {
                return None;
            }
            count += at - from;
            exponent = i32::try_from(at - point).ok().map(|places| -places)?;
        }
        if count > DIGITS_MAX {
            return None;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            whole = false;
            let sign = bytes.get(at + 1).copied();
            let from = at + 1 + usize::from(matches!(sign, Some(b'+' | b'-')));
            let (power, end) = digits(bytes, from, 0);
            if end == from || end - from > EXPONENT_DIGITS_MAX {
                return None;
            }
            let power = i32::try_from(power).ok()?;
            exponent += if sign == Some(b'-') { -power } else { power };
            at = end;
        }
        let decimal = Self {
            negative,
            mantissa,
            exponent,
            whole,
        };
        Some((decimal, at))
    }

    /// The whole token.
    fn read(token: &str) -> Option<Self> {
        let (decimal, length) = Self::scan(token.as_bytes())?;
        (length == token.len()).then_some(decimal)
    }

    /// The nearest f64, or one of the two or three next to it: mantissa and power are rounded to an f64 at most once each.
    #[inline]
    fn near(&self) -> Option<f64> {
        let power = *POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        let mantissa = self.mantissa as f64;
        let number = if self.exponent < 0 {
            mantissa / power
        } else {
            mantissa * power
        };
        Some(if self.negative { -number } else { number })
    }

    /// The nearest f64, where one operation on exact numbers gives it (Clinger 1990): mantissa and power are exact.
    #[inline]
    fn double(&self) -> Option<f64> {
        const MANTISSA_MAX: u64 = 1 << 53;
        if self.mantissa > MANTISSA_MAX {
            return None;
        }
        self.near()
    }

    #[inline]
    fn single(&self) -> Option<f32> {
        self.near().and_then(narrow)
    }

    #[inline]
    fn integer<T: TryFrom<u64> + TryFrom<i64>>(&self) -> Option<T> {
        if !self.whole {
            return None;
        }
        if self.negative {
            let number = 0_i64.checked_sub_unsigned(self.mantissa)?;
            return T::try_from(number).ok();
        }
        T::try_from(self.mantissa).ok()
    }
}

/// Appends the digits from `at` on to a number, which is right as long as they are at most [`DIGITS_MAX`]; and their end.
#[inline]
fn digits(bytes: &[u8], mut at: usize, mut number: u64) -> (u64, usize) {
    while let Some(eight) = eight(bytes.get(at..).unwrap_or_default()) {
        number = number.wrapping_mul(100_000_000).wrapping_add(eight);
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (number, at)
}

/// The powers of ten that are exact in an f64.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

fn integer<T: FromStr + TryFrom<u64> + TryFrom<i64>>(token: &str) -> Option<T> {
    let decimal = Decimal::read(token);
    let number = decimal.and_then(|decimal| decimal.integer());
    number.or_else(|| token.parse().ok())
}

/// Whether the standard library may look at it: `inf` and `nan` are numbers to it.
fn begins_like_a_number(token: &str) -> bool {
    token.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn double(token: &str) -> Option<f64> {
    if let Some(number) = Decimal::read(token).and_then(|decimal| decimal.double()) {
        return Some(number);
    }
    let number: f64 = token.parse().ok()?;
    (begins_like_a_number(token) && number.is_finite()).then_some(number)
}

fn single(token: &str) -> Option<f32> {
    if let Some(number) = Decimal::read(token).and_then(|decimal| decimal.single()) {
        return Some(number);
    }
    let number: f32 = token.parse().ok()?;
    (begins_like_a_number(token) && number.is_finite()).then_some(number)
}

/// The f32 nearest to the decimal that `wide` is [`Decimal::near`] of. Rounding twice goes wrong only where the first
/// result lies so close to the middle between two f32 that its own error may reach over it; those, and what is not normal
/// in f32, are left to the standard library.
#[inline]
fn narrow(wide: f64) -> Option<f32> {
    const DROPPED: u64 = (1 << 29) - 1;
    const HALF: u64 = 1 << 28;
    // Two roundings, each by half a unit of a number that may be twice as large: below three units in the last place.
    const ERROR: u64 = 4;
    let normal =
        wide == 0.0 || (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&wide.abs());
    if !normal || (wide.to_bits() & DROPPED).abs_diff(HALF) <= ERROR {
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
            "0.10000000149011612",
            "0.0010000000474974513",
            "-1.401298464324817e-45",
            "1.1754943508222875e-38",
            "5e-324",
            "1e22",
            "1e23",
            "1.5E+3",
            "0e5",
            "0.000",
            "18446744073709551615",
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
        fn a_number_ends_where_its_list_goes_on(bits in any::<u32>()) {
            let number = f32::from_bits(bits);
            prop_assume!(number.is_finite());
            // As Python writes it: the double's shortest form, with an exponent where that is shorter.
            for token in [f64::from(number).to_string(), format!("{:e}", f64::from(number)), number.to_string()] {
                for rest in [",1", "]", " ]", ""] {
                    let text = format!("{token}{rest}");
                    if let Some((read, length)) = f32::scan(text.as_bytes()) {
                        prop_assert_eq!((read.to_bits(), length), (bits, token.len()), "{}", text);
                    }
                }
                let longer = format!("{token}x");
                prop_assert!(f32::scan(longer.as_bytes()).is_none());
                prop_assert_eq!(single(&token).map(f32::to_bits), Some(bits));
            }
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
