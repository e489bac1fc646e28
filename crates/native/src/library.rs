//! A library that is open, and its calls. All of this room's foreign calls are here.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use protocol::{Tensor, TensorSpec};

use crate::abi::{self, Api};
use crate::border;

/// A library's own words are cut here.
const ERROR_BYTES: usize = 512;

/// Why a call into a library gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid(String),
    Stopped,
    Failed(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// The functions of a loaded library, which stays loaded as long as this lives.
pub(crate) struct Library {
    calls: Calls,
    /// Holds the code that `calls` points to.
    _handle: libloading::Library,
}

#[derive(Clone, Copy)]
struct Calls {
    open: abi::Open,
    ports: abi::DescribePorts,
    lane: abi::MakeLane,
    run: abi::Run,
    release: abi::Free,
    close_lane: abi::Free,
    close: abi::Free,
}

impl Library {
    /// Loads the file and checks the table that it gives.
    #[expect(unsafe_code, reason = "loading a library runs its code")]
    pub(crate) fn load(path: &Path) -> Result<Arc<Self>, String> {
        type Entry = unsafe extern "C" fn() -> *const Api;
        // SAFETY: a model's owner asked for exactly this code to run here.
        let handle =
            unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
        // SAFETY: the name belongs to this interface, and so does its type.
        let entry = unsafe { handle.get::<Entry>(b"kapok_node\0") }
            .map_err(|_| "it has no function `kapok_node`: it is not a kapok node")?;
        // SAFETY: it takes nothing.
        let table = unsafe { entry() };
        if table.is_null() || !table.is_aligned() {
            return Err("`kapok_node` gives a pointer that is null or not aligned".to_owned());
        }
        let header = table.cast::<[u32; 2]>();
        // SAFETY: every version of the table begins with its version and its size.
        let [version, size] = unsafe { header.read() };
        if version != abi::ABI {
            return Err(format!(
                "it speaks version {version} of the node interface, this kapok {}",
                abi::ABI
            ));
        }
        if (size as usize) < size_of::<Api>() {
            return Err(format!(
                "its table has {size} bytes, version {version} has {}",
                size_of::<Api>()
            ));
        }
        // SAFETY: version and size say that the whole table is there.
        let table = unsafe { table.read() };
        let calls = Calls::of(&table).ok_or("its table lacks a function")?;
        Ok(Arc::new(Self {
            calls,
            _handle: handle,
        }))
    }
}

impl Calls {
    fn of(table: &Api) -> Option<Self> {
        Some(Self {
            open: table.open?,
            ports: table.ports?,
            lane: table.lane?,
            run: table.run?,
            release: table.release?,
            close_lane: table.close_lane?,
            close: table.close?,
        })
    }
}

/// One model in a library.
pub(crate) struct Node {
    handle: *mut c_void,
    library: Arc<Library>,
}

#[expect(unsafe_code, reason = "the interface says so")]
// SAFETY: the interface allows any thread, and `open`, `ports`, `lane` and `close` are never called at the same time:
// `lane` is called under the engine's lock, `close` when nobody else holds the node.
unsafe impl Send for Node {}
#[expect(unsafe_code, reason = "the interface says so")]
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Node {
    #[expect(unsafe_code, reason = "foreign call")]
    pub(crate) fn open(
        library: Arc<Library>,
        parameters: &[(String, String)],
    ) -> Result<Self, Refusal> {
        let text = |text: &str| abi::Text {
            data: text.as_ptr().cast::<c_char>(),
            length: text.len() as u64,
        };
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(key, value)| abi::Parameter {
                key: text(key),
                value: text(value),
            })
            .collect();
        let mut handle = std::ptr::null_mut();
        call(|error| {
            // SAFETY: all pointers are ours and live for the call.
            unsafe {
                (library.calls.open)(
                    parameters.as_ptr(),
                    parameters.len() as u64,
                    &raw mut handle,
                    error,
                )
            }
        })?;
        if handle.is_null() {
            return Err("`open` succeeded and gave no node".to_owned().into());
        }
        Ok(Self { handle, library })
    }

    /// Inputs and outputs.
    #[expect(unsafe_code, reason = "foreign call")]
    pub(crate) fn ports(&self) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), Refusal> {
        let mut ports = abi::Ports {
            inputs: std::ptr::null(),
            input_count: 0,
            outputs: std::ptr::null(),
            output_count: 0,
        };
        call(|error| {
            // SAFETY: the node is open; the other pointers are ours and live for the call.
            unsafe { (self.library.calls.ports)(self.handle, &raw mut ports, error) }
        })?;
        // SAFETY: the interface promises that ports live as long as the node.
        let inputs = unsafe { border::specs(ports.inputs, ports.input_count, "input") }?;
        // SAFETY: as above.
        let outputs = unsafe { border::specs(ports.outputs, ports.output_count, "output") }?;
        Ok((inputs, outputs))
    }

    #[expect(unsafe_code, reason = "foreign call")]
    pub(crate) fn lane(self: &Arc<Self>) -> Result<Lane, Refusal> {
        let mut handle = std::ptr::null_mut();
        call(|error| {
            // SAFETY: the node is open; the other pointers are ours and live for the call.
            unsafe { (self.library.calls.lane)(self.handle, &raw mut handle, error) }
        })?;
        if handle.is_null() {
            return Err("`lane` succeeded and gave no lane".to_owned().into());
        }
        Ok(Lane {
            handle,
            node: Arc::clone(self),
        })
    }
}

