#![expect(unsafe_code, reason = "the functions under test take foreign pointers")]

use super::*;
use crate::abi::{Port, Text};

fn text(text: &str) -> Text {
    Text {
        data: text.as_ptr().cast(),
        length: text.len() as u64,
    }
}

fn port(name: &str, dtype: u32, shape: &[i64]) -> Port {
    Port {
        name: text(name),
        dtype,
        rank: u32::try_from(shape.len()).expect("few"),
        shape: shape.as_ptr(),
    }
}

fn refused(ports: &[Port]) -> String {
    // SAFETY: whatever passes the checks is memory of this test.
    unsafe { specs(ports.as_ptr(), ports.len() as u64, "input") }.expect_err("refused")
}

#[test]
fn ports_that_lie_are_refused_by_what_they_lie_about() {
    let good = port("x", 11, &[-1, 3]);
    for (ports, expected) in [
        (vec![], "0 inputs; 1 to 1024 are allowed"),
        (
            vec![Port {
                name: text(""),
                ..good
            }],
            "input 0: a name of 0 bytes; 1 to 512 are allowed",
        ),
        (
            vec![Port {
                name: Text {
                    data: std::ptr::null(),
                    length: 3,
                },
                ..good
            }],
            "input 0: the name is null",
        ),
        (
            vec![Port {
                name: Text {
                    length: u64::MAX,
                    ..good.name
                },
                ..good
            }],
            "input 0: a name of 18446744073709551615 bytes; 1 to 512 are allowed",
        ),
        (
            vec![Port {
                name: Text {
                    data: b"\xff".as_ptr().cast(),
                    length: 1,
                },
                ..good
            }],
            "input 0: its name is not UTF-8",
        ),
    ] {
        assert_eq!(refused(&ports), expected);
    }
}

#[test]
fn types_and_shapes_that_cannot_be_are_refused() {
    let good = port("x", 11, &[-1, 3]);
    let misaligned = [1_u64, 2, 3];
    let odd = misaligned
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(1)
        .cast::<i64>();
    for (ports, expected) in [
        (
            vec![Port { dtype: 99, ..good }],
            "input 0: no element type has the number 99",
        ),
        (
            vec![Port { rank: 17, ..good }],
            "input 0: `x` has 17 dimensions, at most 16 are allowed",
        ),
        (
            vec![Port {
                shape: std::ptr::null(),
                ..good
            }],
            "input 0: the shape is null",
        ),
        (
            vec![Port { shape: odd, ..good }],
            "input 0: the shape is not aligned to 8 bytes",
        ),
        (
            vec![port("x", 11, &[0])],
            "input 0: `x` has a dimension of 0; -1 or at least 1 is allowed",
        ),
        (
            vec![port("x", 11, &[-2])],
            "input 0: `x` has a dimension of -2; -1 or at least 1 is allowed",
        ),
        (vec![good, good], "two inputs are called `x`"),
    ] {
        assert_eq!(refused(&ports), expected);
    }
    // SAFETY: as above; the count is checked before the pointer is used.
    let list = unsafe { specs(std::ptr::null(), 1, "output") };
    assert_eq!(list, Err("the list of outputs is null".to_owned()));
    // SAFETY: as above.
    let found = unsafe { specs(&raw const good, 1, "input") };
    assert_eq!(
        found,
        Ok(vec![TensorSpec::new("x", DataType::Fp32, vec![-1, 3])])
    );
}

#[test]
fn lengths_that_memory_cannot_hold_are_refused_before_they_are_used() {
    let start = std::ptr::from_ref(&1_u64);
    for length in [u64::MAX, u64::MAX / 8, 1 << 60] {
        // SAFETY: refused before the memory is looked at.
        let refused = unsafe { slice(start, length, "x") };
        assert!(
            refused.expect_err("too long").starts_with("x claims"),
            "{length}"
        );
    }
    let end = usize::MAX - 7;
    let end = std::ptr::without_provenance::<u64>(end);
    // SAFETY: as above.
    assert!(unsafe { slice(end, 2, "x") }.is_err());
}

