//! OpenVINO's objects with owners: what the library allocates is freed once, and every pointer it answers with is looked
//! at before it is used.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Arc;

use super::api::{Api, Dimension, INVALID_PARAMETER, Opaque, PartialShape, Shape, Status, Version};
use crate::reason;

/// More dimensions than this are a broken answer, not a tensor.
const RANK_MAX: i64 = 64;

/// What went wrong, in the library's words.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) words: String,
}

impl Failure {
    fn broken(words: &str) -> Self {
        Self {
            status: 0,
            words: words.to_owned(),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Zero is success; anything else is explained by the library.
fn check(api: &Api, status: Status) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(Failure {
        status,
        words: reason::plain(&explanation(api, status)),
    })
}

#[expect(unsafe_code, reason = "the library's words are C strings")]
fn explanation(api: &Api, status: Status) -> String {
    // SAFETY: takes nothing; answers null or a copy that is freed below.
    let last = unsafe { (api.ov_get_last_err_msg)() };
    if !last.is_null() {
        let words = text(last);
        // SAFETY: the copy from above, which nobody else has.
        unsafe { (api.ov_free)(last) };
        if !words.trim().is_empty() {
            return words;
        }
    }
    // SAFETY: any status may be asked about; the answer is null or a static string.
    let general = unsafe { (api.ov_get_error_info)(status) };
    if general.is_null() {
        return format!("status {status}");
    }
    text(general)
}

/// A C string's text; `start` is not null.
#[expect(unsafe_code, reason = "the library's words are C strings")]
fn text(start: *const c_char) -> String {
    // SAFETY: callers pass strings of the library that end in NUL by its contract and are alive.
    let text = unsafe { CStr::from_ptr(start) };
    text.to_string_lossy().into_owned()
}

/// Owns one object of the library.
struct Handle {
    api: Arc<Api>,
    raw: NonNull<Opaque>,
    free: unsafe extern "C" fn(*mut Opaque),
}

#[expect(unsafe_code, reason = "a pointer says nothing about threads")]
// SAFETY: OpenVINO ties none of its objects to the thread that made them.
unsafe impl Send for Handle {}

#[expect(unsafe_code, reason = "a pointer says nothing about threads")]
// SAFETY: what is called through a shared reference here is documented as safe from several threads (core, compiled
// model, cancelling), or needs `&mut` of the wrapper.
unsafe impl Sync for Handle {}

impl Handle {
    /// Takes what a creating call answered.
    fn own(
        api: &Arc<Api>,
        raw: *mut Opaque,
        free: unsafe extern "C" fn(*mut Opaque),
    ) -> Result<Self> {
        let raw = NonNull::new(raw).ok_or_else(|| Failure::broken("it answered nothing"))?;
        Ok(Self {
            api: Arc::clone(api),
            raw,
            free,
        })
    }

    fn get(&self) -> *mut Opaque {
        self.raw.as_ptr()
    }
}

impl Drop for Handle {
    #[expect(unsafe_code, reason = "what the library allocated must go back to it")]
    fn drop(&mut self) {
        // SAFETY: the object is owned by this handle, made for this function, and freed here only.
        unsafe { (self.free)(self.get()) };
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// The library's version, such as `2026.4.1-22982-…`.
#[expect(unsafe_code, reason = "C interface")]
pub(super) fn version(api: &Api) -> Result<String> {
    let mut version = Version {
        build: ptr::null(),
        description: ptr::null(),
    };
    // SAFETY: fills the structure it is given.
    check(api, unsafe {
        (api.ov_get_openvino_version)(&raw mut version)
    })?;
    if version.build.is_null() {
        return Err(Failure::broken("it gives no version"));
    }
    let words = text(version.build);
    // SAFETY: as filled by the call above, and not used after this.
    unsafe { (api.ov_version_free)(&raw mut version) };
    Ok(words)
}

/// The library's entry: it knows the devices and keeps their plug-ins.
#[derive(Debug)]
pub(super) struct Core(Handle);

/// How a model is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compilation<'a> {
    /// Calls at the same time on one compiled model; none run on their caller's thread, one at a time.
    pub(super) streams: usize,
    /// Of all streams together.
    pub(super) threads: usize,
    /// `f32` or `bf16`.
    pub(super) precision: &'a str,
}

impl Core {
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn new(api: &Arc<Api>) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: writes one pointer.
        check(api, unsafe { (api.ov_core_create)(&raw mut raw) })?;
        Handle::own(api, raw, api.ov_core_free).map(Self)
    }

    /// Reads a model file.
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn read(&self, path: &CStr) -> Result<Model> {
        let api = &self.0.api;
        let mut raw = ptr::null_mut();
        // SAFETY: the core is alive; the path ends in NUL; without a second path the library looks for weights where the
        // model says.
        let status = unsafe {
            (api.ov_core_read_model)(self.0.get(), path.as_ptr(), ptr::null(), &raw mut raw)
        };
        check(api, status)?;
        Handle::own(api, raw, api.ov_model_free).map(Model)
    }

    /// Prepares a model for this machine's processor.
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn compile(&self, model: &Model, how: Compilation<'_>) -> Result<Compiled> {
        let api = &self.0.api;
        let words = |text: String| {
            CString::new(text).map_err(|_| Failure::broken("a property contains NUL"))
        };
        let (streams, threads) = (
            words(how.streams.to_string())?,
            words(how.threads.to_string())?,
        );
        let precision = words(how.precision.to_owned())?;
        let mut raw = ptr::null_mut();
        // SAFETY: core and model are alive; three pairs of strings that end in NUL follow, which is six arguments, as
        // said; the library copies them.
        let status = unsafe {
            (api.ov_core_compile_model)(
                self.0.get(),
                model.0.get(),
                c"CPU".as_ptr(),
                6,
                &raw mut raw,
                c"NUM_STREAMS".as_ptr(),
                streams.as_ptr(),
                c"INFERENCE_NUM_THREADS".as_ptr(),
                threads.as_ptr(),
                c"INFERENCE_PRECISION_HINT".as_ptr(),
                precision.as_ptr(),
            )
        };
        check(api, status)?;
        Handle::own(api, raw, api.ov_compiled_model_free).map(Compiled)
    }
}

/// A model as read.
#[derive(Debug)]
pub(super) struct Model(Handle);

/// A model that runs.
#[derive(Debug)]
pub(super) struct Compiled(Handle);

/// An input or output as the library sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// One of its names; a tensor may have several.
    pub(super) name: Option<String>,
    pub(super) element: u32,
    /// Open dimensions are -1; none when the rank is open.
    pub(super) shape: Option<Vec<i64>>,
}

type ByIndex = unsafe extern "C" fn(*const Opaque, usize, *mut *mut Opaque) -> Status;
type Count = unsafe extern "C" fn(*const Opaque, *mut usize) -> Status;

impl Compiled {
    pub(super) fn inputs(&self) -> Result<Vec<Port>> {
        let api = &self.0.api;
        self.ports(
            api.ov_compiled_model_inputs_size,
            api.ov_compiled_model_input_by_index,
        )
    }