impl Drop for Node {
    #[expect(unsafe_code, reason = "foreign call")]
    fn drop(&mut self) {
        // SAFETY: every lane holds the node, so all of them are closed.
        unsafe { (self.library.calls.close)(self.handle) };
    }
}

/// Runs one call at a time.
pub(crate) struct Lane {
    handle: *mut c_void,
    node: Arc<Node>,
}

#[expect(unsafe_code, reason = "the interface says so")]
// SAFETY: the interface allows a lane to be used by one thread after another.
unsafe impl Send for Lane {}

impl Lane {
    /// `inputs` fit the ports and are aligned for their types.
    #[expect(unsafe_code, reason = "foreign call")]
    pub(crate) fn run(
        &mut self,
        inputs: &[Tensor],
        (specs, wanted): (&[TensorSpec], &[usize]),
        stop: &AtomicU8,
    ) -> Result<Vec<Tensor>, Refusal> {
        let shapes: Vec<Vec<u64>> = inputs
            .iter()
            .map(|input| input.shape.iter().map(|dim| *dim as u64).collect())
            .collect();
        let given: Vec<_> = inputs
            .iter()
            .zip(&shapes)
            .map(|(input, shape)| abi::Tensor {
                dtype: abi::number(input.dtype),
                rank: u32::try_from(shape.len()).unwrap_or(u32::MAX),
                shape: shape.as_ptr(),
                data: input.data.as_ptr().cast(),
                bytes: input.data.len() as u64,
            })
            .collect();
        let nothing = abi::Tensor {
            dtype: 0,
            rank: 0,
            shape: std::ptr::null(),
            data: std::ptr::null(),
            bytes: 0,
        };
        let mut made = vec![nothing; specs.len()];
        let calls = &self.node.library.calls;
        let outcome = call(|error| {
            // SAFETY: the lane is open and only ours; there is a place for every output of `ports`; all other pointers
            // are ours and live for the call.
            unsafe {
                (calls.run)(
                    self.handle,
                    given.as_ptr(),
                    made.as_mut_ptr(),
                    stop.as_ptr(),
                    error,
                )
            }
        });
        // SAFETY: the interface promises that outputs live until `release`.
        let outputs = outcome.and_then(|()| Ok(unsafe { border::outputs(&made, specs, wanted) }?));
        // SAFETY: the lane is open, and nothing of what it gave is used any more.
        unsafe { (calls.release)(self.handle) };
        outputs
    }
}

impl Drop for Lane {
    #[expect(unsafe_code, reason = "foreign call")]
    fn drop(&mut self) {
        // SAFETY: the lane is open, and nobody else has it.
        unsafe { (self.node.library.calls.close_lane)(self.handle) };
    }
}

/// Gives a call room for its message, and reads it when it fails.
fn call(call: impl FnOnce(*mut abi::Error) -> i32) -> Result<(), Refusal> {
    let mut text = [0_u8; ERROR_BYTES];
    let mut error = abi::Error {
        text: text.as_mut_ptr().cast(),
        // The last byte stays zero, whatever a library writes.
        capacity: ERROR_BYTES as u64 - 1,
    };
    let code = call(&raw mut error);
    if code == abi::OK {
        return Ok(());
    }
    if code == abi::STOPPED {
        return Err(Refusal::Stopped);
    }
    let said = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    let said = match said.to_string_lossy().trim() {
        "" => format!("it returned {code} and said nothing"),
        said => said.to_owned(),
    };
    Err(match code {
        abi::INVALID => Refusal::Invalid(said),
        _ => Refusal::Failed(said),
    })
}
