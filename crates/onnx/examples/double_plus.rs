//! A library of one operator for ONNX Runtime: `DoublePlus` of domain `kapok.sample`, which gives `2x + 1` for FP32.
//! `cargo build -p onnx --example double_plus` makes `libdouble_plus.so`, which a model names in
//! `model_operations.op_library_filename` or in `[custom_ops] libs`.

#![expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "ONNX Runtime's C interface"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use ort::sys::{
    ONNXTensorElementDataType, OrtApi, OrtApiBase, OrtCustomOp, OrtCustomOpDomain,
    OrtCustomOpInputOutputCharacteristic, OrtKernelContext, OrtKernelInfo, OrtMemType,
    OrtSessionOptions, OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue,
};

/// The interface of ONNX Runtime 1.17, which every later one offers too.
const VERSION: u32 = 17;
const DOMAIN: &CStr = c"kapok.sample";
const NAME: &CStr = c"DoublePlus";

type Done = Result<(), OrtStatusPtr>;

fn done(status: OrtStatusPtr) -> Done {
    if status.0.is_null() {
        Ok(())
    } else {
        Err(status)
    }
}

fn status(done: Done) -> OrtStatusPtr {
    done.err().unwrap_or_default()
}

/// Called once for each session that names this library.
///
/// # Safety
/// Both pointers are ONNX Runtime's own.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn RegisterCustomOps(
    options: *mut OrtSessionOptions,
    base: *const OrtApiBase,
) -> OrtStatusPtr {
    // SAFETY: as promised by the caller; the answer is null or a table that lives as long as the library.
    let Some(api) = (unsafe { ((*base).GetApi)(VERSION).as_ref() }) else {
        // Without the interface no status can be made; the model then fails for want of the operator.
        return OrtStatusPtr::default();
    };
    // SAFETY: as promised by the caller.
    status(unsafe { register(api, options) })
}

/// The domain and its operator are kept for good: sessions refer to them.
struct Kept(*mut OrtCustomOpDomain);

// SAFETY: ONNX Runtime only reads a domain once it is complete.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

unsafe fn register(api: &'static OrtApi, options: *mut OrtSessionOptions) -> Done {
    static DOMAINS: OnceLock<Kept> = OnceLock::new();
    let domain = match DOMAINS.get() {
        Some(kept) => kept.0,
        None => {
            let mut made = ptr::null_mut();
            // SAFETY: a name that ends in NUL, and room for one pointer.
            done(unsafe { (api.CreateCustomOpDomain)(DOMAIN.as_ptr(), &raw mut made) })?;
            let operator: &'static OrtCustomOp = Box::leak(Box::new(operator()));
            // SAFETY: the domain was made above, the operator is never freed.
            done(unsafe { (api.CustomOpDomain_Add)(made, operator) })?;
            DOMAINS.get_or_init(|| Kept(made)).0
        }
    };
    // SAFETY: the options are the caller's, the domain is never freed.
    done(unsafe { (api.AddCustomOpDomain)(options, domain) })
}

fn operator() -> OrtCustomOp {
    OrtCustomOp {
        version: VERSION,
        CreateKernel: None,
        GetName: Some(name),
        GetExecutionProviderType: Some(any_provider),
        GetInputType: Some(float),
        GetInputTypeCount: Some(one),
        GetOutputType: Some(float),
        GetOutputTypeCount: Some(one),
        KernelCompute: None,
        KernelDestroy: Some(destroy),
        GetInputCharacteristic: Some(required),
        GetOutputCharacteristic: Some(required),
        GetInputMemoryType: Some(memory),
        GetVariadicInputMinArity: Some(zero),
        GetVariadicInputHomogeneity: Some(zero),
        GetVariadicOutputMinArity: Some(zero),
        GetVariadicOutputHomogeneity: Some(zero),
        CreateKernelV2: Some(create),
        KernelComputeV2: Some(compute),
        InferOutputShapeFn: None,
        GetStartVersion: Some(first_version),
        GetEndVersion: Some(last_version),
    }
}

extern "system" fn name(_: *const OrtCustomOp) -> *const c_char {
    NAME.as_ptr()
}

extern "system" fn any_provider(_: *const OrtCustomOp) -> *const c_char {
    ptr::null()
}

extern "system" fn float(_: *const OrtCustomOp, _: usize) -> ONNXTensorElementDataType {
    ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
}

