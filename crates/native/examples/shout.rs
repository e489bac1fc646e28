//! A node in Rust: `words` in capitals. `cargo build -p native --example shout` makes `libshout.so`, which goes into a
//! model's folder as `1/model.so`.

#![expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    clippy::cast_possible_truncation,
    reason = "a C interface, on 64 bits"
)]

use std::ffi::{c_char, c_void};

use native::abi::{
    ABI, Api, Error, FAILED, INVALID, OK, Parameter, Port, Ports, Tensor, Text, number,
};
use protocol::DataType;

/// What `run` made, kept until `release`.
#[derive(Default)]
struct Lane {
    shape: Vec<u64>,
    data: Vec<u8>,
}

struct Constant<T>(T);

// SAFETY: only pointers to constants are in it.
unsafe impl<T> Sync for Constant<T> {}

static ANY: [i64; 1] = [-1];

const fn port(name: &'static str) -> Constant<[Port; 1]> {
    Constant([Port {
        name: Text {
            data: name.as_ptr().cast::<c_char>(),
            length: name.len() as u64,
        },
        dtype: 13,
        rank: 1,
        shape: ANY.as_ptr(),
    }])
}

static INPUT: Constant<[Port; 1]> = port("words");
static OUTPUT: Constant<[Port; 1]> = port("loud");

/// # Safety
/// `error` is kapok's.
unsafe fn say(error: *mut Error, code: i32, text: &str) -> i32 {
    // SAFETY: kapok gives room for the message, and says how much.
    let room = unsafe {
        std::slice::from_raw_parts_mut((*error).text.cast::<u8>(), (*error).capacity as usize)
    };
    for (place, byte) in room.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    code
}

extern "C" fn open(_: *const Parameter, _: u64, node: *mut *mut c_void, _: *mut Error) -> i32 {
    // Nothing to keep: any pointer that is not null will do.
    // SAFETY: kapok gives a place for the node.
    unsafe { *node = std::ptr::dangling_mut::<u8>().cast() };
    OK
}

extern "C" fn ports(_: *mut c_void, ports: *mut Ports, _: *mut Error) -> i32 {
    // SAFETY: kapok gives a place for the ports.
    unsafe {
        *ports = Ports {
            inputs: INPUT.0.as_ptr(),
            input_count: 1,
            outputs: OUTPUT.0.as_ptr(),
            output_count: 1,
        };
    }
    OK
}

extern "C" fn lane(_: *mut c_void, lane: *mut *mut c_void, _: *mut Error) -> i32 {
    // SAFETY: kapok gives a place for the lane, and gives it back to `close_lane`.
    unsafe { *lane = Box::into_raw(Box::<Lane>::default()).cast() };
    OK
}

extern "C" fn run(
    lane: *mut c_void,
    inputs: *const Tensor,
    outputs: *mut Tensor,
    _stop: *const u8,
    error: *mut Error,
) -> i32 {
    // SAFETY: kapok gives one input and one place for an output, and the lane that `lane` made.
    let (lane, input, output) = unsafe { (&mut *lane.cast::<Lane>(), &*inputs, &mut *outputs) };
    if input.dtype != number(DataType::Bytes) {
        // SAFETY: `error` is kapok's.
        return unsafe { say(error, FAILED, "kapok checks types before it calls") };
    }
    // SAFETY: kapok says how long shape and data are.
    let (shape, data) = unsafe {
        (
            std::slice::from_raw_parts(input.shape, input.rank as usize),
            std::slice::from_raw_parts(input.data.cast::<u8>(), input.bytes as usize),
        )
    };
    let mut loud = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some((length, more)) = rest.split_at_checked(4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let Some((word, more)) = more.split_at_checked(length as usize) else {
            break;
        };
        let Ok(word) = std::str::from_utf8(word) else {
            // SAFETY: `error` is kapok's.
            return unsafe { say(error, INVALID, "words must be UTF-8") };
        };
        let word = word.to_uppercase();
        loud.extend_from_slice(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_le_bytes());
        loud.extend_from_slice(word.as_bytes());
        rest = more;
    }
    lane.shape = shape.to_vec();
    lane.data = loud;
    *output = Tensor {
        dtype: input.dtype,
        rank: input.rank,
        shape: lane.shape.as_ptr(),
        data: lane.data.as_ptr().cast(),
        bytes: lane.data.len() as u64,
    };
    OK
}

extern "C" fn release(lane: *mut c_void) {
    // SAFETY: the lane that `lane` made.
    let lane = unsafe { &mut *lane.cast::<Lane>() };
    *lane = Lane::default();
}

extern "C" fn close_lane(lane: *mut c_void) {
    // SAFETY: the lane that `lane` made, given back once.
    drop(unsafe { Box::from_raw(lane.cast::<Lane>()) });
}

extern "C" fn close(_: *mut c_void) {}

static API: Api = Api {
    abi: ABI,
    size: size_of::<Api>() as u32,
    open: Some(open),
    ports: Some(ports),
    lane: Some(lane),
    run: Some(run),
    release: Some(release),
    close_lane: Some(close_lane),
    close: Some(close),
};

#[unsafe(no_mangle)]
pub extern "C" fn kapok_node() -> *const Api {
    &raw const API
}
