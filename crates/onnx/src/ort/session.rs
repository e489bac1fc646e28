//! One session and calls on it, through the C interface: a call may be ended from outside, and lanes share the session.

use std::ffi::{CString, NulError, c_char};
use std::fmt;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Arc;

use ort::AsPointer;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::DynValue;

/// A session with the names of its ports as the C interface wants them.
///
/// Its calls may overlap: ONNX Runtime documents `Run` as safe to call from several threads on one session, and guards
/// its arenas and the memory plans itself. That is a promise of its own operators on the CPU provider; who brings others
/// must not share ([`super::Recipe::shared`]).
pub(super) struct Callable {
    session: Session,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl Callable {
    pub(super) fn new(session: Session) -> Result<Self, NulError> {
        let names = |outlets: &[ort::value::Outlet]| {
            let names = outlets.iter().map(|outlet| CString::new(outlet.name()));
            names.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            inputs: names(session.inputs())?,
            outputs: names(session.outputs())?,
            session,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Runs one call; `wanted` are indices into the outputs, and so many values come back. Terminating `options` from
    /// another thread ends the call with an error.
    pub(super) fn call(
        &self,
        inputs: &[SessionInputValue<'_>],
        wanted: &[usize],
        options: &RunOptions,
    ) -> ort::Result<Vec<DynValue>> {
        if inputs.len() != self.inputs.len() {
            return Err(ort::Error::new("the inputs are not as many as the model's"));
        }
        let names = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect();
        let input_names: Vec<*const c_char> = names(&self.inputs);
        let values: Vec<_> = inputs.iter().map(|value| value.ptr()).collect();
        let output_names: Vec<*const c_char> = wanted
            .iter()
            .map(|index| self.outputs[*index].as_ptr())
            .collect();
        let mut outputs = vec![ptr::null_mut(); wanted.len()];
        self.raw_call(
            (&input_names, &values),
            &output_names,
            &mut outputs,
            options,
        )?;
        outputs.into_iter().map(|value| self.own(value)).collect()
    }

    #[expect(
        unsafe_code,
        reason = "ort runs a session from one place at a time, and borrows what ends a call"
    )]
    fn raw_call(
        &self,
        (input_names, inputs): (&[*const c_char], &[*const ort::sys::OrtValue]),
        output_names: &[*const c_char],
        outputs: &mut [*mut ort::sys::OrtValue],
        options: &RunOptions,
    ) -> ort::Result<()> {
        let session = self.session.ptr().cast_mut();
        let run = ort::api().Run;
        // SAFETY: session and options are valid while borrowed; the four arrays are as long as said, names end in NUL and
        // live in `self`, input values are borrowed by the caller, and the places for outputs are null, which asks ONNX
        // Runtime to allocate. Concurrent calls are its documented promise, see the type.
        let status = unsafe {
            run(
                session,
                options.ptr(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr(),
            )
        };
        // SAFETY: the status came from the call above and is read once.
        unsafe { ort::Error::result_from_status(status) }
    }

    #[expect(
        unsafe_code,
        reason = "what the C interface allocated must get an owner"
    )]
    fn own(&self, value: *mut ort::sys::OrtValue) -> ort::Result<DynValue> {
        let value = NonNull::new(value).ok_or_else(|| ort::Error::new("an output is missing"))?;
        // SAFETY: the call succeeded, so this is a value that it allocated and that nobody else owns; the session's
        // allocator lives as long as the library, which stays loaded.
        Ok(unsafe { DynValue::from_ptr(value, Some(self.session.allocator())) })
    }
}

impl fmt::Debug for Callable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Callable").field(&self.session).finish()
    }
}

/// What one lane hands to each of its calls, made anew when a call was ended with it.
#[derive(Default)]
pub(super) struct Control(Option<Arc<RunOptions>>);

impl Control {
    /// The options of the next call; `shrink` names the arenas that give back what is free after it.
    pub(super) fn options(&mut self, shrink: Option<&str>) -> ort::Result<Arc<RunOptions>> {
        if let (Some(options), None) = (&self.0, shrink) {
            return Ok(Arc::clone(options));
        }
        let mut options = RunOptions::new()?;
        if let Some(arenas) = shrink {
            options.set("memory.enable_memory_arena_shrinkage", arenas)?;
            return Ok(Arc::new(options));
        }
        let options = Arc::new(options);
        self.0 = Some(Arc::clone(&options));
        Ok(options)
    }

    /// The last call's options were told to terminate; the next call must not be.
    pub(super) fn renew(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
