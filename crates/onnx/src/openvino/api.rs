//! The part of OpenVINO's C interface that is used here, resolved from a library that is loaded at run time.
//!
//! Names, parameters and numbers are those of its public headers (`openvino/c/*.h`), unchanged since 2023.0.

use std::ffi::{c_char, c_void};
use std::path::Path;

use libloading::Library;

use crate::reason;

/// What the library hands out by pointer only.
#[repr(C)]
pub(super) struct Opaque {
    _private: [u8; 0],
}

/// `ov_shape_t`: allocated and freed by the library when it is an answer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rank: i64,
    pub(super) dims: *mut i64,
}

/// `ov_dimension_t`; of unknown size when the two differ.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimension {
    pub(super) min: i64,
    pub(super) max: i64,
}

/// `ov_partial_shape_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct PartialShape {
    pub(super) rank: Dimension,
    pub(super) dims: *mut Dimension,
}

/// `ov_version_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub(super) build: *const c_char,
    pub(super) description: *const c_char,
}

/// `ov_status_e`, zero when all is well.
pub(super) type Status = i32;

/// `INFER_CANCELLED`.
pub(super) const CANCELLED: Status = -13;

/// `INVALID_C_PARAM`.
pub(super) const INVALID_PARAMETER: Status = -14;

/// `ov_element_type_e`, as far as the inference protocol has the type.
pub(super) mod element {
    pub(in super::super) const BOOLEAN: u32 = 1;
    pub(in super::super) const F16: u32 = 3;
    pub(in super::super) const F32: u32 = 4;
    pub(in super::super) const I8: u32 = 7;
    pub(in super::super) const I32: u32 = 9;
    pub(in super::super) const I64: u32 = 10;
    pub(in super::super) const U8: u32 = 16;
}

macro_rules! interface {
    ($($name:ident: fn($($argument:ty),* $(; $variadic:tt)?) $(-> $answer:ty)?;)*) => {
        /// The library's functions, valid as long as the library is loaded, which is as long as this exists.
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),* $(, $variadic)?) $(-> $answer)?,)*
            _library: Library,
        }

        impl Api {
            #[expect(unsafe_code, reason = "a foreign library can only be asked through its C interface")]
            fn resolve(library: Library) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the symbol has had this signature in every release since 2023.0, and the copy of the
                        // pointer is dropped together with the library.
                        let symbol = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                        *symbol.map_err(|_| concat!("it has no `", stringify!($name), "`: OpenVINO 2023.0 or newer is needed"))?
                    },)*
                    _library: library,
                })
            }
        }
    };
}

interface! {
    ov_get_openvino_version: fn(*mut Version) -> Status;
    ov_version_free: fn(*mut Version);
    ov_get_error_info: fn(Status) -> *const c_char;
    ov_free: fn(*const c_char);
    ov_core_create: fn(*mut *mut Opaque) -> Status;
    ov_core_free: fn(*mut Opaque);
    ov_core_read_model: fn(*const Opaque, *const c_char, *const c_char, *mut *mut Opaque) -> Status;
    ov_model_free: fn(*mut Opaque);
    ov_core_compile_model: fn(*const Opaque, *const Opaque, *const c_char, usize, *mut *mut Opaque; ...) -> Status;
    ov_compiled_model_free: fn(*mut Opaque);
    ov_compiled_model_inputs_size: fn(*const Opaque, *mut usize) -> Status;
    ov_compiled_model_outputs_size: fn(*const Opaque, *mut usize) -> Status;
    ov_compiled_model_input_by_index: fn(*const Opaque, usize, *mut *mut Opaque) -> Status;
    ov_compiled_model_output_by_index: fn(*const Opaque, usize, *mut *mut Opaque) -> Status;
    ov_output_const_port_free: fn(*mut Opaque);
    ov_port_get_any_name: fn(*const Opaque, *mut *mut c_char) -> Status;
    ov_port_get_element_type: fn(*const Opaque, *mut u32) -> Status;
    ov_port_get_partial_shape: fn(*const Opaque, *mut PartialShape) -> Status;
    ov_partial_shape_free: fn(*mut PartialShape);
    ov_compiled_model_create_infer_request: fn(*const Opaque, *mut *mut Opaque) -> Status;
    ov_infer_request_free: fn(*mut Opaque);
    ov_infer_request_set_input_tensor_by_index: fn(*mut Opaque, usize, *const Opaque) -> Status;
    ov_infer_request_get_output_tensor_by_index: fn(*const Opaque, usize, *mut *mut Opaque) -> Status;
    ov_infer_request_infer: fn(*mut Opaque) -> Status;
    ov_infer_request_cancel: fn(*mut Opaque) -> Status;
    ov_tensor_create_from_host_ptr: fn(u32, Shape, *mut c_void, *mut *mut Opaque) -> Status;
    ov_tensor_free: fn(*mut Opaque);
    ov_tensor_get_shape: fn(*const Opaque, *mut Shape) -> Status;
    ov_tensor_get_element_type: fn(*const Opaque, *mut u32) -> Status;
    ov_tensor_get_size: fn(*const Opaque, *mut usize) -> Status;
    ov_tensor_get_byte_size: fn(*const Opaque, *mut usize) -> Status;
    ov_tensor_data: fn(*const Opaque, *mut *mut c_void) -> Status;
    ov_shape_free: fn(*mut Shape) -> Status;
    ov_get_last_err_msg: fn() -> *const c_char;
}

impl Api {
    /// Loads the library and what lies beside it. Its initialisers run.
    #[expect(unsafe_code, reason = "loading a library runs its code")]
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: the operator named this file, or put it into one of the folders that hold this machine's libraries;
        // nothing can be promised about what is in it beyond that trust.
        let library = unsafe { Library::new(path) };
        let library = library.map_err(|error| reason::public(&error.to_string()))?;
        Self::resolve(library)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}
