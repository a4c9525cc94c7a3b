//! A GPU of NVIDIA. Driver, compiler (NVRTC), cuBLAS and cuDNN are opened when one is asked for; a machine that lacks one is told
//! which.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublas::result::{self as cublas, CublasError};
use cudarc::cublas::sys as cublas_sys;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result as driver, sys as driver_sys};
use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::sys as nvrtc_sys;
use kd_runtime::{Refusal, Result};

use super::cudnn::Cudnn;
use super::staging::Staging;
use super::{Args, Convolution, Engine, GROUP, Matmul, Precision, lacking, source};

/// One device, its context and the stream that all work goes through.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    name: String,
    precision: Precision,
    /// Compute capability: what kernels are compiled for.
    capability: [i32; 2],
    /// What was not found, or does not start.
    lacks: Vec<String>,
    blas: Option<Blas>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kernels that are compiled, by name.
    kernels: BTreeMap<&'static str, Function>,
    /// The library of convolutions, where there is one.
    cudnn: Option<Cudnn>,
    staging: Staging,
    /// The first thing that failed: all that follows does too.
    failed: Option<Refusal>,
}

#[derive(Clone, Copy)]
struct Function(driver_sys::CUfunction);

// SAFETY: a handle; the driver lets every thread use it whose context is current.
unsafe impl Send for Function {}

struct Blas(cublas_sys::cublasHandle_t);

// SAFETY: used only with the state locked.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// What a call to the driver says when it fails.
fn refuse(what: &str, error: DriverError) -> Refusal {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let found = format!("{}: {what}", text.unwrap_or_else(|_| format!("{error:?}")));
    lacking("a GPU that works", found, "look at `nvidia-smi`, or use --device cpu")
}