    pub(super) fn outputs(&self) -> Result<Vec<Port>> {
        let api = &self.0.api;
        self.ports(
            api.ov_compiled_model_outputs_size,
            api.ov_compiled_model_output_by_index,
        )
    }

    #[expect(unsafe_code, reason = "C interface")]
    fn ports(&self, size: Count, by_index: ByIndex) -> Result<Vec<Port>> {
        let api = &self.0.api;
        let mut count = 0;
        // SAFETY: the compiled model is alive; writes one number.
        check(api, unsafe { size(self.0.get(), &raw mut count) })?;
        (0..count)
            .map(|index| {
                let mut raw = ptr::null_mut();
                // SAFETY: as above; writes one pointer.
                check(api, unsafe { by_index(self.0.get(), index, &raw mut raw) })?;
                describe(&Handle::own(api, raw, api.ov_output_const_port_free)?)
            })
            .collect()
    }

    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn request(&self) -> Result<Request> {
        let api = &self.0.api;
        let mut raw = ptr::null_mut();
        // SAFETY: the compiled model is alive; writes one pointer.
        let status =
            unsafe { (api.ov_compiled_model_create_infer_request)(self.0.get(), &raw mut raw) };
        check(api, status)?;
        let handle = Handle::own(api, raw, api.ov_infer_request_free)?;
        Ok(Request(handle))
    }
}

#[expect(unsafe_code, reason = "C interface")]
fn describe(port: &Handle) -> Result<Port> {
    let api = &port.api;
    let mut element = 0;
    // SAFETY: the port is alive; writes one number.
    check(api, unsafe {
        (api.ov_port_get_element_type)(port.get(), &raw mut element)
    })?;
    let mut name = ptr::null_mut();
    // SAFETY: as above; writes a pointer to a copy that is freed below. A port without a name is an error here.
    let named = unsafe { (api.ov_port_get_any_name)(port.get(), &raw mut name) };
    let known = (named == 0 && !name.is_null()).then(|| text(name));
    if !name.is_null() {
        // SAFETY: the copy from above, which nobody else has.
        unsafe { (api.ov_free)(name) };
    }
    let open = Dimension { min: 0, max: 0 };
    let mut shape = PartialShape {
        rank: open,
        dims: ptr::null_mut(),
    };
    // SAFETY: fills the structure it is given.
    check(api, unsafe {
        (api.ov_port_get_partial_shape)(port.get(), &raw mut shape)
    })?;
    let dims = dimensions(&shape);
    // SAFETY: as filled by the call above, and not used after this.
    unsafe { (api.ov_partial_shape_free)(&raw mut shape) };
    Ok(Port {
        name: known,
        element,
        shape: dims,
    })
}

/// The sizes that are certain; none when even the rank is not.
#[expect(unsafe_code, reason = "the library answers with pointer and length")]
fn dimensions(shape: &PartialShape) -> Option<Vec<i64>> {
    let rank = shape.rank;
    if rank.min != rank.max || !(0..=RANK_MAX).contains(&rank.min) {
        return None;
    }
    let count = usize::try_from(rank.min).ok()?;
    if count == 0 {
        return Some(Vec::new());
    }
    if shape.dims.is_null() {
        return None;
    }
    // SAFETY: not null, and the library allocated as many dimensions as the rank says, which is at most 64.
    let dims = unsafe { std::slice::from_raw_parts(shape.dims, count) };
    let size = |dim: &Dimension| {
        if dim.min == dim.max { dim.min } else { -1 }
    };
    Some(dims.iter().map(size).collect())
}

/// A place for one call at a time.
#[derive(Debug)]
pub(super) struct Request(Handle);

impl Request {
    /// Gives an input. The memory behind the tensor must stay until the call has ended.
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn set_input(&self, index: usize, tensor: &Borrowed<'_>) -> Result<()> {
        let api = &self.0.api;
        // SAFETY: request and tensor are alive; the library checks the index and keeps a reference of its own.
        check(api, unsafe {
            (api.ov_infer_request_set_input_tensor_by_index)(self.0.get(), index, tensor.0.get())
        })
    }

    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn infer(&self) -> Result<()> {
        let api = &self.0.api;
        // SAFETY: the request is alive, and its lane runs one call at a time.
        check(api, unsafe { (api.ov_infer_request_infer)(self.0.get()) })
    }

