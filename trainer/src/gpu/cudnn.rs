//! Convolutions by NVIDIA's library: descriptors and algorithms are chosen once a shape and direction.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::result::Result as Outcome;

use cudarc::cudnn::result::{self as cudnn, CudnnError};
use cudarc::cudnn::sys::{self, cudnnMathType_t as Math};
use cudarc::driver::{CudaStream, result as driver};
use kd_runtime::Result;

use super::cuda::{refuse, room};
use super::{Convolution, Direction, Precision};

/// The library with what it was asked before.
pub struct Cudnn {
    /// Of the library.
    pub version: String,
    handle: sys::cudnnHandle_t,
    /// Or why it does not do one.
    plans: BTreeMap<([usize; 17], Direction), Outcome<Plan, String>>,
    precision: Precision,
    /// Of all convolutions, one after another: place and bytes; behind them are the arrays of [`PROBE`].
    workspace: (u64, usize),
}

// SAFETY: used with the state of its device locked.
unsafe impl Send for Cudnn {}

/// A convolution at its sizes. Descriptors live as long as the process.
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
    /// The first computes it; one that fails is left out.
    ways: Vec<Way>,
}

/// An algorithm, how it multiplies, and its part of the workspace.
#[derive(Clone, Copy)]
struct Way {
    algorithm: Algorithm,
    math: Math,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weights(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Algorithms that the library names at most.
const MOST: usize = 16;
/// The workspace, or a sixteenth of a small GPU's memory. An algorithm that turns images round wants a layer's input and
/// output again, and a step of training keeps those of many layers. It is no share of what is free, and is taken at once:
/// else the algorithm, and with it the bits, would depend on what else is on the GPU.
const WORKSPACE: usize = 1 << 30;
/// A small convolution: two images of 8x8 and 8 channels, 3x3, into 8 channels.
const PROBE: [usize; 17] = [2, 8, 8, 8, 8, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1];
/// The largest of its three arrays.
const PROBE_BYTES: usize = 2 * 8 * 8 * 8 * size_of::<f32>();

/// What a call says when it fails.
fn told(CudnnError(status): CudnnError) -> String {
    format!("{status:?}")
}

impl Cudnn {
    /// Opens the library for a stream, or says why it is of no use. Refused where there is no memory for its workspace.
    pub fn new(stream: &CudaStream, precision: Precision) -> Result<Outcome<Self, String>> {
        // SAFETY: opened as any program opens it.
        if unsafe { !sys::is_culib_present() } {
            return Ok(Err("none".into()));
        }
        // Another than 9 has other numbers for what it answers.
        let version = cudnn::get_version();
        if version / 10_000 != 9 {
            return Ok(Err(format!("version {version}, not 9")));
        }
        let version = format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
        let handle = match cudnn::create_handle() {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(told(error))),
        };
        let mut cudnn = Self { version, handle, plans: BTreeMap::new(), precision, workspace: (0, 0) };
        let (_, total) = driver::mem_get_info().map_err(|error| refuse("no memory", error))?;
        let bytes = WORKSPACE.min(total / 16).next_multiple_of(PROBE_BYTES);
        let place = room(bytes + 3 * PROBE_BYTES, "end what else is on this GPU, or use another")?;
        cudnn.workspace = (place, bytes);
        Ok(cudnn.start(stream).map(|()| cudnn))
    }

    /// Works on a stream from now on, if a small convolution succeeds in all directions: parts of the library are only
    /// looked for when they are wanted.
    fn start(&mut self, stream: &CudaStream) -> Outcome<(), String> {
        // SAFETY: a handle and a stream that were just made; both types are pointers to the same thing.
        unsafe { cudnn::set_stream(self.handle, stream.cu_stream().cast()) }.map_err(told)?;
        let (place, bytes) = self.workspace;
        let [a, b, to] = [0, 1, 2].map(|i| (place + (bytes + i * PROBE_BYTES) as u64) as *mut c_void);
        for direction in [Direction::Forward, Direction::Input, Direction::Weights] {
            let asked = Convolution { direction, sizes: PROBE, inputs: [a, b], output: to, add: false };
            // SAFETY: arrays behind the workspace, each at least as long as the largest is.
            unsafe { self.convolve(&asked) }.map_err(|why| format!("{direction:?}: {why}"))?;
        }
        stream.synchronize().map_err(|error| format!("{error:?}"))
    }

    /// Queues a convolution if the library does it, else says why not.
    ///
    /// # Safety
    ///
    /// As [`Engine::convolve`](super::Engine::convolve).
    pub unsafe fn convolve(&mut self, asked: &Convolution) -> Outcome<(), String> {
        let (handle, precision, (room, most)) = (self.handle, self.precision, self.workspace);
        let planned = self.plans.entry((asked.sizes, asked.direction));
        let planned = planned.or_insert_with(|| plan(handle, asked, precision, most));
        let plan = planned.as_mut().map_err(|why| why.clone())?;
        let mut failed = String::new();
        while let Some(&way) = plan.ways.first() {
            // SAFETY: as the caller says; the workspace has the bytes of each way.
            match unsafe { plan.run(handle, way, asked, room) } {
                Ok(()) => return Ok(()),
                Err(error) => failed = format!("{:?}: {}", way.algorithm, told(error)),
            }
            plan.ways.remove(0);
        }
        *planned = Err(failed.clone());
        Err(failed)
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: made and allocated here, used no more; the context of the device is current.
        unsafe {
            if self.workspace.1 > 0 {
                driver::free_sync(self.workspace.0).ok();
            }
            cudnn::destroy_handle(self.handle).ok();
        }
    }
}

impl Plan {
    /// Queues it in one way.
    ///
    /// # Safety
    ///
    /// As [`Engine::convolve`](super::Engine::convolve), of the sizes of the plan; at `room` are the bytes of the way.
    unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        Way { algorithm, math, bytes }: Way,
        asked: &Convolution,
        room: u64,
    ) -> Outcome<(), CudnnError> {
        let (alpha, beta) = (1.0_f32, if asked.add { 1.0_f32 } else { 0.0 });
        let (alpha, beta): (*const c_void, *const c_void) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let ([a, b], to, room) = (asked.inputs, asked.output, room as *mut c_void);
        let Self { x, y, w, conv, .. } = *self;
        // SAFETY: as the caller says; descriptors are those of the sizes.
        unsafe {
            cudnn::set_convolution_math_type(conv, math)?;
            match algorithm {
                Algorithm::Forward(by) => {
                    cudnn::convolution_forward(handle, alpha, x, a, w, b, conv, by, room, bytes, beta, y, to)
                }
                Algorithm::Input(by) => {
                    cudnn::convolution_backward_data(handle, alpha, w, b, y, a, conv, by, room, bytes, beta, x, to)
                }
                Algorithm::Weights(by) => {
                    cudnn::convolution_backward_filter(handle, alpha, x, b, y, a, conv, by, room, bytes, beta, w, to)
                }
            }
        }
    }
}