fn output(dtype: u32, shape: &[u64], data: &[u8]) -> abi::Tensor {
    abi::Tensor {
        dtype,
        rank: u32::try_from(shape.len()).expect("few"),
        shape: shape.as_ptr(),
        data: data.as_ptr().cast(),
        bytes: data.len() as u64,
    }
}

fn take(
    given: &[abi::Tensor],
    declared: &[TensorSpec],
    wanted: &[usize],
) -> Result<Vec<Tensor>, String> {
    // SAFETY: whatever passes the checks is memory of this test.
    unsafe { outputs(given, declared, wanted) }
}

#[test]
fn outputs_that_do_not_fit_are_refused_and_good_ones_are_copied() {
    let numbers = [1.0_f32, 2.0, 3.0, 4.0];
    let data: &[u8] = bytemuck_cast(&numbers);
    let spec = |name: &str| TensorSpec::new(name, DataType::Fp32, vec![-1, 2]);
    let good = output(11, &[2, 2], data);
    let taken = take(&[good], &[spec("y")], &[0]).expect("fits");
    assert_eq!(taken[0].elements::<f32>(), Some(&numbers[..]));
    assert_ne!(taken[0].data.as_ptr(), data.as_ptr());
    for (given, expected) in [
        (
            output(8, &[2, 2], data),
            "output `y`: INT32 is given, FP32 is declared",
        ),
        (
            output(11, &[4], data),
            "output `y`: shape [4] is given, [-1, 2] is declared",
        ),
        (
            output(11, &[3, 2], data),
            "output `y`: 16 bytes are given, shape and type need 24",
        ),
        (
            output(11, &[u64::MAX / 2, 2], data),
            "output `y`: its shape has more elements than can be addressed",
        ),
        (
            output(11, &[2, 2], &[]),
            "output `y`: 0 bytes are given, shape and type need 16",
        ),
        (
            abi::Tensor {
                data: std::ptr::null(),
                ..good
            },
            "output `y`: its data is null",
        ),
        (
            abi::Tensor {
                bytes: u64::MAX,
                ..good
            },
            "output `y` claims 18446744073709551615 bytes, more than memory holds",
        ),
        (
            abi::Tensor {
                shape: std::ptr::null(),
                ..good
            },
            "output `y`: the shape is null",
        ),
        (
            abi::Tensor { rank: 200, ..good },
            "output `y`: 200 dimensions, at most 16 are allowed",
        ),
        (
            abi::Tensor {
                data: data.as_ptr().wrapping_add(1).cast(),
                ..good
            },
            "output `y`: its data is not aligned to 4 bytes",
        ),
    ] {
        assert_eq!(take(&[given], &[spec("y")], &[0]), Err(expected.to_owned()));
    }
    let second = output(11, &[1, 2], &data[8..]);
    assert_eq!(
        take(&[good, second], &[spec("y"), spec("z")], &[0]),
        Err("outputs `y` and `z` overlap in memory".to_owned())
    );
}

#[test]
fn broken_strings_are_refused() {
    let spec = TensorSpec::new("words", DataType::Bytes, vec![-1]);
    let words = [2, 0, 0, 0, b'h', b'i'];
    assert!(
        take(
            &[output(13, &[1], &words)],
            std::slice::from_ref(&spec),
            &[0]
        )
        .is_ok()
    );
    for (shape, data) in [(2, &words[..]), (1, &words[..5])] {
        let refused = take(
            &[output(13, &[shape], data)],
            std::slice::from_ref(&spec),
            &[0],
        );
        assert!(refused.expect_err("broken").contains("tensor `words`"));
    }
}

fn bytemuck_cast(numbers: &[f32; 4]) -> &[u8] {
    // SAFETY: four floats are sixteen bytes.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), 16) }
}
