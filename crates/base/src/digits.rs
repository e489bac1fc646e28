//! Numbers as text, for what is written with every request: `format!` costs ten times as much.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends the lowest hex digits of a number, at most 16.
pub fn push_hex(text: &mut String, value: u64, digits: usize) {
    let mut written = [0; 16];
    for (byte, place) in written.iter_mut().rev().zip((0..64).step_by(4)) {
        *byte = HEX[usize::try_from(value >> place & 0xf).unwrap_or(0)];
    }
    let from = written.len().saturating_sub(digits);
    text.push_str(std::str::from_utf8(&written[from..]).unwrap_or_default());
}

/// Appends thousandths as a number with three decimals: 1234 as `1.234`.
pub fn push_thousandths(text: &mut String, thousandths: u64) {
    // 20 digits and a point.
    let mut written = [b'0'; 21];
    let mut at = written.len();
    let mut left = thousandths;
    let mut digits = 0;
    while left > 0 || digits < 4 {
        if digits == 3 {
            at -= 1;
            written[at] = b'.';
        }
        at -= 1;
        let digit = u8::try_from(left % 10).unwrap_or(0);
        written[at] = b'0' + digit;
        left /= 10;
        digits += 1;
    }
    text.push_str(std::str::from_utf8(&written[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_format_writes_them() {
        let numbers = [0, 1, 9, 10, 999, 1000, 1001, 65_535, 123_456_789, u64::MAX];
        for number in numbers {
            let (mut hex, mut decimal) = (String::new(), String::new());
            push_hex(&mut hex, number, 16);
            assert_eq!(hex, format!("{number:016x}"));
            push_thousandths(&mut decimal, number);
            assert_eq!(decimal, format!("{}.{:03}", number / 1000, number % 1000));
        }
        let mut hex = String::new();
        push_hex(&mut hex, 0x123, 2);
        assert_eq!(hex, "23");
    }
}