impl Algorithm {
    /// Whether it adds before it multiplies, which loses bits of f32.
    fn is_winograd(self) -> bool {
        use sys::cudnnConvolutionBwdDataAlgo_t::{
            CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD as INPUT,
            CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED as INPUT_2,
        };
        use sys::cudnnConvolutionBwdFilterAlgo_t::{
            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD as WEIGHTS,
            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED as WEIGHTS_2,
        };
        use sys::cudnnConvolutionFwdAlgo_t::{
            CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD as FORWARD, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED as FORWARD_2,
        };
        matches!(
            self,
            Self::Forward(FORWARD | FORWARD_2) | Self::Input(INPUT | INPUT_2) | Self::Weights(WEIGHTS | WEIGHTS_2)
        )
    }
}

/// How the library does a convolution, with a workspace of so many bytes at most, or why it cannot.
fn plan(handle: sys::cudnnHandle_t, asked: &Convolution, precision: Precision, most: usize) -> Outcome<Plan, String> {
    let sizes = whole(&asked.sizes).ok_or("sizes of 2^31 or more")?;
    if !asked.is_even() {
        return Err("pads that differ".into());
    }
    let mut plan = describe(&sizes).map_err(told)?;
    // SAFETY: descriptors that were just set.
    plan.ways = unsafe { ways(handle, asked.direction, &plan, precision, most) }?;
    Ok(plan)
}

/// The sizes as the library takes them.
fn whole(sizes: &[usize; 17]) -> Option<[c_int; 17]> {
    let mut whole = [0; 17];
    for (to, &size) in whole.iter_mut().zip(sizes) {
        *to = c_int::try_from(size).ok()?;
    }
    Some(whole)
}

