//! The node interface as Rust sees it, field by field what `include/kapok_node.h` says. A test compares the two.

use std::ffi::{c_char, c_void};

use protocol::DataType;

/// The only version so far.
pub const ABI: u32 = 1;

pub const OK: i32 = 0;
pub const INVALID: i32 = 1;
pub const FAILED: i32 = 2;
pub const STOPPED: i32 = 3;

/// UTF-8, not terminated.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Text {
    pub data: *const c_char,
    pub length: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub key: Text,
    pub value: Text,
}

/// Room for a message.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Error {
    pub text: *mut c_char,
    pub capacity: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Port {
    pub name: Text,
    pub dtype: u32,
    pub rank: u32,
    pub shape: *const i64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub inputs: *const Port,
    pub input_count: u64,
    pub outputs: *const Port,
    pub output_count: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tensor {
    pub dtype: u32,
    pub rank: u32,
    pub shape: *const u64,
    pub data: *const c_void,
    pub bytes: u64,
}

pub type Open =
    unsafe extern "C" fn(*const Parameter, u64, node: *mut *mut c_void, *mut Error) -> i32;
pub type DescribePorts = unsafe extern "C" fn(node: *mut c_void, *mut Ports, *mut Error) -> i32;
pub type MakeLane =
    unsafe extern "C" fn(node: *mut c_void, lane: *mut *mut c_void, *mut Error) -> i32;
pub type Run = unsafe extern "C" fn(
    lane: *mut c_void,
    inputs: *const Tensor,
    outputs: *mut Tensor,
    stop: *const u8,
    *mut Error,
) -> i32;
pub type Free = unsafe extern "C" fn(*mut c_void);

/// What a library offers; every function must be there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Api {
    pub abi: u32,
    pub size: u32,
    pub open: Option<Open>,
    pub ports: Option<DescribePorts>,
    pub lane: Option<MakeLane>,
    pub run: Option<Run>,
    pub release: Option<Free>,
    pub close_lane: Option<Free>,
    pub close: Option<Free>,
}

/// The number of an element type.
pub fn number(dtype: DataType) -> u32 {
    match dtype {
        DataType::Bool => 1,
        DataType::Uint8 => 2,
        DataType::Uint16 => 3,
        DataType::Uint32 => 4,
        DataType::Uint64 => 5,
        DataType::Int8 => 6,
        DataType::Int16 => 7,
        DataType::Int32 => 8,
        DataType::Int64 => 9,
        DataType::Fp16 => 10,
        DataType::Fp32 => 11,
        DataType::Fp64 => 12,
        DataType::Bytes => 13,
        DataType::Bf16 => 14,
    }
}

/// The element type of a number.
pub fn data_type(wanted: u32) -> Option<DataType> {
    DataType::ALL
        .into_iter()
        .find(|dtype| number(*dtype) == wanted)
}
