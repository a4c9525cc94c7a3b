//! A GPU of NVIDIA. Driver, compiler (NVRTC), cuBLAS and cuDNN are opened when one is asked for; a machine that lacks one,
//! or has another version, is told which.

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
    /// Versions of what is used.
    libraries: Vec<String>,
    /// What was not found, is of another version or does not work.
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

struct Blas {
    handle: cublas_sys::cublasHandle_t,
    version: String,
}

// SAFETY: used only with the state locked.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// What a call to the driver says when it fails.
pub(super) fn refuse(what: &str, error: DriverError) -> Refusal {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let found = format!("{}: {what}", text.unwrap_or_else(|_| format!("{error:?}")));
    lacking("a GPU that works", found, "look at `nvidia-smi`, or use --device cpu")
}

/// Memory of the current device, of any content. Refused where there is not enough.
pub(super) fn room(bytes: usize, action: &str) -> Result<u64> {
    let refuse = |error| refuse("no memory", error);
    // SAFETY: new memory.
    match unsafe { driver::malloc_sync(bytes) } {
        Err(DriverError(driver_sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
            let (free, _) = driver::mem_get_info().map_err(refuse)?;
            let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
            Err(lacking(format!("at most {} more on the GPU", mib(free)), mib(bytes), action))
        }
        address => address.map_err(refuse),
    }
}

/// The version of CUDA that the driver was made for: 13 or more.
fn driver_version() -> Result<String> {
    let refused = |found: &str| {
        let action = "install driver 580 or newer, or use --device cpu";
        lacking("a GPU's driver for CUDA 13 (libcuda.so.1)", found, action)
    };
    let mut version = 0;
    // SAFETY: opened as any program opens it; there is room for the answer.
    let asked = unsafe {
        if !driver_sys::is_culib_present() {
            return Err(refused("none"));
        }
        driver_sys::cuDriverGetVersion(&raw mut version).result()
    };
    asked.map_err(|error| refuse("no version", error))?;
    let told = format!("{}.{}", version / 1000, version % 1000 / 10);
    if version < 13_000 { Err(refused(&format!("one for CUDA {told}"))) } else { Ok(told) }
}

/// The version of the compiler: 13 or more.
fn compiler_version() -> Result<String> {
    let refused = |found: &str| {
        let action = "set LD_LIBRARY_PATH to the folder of CUDA 13's libraries, or use --device cpu";
        lacking("the compiler of kernels (libnvrtc.so of CUDA 13)", found, action)
    };
    let (mut major, mut minor) = (0, 0);
    // SAFETY: opened as any program opens it; there is room for the answers.
    let asked = unsafe {
        if !nvrtc_sys::is_culib_present() {
            return Err(refused("none"));
        }
        nvrtc_sys::nvrtcVersion(&raw mut major, &raw mut minor).result()
    };
    asked.map_err(|error| refused(&format!("{error:?}")))?;
    if major < 13 { Err(refused(&format!("one of CUDA {major}.{minor}"))) } else { Ok(format!("{major}.{minor}")) }
}

impl Cuda {
    /// Opens device `number`.
    pub fn open(number: usize, precision: Precision) -> Result<Self> {
        let (driver, compiler) = (driver_version()?, compiler_version()?);
        let mut libraries = vec![format!("driver for CUDA {driver}"), format!("NVRTC {compiler}")];
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
        let (blas, cudnn) = (Blas::new(&stream, precision), Cudnn::new(&stream, precision)?);
        let (of_blas, of_cudnn) = (blas.as_ref().map(|blas| &blas.version), cudnn.as_ref().map(|cudnn| &cudnn.version));
        let mut lacks = Vec::new();
        for (name, version) in [("cuBLAS", of_blas), ("cuDNN", of_cudnn)] {
            match version {
                Ok(version) => libraries.push(format!("{name} {version}")),
                Err(why) => lacks.push(format!("{name}: {why}")),
            }
        }
        let (blas, state) = (blas.ok(), Mutex::new(State { cudnn: cudnn.ok(), ..State::default() }));
        Ok(Self { context, stream, name, precision, capability: [major, minor], libraries, lacks, blas, state })
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

/// The version of cuBLAS: 13.
fn blas_version() -> std::result::Result<String, String> {
    use cublas_sys::libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    let mut parts = [0; 3];
    for (which, part) in [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].into_iter().zip(&mut parts) {
        // SAFETY: there is room for the answer.
        let asked = unsafe { cublas_sys::cublasGetProperty(which, part) }.result();
        asked.map_err(|error| format!("{error:?}"))?;
    }
    let [major, minor, patch] = parts;
    let told = format!("{major}.{minor}.{patch}");
    if major == 13 { Ok(told) } else { Err(format!("version {told}, not 13")) }
}

impl Blas {
    /// Opens the library for a stream, or says why it is of no use.
    fn new(stream: &CudaStream, precision: Precision) -> std::result::Result<Self, String> {
        // SAFETY: opened as any program opens it.
        if unsafe { !cublas_sys::is_culib_present() } {
            return Err("none".into());
        }
        let (version, told) = (blas_version()?, |error: CublasError| format!("{error:?}"));
        let handle = cublas::create_handle().map_err(told)?;
        // SAFETY: a handle and a stream that were just made; both types are pointers to the same thing.
        unsafe {
            cublas::set_stream(handle, stream.cu_stream().cast()).map_err(told)?;
            if precision == Precision::Tf32 {
                let mode = cublas_sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH;
                cublas_sys::cublasSetMathMode(handle, mode).result().map_err(told)?;
            }
        }
        Ok(Self { handle, version })
    }
}

impl Engine for Cuda {
    fn name(&self) -> String {
        let [major, minor] = self.capability;
        let precision = if self.precision == Precision::F32 { "" } else { ", tf32" };
        let libraries: String = self.libraries.iter().map(|library| format!(", {library}")).collect();
        let lacks: String = self.lacks.iter().map(|lack| format!(", no {lack}")).collect();
        format!("{} (compute capability {major}.{minor}{precision}{libraries}{lacks})", self.name)
    }

    fn lacks(&self) -> &[String] {
        &self.lacks
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn free_bytes(&self) -> Option<usize> {
        let mut free = None;
        self.attempt("its free memory", || driver::mem_get_info().map(|(bytes, _)| free = Some(bytes)));
        free
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        let refuse = |error| refuse("no memory", error);
        self.context.bind_to_thread().map_err(refuse)?;
        let address = room(bytes, "make train.batch smaller, or choose a smaller network")?;
        // SAFETY: new memory of so many bytes, which the stream fills before it does anything else with it.
        let filled = unsafe { driver::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) };
        state.failed = filled.map_err(refuse).err();
        state.failed.clone().map_or(Ok(address), Err)
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
            let Ok(grid) = i32::try_from(groups) else {
                let found = format!("{groups} of {kernel}");
                return Err(lacking("at most 2^31 - 1 groups of threads", found, "make train.batch smaller"));
            };
            let (grid, block) = ((grid as u32, 1, 1), (GROUP as u32, 1, 1));
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
                blas.handle,
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

    unsafe fn convolve(&self, convolution: &Convolution) -> std::result::Result<(), String> {
        let mut state = self.state();
        if state.failed.is_some() || self.context.bind_to_thread().is_err() {
            return Err("something failed before".into());
        }
        let cudnn = state.cudnn.as_mut().ok_or("no cuDNN")?;
        // SAFETY: as the caller says. What is broken for good fails in our own kernel too, and is told there.
        unsafe { cudnn.convolve(convolution) }
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
            unsafe { cublas::destroy_handle(blas.handle) }.ok();
        }
    }
}