/// The descriptors, and no way yet.
fn describe(sizes: &[c_int; 17]) -> Outcome<Plan, CudnnError> {
    use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
    const FLOAT: sys::cudnnDataType_t = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    let [n, h, wide, c, oh, ow, m, cg, mg, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x] = *sizes;
    // SAFETY: descriptors that are made here, and set before they are used.
    unsafe {
        let (x, y) = (cudnn::create_tensor_descriptor()?, cudnn::create_tensor_descriptor()?);
        let (w, conv) = (cudnn::create_filter_descriptor()?, cudnn::create_convolution_descriptor()?);
        cudnn::set_tensor4d_descriptor(x, CUDNN_TENSOR_NHWC, FLOAT, [n, c, h, wide])?;
        cudnn::set_tensor4d_descriptor(y, CUDNN_TENSOR_NHWC, FLOAT, [n, m, oh, ow])?;
        cudnn::set_filter4d_descriptor(w, FLOAT, CUDNN_TENSOR_NHWC, [m, cg, kh, kw])?;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        cudnn::set_convolution2d_descriptor(
            conv, pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x, mode, FLOAT,
        )?;
        cudnn::set_convolution_group_count(conv, m / mg)?;
        Ok(Plan { x, y, w, conv, ways: Vec::new() })
    }
}

/// What gives the same bits every time and has room: first as the library ranks it by speed, then the algorithm that does
/// most sizes. In f32 none that loses bits.
///
/// # Safety
///
/// Descriptors that are set.
unsafe fn ways(
    handle: sys::cudnnHandle_t,
    direction: Direction,
    plan: &Plan,
    precision: Precision,
    most: usize,
) -> Outcome<Vec<Way>, String> {
    use sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    use sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    use sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    use sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
    use sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS;
    let Plan { x, y, w, conv, .. } = *plan;
    let usual = match precision {
        Precision::F32 => Math::CUDNN_FMA_MATH,
        Precision::Tf32 => Math::CUDNN_DEFAULT_MATH,
    };
    // SAFETY: as the caller says.
    unsafe { cudnn::set_convolution_math_type(conv, usual) }.map_err(told)?;
    let mut ways: Vec<Way> = Vec::new();
    let mut why = "no algorithm".to_string();
    macro_rules! rank {
        ($ask:path, $room:path, $kind:path, $sure:expr, $($of:expr),+) => {{
            let mut count = 0;
            // SAFETY: an array of plain numbers.
            let mut found: [_; MOST] = unsafe { std::mem::zeroed() };
            // SAFETY: as the caller says; room for so many answers.
            let asked = unsafe { $ask(handle, $($of,)+ MOST as c_int, &mut count, found.as_mut_ptr()) };
            if let Err(error) = asked {
                (count, why) = (0, told(error));
            }
            let ranked = found.iter().take(usize::try_from(count).unwrap_or(0));
            let fit = ranked.filter(|one| one.status == CUDNN_STATUS_SUCCESS && one.determinism == CUDNN_DETERMINISTIC);
            for (algorithm, math) in fit.map(|one| (one.algo, one.mathType)).chain([($sure, usual)]) {
                let (by, math) = ($kind(algorithm), if precision == Precision::F32 { usual } else { math });
                let is_known = ways.iter().any(|way| (way.algorithm, way.math) == (by, math));
                if is_known || (precision == Precision::F32 && by.is_winograd()) {
                    continue;
                }
                // SAFETY: as the caller says. The room is that of its way to multiply.
                let bytes = unsafe {
                    let set = cudnn::set_convolution_math_type(conv, math);
                    set.and_then(|()| $room(handle, $($of,)+ algorithm))
                };
                match bytes {
                    Ok(bytes) if bytes <= most => ways.push(Way { algorithm: by, math, bytes }),
                    Ok(bytes) => why = format!("{by:?}: a workspace of {} MiB", bytes >> 20),
                    Err(error) => why = format!("{by:?}: {}", told(error)),
                }
            }
        }};
    }
    match direction {
        Direction::Forward => rank!(
            cudnn::get_convolution_forward_algorithm,
            cudnn::get_convolution_forward_workspace_size,
            Algorithm::Forward,
            CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            x,
            w,
            conv,
            y
        ),
        Direction::Input => rank!(
            cudnn::get_convolution_backward_data_algorithm,
            cudnn::get_convolution_backward_data_workspace_size,
            Algorithm::Input,
            CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
            w,
            y,
            conv,
            x
        ),
        Direction::Weights => rank!(
            cudnn::get_convolution_backward_filter_algorithm,
            cudnn::get_convolution_backward_filter_workspace_size,
            Algorithm::Weights,
            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
            x,
            y,
            conv,
            w
        ),
    }
    if ways.is_empty() { Err(why) } else { Ok(ways) }
}