extern "system" fn one(_: *const OrtCustomOp) -> usize {
    1
}

extern "system" fn zero(_: *const OrtCustomOp) -> c_int {
    0
}

extern "system" fn first_version(_: *const OrtCustomOp) -> c_int {
    1
}

extern "system" fn last_version(_: *const OrtCustomOp) -> c_int {
    c_int::MAX
}

extern "system" fn required(
    _: *const OrtCustomOp,
    _: usize,
) -> OrtCustomOpInputOutputCharacteristic {
    OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_REQUIRED
}

extern "system" fn memory(_: *const OrtCustomOp, _: usize) -> OrtMemType {
    OrtMemType::OrtMemTypeDefault
}

/// What one node of one session keeps.
struct Kernel {
    api: *const OrtApi,
}

unsafe extern "system" fn create(
    _: *const OrtCustomOp,
    api: *const OrtApi,
    _: *const OrtKernelInfo,
    kernel: *mut *mut c_void,
) -> OrtStatusPtr {
    let made = Box::into_raw(Box::new(Kernel { api }));
    // SAFETY: ONNX Runtime gives room for one pointer, and gives it back to `destroy`.
    unsafe { *kernel = made.cast() };
    OrtStatusPtr::default()
}

unsafe extern "system" fn destroy(kernel: *mut c_void) {
    // SAFETY: made by `create`, and given back once.
    drop(unsafe { Box::from_raw(kernel.cast::<Kernel>()) });
}

unsafe extern "system" fn compute(
    kernel: *mut c_void,
    context: *mut OrtKernelContext,
) -> OrtStatusPtr {
    // SAFETY: made by `create` and not yet destroyed; the table lives as long as the library.
    let api = unsafe { &*(*kernel.cast::<Kernel>()).api };
    // SAFETY: the context is this call's.
    status(unsafe { double_plus(api, context) })
}

unsafe fn double_plus(api: &OrtApi, context: *mut OrtKernelContext) -> Done {
    let mut input = ptr::null();
    // SAFETY: the operator has one input and one output; each call writes what it is given room for.
    done(unsafe { (api.KernelContext_GetInput)(context, 0, &raw mut input) })?;
    // SAFETY: the input is a tensor, as `float` and `required` say.
    let dims = unsafe { dimensions(api, input) }?;
    let mut output = ptr::null_mut();
    // SAFETY: as above; the dimensions are copied.
    done(unsafe {
        (api.KernelContext_GetOutput)(context, 0, dims.as_ptr(), dims.len(), &raw mut output)
    })?;
    let count = usize::try_from(dims.iter().product::<i64>()).unwrap_or(0);
    // SAFETY: both are FP32 tensors of these dimensions.
    let (from, to) = unsafe { (data(api, input.cast_mut())?, data(api, output)?) };
    for place in 0..count {
        // SAFETY: inside both tensors. They may be the same memory, so no slices are made of them.
        unsafe {
            to.add(place)
                .write(from.add(place).read().mul_add(2.0, 1.0))
        };
    }
    Ok(())
}

unsafe fn data(api: &OrtApi, value: *mut OrtValue) -> Result<*mut f32, OrtStatusPtr> {
    let mut data = ptr::null_mut();
    // SAFETY: a tensor, and room for one pointer.
    done(unsafe { (api.GetTensorMutableData)(value, &raw mut data) })?;
    Ok(data.cast())
}

unsafe fn dimensions(api: &OrtApi, value: *const OrtValue) -> Result<Vec<i64>, OrtStatusPtr> {
    let mut info = ptr::null_mut();
    // SAFETY: a tensor, and room for one pointer.
    done(unsafe { (api.GetTensorTypeAndShape)(value, &raw mut info) })?;
    // SAFETY: made above.
    let dims = unsafe { sizes(api, info) };
    // SAFETY: made above and used no more.
    unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
    dims
}

unsafe fn sizes(
    api: &OrtApi,
    info: *const OrtTensorTypeAndShapeInfo,
) -> Result<Vec<i64>, OrtStatusPtr> {
    let mut rank = 0;
    // SAFETY: writes one number.
    done(unsafe { (api.GetDimensionsCount)(info, &raw mut rank) })?;
    let mut dims = vec![0; rank];
    // SAFETY: writes as many numbers as it is told there is room for.
    done(unsafe { (api.GetDimensions)(info, dims.as_mut_ptr(), rank) })?;
    Ok(dims)
}