    /// Ends the running call, if one is; from any thread.
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn cancel(&self) {
        let api = &self.0.api;
        // SAFETY: the request is alive, and cancelling is what may be done beside a running call. Without a call it does
        // nothing, so its answer is of no interest.
        let _answer = unsafe { (api.ov_infer_request_cancel)(self.0.get()) };
    }

    /// An output of the last call: its element type, shape and a copy of its bytes. The request writes the next call's
    /// output to the same place.
    pub(super) fn output(&self, index: usize) -> Result<Output> {
        let tensor = self.output_tensor(index)?;
        let shape = shape_of(&tensor)?;
        let (element, length, data) = contents(&tensor)?;
        let bytes = copied(data, length)?;
        Ok(Output {
            element,
            shape,
            bytes,
        })
    }

    #[expect(unsafe_code, reason = "C interface")]
    fn output_tensor(&self, index: usize) -> Result<Handle> {
        let api = &self.0.api;
        let mut raw = ptr::null_mut();
        // SAFETY: the request is alive; the library checks the index and writes one pointer.
        check(api, unsafe {
            (api.ov_infer_request_get_output_tensor_by_index)(self.0.get(), index, &raw mut raw)
        })?;
        Handle::own(api, raw, api.ov_tensor_free)
    }
}

/// One output, copied.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) element: u32,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

#[expect(unsafe_code, reason = "C interface")]
fn contents(tensor: &Handle) -> Result<(u32, usize, *const u8)> {
    let api = &tensor.api;
    let (mut element, mut length, mut data) = (0, 0, ptr::null_mut::<c_void>());
    // SAFETY: the tensor is alive; writes one number.
    check(api, unsafe {
        (api.ov_tensor_get_element_type)(tensor.get(), &raw mut element)
    })?;
    // SAFETY: as above.
    check(api, unsafe {
        (api.ov_tensor_get_byte_size)(tensor.get(), &raw mut length)
    })?;
    if length == 0 {
        return Ok((element, 0, ptr::null()));
    }
    // SAFETY: as above; writes one pointer.
    check(api, unsafe {
        (api.ov_tensor_data)(tensor.get(), &raw mut data)
    })?;
    Ok((element, length, data.cast::<u8>().cast_const()))
}

#[expect(unsafe_code, reason = "the library answers with pointer and length")]
fn copied(data: *const u8, length: usize) -> Result<Vec<u8>> {
    if length == 0 {
        return Ok(Vec::new());
    }
    if data.is_null() || isize::try_from(length).is_err() {
        return Err(Failure::broken("an output has no data"));
    }
    // SAFETY: not null, `length` bytes of one tensor that its caller holds, and no call runs that could write to it.
    Ok(unsafe { std::slice::from_raw_parts(data, length) }.to_vec())
}

#[expect(unsafe_code, reason = "C interface")]
fn one_element(tensor: &Handle) -> Result<bool> {
    let mut count = 0;
    // SAFETY: the tensor is alive; writes one number.
    let status = unsafe { (tensor.api.ov_tensor_get_size)(tensor.get(), &raw mut count) };
    check(&tensor.api, status)?;
    Ok(count == 1)
}

#[expect(unsafe_code, reason = "C interface")]
fn shape_of(tensor: &Handle) -> Result<Vec<usize>> {
    let api = &tensor.api;
    let mut shape = Shape {
        rank: 0,
        dims: ptr::null_mut(),
    };
    // SAFETY: the tensor is alive; fills the structure it is given.
    let status = unsafe { (api.ov_tensor_get_shape)(tensor.get(), &raw mut shape) };
    if status == INVALID_PARAMETER && one_element(tensor)? {
        // The interface makes no shape without dimensions, so it cannot tell a scalar's.
        return Ok(Vec::new());
    }
    check(api, status)?;
    let sizes = sizes(shape);
    // SAFETY: as filled by the call above, and not used after this; that it was freed needs no further look.
    let _freed = unsafe { (api.ov_shape_free)(&raw mut shape) };
    sizes
}

#[expect(unsafe_code, reason = "the library answers with pointer and length")]
fn sizes(shape: Shape) -> Result<Vec<usize>> {
    let broken = || Failure::broken("an output's shape is no shape");
    if !(0..=RANK_MAX).contains(&shape.rank) {
        return Err(broken());
    }
    let count = usize::try_from(shape.rank).map_err(|_| broken())?;
    if count == 0 {
        return Ok(Vec::new());
    }
    if shape.dims.is_null() {
        return Err(broken());
    }
    // SAFETY: not null, and the library allocated as many numbers as the rank says, which is at most 64.
    let dims = unsafe { std::slice::from_raw_parts(shape.dims, count) };
    let size = |dim: &i64| usize::try_from(*dim).map_err(|_| broken());
    dims.iter().map(size).collect()
}

/// A tensor over memory of ours, for as long as that is borrowed.
#[derive(Debug)]
pub(super) struct Borrowed<'a>(Handle, std::marker::PhantomData<&'a [u8]>);

impl<'a> Borrowed<'a> {
    /// The caller has checked that `bytes` are as many as type and shape say, and aligned.
    #[expect(unsafe_code, reason = "C interface")]
    pub(super) fn new(
        request: &Request,
        (element, shape): (u32, &[usize]),
        bytes: &'a [u8],
    ) -> Result<Self> {
        let api = &request.0.api;
        let mut dims = shape
            .iter()
            .map(|dim| i64::try_from(*dim))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Failure::broken("a dimension is too large"))?;
        let shape = Shape {
            rank: i64::try_from(dims.len()).unwrap_or(i64::MAX),
            dims: dims.as_mut_ptr(),
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the shape's numbers live until the call ends and are copied by it. The memory is only read, because it
        // becomes an input; it is borrowed for `'a`, and a request that still knows the tensor later does not look at it
        // before the next call has given another.
        let status = unsafe {
            let data = bytes.as_ptr().cast_mut().cast::<c_void>();
            (api.ov_tensor_create_from_host_ptr)(element, shape, data, &raw mut raw)
        };
        check(api, status)?;
        let handle = Handle::own(api, raw, api.ov_tensor_free)?;
        Ok(Self(handle, std::marker::PhantomData))
    }
}