impl Cuda {
    /// Opens device `number`.
    pub fn open(number: usize, precision: Precision) -> Result<Self> {
        let action = "install it, or use --device cpu";
        // SAFETY: each is opened as any program opens it.
        let [has_driver, has_compiler, has_blas] = unsafe {
            [
                cudarc::driver::sys::is_culib_present(),
                cudarc::nvrtc::sys::is_culib_present(),
                cudarc::cublas::sys::is_culib_present(),
            ]
        };
        if !has_driver {
            return Err(lacking("the driver of a GPU (libcuda.so.1)", "none", action));
        }
        if !has_compiler {
            let action = "set LD_LIBRARY_PATH to the folder of CUDA's libraries, or use --device cpu";
            return Err(lacking("the compiler of kernels (libnvrtc.so of CUDA 13)", "none", action));
        }
        let count = CudaContext::device_count().map_err(|error| refuse("no device", error))?;
        if number >= usize::try_from(count).unwrap_or(0) {
            let found = format!("cuda:{number}, of {count} devices");
            return Err(lacking("the number of a device", found, "count from 0"));
        }
        let context = CudaContext::new(number).map_err(|error| refuse("it cannot be opened", error))?;
        let stream = context.new_stream().map_err(|error| refuse("no stream", error))?;
        let name = context.name().map_err(|error| refuse("no name", error))?;
        let (major, minor) = context.compute_capability().map_err(|error| refuse("no capability", error))?;
        if (major, minor) < (8, 0) {
            let found = format!("{name}, of {major}.{minor}");
            return Err(lacking("a GPU of compute capability 8.0 or more", found, "use --device cpu"));
        }
        let mut lacks = Vec::new();
        let blas = if has_blas {
            Blas::new(&stream, precision).map_err(|error| format!("{error:?}"))
        } else {
            Err("none".into())
        };
        let blas = blas.map_err(|why| lacks.push(format!("cuBLAS: {why}"))).ok();
        // SAFETY: opened as any program opens it.
        let has_cudnn = unsafe { cudarc::cudnn::sys::is_culib_present() };
        let cudnn = if has_cudnn {
            Cudnn::new(&stream, precision).map_err(|error| format!("{error:?}"))
        } else {
            Err("none".into())
        };
        let cudnn = cudnn.map_err(|why| lacks.push(format!("cuDNN: {why}"))).ok();
        let state = Mutex::new(State { cudnn, ..State::default() });
        Ok(Self { context, stream, name, precision, capability: [major, minor], lacks, blas, state })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the driver, unless something failed before; keeps what fails.
    fn attempt(&self, what: &str, f: impl FnOnce() -> std::result::Result<(), DriverError>) {
        let mut state = self.state();
        if state.failed.is_none() {
            let done = self.context.bind_to_thread().and_then(|()| f());
            state.failed = done.err().map(|error| refuse(what, error));
        }
    }

    /// The kernel of a name; compiles its source if it is the first of it.
    fn kernel(&self, state: &mut State, name: &'static str) -> Result<Function> {
        if let Some(kernel) = state.kernels.get(name) {
            return Ok(*kernel);
        }
        let source = source::Source::of(name).ok_or_else(|| lacking("a kernel of this program", name, "report it"))?;
        let program = compile(source, self.capability)?;
        // SAFETY: what NVRTC made.
        let module = unsafe { driver::module::load_data(program.as_ptr().cast()) };
        let module = module.map_err(|error| refuse(&format!("{} does not load", source.name), error))?;
        for name in source.kernels() {
            let text = CString::new(name).expect("a name without NUL");
            // SAFETY: a module that stays loaded.
            let function = unsafe { driver::module::get_function(module, text) };
            let function = function.map_err(|error| refuse(&format!("{} lacks {name}", source.name), error))?;
            state.kernels.insert(name, Function(function));
        }
        Ok(state.kernels[name])
    }
}

/// The program of a source for a compute capability, as the driver loads it: machine code, which a driver takes that is older
/// than the compiler.
pub fn compile(source: &source::Source, [major, minor]: [i32; 2]) -> Result<Vec<u8>> {
    let failed = |what: String| {
        let expected = format!("kernels that NVRTC compiles for compute capability {major}.{minor}");
        lacking(format!("{expected} ({})", source.name), what, "install CUDA 13.0 or newer, or use --device cpu")
    };
    let text = CString::new(source.whole()).expect("a text without NUL");
    let name = CString::new(source.name).expect("a name without NUL");
    let program = nvrtc::create_program(&text, Some(&name)).map_err(|error| failed(format!("{error:?}")))?;
    let options = [format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".into()];
    // SAFETY: the program that was just made, destroyed once.
    unsafe {
        let made = nvrtc::compile_program(program, &options).map_err(|error| {
            // Without its log the error is still told.
            let log = nvrtc::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.iter().map(|&c| c as u8).collect();
            let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
            failed(format!("{error:?}: {}", log.trim().replace('\n', " | ")))
        });
        let made = made.and_then(|()| machine_code(program).map_err(|error| failed(format!("{error:?}"))));
        nvrtc::destroy_program(program).map_err(|error| failed(format!("{error:?}")))?;
        made
    }
}

/// What a program was compiled to.
///
/// # Safety
///
/// A program that was compiled.
unsafe fn machine_code(program: nvrtc_sys::nvrtcProgram) -> std::result::Result<Vec<u8>, NvrtcError> {
    let mut bytes = 0;
    // SAFETY: as the caller says; there is room for so many bytes.
    unsafe {
        nvrtc_sys::nvrtcGetCUBINSize(program, &raw mut bytes).result()?;
        let mut code = vec![0_u8; bytes];
        nvrtc_sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

impl Blas {
    fn new(stream: &CudaStream, precision: Precision) -> std::result::Result<Self, CublasError> {
        let handle = cublas::create_handle()?;
        // SAFETY: a handle and a stream that were just made; both types are pointers to the same thing.
        unsafe {
            cublas::set_stream(handle, stream.cu_stream().cast())?;
            if precision == Precision::Tf32 {
                cublas_sys::cublasSetMathMode(handle, cublas_sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH).result()?;
            }
        }
        Ok(Self(handle))
    }
}

impl Engine for Cuda {
    fn name(&self) -> String {
        let [major, minor] = self.capability;
        let lacks: String = self.lacks.iter().map(|lack| format!(", {lack}")).collect();
        let precision = if self.precision == Precision::F32 { "" } else { ", tf32" };
        format!("{} (compute capability {major}.{minor}{precision}{lacks})", self.name)
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn free_bytes(&self) -> Option<usize> {
        self.context.bind_to_thread().ok()?;
        driver::mem_get_info().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let refuse = |error| refuse("no memory", error);
        self.context.bind_to_thread().map_err(refuse)?;
        // SAFETY: new memory, which the stream fills before it does anything else with it.
        unsafe {
            let address = match driver::malloc_sync(bytes) {
                Err(DriverError(driver_sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                    let (free, _) = driver::mem_get_info().map_err(refuse)?;
                    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
                    let (expected, found) = (format!("at most {} more on the GPU", mib(free)), mib(bytes));
                    return Err(lacking(expected, found, "make train.batch smaller, or choose a smaller network"));
                }
                address => address.map_err(refuse)?,
            };
            driver::memset_d8_async(address, 0, bytes, self.stream.cu_stream()).map_err(refuse)?;
            Ok(address)
        }
    }

    unsafe fn free(&self, address: u64, _bytes: usize) {
        self.wait().ok();
        // SAFETY: as the caller says. What fails here failed before, or the process ends.
        unsafe { driver::free_sync(address) }.ok();
    }

    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize) {
        let mut state = self.state();
        if state.failed.is_some() {
            return;
        }
        let State { staging, .. } = &mut *state;
        // SAFETY: as the caller says.
        let done =
            self.context.bind_to_thread().and_then(|()| unsafe { staging.upload(to, from, bytes, &self.stream) });
        state.failed = done.err().map(|error| refuse("a copy to the GPU", error));
    }

    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize) {
        self.attempt("a copy from the GPU", || {
            // SAFETY: as the caller says; nobody looks at the bytes before the stream is done.
            unsafe {
                driver::memcpy_dtoh_async(std::slice::from_raw_parts_mut(to, bytes), from, self.stream.cu_stream())
            }?;
            self.stream.synchronize()
        });
    }

    unsafe fn launch(&self, kernel: &'static str, groups: usize, args: &Args) {
        let mut state = self.state();
        if state.failed.is_some() {
            return;
        }
        let done = self.context.bind_to_thread().map_err(|error| refuse("no context", error));
        let done = done.and_then(|()| self.kernel(&mut state, kernel)).and_then(|function| {
            let (grid, block) = ((u32::try_from(groups).unwrap_or(u32::MAX), 1, 1), (GROUP as u32, 1, 1));
            let mut args = *args;
            let mut told = [(&raw mut args).cast::<c_void>()];
            // SAFETY: a kernel that takes one `Args`, which the driver copies; what they hold is the caller's promise.
            let launched =
                unsafe { driver::launch_kernel(function.0, grid, block, 0, self.stream.cu_stream(), &mut told) };
            launched.map_err(|error| refuse(kernel, error))
        });
        state.failed = done.err();
    }

    unsafe fn matmul(&self, product: &Matmul) -> bool {
        let Some(blas) = &self.blas else { return false };
        let mut state = self.state();
        if state.failed.is_some() || self.context.bind_to_thread().is_err() {
            return false;
        }
        // Row after row is column after column of the transposed: y' = B' A'.
        let side = |(is_transposed, lead): (bool, usize)| {
            use cublas_sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
            Some((if is_transposed { CUBLAS_OP_T } else { CUBLAS_OP_N }, i32::try_from(lead).ok()?))
        };
        let Some([a, b]) = product.leads() else { return false };
        let (Some((op_a, lead_a)), Some((op_b, lead_b))) = (side(a), side(b)) else { return false };
        let sizes = product.sizes.map(|size| i32::try_from(size).ok());
        let ([Some(m), Some(n), Some(k)], Ok(batch)) = (sizes, i32::try_from(product.batch)) else { return false };
        if m == 0 || n == 0 || k == 0 {
            return false;
        }
        let [step_a, step_b] = product.steps.map(|step| step as i64);
        let [a, b] = product.inputs.map(<*const c_void>::cast::<f32>);
        let beta = if product.add { 1.0_f32 } else { 0.0 };
        // SAFETY: as the caller says; alpha and beta are read before the call returns.
        let done = unsafe {
            cublas::sgemm_strided_batched(
                blas.0,
                op_b,
                op_a,
                n,
                m,
                k,
                &product.alpha,
                b,
                lead_b,
                step_b,
                a,
                lead_a,
                step_a,
                &beta,
                product.output.cast(),
                n,
                i64::from(m) * i64::from(n),
                batch,
            )
        };
        state.failed = done.err().map(|error| lacking("a matrix product", format!("{error:?}"), "report it"));
        true
    }

    unsafe fn convolve(&self, convolution: &Convolution) -> bool {
        let mut state = self.state();
        if state.failed.is_some() || self.context.bind_to_thread().is_err() {
            return false;
        }
        let Some(cudnn) = &mut state.cudnn else { return false };
        // SAFETY: as the caller says.
        match unsafe { cudnn.convolve(convolution, &self.stream) } {
            Ok(done) => done,
            Err(error) => {
                state.failed = Some(lacking("a convolution", format!("{error:?}"), "report it"));
                true
            }
        }
    }

    fn wait(&self) -> Result<()> {
        let mut state = self.state();
        let waited = self.context.bind_to_thread().and_then(|()| self.stream.synchronize());
        if state.failed.is_none() {
            state.failed = waited.err().map(|error| refuse("a kernel failed", error));
        }
        state.failed.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        self.context.bind_to_thread().ok();
        {
            // While the context is still there.
            let mut state = self.state();
            state.cudnn = None;
            state.staging.free();
        }
        if let Some(blas) = &self.blas {
            // SAFETY: made by `Blas::new`, used no more.
            unsafe { cublas::destroy_handle(blas.0) }.ok();
        }
    }
}
